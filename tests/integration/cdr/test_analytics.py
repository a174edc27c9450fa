"""Figures by Faust, over real Kafka, are those of SQL over `cdrs`, also when workers die, leave and come."""

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cdr.statistics.calls import MINUTE
from events.audit import AuthenticationFailed
from events.registrations import Claimed
from events.topics import AUDIT, REGISTRATIONS, STATS, partition_of
from events.wire import CLAIM, cloud_event, encode
from ramal.backends import KafkaServer, MySQLServer
from ramal.processes import Child, free_port, spawn
from runtime.config import Kafka
from runtime.database.mysql import MySQLDatabase
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Record
from tests.kit.call_stories import Story, append, missed, talk
from tests.kit.locator import mysql_settings
from tests.kit.statistics import registered

pytestmark = pytest.mark.integration
PARTITIONS = 4
QUERY = """
SELECT attempted_ms DIV 60000 * 60000 AS start, COUNT(*), SUM(outcome = 'answered'), SUM(outcome = 'failed'),
  SUM(outcome = 'cancelled'), SUM(missed) FROM cdrs GROUP BY start ORDER BY start
"""
ENDED = """
SELECT ended_ms DIV 60000 * 60000 AS start, COUNT(*), SUM(talk_ms) FROM cdrs WHERE answered_ms IS NOT NULL
  GROUP BY start ORDER BY start
"""


class Site:
    """A log, tables, cdr and workers of analytics in processes of their own."""

    def __init__(self, kafka: KafkaServer, mysql: MySQLServer, database: str, prefix: str, path: Path) -> None:
        self.path = path
        self.workers: dict[str, tuple[Child, int]] = {}
        self.environ = {
            **os.environ,
            "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "RAMAL_KAFKA_SESSION_TIMEOUT": "6",
            "RAMAL_TOPIC_PREFIX": prefix,
            "RAMAL_PARTITIONS": str(PARTITIONS),
            "RAMAL_MYSQL_HOST": mysql.host,
            "RAMAL_MYSQL_PORT": str(mysql.port),
            "RAMAL_MYSQL_USER": mysql.user,
            "RAMAL_MYSQL_PASSWORD": mysql.password,
            "RAMAL_MYSQL_DATABASE": database,
            "RAMAL_ANALYTICS_PUBLISH_EVERY": "0.5",
            "RAMAL_ANALYTICS_STORE_EVERY": "1",
        }
        self.cdr = self._spawn("cdr", {})

    def _spawn(self, name: str, more: dict[str, str]) -> Child:
        command = [sys.executable, "-m", "ramal", name.partition("-")[0]]
        return spawn(name, command, self.path / f"{name}.log", self.environ | more)

    def start(self, name: str) -> None:
        port = free_port()
        more = {"RAMAL_HTTP_PORT": str(port), "RAMAL_ANALYTICS_DIRECTORY": str(self.path / name)}
        self.workers[name] = (self._spawn(name, more), port)

    def kill(self, name: str) -> None:
        self.workers.pop(name)[0].kill()

    def leave(self, name: str) -> None:
        self.workers.pop(name)[0].stop()

    async def get(self, name: str, path: str) -> Any:
        """What a worker's HTTP answers, as soon as it answers 200."""
        url = f"http://127.0.0.1:{self.workers[name][1]}{path}"
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    return await asyncio.to_thread(_read, url)
                await asyncio.sleep(0.2)

    def stop(self) -> None:
        for child in (self.cdr, *(child for child, _ in self.workers.values())):
            child.kill()


def _read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


@pytest.fixture
async def log(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "test", "")
    await log.start()
    await log.create_topics(PARTITIONS)
    yield log
    await log.stop()


@pytest.fixture
async def database(mysql: MySQLServer, fresh_database: str) -> AsyncIterator[MySQLDatabase]:
    database = MySQLDatabase(mysql_settings(mysql, fresh_database))
    await database.start()
    await database.migrate()
    yield database
    await database.stop()


async def test_figures_are_those_of_sql_while_workers_are_killed_leave_and_come(
    kafka: KafkaServer,
    mysql: MySQLServer,
    topic_prefix: str,
    fresh_database: str,
    log: KafkaLog,
    database: MySQLDatabase,
    tmp_path: Path,
) -> None:
    site = Site(kafka, mysql, fresh_database, topic_prefix, tmp_path)
    try:
        site.start("analytics-1")
        site.start("analytics-2")
        await site.get("analytics-1", "/readyz")
        await site.get("analytics-2", "/readyz")
        began = int(time.time() * 1000)
        claim = [Append(REGISTRATIONS, p, None, encode(Claimed("r")), cloud_event("ramal.Claimed", "r", "1"))
                 for p in range(PARTITIONS)]  # fmt: skip
        await log.append(claim)
        told = [_story(number, began) for number in range(400)]
        for number in range(0, len(told), 20):
            records = [append(event, PARTITIONS) for story in told[number : number + 20] for event in story.events]
            records += [_registration(each, number % 3) for each in range(number, number + 20)]
            records += [_failure(each) for each in range(number, number + 5)]
            await log.append(records)
            match number:
                case 100:
                    site.kill("analytics-2")
                case 200:
                    site.start("analytics-3")
                case 300:
                    site.leave("analytics-1")
            await asyncio.sleep(0.4)
        site.start("analytics-2")

        found = await _settled(site, "analytics-3", database, began)
        rows = await database.query(QUERY)
        names = ("start", "attempts", "answered", "failed", "cancelled", "missed")
        attempts = [tuple(each[name] for name in names) for each in found["calls"] if each["attempts"]]
        assert attempts == [tuple(map(int, row)) for row in rows]
        ended = [(each["start"], each["ended"], each["talk_ms"]) for each in found["calls"] if each["ended"]]
        assert ended == [tuple(map(int, row)) for row in await database.query(ENDED)]
        assert found["calls"][-1]["concurrent"] == 0
        last = found["registrations"][-1]
        assert (last["online"], last["transports"]) == (400, {"udp": 400})
        assert sum(each["failed"] for each in found["logins"]) == 100
        # Every worker says the same, and so do hours.
        since = f"since={began - 20 * MINUTE}"
        other = await site.get("analytics-2", f"/statistics?{since}")
        assert other["calls"] == found["calls"]
        hours = await site.get("analytics-2", f"/statistics?window=hour&since={began - 3_600_000 * 2}")
        assert sum(each["attempts"] for each in hours["calls"]) == 400
        assert sum(each["talk_ms"] for each in hours["calls"]) == sum(each["talk_ms"] for each in found["calls"])
        told = b"".join([record.value or b"" async for record in _records(log, STATS)])
        assert told.count(b'"attempts"') > 10
        assert b"@" not in told  # C20: figures are of domains and gateways, never of a person
    finally:
        site.stop()


async def _records(log: KafkaLog, topic: str) -> AsyncIterator[Record]:
    for partition in range(await log.partitions(topic)):
        bounds = await log.bounds(topic, partition)
        if bounds.begin < bounds.end:
            async for records in log.read(topic, partition, bounds.begin, bounds.end):
                for record in records:
                    yield record


async def _settled(site: Site, name: str, database: MySQLDatabase, began: int) -> Any:
    """The figures once both cdr and Faust have all calls."""
    async with asyncio.timeout(90):
        while True:
            [(count,)] = await database.query("SELECT COUNT(*) FROM cdrs")
            found = await site.get(name, f"/statistics?since={began - 20 * MINUTE}")
            registered_now = found["registrations"][-1]["online"] if found["registrations"] else 0
            done = sum(each["attempts"] for each in found["calls"]), sum(each["failed"] for each in found["logins"])
            if int(count) == 400 and done == (400, 100) and registered_now == 400:
                return found
            await asyncio.sleep(0.5)


def _story(number: int, began: int) -> Story:
    """Calls that began up to seven minutes ago; all of them have ended by now."""
    more = {"call_id": f"call-{number}", "now": began - 2 * MINUTE - (number * 7919) % (5 * MINUTE)}
    match number % 4:
        case 0 | 1:
            return talk(last=number * 37 % 90_000, ring=number * 13, **more)
        case 2:
            return missed(**more)
        case _:
            return Story(**more).attempted().branch().failed(503)


def _registration(number: int, changes: int) -> Append:
    aor = f"u{number}@example.test"
    headers = (*cloud_event("ramal.BindingsRecorded", "registrar", f"{number}"), (CLAIM, b"0"))
    value = registered(aor, ("udp", f"Phone {changes}.0"))
    return Append(REGISTRATIONS, partition_of(aor, PARTITIONS), aor.encode(), value, headers)


def _failure(number: int) -> Append:
    user = f"u{number}@example.test"
    event = AuthenticationFailed(user, user, "192.0.2.66", "wrong response")
    headers = cloud_event("ramal.AuthenticationFailed", "authsvc", f"failure-{number}")
    return Append(AUDIT, partition_of(user, PARTITIONS), user.encode(), encode(event), headers)
