"""The clock of cdr's host, and of analytics', may be anything: calls end and figures stand by the log's clock."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cdr.closing import Closing
from cdr.config import Analytics, Settings
from cdr.figures import Figures
from cdr.handler import CdrHandler
from events.registrations import Claimed
from events.stats import RegistrationStatistics, Statistics
from events.topics import CALLS, REGISTRATIONS, STATS
from events.wire import CLAIM, Decoder, cloud_event, encode
from runtime.database.sqlite import SQLiteDatabase
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Record
from runtime.store import EmbeddedStore
from tests.kit.call_stories import START, Story, append
from tests.kit.statistics import registered

read: Decoder[Statistics] = Decoder(Statistics)


class Site:
    """A log of one partition with a clock of its own, which began at START, long before the host's."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.now = START
        self.log = EmbeddedLog(store, 1, now=lambda: self.now / 1000)
        self.database = SQLiteDatabase(store)
        self.handler = CdrHandler(self.log, self.database, Settings())

    def closing(self) -> Closing:
        return Closing(self.log, self.database, self.handler, Settings())

    async def read(self, topic: str, begin: int = 0) -> list[Record]:
        end = (await self.log.bounds(topic, 0)).end
        return [record async for batch in self.log.read(topic, 0, begin, end) for record in batch]

    async def happens(self, story: Story) -> None:
        """Its events are written at the log's time and handled."""
        await self.log.append([append(event, 1) for event in story.events])
        await self.handler.handle({0: await self.read(CALLS, self.handler.reached()[0])})


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "log.db")
    site = Site(store)
    await site.log.start()
    await site.database.start()
    await site.database.migrate()
    await site.handler.restore(0)
    yield site
    await site.log.stop()
    await site.database.stop()
    await store.stop()


async def test_c12_a_call_is_closed_by_the_logs_clock_however_far_ahead_the_hosts_is(site: Site) -> None:
    await site.happens(Story().attempted().branch())
    closing = site.closing()
    assert await closing.look() == 0
    site.now += 299_000
    await site.happens(Story(now=site.now).attempted().branch())
    assert await closing.look() == 0
    site.now += 2_000
    await site.happens(Story(now=site.now).attempted().branch())
    assert await closing.look() == 1


async def test_c12_who_comes_later_knows_the_logs_time_by_its_newest_record(site: Site) -> None:
    await site.happens(Story().attempted().branch())
    site.now += 301_000
    await site.log.append([append(event, 1) for event in Story(now=site.now).attempted().branch().events])
    site.handler = CdrHandler(site.log, site.database, Settings())
    assert await site.closing().look() == 0
    await site.handler.restore(0)
    assert await site.closing().look() == 1


async def test_figures_are_of_minutes_that_the_log_has_reached(site: Site) -> None:
    site.now = int((time.time() - 3000) * 1000)
    truth = registered("a@example.test", ("udp", "Desk 1.0"))
    await site.log.append(
        [
            Append(REGISTRATIONS, 0, b"", encode(Claimed("r")), cloud_event("ramal.Claimed", "registrar", "c")),
            Append(REGISTRATIONS, 0, b"k", truth, ((CLAIM, b"0"),)),
        ]
    )
    figures = Figures(site.log, Analytics(publish_every=0.05))
    await figures.start()
    try:
        async with asyncio.timeout(20):
            while not await site.read(STATS):  # noqa: ASYNC110  # figures have no event
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        told = [read(record.value) for record in await site.read(STATS)]
    finally:
        await figures.stop(2.0)
    online = [each for each in told if isinstance(each, RegistrationStatistics)]
    minute = site.now // 60_000 * 60_000
    assert {each.start for each in online if each.seconds == 60} <= {minute, minute + 60_000}
    assert {each.online for each in online} == {1}
