"""Calls, statistics and health in the console: what is found, and a call told from its events."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cdr.config import Settings
from cdr.handler import CdrHandler
from console.accounts import add
from console.health import Health
from console.service import build
from events.calls import CallEvent
from events.topics import CALLS
from runtime.config import Sources
from runtime.errors import ConfigError
from tests.kit.call_stories import Story, append, missed, talk
from tests.kit.console_site import PARTITIONS, PASSWORDS, Browser, ConsoleSite

NOW = int(time.time() * 1000) - 3_600_000


async def happen(site: ConsoleSite, events: list[CallEvent]) -> None:
    """Writes these events to the log and has them projected."""
    handler = CdrHandler(site.log, site.database, Settings())
    starts = {number: await handler.restore(number) for number in range(PARTITIONS)}
    await site.log.append([append(event, PARTITIONS) for event in events])
    batch: dict[int, list[Any]] = {}
    for number, start in starts.items():
        end = (await site.log.bounds(CALLS, number)).end
        if end > start:
            batch[number] = [r async for records in site.log.read(CALLS, number, start, end) for r in records]
    await handler.handle(batch)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ConsoleSite]:
    """Four calls: one that was answered, two missed, one that lasts."""
    found = ConsoleSite(tmp_path)
    add(found.operators, "rui", "read-only", PASSWORDS["rui"])
    await found.start()
    lasting = Story(call_id="lasting", now=NOW).attempted("carol", "dave").branch().rings().wait(2000).answered()
    calls = [
        talk("alice", "bob", call_id="talked", now=NOW),
        missed("alice", "bob", call_id="missed-1", now=NOW + 1000),
        missed("carol", "bob", call_id="missed-2", now=NOW + 5000),
        lasting,
    ]
    await happen(found, [event for story in calls for event in story.events])
    yield found
    await found.stop()


@pytest.fixture
async def rui(site: ConsoleSite) -> AsyncIterator[Browser]:
    browser = Browser(site.base)
    await browser.log_in("rui")
    yield browser
    await browser.session.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["missed-2", "missed-1", "talked"]),
        ({"live": "1"}, ["lasting"]),
        ({"user": "ALICE"}, ["missed-1", "talked"]),
        ({"user": "carol", "live": "1"}, ["lasting"]),
        ({"number": "sip:bob"}, ["missed-2", "missed-1", "talked"]),
        ({"number": "nobody"}, []),
        ({"code": "487"}, ["missed-2", "missed-1"]),
        ({"code": "200"}, ["talked"]),
        ({"since": str(NOW + 1000)}, ["missed-2", "missed-1"]),
        ({"until": str(NOW + 1000)}, ["talked"]),
        ({"since": str(NOW + 1000), "until": str(NOW + 5000), "user": "bob"}, ["missed-1"]),
    ],
    ids=" ".join,
)
async def test_calls_are_found_by_user_number_code_and_time(
    rui: Browser, query: dict[str, str], expected: list[str]
) -> None:
    status, found = await rui.get("calls", **query)
    assert (status, [row["call_id"] for row in found["rows"]]) == (200, expected)
    assert found["after"] is None


async def test_a_page_of_calls_goes_on_where_the_one_before_ended(
    rui: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.calls.PAGE", 2)
    _, first = await rui.get("calls")
    _, second = await rui.get("calls", after=first["after"])
    assert [row["call_id"] for row in (*first["rows"], *second["rows"])] == ["missed-2", "missed-1", "talked"]


async def test_e21_a_call_is_told_in_the_readers_language_and_time_with_a_ladder(rui: Browser) -> None:
    _, found = await rui.get("calls", code="200")
    id_ = found["rows"][0]["id"]
    assert isinstance(id_, str)
    _, english = await rui.get("call", id=id_, language="en", offset="60")
    _, portuguese = await rui.get("call", id=id_, language="pt", offset="-180")
    assert english["call"]["call_id"] == "talked"
    assert "alice@example.test called sip:bob@example.test" in english["words"][0]
    assert "alice@example.test ligou para sip:bob@example.test" in portuguese["words"][0]
    hours = [int(said["words"][0][11:13]) for said in (english, portuguese)]
    assert (hours[0] - hours[1]) % 24 == 4
    assert english["ladder"]["lanes"][:2] == ["caller", "edge-1"]
    assert english["ladder"]["arrows"][0] == [0, 0, 1, "INVITE"]
    assert english["ladder"]["arrows"][-1][3] == "BYE"


async def test_a_call_that_lasts_is_told_as_far_as_it_is(rui: Browser) -> None:
    _, found = await rui.get("calls", live="1")
    _, said = await rui.get("call", id=found["rows"][0]["id"])
    assert said["call"]["progress"] == "answered"
    assert said["words"][-1] == "It is answered and lasts."


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("call", {"id": "1023"}, 404),
        ("call", {"id": "x"}, 400),
        ("call", {"id": "9" * 19}, 400),
        ("call", {}, 400),
        ("call", {"id": "1", "offset": "900"}, 400),
        ("calls", {"code": "abc"}, 400),
        ("calls", {"since": "-1"}, 400),
        ("calls", {"after": "[]"}, 400),
        ("statistics", {"window": "year"}, 400),
    ],
    ids=str,
)
async def test_what_is_no_call_is_said_to_be_none(rui: Browser, path: str, query: dict[str, str], status: int) -> None:
    assert (await rui.get(path, **query))[0] == status


async def test_events_that_the_log_has_no_more_are_said_to_be_gone(site: ConsoleSite, rui: Browser) -> None:
    insert = site.database.upsert(
        "cdrs", ("id", "call_id", "attempted_ms", "state", "published"), ("id",), [(9 << 50, "old", 1, "[]", 1)]
    )
    await site.database.transact([insert])
    _, said = await rui.get("call", id=str(9 << 50))
    assert (said["call"]["call_id"], said["words"], said["ladder"], said["events"]) == ("old", [], None, "gone")


async def test_health_says_how_far_the_tables_are_behind_and_how_this_process_is(
    site: ConsoleSite, rui: Browser
) -> None:
    _, found = await rui.get("health")
    assert [(each["name"], each["lag"]) for each in found["projections"]] == [("location", 0), ("calls", 0)]
    assert [(each["name"], each["ready"]) for each in found["processes"]] == [("here", True)]
    assert found["gateways"] == []


async def test_a_process_that_is_away_is_shown_with_why(site: ConsoleSite) -> None:
    health = Health(["edge-9=127.0.0.1:9"], site.log, site.database)
    found = await health.now("http://unused")
    assert [(each["name"], each["ready"]) for each in found["processes"]] == [("edge-9", False)]
    assert "does not answer" in found["processes"][0]["reasons"][0]


@pytest.mark.parametrize("url", ["edge-1=", "ftp://a", ""])
def test_a_process_that_has_no_address_is_a_fault_of_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_CONSOLE_PROCESSES"):
        build(Sources({}, {"console": {"processes": [url]}}), None, None)  # type: ignore[arg-type]  # it needs neither


async def test_statistics_are_those_of_the_service(rui: Browser) -> None:
    status, found = 503, {}
    while status == 503:  # until the topic is read
        status, found = await rui.get("statistics", window="hour", by="gateway")
    assert (status, found["window"], found["calls"]) == (200, 3600, [])
