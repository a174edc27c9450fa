"""The operators' questions about calls, asked of an embedded system that runs or not."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from cdr.audit import SKEW, audit
from cdr.config import Settings
from cdr.handler import CdrHandler
from events.calls import CallEvent
from events.topics import CALLS
from ramal import calls as calls_module
from ramal.cli import app
from runtime.database.port import Statement
from runtime.database.sqlite import SQLiteDatabase
from runtime.errors import ConfigError
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from tests.kit.call_stories import Story, append, missed, talk

PARTITIONS = 4
NOW = int(datetime.now(UTC).timestamp() * 1000) - 60_000


async def filled(directory: Path, events: list[CallEvent], change: str = "") -> None:
    """A system's file with these events folded, and perhaps a row changed by hand afterwards."""
    store = EmbeddedStore(directory / "ramal.db")
    log, database = EmbeddedLog(store, PARTITIONS), SQLiteDatabase(store)
    await log.start()
    await database.start()
    await database.migrate()
    handler = CdrHandler(log, database, Settings())
    starts = {number: await handler.restore(number) for number in range(PARTITIONS)}
    await log.append([append(event, PARTITIONS) for event in events])
    batch: dict[int, list[Any]] = {}
    for number, start in starts.items():
        end = (await log.bounds(CALLS, number)).end
        if end > start:
            batch[number] = [r async for records in log.read(CALLS, number, start, end) for r in records]
    await handler.handle(batch)
    if change:
        await database.transact([Statement(change)])
    await log.stop()
    await database.stop()
    await store.stop()


@pytest.fixture
def calls() -> list[Story]:
    lasting = Story(call_id="lasting", now=NOW).attempted("carol", "dave").branch().rings().wait(2000).answered()
    return [
        talk("alice", "bob", call_id="talked", now=NOW),
        missed("alice", "bob", call_id="missed-1", now=NOW),
        missed("carol", "bob", call_id="missed-2", now=NOW + 5000),
        lasting,
    ]


@pytest.fixture
def directory(tmp_path: Path, calls: list[Story]) -> Path:
    asyncio.run(filled(tmp_path, [event for story in calls for event in story.events]))
    return tmp_path


def ask(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data", str(directory)], catch_exceptions=False)


def test_calls_that_have_ended_are_listed_from_a_time_on_the_latest_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their Call-IDs are what `ramal explain` asks for."""
    since = datetime.fromtimestamp(NOW / 1000, UTC).isoformat()
    said = ask(directory, "calls", "--since", since).stdout
    assert said.index("missed-2") < min(said.index("missed-1"), said.index("talked"))
    assert "lasting" not in said
    assert "3 calls since" in said
    assert "cancelled: 487" in said
    later = datetime.fromtimestamp(NOW / 1000 + 1, UTC).isoformat()
    assert [row["call_id"] for row in json.loads(ask(directory, "calls", "--since", later, "--json").stdout)] == [
        "missed-2"
    ]
    monkeypatch.setattr(calls_module, "MOST", 2)
    cut = ask(directory, "calls", "--since", since)
    assert "2 calls since" in cut.stdout
    assert "only the latest 2" in cut.stderr
    assert "No call that began since" in ask(directory, "calls", "--since", "2099-01-01").stdout


def test_open_calls_are_listed_and_no_others(directory: Path) -> None:
    said = ask(directory, "calls")
    assert "carol@example.test" in said.stdout
    assert "dave@example.test" in said.stdout
    assert "answered" in said.stdout
    assert "1 open call" in said.stdout
    (told,) = json.loads(ask(directory, "calls", "--json").stdout)
    assert told["call_id"] == "lasting"


def test_a_call_is_shown_by_its_call_id(directory: Path) -> None:
    (told,) = json.loads(ask(directory, "call", "talked", "--json").stdout)
    assert (told["outcome"], told["talk_ms"], told["hung_up"]) == ("answered", 60_000, "caller")
    assert "alice@example.test" in ask(directory, "call", "talked").stdout


def test_what_is_not_known_is_said_as_a_wrong_argument(directory: Path) -> None:
    for command in ("call", "explain"):
        with pytest.raises(Exception, match="CALL-ID"):
            ask(directory, command, "nobody")


def test_e21_a_call_is_explained_from_its_events_alone(directory: Path) -> None:
    said = ask(directory, "explain", "missed-1").stdout
    assert "alice@example.test called sip:bob@example.test" in said
    assert "1 binding was seen" in said
    assert "The caller gave up" in said
    assert "INVITE" in said
    assert "CANCEL" in said


def test_missed_calls_of_a_user_are_listed_the_latest_first(directory: Path) -> None:
    said = ask(directory, "missed", "bob@example.test").stdout
    assert said.index("carol@example.test") < said.index("alice@example.test")
    assert "2 missed calls" in said
    assert "has missed no call" in ask(directory, "missed", "alice").stdout
    assert [row["callid"] for row in json.loads(ask(directory, "missed", "bob", "--json").stdout)] == [
        "missed-2", "missed-1",
    ]  # fmt: skip


def day() -> str:
    return datetime.fromtimestamp(NOW / 1000).astimezone().date().isoformat()


def test_an_audit_of_right_tables_finds_no_difference(directory: Path) -> None:
    done = ask(directory, "audit-cdrs", "--day", day())
    assert done.exit_code == 0
    assert "3 calls" in done.stdout
    assert "0 differences" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM cdrs WHERE call_id = 'talked'", "the row is missing"),
        ("UPDATE cdrs SET talk_ms = 1 WHERE call_id = 'talked'", "talk_ms"),
        ("DELETE FROM acc WHERE callid = 'talked' AND method = 'BYE'", "acc"),
        ("UPDATE acc SET duration = 7 WHERE callid = 'talked' AND method = 'INVITE'", "duration"),
        ("DELETE FROM missed_calls WHERE callid = 'missed-1'", "missed_calls"),
        pytest.param(
            f"INSERT INTO cdrs (id, attempted_ms, partition_no, state) VALUES ({99 << 10}, {NOW}, 0, '')",
            "there should be no such row",
            id="one too many",
        ),
    ],
)
def test_an_audit_finds_each_row_that_is_wrong(tmp_path: Path, calls: list[Story], change: str, said: str) -> None:
    asyncio.run(filled(tmp_path, [event for story in calls for event in story.events], change))
    done = ask(tmp_path, "audit-cdrs", "--day", day())
    assert done.exit_code == 1
    assert "1 difference" in done.stdout
    assert said in done.stdout


async def test_a_call_that_rang_over_midnight_is_of_the_day_on_which_it_began(tmp_path: Path) -> None:
    """Of a day the events from a little before its beginning are read: of that call the end alone."""
    story = missed("alice", "bob", call_id="over midnight")
    *before, end = story.events
    await filled(tmp_path, before)
    await asyncio.sleep(0.05)
    midnight = int(time.time() * 1000) + SKEW
    await asyncio.sleep(0.05)
    await filled(tmp_path, [msgspec.structs.replace(end, at=midnight + 1000)])
    store = EmbeddedStore(tmp_path / "ramal.db")
    log, database = EmbeddedLog(store, PARTITIONS), SQLiteDatabase(store)
    try:
        await log.start()
        await database.start()
        found = await audit(log, database, Settings(), midnight, midnight + 86_400_000)
        assert (found.events, found.calls, found.told) == (1, 0, [])
        found = await audit(log, database, Settings(), story.events[0].at, midnight)
        assert (found.calls, found.told) == (1, [])
    finally:
        await log.stop()
        await database.stop()
        await store.stop()


@pytest.mark.parametrize("day", ["someday", "2026-02-30", "0001-01-01", "1969-12-31", "9999-12-31", ""])
def test_a_day_that_is_none_is_said(directory: Path, day: str) -> None:
    with pytest.raises(ConfigError, match="--day"):
        ask(directory, "audit-cdrs", "--day", day)


def test_a_day_of_which_the_log_has_lost_events_is_not_audited(directory: Path) -> None:
    """Their rows, which stay, would all be told as differences."""

    async def clean() -> None:
        store = EmbeddedStore(directory / "ramal.db")
        log = EmbeddedLog(store, PARTITIONS, now=lambda: time.time() + 8 * 86_400)
        await log.start()
        await log.append([append(event, PARTITIONS) for n in range(40) for event in talk(call_id=f"new-{n}").events])
        await log.clean()
        await log.stop()
        await store.stop()

    asyncio.run(clean())
    with pytest.raises(ConfigError, match="--day: the log begins at"):
        ask(directory, "audit-cdrs", "--day", day())
