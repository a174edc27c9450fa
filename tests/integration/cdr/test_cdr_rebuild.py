"""E14, C14: the tables of calls made anew from the log while cdr serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cdr.config import Settings
from cdr.rebuild import rebuild
from cdr.service import Cdr
from cdr.tables import COLUMNS
from events.cdrs import CallRecord
from events.topics import CALLS, CDRS
from events.wire import Decoder
from runtime.database.port import Database, Statement
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Bounds
from runtime.store import EmbeddedStore
from tests.kit.call_stories import Story, append, everything, missed, talk
from tests.kit.locator import DATABASES, open_database
from tests.kit.shortened import shorten

PARTITIONS = 2
read: Decoder[CallRecord] = Decoder(CallRecord)
SETTINGS = Settings(close_every=0.2, longest_setup=10**9, longest_call=10**9)
"""Nothing ends by itself: the calls of these tests are years old."""


class Site:
    """A log of two partitions, tables, and edges that tell of calls."""

    def __init__(self, log: EmbeddedLog, database: Database, store: EmbeddedStore) -> None:
        self.log = log
        self.store = store
        self.database = database
        self.told = 0

    async def happen(self, count: int) -> None:
        """Calls that were answered, missed, and that last."""
        for n in range(self.told, self.told + count):
            more = {"call_id": f"c{n}"}
            story = (
                talk(f"u{n}", **more), missed(f"u{n}", **more), Story(**more).attempted().branch().answered()
            )[n % 3]  # fmt: skip
            await self.log.append([append(event, PARTITIONS) for event in story.events])
        self.told += count

    async def projected(self) -> None:
        """Waits until the tables have all of the log, and `cdrs` all records."""
        async with asyncio.timeout(30):
            for number in range(PARTITIONS):
                end = (await self.log.bounds(CALLS, number)).end
                while not await self.database.query(  # noqa: ASYNC110  # tables tell nobody
                    "SELECT 1 FROM projection_offset WHERE projection = 'calls' AND partition_no = %s"
                    " AND next_offset = %s AND claim < %s",
                    (number, end, 2**60),
                ):
                    await asyncio.sleep(0.02)
            while await self.database.query("SELECT 1 FROM cdrs WHERE published = 0"):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.02)

    async def published(self) -> int:
        ends = [await self.log.bounds(CDRS, n) for n in range(await self.log.partitions(CDRS))]
        return sum(bounds.end for bounds in ends)

    async def call_ids(self, number: int) -> list[str]:
        """Of the records on `cdrs`."""
        end = (await self.log.bounds(CDRS, number)).end
        return [
            read(r.value).call_id for batch in [b async for b in self.log.read(CDRS, number, 0, end)] for r in batch
        ]


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, PARTITIONS)
    await log.start()
    database = await open_database(request, request.param, store)
    yield Site(log, database, store)
    await log.stop()
    await database.stop()
    await store.stop()


@contextlib.asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Cdr]:
    cdr = Cdr(site.log, site.database, SETTINGS)
    await cdr.start()
    try:
        yield cdr
    finally:
        await cdr.stop(5.0)


async def test_calls_tables_that_become_an_older_copy_are_brought_up_again_though_no_event_comes(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = await everything(site.database)
        older = [Statement(f"DELETE FROM {table}") for table in ("cdrs", "open_calls", "acc", "missed_calls")]
        back = "UPDATE projection_offset SET next_offset = 0 WHERE projection = 'calls'"
        await site.database.transact([*older, Statement(back)])
        assert await everything(site.database) != before
        await site.projected()
        assert await everything(site.database) == before


async def test_c14_a_rebuild_of_right_tables_finds_them_equal_and_publishes_nothing_again(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = await everything(site.database)
        assert await site.published() == 40
        seen: list[tuple[int, int]] = []
        rebuilt = await rebuild(site.log, site.database, SETTINGS, lambda done, total: seen.append((done, total)))
        assert rebuilt.equal is True
        assert (rebuilt.calls, rebuilt.open) == (40, 20)
        assert rebuilt.records == seen[-1][0] == seen[-1][1]
        assert await everything(site.database) == before
        await site.happen(30)
        await site.projected()
    assert await site.published() == 60
    again = await rebuild(site.log, site.database, SETTINGS)
    assert again.equal is True
    assert again.checksum != rebuilt.checksum


async def test_e14_emptied_tables_are_filled_again_and_found_unequal(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = await everything(site.database)
        await site.database.transact([Statement(f"DELETE FROM {table}") for table in COLUMNS])
        assert (await rebuild(site.log, site.database, SETTINGS)).equal is False
        assert await everything(site.database) == before
    assert await site.published() == 40


async def test_e14_dropped_tables_are_made_again_while_cdr_serves(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = await everything(site.database)
        for table in (*COLUMNS, "projection_offset"):
            await site.database.transact([Statement(f"DROP TABLE {table}")])
        await rebuild(site.log, site.database, SETTINGS)
        await site.projected()
        assert await everything(site.database) == before


async def test_e14_nothing_is_lost_that_happens_during_a_rebuild(site: Site) -> None:
    await site.happen(60)
    stop = asyncio.Event()

    async def happening() -> None:
        while not stop.is_set():
            await site.happen(3)
            await asyncio.sleep(0.005)

    async with serving(site):
        busy = asyncio.create_task(happening())
        results = [await rebuild(site.log, site.database, SETTINGS) for _ in range(3)]
        stop.set()
        await busy
        await site.projected()
        assert all(result.equal is not False for result in results)
    assert (await rebuild(site.log, site.database, SETTINGS)).equal is True
    assert site.told > 60
    calls = await site.database.query("SELECT call_id FROM cdrs UNION ALL SELECT call_id FROM open_calls")
    assert sorted(row[0] for row in calls) == sorted(f"c{n}" for n in range(site.told))
    assert await site.published() >= site.told * 2 // 3


async def test_c14_calls_whose_beginning_the_log_has_lost_stay_as_they_are(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(site):
        await site.happen(60)
        await site.projected()
    before = await everything(site.database)
    real, read = site.log.bounds, site.log.read

    async def begins_later(topic: str, partition: int) -> Bounds:
        bounds = await real(topic, partition)
        return Bounds(50, bounds.end) if topic == CALLS else bounds

    def reads_later(topic: str, partition: int, begin: int, end: int | None = None, **more: Any) -> Any:
        return read(topic, partition, max(begin, 50) if topic == CALLS else begin, end, **more)

    monkeypatch.setattr(site.log, "bounds", begins_later)
    monkeypatch.setattr(site.log, "read", reads_later)
    rebuilt = await rebuild(site.log, site.database, SETTINGS)
    assert rebuilt.equal is True
    assert await everything(site.database) == before


async def test_what_was_not_published_before_a_rebuild_is_published_after_it(site: Site) -> None:
    await site.happen(9)
    await rebuild(site.log, site.database, SETTINGS)
    assert await site.published() == 0
    async with serving(site):
        await site.projected()
    assert await site.published() == 6


async def test_after_the_log_lost_its_end_a_rebuild_publishes_what_is_new_and_nothing_again(site: Site) -> None:
    """Offsets stand for other events than those of the tables: what they say of `cdrs` holds for their own calls."""
    await site.happen(60)
    async with serving(site):
        await site.projected()
    ends = [(await site.log.bounds(CALLS, number)).end for number in range(PARTITIONS)]
    for number, end in enumerate(ends):
        await shorten(site.store, CALLS, end // 2, number)
    await site.happen(6)
    async with serving(site) as cdr:
        async with asyncio.timeout(20):
            while str(cdr.status()).count("beyond the log's end") < PARTITIONS:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.02)
        assert await site.published() == 40
    assert (await rebuild(site.log, site.database, SETTINGS)).equal is None
    async with serving(site):
        await site.projected()
        await site.happen(3)
        await site.projected()
    names = [name for number in range(PARTITIONS) for name in await site.call_ids(number)]
    assert sorted(names) == sorted(set(names))
    assert {f"c{n}" for n in range(60, 69) if n % 3 < 2} <= set(names)
    assert await site.published() == 46
