"""C20: `ramal forget` on a whole embedded system and on Kafka with MariaDB, proved by a search in everything kept."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cdr.rebuild
import locator.rebuild
from cdr.config import Settings
from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.people import FORGOTTEN
from events.topics import CDRS, REGISTRAR_COMMANDS, TOPICS, VIEW, Topic, partition_of
from events.wire import cloud_event, encode
from ramal import forgetting
from ramal.backends import KafkaServer, MySQLServer
from ramal.cli import app
from ramal.system import System, distributed, system_at
from runtime.config import Sources
from runtime.database.port import Database
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Log, Record
from runtime.store import EmbeddedStore
from tests.kit.call_stories import append, missed, talk

PARTITIONS = 2
ALICE, BOB = "alice@example.test", "bob@example.test"
SERVICES = ("registrar", "locator", "cdr")
TABLES = ("location", "registration_history", "cdrs", "open_calls", "acc", "missed_calls", "person_keys")
NOW = int(datetime.now(UTC).timestamp() * 1000) - 3_600_000
ENVIRON = {"RAMAL_DOMAIN": "example.test", "RAMAL_PARTITIONS": str(PARTITIONS), "RAMAL_CDR_CLOSE_EVERY": "0.3"}
pytestmark = pytest.mark.integration


async def happen(log: Log) -> None:
    """Alice and Bob register, and call each other; Carol calls Alice by an alias."""
    commands = []
    for number, aor in enumerate((ALICE, BOB)):
        name = aor.partition("@")[0]
        register = Registration(f"reg-{name}@192.0.2.4", 1, f"z9hG4bK{number}", (Contact(f"sip:{name}@192.0.2.4"),))
        command = RegisterContacts(
            f"id{number}", ReplyTo("edge-1", "b", int(time.time() * 1000) + 60_000), aor, aor, register
        )
        headers = cloud_event("ramal.RegisterContacts", "test", command.id)
        commands.append(
            Append(REGISTRAR_COMMANDS, partition_of(aor, PARTITIONS), aor.encode(), encode(command), headers)
        )
    await log.append(commands)
    by_alias = missed("carol", "alice", call_id="to-the-alias", now=NOW)
    stories = [
        *(talk("alice", "bob", call_id=f"out-{n}", now=NOW) for n in range(3)),
        *(talk("bob", "alice", call_id=f"in-{n}", now=NOW) for n in range(2)),
        missed("bob", "alice", call_id="missed", now=NOW), by_alias, talk("bob", "carol", call_id="others", now=NOW),
    ]  # fmt: skip
    await log.append([append(event, PARTITIONS) for story in stories for event in story.events])


async def everything_kept(log: Log, topic: str) -> list[Record]:
    found: list[Record] = []
    for number in range(await log.partitions(topic)):
        bounds = await log.bounds(topic, number)
        if bounds.end > bounds.begin:
            found += [
                r async for some in log.read(topic, number, bounds.begin, bounds.end, committed=True) for r in some
            ]
    return found


async def until(wanted: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await wanted()):  # noqa: ASYNC110  # tables and topics tell nobody
            await asyncio.sleep(0.1)
    return found


async def dump(tables: Database, table: str) -> str:
    return repr(await tables.query(f"SELECT * FROM {table}"))


async def shown(log: Log) -> dict[str, list[dict[str, Any]]]:
    """The view's records of calls, by call."""
    calls: dict[str, list[dict[str, Any]]] = {}
    for record in await everything_kept(log, VIEW[0].name):
        value = json.loads(record.value or b"")
        calls.setdefault(value["call_id"], []).append(value)
    return calls


def system_in(directory: Path) -> System:
    return system_at(directory, Sources.read(ENVIRON))


@pytest.fixture(params=["embedded", "distributed"])
def new(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Callable[[], System]:
    """Makes what one process stands on, of one system."""
    if request.param == "embedded":
        (tmp_path / "ramal.db").touch()
        return lambda: system_in(tmp_path)
    kafka: KafkaServer = request.getfixturevalue("kafka")
    mysql: MySQLServer = request.getfixturevalue("mysql")
    environ = {
        **ENVIRON,
        "RAMAL_TOPIC_PREFIX": topic_prefix,
        "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "RAMAL_MYSQL_HOST": mysql.host,
        "RAMAL_MYSQL_PORT": str(mysql.port),
        "RAMAL_MYSQL_USER": mysql.user,
        "RAMAL_MYSQL_PASSWORD": mysql.password,
        "RAMAL_MYSQL_DATABASE": request.getfixturevalue("fresh_database"),
    }
    return lambda: distributed(Sources.read(environ))


@contextlib.asynccontextmanager
async def serving(system: System, topics: Sequence[Topic] = (*TOPICS, *VIEW)) -> AsyncIterator[tuple[Log, Database]]:
    """Registrar, locator and cdr."""
    async with system.log() as log, system.tables() as tables:
        await log.create_topics(PARTITIONS, topics)
        await tables.migrate()
        services, resources = system.services(SERVICES)
        own = [each for each in resources if each not in (system.store, system.database)]
        for resource in own:
            await resource.start()
        for service in services:
            await service.start()
        try:
            yield log, tables
        finally:
            for service in reversed(services):
                await service.stop(5.0)
            for resource in own:
                await resource.stop(2.0)


async def test_c20_a_person_is_out_of_tables_and_view_and_stays_out(new: Callable[[], System]) -> None:
    async with serving(new()) as (log, tables):
        await happen(log)
        await until(lambda: tables.query("SELECT COUNT(*) FROM cdrs HAVING SUM(published) = 8"))
        await until(lambda: tables.query("SELECT COUNT(*) FROM location HAVING COUNT(*) = 2"))
        await until(lambda: _count(log, VIEW[0].name, 50))
        await until(lambda: _count(log, VIEW[1].name, 8))
        await until(lambda: _count(log, VIEW[2].name, 2))
        before = await shown(log)
        view = [*await everything_kept(log, VIEW[0].name), *await everything_kept(log, VIEW[1].name)]
        view += await everything_kept(log, VIEW[2].name)
        assert not re.search(
            rb"alice|bob|carol|192\.0\.2", b"".join(bytes(r.value or b"") + bytes(r.key or b"") for r in view)
        )

        await forgetting.forget(new(), None, ALICE)

        # The tables: counts stay, the name is nowhere.
        for table in TABLES:
            assert "alice" not in await dump(tables, table), table
        assert "bob" in await dump(tables, "registration_history")
        [(calls, hers)] = await tables.query(
            "SELECT COUNT(*), SUM(caller = %s OR callee = %s) FROM cdrs", (FORGOTTEN, FORGOTTEN)
        )
        assert (int(calls), int(hers)) == (8, 7)
        assert int((await tables.query("SELECT COUNT(*) FROM missed_calls"))[0][0]) == 2
        assert int((await tables.query("SELECT COUNT(*) FROM acc"))[0][0]) == 14

        # `cdrs` has each of these calls once more, without her: whoever keeps the last record has forgotten her, too.
        last = {}
        for record in await everything_kept(log, CDRS):
            value = json.loads(record.value or b"")
            if "call_id" in value:
                last[value["call_id"]] = record.value
        assert b"alice" not in b"".join(map(bytes, filter(None, last.values())))

        # The view stays as it was; nobody's key makes her pseudonyms any more, and a later call has another one.
        await log.append([append(e, PARTITIONS) for e in talk("alice", "bob", call_id="later", now=NOW).events])
        await until(lambda: _count(log, VIEW[0].name, 57))
        after = await shown(log)
        assert {call: after[call] for call in before} == before
        [later] = [call for call in after if call not in before]
        callers = {value["caller"] for values in before.values() for value in values if "caller" in value}
        assert after[later][0]["caller"] not in callers
        assert after[later][0]["callee"] in {v["callee"] for values in before.values() for v in values if "callee" in v}

    # Whoever replays the log comes to the same.
    system = new()
    async with system.log() as log, system.tables() as tables:
        assert (await cdr.rebuild.rebuild(log, tables, Settings())).equal is True
        assert (await locator.rebuild.rebuild(log, tables)).equal is True
        assert "alice" not in await dump(tables, "registration_history")
        assert "later" in await dump(tables, "cdrs")


async def _count(log: Log, topic: str, wanted: int) -> bool:
    return len(await everything_kept(log, topic)) >= wanted


async def test_c20_a_view_made_after_somebody_was_forgotten_keeps_no_key_of_what_is_older(
    new: Callable[[], System],
) -> None:
    async with serving(new(), TOPICS) as (log, tables):
        await happen(log)
        await until(lambda: tables.query("SELECT COUNT(*) FROM cdrs HAVING SUM(published) = 8"))
        await forgetting.forget(new(), None, ALICE)
        await log.create_topics(PARTITIONS, VIEW)
        for topic, count in zip(VIEW, (50, 8, 2), strict=True):
            await until(lambda topic=topic, count=count: _count(log, topic.name, count))
        keys = {str(person) for (person,) in await tables.query("SELECT person FROM person_keys")}
        assert BOB in keys
        await until(lambda: _nobody(tables, ALICE))


async def _nobody(tables: Database, person: str) -> bool:
    return not await tables.query("SELECT 1 FROM person_keys WHERE person = %s", (person,))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An embedded system that does not run, with all that `happen` tells in its tables."""
    (tmp_path / "ramal.db").touch()

    async def filled() -> None:
        async with serving(system_in(tmp_path)) as (log, tables):
            await happen(log)
            await until(lambda: tables.query("SELECT COUNT(*) FROM cdrs HAVING SUM(published) = 8"))
            await until(lambda: tables.query("SELECT COUNT(*) FROM location HAVING COUNT(*) = 2"))
            await until(lambda: _count(log, VIEW[0].name, 50))

    asyncio.run(filled())
    return tmp_path


def ask(directory: Path, *words: str, answer: str = "") -> Any:
    return CliRunner(env=ENVIRON).invoke(app, [*words, "--data", str(directory)], input=answer, catch_exceptions=False)


def test_c20_the_command_says_where_a_person_stands_and_until_when(directory: Path) -> None:
    said = ask(directory, "forget", "alice", "--search").stdout
    for where in ("table location", "table registration_history", "table cdrs", "table acc", "table missed_calls"):
        assert where in said
    assert ask(directory, "forget", "mallory", "--search").stdout.strip() == "Nothing names mallory@example.test."
    assert "Nothing names lice@" in ask(directory, "forget", "lice", "--search").stdout

    assert ask(directory, "forget", "alice", answer="n\n").exit_code == 1
    assert "table cdrs" in ask(directory, "forget", "alice", "--search").stdout

    done = ask(directory, "forget", "alice", "--yes")
    assert done.exit_code == 0
    assert "is forgotten" in done.stdout
    assert "table" not in done.stdout.partition("is forgotten")[2]
    assert re.search(r"topic calls +\d+ +2\d\d\d-", done.stdout)
    assert re.search(r"topic registrations +\d+ +2\d\d\d-", done.stdout)
    assert "topic analysts" not in done.stdout
    assert ask(directory, "missed", "alice").stdout.strip() == f"{ALICE} has missed no call."
    assert "0 differences" in ask(directory, "audit-cdrs").stdout
    assert "alice" not in ask(directory, "call", "out-1").stdout


def test_c20_once_retention_is_over_nothing_names_the_person(directory: Path) -> None:
    """The log's own cleaning, with the clock a year on, takes what could not be erased."""
    ask(directory, "forget", "alice", "--yes")

    async def clean() -> None:
        store = EmbeddedStore(directory / "ramal.db")
        log = EmbeddedLog(store, PARTITIONS, now=lambda: time.time() + 366 * 86_400)
        await log.start()
        await log.clean()
        await log.stop()
        await store.stop()

    asyncio.run(clean())
    assert "Nothing names alice@example.test." in ask(directory, "forget", "alice", "--search").stdout
    assert b"alice" not in (directory / "ramal.db").read_bytes().replace(b"alice@example.test.", b"")
