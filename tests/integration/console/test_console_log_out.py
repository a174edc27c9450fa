"""Who is logged out everywhere at once: by a command, by a new password, on a console's page."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from console.accounts import add, log_out
from console.gate import NOBODY
from events.topics import AUDIT
from runtime.errors import LogUnavailable
from tests.kit.console_site import PARTITIONS, PASSWORDS, ConsoleSite


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


async def audited(site: ConsoleSite) -> list[dict[str, Any]]:
    """What `audit` has, but for its type."""
    told = []
    for number in range(PARTITIONS):
        end = (await site.log.bounds(AUDIT, number)).end
        told += [r async for batch in site.log.read(AUDIT, number, 0, end) for r in batch]
    assert all(dict(each.headers)["ce_type"] == b"ramal.SessionsEnded" for each in told)
    return [{k: v for k, v in json.loads(each.value or b"").items() if k != "type"} for each in told]


async def test_an_operator_ends_all_sessions_of_another_and_stands_in_the_audit(
    site: ConsoleSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ramal.console")
    maria, *ruis = (site.browser() for _ in range(3))
    await maria.log_in("maria")
    for each in ruis:
        await each.log_in("rui")
    _, seen = await maria.get("operators")
    assert [(each["name"], each["role"], each["sessions"]) for each in seen["operators"]] == [
        ("maria", "operator", 1),
        ("rui", "read-only", 2),
    ]
    assert await maria.post("log-out-everywhere", {"name": "rui"}) == (200, {"ended": 2})
    for each in ruis:
        assert await each.get("me") == (200, NOBODY)
    assert (await maria.get("me"))[1]["name"] == "maria"
    _, seen = await maria.get("operators")
    assert [(each["sessions"], each["used"] is None) for each in seen["operators"]] == [(1, False), (0, True)]
    assert (await ruis[0].log_in("rui"))[0] == 200, "the password stays"
    assert await audited(site) == [{"operator": "maria", "of": "rui", "sessions": 2}]
    assert "an operator ends all sessions of one" in caplog.text


async def test_who_only_looks_ends_his_own_sessions_and_nobody_elses(site: ConsoleSite) -> None:
    maria, rui, phone = (site.browser() for _ in range(3))
    await maria.log_in("maria")
    await rui.log_in("rui")
    await phone.log_in("rui")
    status, said = await rui.post("log-out-everywhere", {"name": "maria"})
    assert (status, said["error"]) == (403, "read_only")
    assert await rui.post("log-out-everywhere", {"name": "rui"}) == (200, {"ended": 2})
    for each in (rui, phone):
        assert await each.get("me") == (200, NOBODY)
    assert (await maria.get("me"))[1]["name"] == "maria"
    assert await audited(site) == [{"operator": "rui", "of": "rui", "sessions": 2}]


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"name": 5}, 400), ({"name": "rui", "more": 1}, 400), ({"name": "nobody"}, 404), ({"name": ""}, 404)],
)
async def test_nobody_is_logged_out_by_what_names_nobody(site: ConsoleSite, body: Any, status: int) -> None:
    maria = site.browser()
    await maria.log_in("maria")
    assert (await maria.post("log-out-everywhere", body))[0] == status
    assert (await maria.post("log-out-everywhere", {"name": "maria"}, **{"X-CSRF-Token": "another"}))[0] == 403
    assert await audited(site) == []


async def test_sessions_end_also_while_the_log_is_away(
    site: ConsoleSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that was stolen does not wait for Kafka; who ended it stands in the console's own log."""
    maria, rui = site.browser(), site.browser()
    await maria.log_in("maria")
    await rui.log_in("rui")

    async def away(*_: object) -> None:
        raise LogUnavailable("away")

    monkeypatch.setattr(site.log, "append", away)
    assert (await maria.post("log-out-everywhere", {"name": "rui"}))[0] == 200
    assert await rui.get("me") == (200, NOBODY)
    assert "the log has no record of sessions that were ended" in caplog.text
