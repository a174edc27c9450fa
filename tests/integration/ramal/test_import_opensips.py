"""`ramal import opensips` into Kafka and MariaDB, and into an embedded system: tables in OpenSIPS 3.x' columns.

Registrar, locator and cdr run beside it.

The rows are the test's: no OpenSIPS can be had here. A real Kamailio is in tests/e2e/operators/test_e2e_import.py.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from rich.console import Console

from events.topics import TOPICS
from ramal import importing
from ramal.backends import KafkaServer, MySQLServer
from ramal.importing.report import Counted
from ramal.importing.source import TABLES, settings
from ramal.system import System, distributed, system_at
from runtime.config import MySQL, Sources
from runtime.database.port import Database
from runtime.errors import ConfigError, LogUnavailable

pytestmark = pytest.mark.integration

DOMAIN = "example.test"
PARTITIONS = 2
SERVICES = ("registrar", "locator", "cdr")
USERS = 2500
"""More than one chunk."""
_SCHEMA = """\
CREATE TABLE subscriber (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, username CHAR(64) NOT NULL,
 domain CHAR(64) NOT NULL, password CHAR(25) NOT NULL DEFAULT '',
 email_address CHAR(64) NOT NULL DEFAULT '', ha1 CHAR(64) NOT NULL DEFAULT '',
 ha1_sha256 CHAR(64) NOT NULL DEFAULT '', ha1_sha512t256 CHAR(64) NOT NULL DEFAULT '', rpid CHAR(64));
CREATE TABLE dbaliases (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, alias_username CHAR(64) NOT NULL,
 alias_domain CHAR(64) NOT NULL, username CHAR(64) NOT NULL, domain CHAR(64) NOT NULL);
CREATE TABLE location (contact_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, username CHAR(64) NOT NULL,
 domain CHAR(64), contact TEXT NOT NULL, received CHAR(255), path CHAR(255), expires INT UNSIGNED NOT NULL,
 q FLOAT(10,2) NOT NULL DEFAULT 1.0, callid CHAR(255) NOT NULL, cseq INT NOT NULL DEFAULT 13,
 user_agent CHAR(255) NOT NULL, socket CHAR(64), methods INT, sip_instance CHAR(255), kv_store TEXT, attr CHAR(255));
CREATE TABLE acc (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, method CHAR(16) NOT NULL, from_tag CHAR(64) NOT NULL,
 to_tag CHAR(64) NOT NULL, callid CHAR(64) NOT NULL, sip_code CHAR(3) NOT NULL, sip_reason CHAR(32) NOT NULL,
 time DATETIME NOT NULL, duration INT UNSIGNED NOT NULL DEFAULT 0, ms_duration INT UNSIGNED NOT NULL DEFAULT 0,
 setuptime INT UNSIGNED NOT NULL DEFAULT 0, created DATETIME, src_user VARCHAR(64) NOT NULL DEFAULT '',
 src_domain VARCHAR(64) NOT NULL DEFAULT '', dst_user VARCHAR(64) NOT NULL DEFAULT '',
 dst_domain VARCHAR(64) NOT NULL DEFAULT '')
"""


@pytest.fixture
def theirs(mysql: MySQLServer, fresh_database: str) -> Iterator[tuple[MySQL, Any]]:
    """An OpenSIPS' database with users, an alias twice, phones and a call; and a way to change it."""
    name = f"opensips_of_{fresh_database}"
    with pymysql.connect(
        host=mysql.host, port=mysql.port, user=mysql.user, password=mysql.password, autocommit=True
    ) as connection, connection.cursor() as cursor:  # fmt: skip
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {name}")
        for statement in _SCHEMA.split(";\n"):
            cursor.execute(statement)
        users = [(f"u{number}", DOMAIN, f"{number:032x}") for number in range(USERS)]
        cursor.executemany("INSERT INTO subscriber (username, domain, ha1) VALUES (%s, %s, %s)", users)
        cursor.execute("UPDATE subscriber SET password = 'secret', ha1 = '' WHERE username = 'u7'")
        aliases = [("desk", DOMAIN, "u1", DOMAIN), ("desk", DOMAIN, "u2", DOMAIN), ("u3", DOMAIN, "u3", DOMAIN)]
        cursor.executemany(
            "INSERT INTO dbaliases (alias_username, alias_domain, username, domain) VALUES (%s, %s, %s, %s)", aliases
        )
        rows = [
            (f"u{number}", DOMAIN, f"sip:u{number}@192.0.2.4:{5100 + number}", int(time.time()) + 200, f"c{number}")
            for number in range(5)
        ]
        rows.append(("u9", DOMAIN, "sip:u9@a.invalid;transport=ws", int(time.time()) + 200, "c9"))
        rows.append(("u8", DOMAIN, "sip:u8@192.0.2.9", int(time.time()) - 1, "c8"))
        cursor.executemany(
            "INSERT INTO location (username, domain, contact, expires, callid, user_agent)"
            " VALUES (%s, %s, %s, %s, %s, 'Desk')",
            rows,
        )
        cursor.execute(
            "INSERT INTO acc (method, from_tag, to_tag, callid, sip_code, sip_reason, time, duration, ms_duration,"
            " setuptime, src_user, src_domain, dst_user, dst_domain) VALUES ('INVITE', 'a', 'b', 'call-1', '200', 'OK',"
            " '2026-03-01 11:00:00', 61, 61250, 3, 'u1', %s, 'u2', %s)",
            (DOMAIN, DOMAIN),
        )
        url = f"mysql://{mysql.user}@{mysql.host}:{mysql.port}/{name}"
        yield settings(url, mysql.password), cursor
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(params=["embedded", "distributed"])
def new(
    request: pytest.FixtureRequest, tmp_path: Path, mysql: MySQLServer, fresh_database: str, topic_prefix: str
) -> Callable[[], System]:
    """Makes what one process stands on, of one system."""
    common = {"RAMAL_DOMAIN": DOMAIN, "RAMAL_PARTITIONS": str(PARTITIONS)}
    if request.param == "embedded":
        (tmp_path / "ramal.db").touch()
        return lambda: system_at(tmp_path, Sources.read(common))
    kafka: KafkaServer = request.getfixturevalue("kafka")
    environ = {
        **common, "RAMAL_TOPIC_PREFIX": topic_prefix,
        "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap, "RAMAL_MYSQL_HOST": mysql.host, "RAMAL_MYSQL_PORT": str(mysql.port),
        "RAMAL_MYSQL_USER": mysql.user, "RAMAL_MYSQL_PASSWORD": mysql.password, "RAMAL_MYSQL_DATABASE": fresh_database,
    }  # fmt: skip
    return lambda: distributed(Sources.read(environ))


@contextlib.asynccontextmanager
async def serving(system: System) -> AsyncIterator[Database]:
    async with system.log() as log, system.tables() as tables:
        await log.create_topics(PARTITIONS, TOPICS)
        await tables.migrate()
        services, resources = system.services(SERVICES)
        own = [each for each in resources if each not in (system.store, system.database)]
        for resource in own:
            await resource.start()
        for service in services:
            await service.start()
        try:
            yield tables
        finally:
            for service in reversed(services):
                await service.stop(5.0)
            for resource in own:
                await resource.stop(2.0)


async def run(system: System, theirs: MySQL, *, dry_run: bool = False, zone: str = "+00:00") -> dict[str, Counted]:
    told = await importing.run(system, None, "opensips", theirs, zone, DOMAIN, [*TABLES], None, dry_run=dry_run)
    importing.show(Console(quiet=True), told, dry_run=dry_run)
    return {each.table: each for each in told}


async def until(wanted: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await wanted()):  # noqa: ASYNC110  # tables tell nobody
            await asyncio.sleep(0.1)
    return found


async def test_all_is_taken_over_once_through_the_log_and_a_dry_run_takes_nothing(
    new: Callable[[], System], theirs: tuple[MySQL, Any]
) -> None:
    async with serving(new()) as tables:
        told = await run(new(), theirs[0], dry_run=True)
        assert {name: each.new for name, each in told.items() if each.read} == {
            "subscriber": USERS, "dbaliases": 1, "location": 5, "acc": 1,
        }  # fmt: skip
        for table in ("subscriber", "dbaliases", "location", "acc"):
            assert await tables.query(f"SELECT COUNT(*) FROM {table}") == [(0,)]

        told = await run(new(), theirs[0])
        assert told["domain"].notes == ["there is no such table there, or not as we know it"]
        assert set(told["dbaliases"].reasons) == {
            "another row of theirs has the same name; the first one counts", "it is the user's own name",
        }  # fmt: skip
        assert set(told["location"].reasons) == {
            "it is on a WebSocket, which only the other proxy has", "its time is over",
        }  # fmt: skip
        [row] = await tables.query("SELECT password, ha1, ha1_sha256 FROM subscriber WHERE username = 'u7'")
        assert row[0] == ""
        assert (len(row[1]), len(row[2])) == (32, 64)
        # When the command has ended, phones can be called: the locator has answered.
        located = await tables.query("SELECT username, contact, path, callid FROM location ORDER BY username")
        assert len(located) == 5
        assert located[1][:2] == ("u1", "sip:u1@192.0.2.4:5101")
        [history] = await tables.query("SELECT DISTINCT began_by FROM registration_history")
        assert history[0].startswith("operator:")
        [call] = await until(
            lambda: tables.query("SELECT caller, callee, outcome, setup_ms, talk_ms, attempted_ms FROM cdrs")
        )
        at = 1_772_362_800_000  # 2026-03-01 11:00:00 UTC
        assert call == (f"u1@{DOMAIN}", f"u2@{DOMAIN}", "answered", 3000, 61_250, at - 3000)
        await until(lambda: tables.query("SELECT 1 FROM acc WHERE callid = 'call-1' AND method = 'INVITE'"))

        again = await run(new(), theirs[0])
        assert {(each.new, each.changed) for each in again.values()} == {(0, 0)}
        assert {name: each.same for name, each in again.items() if each.read} == {
            "subscriber": USERS, "dbaliases": 1, "location": 5, "acc": 1,
        }  # fmt: skip

        theirs[1].execute("UPDATE subscriber SET ha1 = %s WHERE username = 'u2400'", ("f" * 32,))
        changed = await run(new(), theirs[0])
        assert (changed["subscriber"].changed, changed["subscriber"].same) == (1, USERS - 1)


async def test_times_are_of_the_zone_that_is_named(new: Callable[[], System], theirs: tuple[MySQL, Any]) -> None:
    async with serving(new()) as tables:
        await run(new(), theirs[0], zone="-03:00")
        [(at,)] = await until(lambda: tables.query("SELECT attempted_ms FROM cdrs"))
        assert at == 1_772_362_800_000 + 3 * 3_600_000 - 3000
        with pytest.raises(ConfigError, match="the server does not know Nowhere/Nothing"):
            await run(new(), theirs[0], zone="Nowhere/Nothing")


async def test_without_a_registrar_it_says_so_and_ends(
    new: Callable[[], System], theirs: tuple[MySQL, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ramal.importing.through_log.SECONDS", 1.0)
    system = new()
    async with system.log() as log, system.tables() as tables:
        await log.create_topics(PARTITIONS, TOPICS)
        await tables.migrate()
    with pytest.raises(LogUnavailable, match="5 of 5 registrations were not answered within 1 s: do a registrar"):
        await run(new(), theirs[0])


async def test_a_database_of_something_else_is_refused(new: Callable[[], System], mysql: MySQLServer) -> None:
    nothing = settings(f"mysql://{mysql.user}@{mysql.host}:{mysql.port}/mysql", mysql.password)
    with pytest.raises(ConfigError, match="neither subscriber nor location of opensips is in that database"):
        await run(new(), nothing)
