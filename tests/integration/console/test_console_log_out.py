"""Who is logged out of every console at once, by a command or by a new password."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console.accounts import add, log_out
from console.gate import NOBODY
from tests.kit.console_site import PASSWORDS, ConsoleSite


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ConsoleSite]:
    found = ConsoleSite(tmp_path)
    add(found.operators, "maria", "operator", PASSWORDS["maria"])
    add(found.operators, "rui", "read-only", PASSWORDS["rui"])
    await found.start()
    yield found
    await found.stop()


async def test_who_is_logged_out_everywhere_or_has_a_new_password_has_no_session_left(
    site: ConsoleSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a stream that is open ends, and tells nothing more."""
    monkeypatch.setattr("console.live.ALIVE_SECONDS", 3600)  # no news is needed for that
    rui = site.browser()
    await rui.log_in("rui")
    for end in (
        lambda: log_out(site.operators, "maria"),
        lambda: add(site.operators, "maria", "operator", "battery 1"),
    ):
        browsers = [site.browser() for _ in range(2)]
        for browser in browsers:
            assert (await browser.log_in("maria"))[0] == 200
        async with browsers[0].session.get(f"{site.base}api/events") as stream:
            assert stream.status == 200
            end()
            for browser in browsers:
                assert await browser.get("me") == (200, NOBODY)
                assert (await browser.get("calls"))[0] == 401
            assert b"event:" not in await asyncio.wait_for(stream.read(), 20)
    assert (await rui.get("me"))[1]["name"] == "rui"
