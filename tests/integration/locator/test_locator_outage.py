"""MySQL stops, dies, fills up and comes back: every wait ends, nothing is answered falsely, nothing is doubled."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pymysql
import pytest

from events.commands import ReplyTo
from events.topics import EDGE_REPLIES, REGISTRATIONS
from locator.config import Settings
from locator.handler import LocatorHandler
from locator.service import Locator
from locator.tables import LIVE
from ramal.backends import MySQLServer, start_mysql
from runtime.config import MySQL, Secret
from runtime.database.mysql import PACKET_BYTES, MySQLDatabase
from runtime.database.port import Advance, Statement
from runtime.database.positions import Position, begin_at, position
from runtime.errors import DatabaseRefused, DatabaseUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from runtime.worker import Lost
from tests.kit.locator import Scribe, claim, mysql_settings
from tests.kit.stopping import standing_still

pytestmark = pytest.mark.integration
PATIENCE = 10.0
"""Far more than the deadline of a call; without one these tests would wait for ever."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQLServer]:
    """A server of our own: it is stopped and killed."""
    running = start_mysql(tmp_path_factory.mktemp("stopped"))
    yield running
    running.child.kill()


@pytest.fixture
async def database(server: MySQLServer) -> AsyncIterator[MySQLDatabase]:
    opened = MySQLDatabase(mysql_settings(server, "ramal", timeout=0.5, pool=3))
    await opened.start()
    await opened.migrate()
    for table in ("location", "registration_history", "projection_offset"):
        await opened.transact([Statement(f"DELETE FROM {table}")])
    yield opened
    await opened.stop()


async def test_e02_while_the_server_stands_still_every_call_ends_and_afterwards_all_work(
    server: MySQLServer, database: MySQLDatabase
) -> None:
    await database.transact([begin_at(database, LIVE.projection, 0, Position(0, -1))])
    with standing_still(server.pid):
        async with asyncio.timeout(PATIENCE):
            calls = [database.query("SELECT 1") for _ in range(8)]
            calls += [database.transact([], Advance("location", 0, 0, 1, 0))]  # type: ignore[list-item]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, DatabaseUnavailable)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*(database.query("SELECT 1") for _ in range(8))) == [[(1,)]] * 8
        # It may have been committed or not; whoever asks the position knows.
        at = await position(database, LIVE.projection, 0)
        assert at is not None
        await database.transact([], Advance("location", 0, at.next, 7, 0))
        assert await position(database, LIVE.projection, 0) == (7, 0)


async def test_a_killed_server_is_unavailable_and_found_again(tmp_path: Path) -> None:
    server = start_mysql(tmp_path)
    database = MySQLDatabase(mysql_settings(server, "ramal", timeout=2.0))
    await database.start()
    server.child.kill()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(DatabaseUnavailable):
            await database.query("SELECT 1")
        with pytest.raises(DatabaseUnavailable):
            await database.query("SELECT 1")
    server = await asyncio.to_thread(start_mysql, tmp_path)
    assert await database.query("SELECT 1") == [(1,)]
    await database.stop()
    server.stop()


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(database: MySQLDatabase) -> None:
    (row,) = await database.query("SELECT CONNECTION_ID()")
    other = await asyncio.gather(*(database.query("SELECT CONNECTION_ID()") for _ in range(2)))
    ids = {row[0], *(rows[0][0] for rows in other)}
    admin = pymysql.connect(
        host=database._settings.host,
        port=database._settings.port,
        user="ramal",
        password=str(database._settings.password),
    )
    with admin, admin.cursor() as cursor:
        for id_ in ids:
            cursor.execute(f"KILL {id_}")
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                (row,) = await database.query("SELECT CONNECTION_ID()")
            except DatabaseUnavailable:  # its end had not arrived yet: that connection is never used again
                continue
            break
    assert row[0] not in ids


@pytest.mark.parametrize("change", [{"password": Secret("wrong")}, {"database": "absent"}, {"port": 1}])
async def test_what_only_a_person_can_mend_is_unavailable_too(server: MySQLServer, change: dict[str, object]) -> None:
    settings = {name: getattr(mysql_settings(server, "ramal"), name) for name in MySQL.__struct_fields__}
    database = MySQLDatabase(MySQL(**{**settings, **change}))
    with pytest.raises(DatabaseUnavailable) as raised:
        await database.start()
    assert "wrong" not in str(raised.value)
    await database.stop()


async def test_a_row_that_another_transaction_holds_is_unavailable_not_refused(
    server: MySQLServer, database: MySQLDatabase
) -> None:
    await database.transact([begin_at(database, LIVE.projection, 0, Position(0, -1))])
    other = pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, database="ramal"
    )
    patient = MySQLDatabase(mysql_settings(server, "ramal", timeout=8.0))
    with other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM projection_offset FOR UPDATE")
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(DatabaseUnavailable, match="1205"):
                await patient.transact([], Advance("location", 0, 0, 1, 0))
        other.rollback()
    await patient.transact([], Advance("location", 0, 0, 1, 0))
    await patient.stop()


async def test_sessions_are_strict_in_utc_and_see_what_is_committed(database: MySQLDatabase) -> None:
    rows = await database.query("SELECT @@sql_mode, @@time_zone, @@autocommit, @@innodb_lock_wait_timeout")
    assert "STRICT_ALL_TABLES" in rows[0][0]
    assert rows[0][1:] == ("+00:00", 1, 2)


async def test_a_transaction_larger_than_a_packet_is_refused_so_that_it_is_halved(database: MySQLDatabase) -> None:
    ((allowed,),) = await database.query("SELECT @@max_allowed_packet")
    assert allowed > PACKET_BYTES
    with pytest.raises(DatabaseRefused):
        await database.transact([Statement("SELECT %s", ("x" * PACKET_BYTES,))])
    await database.transact([Statement("SELECT %s", ("x" * (PACKET_BYTES - 1000),))])


async def test_e02_e13_a_locator_answers_nobody_while_mysql_stands_still_and_everybody_once_it_is_back(
    server: MySQLServer, database: MySQLDatabase, tmp_path: Path
) -> None:
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    scribe = Scribe()
    await claim(log, scribe)
    service = Locator(log, database, Settings())
    await service.start()

    async def answered() -> int:
        return (await log.bounds(EDGE_REPLIES, 0)).end

    async def register(count: int) -> None:
        reply = ReplyTo("edge-1", "boot", 2**53)
        events = [scribe.register(f"u{n}@example.test", f"sip:u{n}@x", reply=reply) for n in range(count)]
        await log.append([scribe.append(event) for event in events])

    async def until(count: int) -> None:
        async with asyncio.timeout(30):
            while await answered() < count:  # noqa: ASYNC110  # read again on purpose: no group here
                await asyncio.sleep(0.02)

    try:
        await register(5)
        await until(5)
        with standing_still(server.pid):
            await register(5)
            async with asyncio.timeout(PATIENCE):
                while not service.not_ready():  # noqa: ASYNC110  # readiness is asked for, not told
                    await asyncio.sleep(0.02)
            assert await answered() == 5
        # The restore may send replies of committed records again: an edge drops what it does not wait for.
        await until(10)
        rows = await database.query("SELECT COUNT(*), COUNT(DISTINCT username), MAX(cseq) FROM location")
        assert rows == [(5, 5, 10)]
        assert await database.query("SELECT COUNT(*) FROM registration_history WHERE until_ms IS NULL") == [(5,)]
    finally:
        await service.stop(5.0)
        await log.stop()
        await store.stop()


async def test_e02_a_transaction_that_timed_out_is_not_answered_by_this_attempt(
    server: MySQLServer, database: MySQLDatabase, tmp_path: Path
) -> None:
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    scribe = Scribe()
    await claim(log, scribe)
    handler = LocatorHandler(log, database, Settings())
    await handler.restore(0)
    await log.append([scribe.append(scribe.register("a@x", "sip:a", reply=ReplyTo("edge-1", "boot", 2**53)))])
    records = [r async for batch in log.read(REGISTRATIONS, 0, 0, 2) for r in batch]
    with standing_still(server.pid), pytest.raises(Lost):
        await handler.handle({0: records})
    assert (await log.bounds(EDGE_REPLIES, 0)).end == 0
    await log.stop()
    await store.stop()
