"""Whose phone cannot log in, as an operator asks the console: the failures that `audit` has of one user."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console import logins
from console.accounts import add
from events.audit import AuthenticationFailed
from events.topics import AUDIT, partition_of
from events.wire import encode
from runtime.log.port import Append
from tests.kit.console_site import PARTITIONS, PASSWORDS, ConsoleSite

ANA = "ana@example.test"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ConsoleSite]:
    found = ConsoleSite(tmp_path)
    add(found.operators, "rui", "read-only", PASSWORDS["rui"])
    await found.start()
    await found.log.create_topics(PARTITIONS)
    yield found
    await found.stop()


async def failed(site: ConsoleSite, user: str, source: str, reason: str, times: int = 1, aor: str = "") -> None:
    record = encode(AuthenticationFailed(user, aor or user, source, reason))
    await site.log.append([Append(AUDIT, partition_of(user, PARTITIONS), user.encode(), record)] * times)


async def test_failed_log_ins_of_a_user_are_told_with_address_reason_and_number(site: ConsoleSite) -> None:
    await failed(site, ANA, "192.0.2.4", "wrong response", times=3)
    await failed(site, "bob@example.test", "192.0.2.9", "not this user's AOR", aor=ANA)
    await failed(site, "bob@example.test", "192.0.2.9", "wrong response")
    browser = site.browser()
    await browser.log_in("rui")

    status, told = await browser.get("failures", aor="ana")

    assert (status, told["aor"]) == (200, ANA)
    seen = sorted((each["source"], each["user"], each["reason"], each["times"]) for each in told["failures"])
    assert seen == [
        ("192.0.2.4", ANA, "wrong response", 3),
        ("192.0.2.9", "bob@example.test", "not this user's AOR", 1),
    ]
    assert all(each["last"] > 0 for each in told["failures"])
    assert (await browser.get("failures", aor="nobody"))[1]["failures"] == []
    assert (await browser.get("failures", aor="<>"))[0] == 400


async def test_s01_of_an_attack_the_latest_are_read(site: ConsoleSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "AT_MOST", 20)
    await failed(site, ANA, "192.0.2.4", "wrong response", times=30)
    browser = site.browser()
    await browser.log_in("rui")
    [told] = (await browser.get("failures", aor=ANA))[1]["failures"]
    assert told["times"] == 20
