"""Somebody starts a second locator or cdr on the log that serves, with another database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cdr.config import Settings as CdrSettings
from cdr.service import Cdr
from events.topics import CALLS, REGISTRATIONS
from locator.config import Settings
from locator.rebuild import rebuild
from locator.service import Locator
from ramal.backends import KafkaServer, MySQLServer
from runtime.config import Kafka
from runtime.database import one_database
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Database
from runtime.database.sqlite import SQLiteDatabase
from runtime.log.kafka.log import KafkaLog
from runtime.store import EmbeddedStore
from tests.kit.call_stories import append, talk
from tests.kit.locator import Scribe, claim, mysql_settings

pytestmark = pytest.mark.integration
PARTITIONS = 4
PATIENCE = 60
NEVER_ENDS = CdrSettings(longest_setup=10**9, longest_call=10**9)
Service = Locator | Cdr


class Site(NamedTuple):
    """A log, which each service has for itself, the database of those that serve, and the other."""

    new_log: Callable[[], Awaitable[KafkaLog]]
    log: KafkaLog
    right: Database
    other: Database
    scribes: list[Scribe]

    async def register(self, user: str) -> None:
        """One of this name in each partition."""
        for scribe in self.scribes:
            await self.log.append([scribe.append(scribe.register(f"{user}{scribe.partition}@example.test", "sip:x"))])

    async def committed(self, topic: str, group: str) -> None:
        """Waits until the group has committed all of the topic that there is."""
        ends = {number: (await self.log.bounds(topic, number)).end for number in range(PARTITIONS)}

        async def all_of_it() -> bool:
            there = await self.log.committed(topic, group)
            return all(there.get(number, 0) == end for number, end in ends.items())

        await until(all_of_it)


@pytest.fixture
async def site(
    kafka: KafkaServer, mysql: MySQLServer, fresh_database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:

        async def new_log() -> KafkaLog:
            log = KafkaLog(Kafka(bootstrap=kafka.bootstrap, session_timeout=6.0), topic_prefix, PARTITIONS, "test")
            await log.start()
            stack.push_async_callback(log.stop)
            return log

        store = EmbeddedStore(tmp_path / "other.db")
        stack.push_async_callback(store.stop)
        right, other = MySQLDatabase(mysql_settings(mysql, fresh_database)), SQLiteDatabase(store)
        for database in (right, other):
            await database.start()
            stack.push_async_callback(database.stop)
            await database.migrate()
        log = await new_log()
        await log.create_topics(PARTITIONS)
        scribes = [Scribe(partition=number) for number in range(PARTITIONS)]
        for scribe in scribes:
            await claim(log, scribe)
        yield Site(new_log, log, right, other, scribes)


@contextlib.asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    await service.start()
    try:
        yield service
    finally:
        await service.stop(5.0)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110  # tables and groups tell nobody
            await asyncio.sleep(0.05)


async def ready(service: Service) -> bool:
    return not service.not_ready()


async def says(service: Service, words: str) -> bool:
    return words in service.status()["tables"] and any(words in why for why in service.not_ready())


async def test_a_locator_on_an_empty_database_takes_no_partition_from_those_that_serve(site: Site) -> None:
    async with serving(Locator(await site.new_log(), site.right, Settings())) as production:
        await site.register("before")
        await site.committed(REGISTRATIONS, "locator")
        async with serving(Locator(await site.new_log(), site.other, Settings())) as staging:
            await until(lambda: says(staging, "does not join the group locator"))
            await site.register("meanwhile")
            await site.committed(REGISTRATIONS, "locator")
            assert production.not_ready() == []
            assert await site.right.query("SELECT COUNT(*) FROM location") == [(2 * PARTITIONS,)]
            assert await site.other.query("SELECT COUNT(*) FROM location") == [(0,)]


async def test_lost_tables_are_the_groups_again_once_they_were_rebuilt_while_the_locator_waits(site: Site) -> None:
    async with serving(Locator(await site.new_log(), site.right, Settings())):
        await site.register("before")
        await site.committed(REGISTRATIONS, "locator")
    async with serving(Locator(await site.new_log(), site.other, Settings())) as again:
        await until(lambda: says(again, "`ramal rebuild`"))
        await rebuild(site.log, site.other)
        await until(lambda: ready(again))
        await site.register("after")
        await site.committed(REGISTRATIONS, "locator")
        assert await site.other.query("SELECT COUNT(*) FROM location") == [(2 * PARTITIONS,)]


async def test_two_locators_on_two_copies_both_say_so_until_one_ends_and_then_nothing_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy (a dump that was loaded elsewhere) cannot be told from tables that were restored."""
    monkeypatch.setattr(one_database, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(one_database, "SURE_SECONDS", 1.0)
    async with serving(Locator(await site.new_log(), site.right, Settings())) as production:
        await site.register("before")
        await site.committed(REGISTRATIONS, "locator")
        await rebuild(site.log, site.other)
        async with serving(Locator(await site.new_log(), site.other, Settings())) as staging:
            await until(lambda: ready(staging))
            await site.register("meanwhile")
            await site.committed(REGISTRATIONS, "locator")
            await until(lambda: says(production, "writes to another database"))
            await until(lambda: says(staging, "writes to another database"))
        await until(lambda: ready(production))
        assert await site.right.query("SELECT COUNT(*) FROM location") == [(2 * PARTITIONS,)]


async def test_a_cdr_on_an_empty_database_takes_no_partition_from_those_that_serve(site: Site) -> None:
    async def call(call_id: str) -> None:
        await site.log.append([append(event, PARTITIONS) for event in talk("alice", call_id=call_id).events])

    async with serving(Cdr(await site.new_log(), site.right, NEVER_ENDS)):
        for number in range(4):
            await call(f"before{number}")
        await site.committed(CALLS, "cdr")
        async with serving(Cdr(await site.new_log(), site.other, NEVER_ENDS)) as staging:
            await until(lambda: says(staging, "`ramal rebuild cdrs`"))
            for number in range(8):
                await call(f"meanwhile{number}")
            await until(lambda: counted(site.right, 12))
            assert await counted(site.other, 0)


async def counted(database: Database, count: int) -> bool:
    return await database.query("SELECT COUNT(*) FROM cdrs") == [(count,)]
