"""C13: cdr killed at random under 200 calls, MySQL and Kafka stopped in the middle: tables and records as without."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cdr.config import Settings
from cdr.rebuild import rebuild
from events.cdrs import CallRecord
from events.topics import CDRS
from events.wire import Decoder
from ramal.backends import KafkaServer, MySQLServer, start_kafka, start_mysql
from ramal.processes import Child, spawn
from runtime.config import Kafka
from runtime.database.mysql import MySQLDatabase
from runtime.errors import LogUnavailable
from runtime.log.kafka.log import KafkaLog
from tests.kit.call_stories import append, missed, talk
from tests.kit.locator import mysql_settings
from tests.kit.stopping import standing_still

pytestmark = pytest.mark.integration
PARTITIONS = 4
CALLS = 200
read_record: Decoder[CallRecord] = Decoder(CallRecord)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[KafkaServer, MySQLServer]]:
    """Of our own: they are stopped."""
    kafka, mysql = start_kafka(tmp_path / "kafka"), start_mysql(tmp_path / "mysql")
    yield kafka, mysql
    kafka.child.kill()
    mysql.child.kill()


class Site:
    """A log, tables, and a cdr in a process of its own."""

    def __init__(
        self, kafka: KafkaServer, mysql: MySQLServer, log: KafkaLog, database: MySQLDatabase, path: Path
    ) -> None:
        self.log, self.database = log, database
        self._path = path
        self._environ = {
            **os.environ,
            "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "RAMAL_KAFKA_SESSION_TIMEOUT": "6",
            "RAMAL_PARTITIONS": str(PARTITIONS),
            "RAMAL_MYSQL_HOST": mysql.host,
            "RAMAL_MYSQL_PORT": str(mysql.port),
            "RAMAL_MYSQL_USER": mysql.user,
            "RAMAL_MYSQL_PASSWORD": mysql.password,
            "RAMAL_MYSQL_DATABASE": mysql.database,
            "RAMAL_CDR_LONGEST_SETUP": "1000000000",
            "RAMAL_CDR_LONGEST_CALL": "1000000000",
        }
        self.process: Child = self.start()

    def start(self) -> Child:
        self.process = spawn("cdr", [sys.executable, "-m", "ramal", "cdr"], self._path / "cdr.log", self._environ)
        return self.process

    async def finished(self) -> int:
        [(count,)] = await self.database.query("SELECT COUNT(*) FROM cdrs WHERE published = 1")
        return int(count)

    async def records(self) -> list[CallRecord]:
        found = []
        for number in range(PARTITIONS):
            end = (await self.log.bounds(CDRS, number)).end
            if end:
                found += [read_record(r.value) async for batch in self.log.read(CDRS, number, 0, end) for r in batch]
        return found


@pytest.fixture
async def site(servers: tuple[KafkaServer, MySQLServer], tmp_path: Path) -> AsyncIterator[Site]:
    kafka, mysql = servers
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), "ramal.", PARTITIONS, "test")
    await log.start()
    await log.create_topics(PARTITIONS)
    database = MySQLDatabase(mysql_settings(mysql, mysql.database, timeout=20.0))
    await database.start()
    await database.migrate()
    site = Site(kafka, mysql, log, database, tmp_path)
    yield site
    site.process.stop()
    await log.stop()
    await database.stop()


async def test_c13_killed_and_stopped_at_random_nothing_is_lost_or_doubled(
    site: Site, servers: tuple[KafkaServer, MySQLServer]
) -> None:
    rng = random.Random(11)
    events = [e for n in range(CALLS) for e in (talk if n % 4 else missed)(f"u{n}", f"v{n}", call_id=f"c{n}").events]
    rng.shuffle(events)

    async def tell() -> None:
        for start in range(0, len(events), 20):
            await site.log.append([append(event, PARTITIONS) for event in events[start : start + 20]])
            await asyncio.sleep(0.15)

    async def disturb() -> None:
        for server in servers:
            await asyncio.sleep(rng.uniform(2.0, 4.0))
            site.process.kill()
            site.start()
            await asyncio.sleep(rng.uniform(3.0, 7.0))
            with standing_still(server.pid):
                await asyncio.sleep(3.0)
        await asyncio.sleep(rng.uniform(0.5, 7.0))
        site.process.kill()
        site.start()

    async def patiently() -> None:
        # Appends of the test itself fail while Kafka stands still: they are told again, as an edge does.
        nonlocal events
        while True:
            try:
                await tell()
            except LogUnavailable:  # again from the start: doubled events count once
                await asyncio.sleep(0.5)
            else:
                return

    async with asyncio.timeout(200):
        await asyncio.gather(patiently(), disturb())
        while await site.finished() < CALLS:  # noqa: ASYNC110  # tables tell nobody
            await asyncio.sleep(0.2)
    told = {record.call_id: record for record in await site.records()}
    assert set(told) == {f"c{n}" for n in range(CALLS)}
    assert not any(record.incomplete for record in told.values())
    [(invites, byes)] = await site.database.query("SELECT SUM(method = 'INVITE'), SUM(method = 'BYE') FROM acc")
    [(lost,)] = await site.database.query("SELECT COUNT(*) FROM missed_calls")
    assert (int(invites), int(byes), int(lost)) == (CALLS, CALLS * 3 // 4, CALLS // 4)
    settings = Settings(longest_setup=10**9, longest_call=10**9)
    assert (await rebuild(site.log, site.database, settings)).equal is True
