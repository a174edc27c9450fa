"""E14, E15, C14: the tables made anew from the log while the locator serves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from events.registrations import WATERMARK_KEY, Watermark
from events.topics import BINDINGS
from events.wire import encode
from locator.config import Settings
from locator.history import registered_at
from locator.rebuild import rebuild
from locator.service import Locator
from locator.tables import HISTORY_COLUMNS, LOCATION_COLUMNS
from runtime.database.port import Database, Row, Statement
from runtime.database.positions import Position
from runtime.database.rebuild import Rebuild, Source
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Bounds, PartitionFault
from runtime.store import EmbeddedStore
from tests.kit.locator import DATABASES, START, Scribe, claim, open_database

PARTITIONS = 2


class Site:
    """A log of two partitions, a locator that serves, and registrars."""

    def __init__(self, log: EmbeddedLog, database: Database) -> None:
        self.log = log
        self.database = database
        self.scribes = [Scribe(partition=n) for n in range(PARTITIONS)]

    async def happen(self, count: int, first: int = 0) -> None:
        """Registrations, moves and ends of many users."""
        for scribe in self.scribes:
            events = []
            for n in range(first, first + count):
                aor, contact = f"u{scribe.partition}x{n % 20}@example.test", f"sip:u{n % 20}@x"
                scribe.now += 1000
                if n % 7 == 6:
                    events.append(scribe.end(aor, contact))
                else:
                    events.append(scribe.register(aor, contact, 3600, received=f"sip:{n % 3}"))
            await self.log.append([scribe.append(event) for event in events])

    async def projected(self) -> None:
        """Waits until the tables have all of the log."""
        async with asyncio.timeout(30):
            for number in range(PARTITIONS):
                end = (await self.log.bounds("registrations", number)).end
                while not await self.database.query(  # noqa: ASYNC110  # tables tell nobody
                    "SELECT 1 FROM projection_offset WHERE projection = 'location' AND partition_no = %s"
                    " AND next_offset = %s AND claim < %s",
                    (number, end, 2**60),
                ):
                    await asyncio.sleep(0.02)

    async def rows(self, table: str) -> list[Row]:
        columns, order = (
            (LOCATION_COLUMNS, "contact_id") if table == "location" else (HISTORY_COLUMNS, "contact_id, began_offset")
        )
        return await self.database.query(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")

    async def snapshot(self, number: int) -> None:
        """What the registrar writes to `bindings`."""
        scribe = self.scribes[number]
        through = (await self.log.bounds("registrations", number)).end - 1
        states = [
            Append(BINDINGS, number, aor.encode(), encode(state) if state.bindings else None)
            for aor, state in scribe.states.items()
        ]
        mark = encode(Watermark(through, through, scribe.claim))
        await self.log.append_transaction("t", [*states, Append(BINDINGS, number, WATERMARK_KEY.encode(), mark)])

    async def shown(self) -> set[tuple[str, str]]:
        return {
            (f"{u}@{d}", c) for u, d, c in await self.database.query("SELECT username, domain, contact FROM location")
        }

    def expected(self) -> set[tuple[str, str]]:
        return {
            (aor, b.contact) for scribe in self.scribes for aor, state in scribe.states.items() for b in state.bindings
        }


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, PARTITIONS)
    await log.start()
    database = await open_database(request, request.param, store)
    site = Site(log, database)
    for scribe in site.scribes:
        await claim(log, scribe)
    yield site
    await log.stop()
    await database.stop()
    await store.stop()


@contextlib.asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Locator]:
    locator = Locator(site.log, site.database, Settings())
    await locator.start()
    try:
        yield locator
    finally:
        await locator.stop(5.0)


async def test_c14_a_rebuild_of_right_tables_finds_them_equal_and_changes_no_row(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = [await site.rows(table) for table in ("location", "registration_history")]
        seen: list[tuple[int, int]] = []
        rebuilt = await rebuild(site.log, site.database, lambda done, total: seen.append((done, total)))
        assert rebuilt.equal is True
        assert (rebuilt.rows, rebuilt.intervals) == (len(before[0]), len(before[1]))
        assert rebuilt.records == seen[-1][0] == seen[-1][1] == 122
        assert [await site.rows(table) for table in ("location", "registration_history")] == before
        await site.happen(30, first=60)
        await site.projected()
        assert await site.shown() == site.expected()
    again = await rebuild(site.log, site.database)
    assert again.equal is True
    assert again.checksum != rebuilt.checksum


async def test_e14_emptied_tables_are_filled_again_and_found_unequal(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        history = await site.rows("registration_history")
        await site.database.transact([Statement("DELETE FROM location"), Statement("DELETE FROM registration_history")])
        rebuilt = await rebuild(site.log, site.database)
        assert rebuilt.equal is False
        assert await site.shown() == site.expected()
        assert await site.rows("registration_history") == history


async def test_e14_dropped_tables_are_made_again_while_the_locator_serves(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        before = [await site.rows(table) for table in ("location", "registration_history")]
        for table in ("location", "registration_history", "projection_offset"):
            await site.database.transact([Statement(f"DROP TABLE {table}")])
        await rebuild(site.log, site.database)
        await site.projected()
        assert [await site.rows(table) for table in ("location", "registration_history")] == before


async def test_e14_nothing_is_lost_that_is_registered_during_a_rebuild(site: Site) -> None:
    await site.happen(100)
    stop = asyncio.Event()

    async def registering() -> int:
        first = 100
        while not stop.is_set():
            await site.happen(5, first)
            first += 5
            await asyncio.sleep(0.005)
        return first

    async with serving(site):
        busy = asyncio.create_task(registering())
        results = [await rebuild(site.log, site.database) for _ in range(3)]
        stop.set()
        assert await busy > 100
        await site.projected()
        assert await site.shown() == site.expected()
        assert all(result.equal is not False for result in results)
    assert (await rebuild(site.log, site.database)).equal is True


async def test_e15_snapshots_and_the_tail_give_the_same_rows_as_the_whole_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(site):
        await site.happen(40)
        await site.projected()
        for number in range(PARTITIONS):
            await site.snapshot(number)
        await site.happen(40, first=40)
        await site.projected()
    before = [await site.rows(table) for table in ("location", "registration_history")]
    real = site.log.bounds

    async def begins_later(topic: str, partition: int) -> Bounds:
        bounds = await real(topic, partition)
        return Bounds(20, bounds.end) if topic == "registrations" else bounds

    monkeypatch.setattr(site.log, "bounds", begins_later)
    rebuilt = await rebuild(site.log, site.database)
    assert rebuilt.equal is True
    assert rebuilt.records == 80
    assert [await site.rows(table) for table in ("location", "registration_history")] == before
    # With the history gone too, those who are registered are known from when they were made.
    await site.database.transact([Statement("DELETE FROM location"), Statement("DELETE FROM registration_history")])
    assert (await rebuild(site.log, site.database)).equal is False
    assert await site.rows("location") == before[0]
    now = max(scribe.now for scribe in site.scribes)
    assert {(r.aor, r.contact) for r in await registered_at(site.database, now)} == site.expected()
    assert all(r.since >= START for r in await registered_at(site.database, now))


async def test_a_rebuild_that_fails_at_the_swap_leaves_the_tables_and_lets_the_locator_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.happen(20)
    async with serving(site):
        await site.projected()
        before = await site.rows("location")

        def refused(tables: Any) -> list[Statement]:
            return [Statement("SELECT * FROM no_such_table")]

        monkeypatch.setattr(site.database, "swap", refused)
        monkeypatch.setattr("runtime.database.rebuild.HOLD_SECONDS", 0.1)
        with pytest.raises(DatabaseUnavailable):
            await rebuild(site.log, site.database)
        monkeypatch.undo()
        assert await site.rows("location") == before
        await site.happen(10, first=20)
        await site.projected()
        assert await site.shown() == site.expected()


async def left_over(site: Site) -> list[str]:
    """What there is besides the tables themselves."""
    found = []
    for table in (f"{name}_{kind}" for name in ("location", "registration_history") for kind in ("shadow", "old")):
        with contextlib.suppress(DatabaseUnavailable):
            await site.database.query(f"SELECT * FROM {table}")
            found.append(table)
    rows = await site.database.query("SELECT projection FROM projection_offset WHERE projection <> 'location'")
    return found + [str(row[0]) for row in rows]


async def test_a_rebuild_that_fails_drops_its_shadows_and_says_what_the_database_refuses(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.happen(20)
    async with serving(site):
        await site.projected()
        before = await site.rows("location")
        monkeypatch.setattr(site.database, "checksum", lambda columns: f"NO_SUCH_FUNCTION({columns[0]})")
        with pytest.raises(DatabaseRefused, match=r"(?i)no_such_function"):
            await rebuild(site.log, site.database)
        assert await left_over(site) == []
        assert await site.rows("location") == before


async def test_e19_a_rebuild_that_meets_a_truth_it_does_not_know_stops_and_changes_nothing(site: Site) -> None:
    """A truth is never skipped, here neither."""
    await site.happen(20)
    async with serving(site):
        await site.projected()
    before = [await site.rows(table) for table in ("location", "registration_history")]
    record = site.scribes[1].append(site.scribes[1].register("new@example.test", "sip:new@x"))
    await site.log.append([record._replace(value=b'{"type":"ramal.Moved"}')])
    with pytest.raises(PartitionFault, match="not known"):
        await rebuild(site.log, site.database)
    assert [await site.rows(table) for table in ("location", "registration_history")] == before


@pytest.mark.parametrize("value", [b'{"bindings":{}}', b"{"])
async def test_e19_a_rebuild_that_meets_a_snapshot_it_does_not_know_stops(
    site: Site, monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    await site.happen(5)
    await site.snapshot(0)
    await site.log.append([Append(BINDINGS, 0, b"new@example.test", value)])
    bounds = site.log.bounds

    async def shortened(topic: str, partition: int) -> Bounds:
        return Bounds(1 if topic == "registrations" else 0, (await bounds(topic, partition)).end)

    monkeypatch.setattr(site.log, "bounds", shortened)
    with pytest.raises(PartitionFault, match="not known"):
        await rebuild(site.log, site.database)


async def test_tables_that_become_an_older_copy_are_brought_up_again_though_no_record_comes(site: Site) -> None:
    await site.happen(20)
    async with serving(site):
        await site.projected()
        await site.database.transact(  # a failover to a replica that was behind
            [
                Statement("DELETE FROM location WHERE partition_no = 1"),
                Statement("DELETE FROM registration_history WHERE partition_no = 1"),
                Statement("UPDATE projection_offset SET next_offset = 0, claim = -1 WHERE partition_no = 1"),
            ]
        )
        assert await site.shown() != site.expected()
        await site.projected()
        assert await site.shown() == site.expected()


async def test_what_a_killed_rebuild_left_is_gone_after_the_next(site: Site) -> None:
    await site.happen(20)
    async with serving(site):
        await site.projected()
        made = [*site.database.shadow("location"), *site.database.shadow("registration_history")]
        await site.database.transact(
            [
                *made,
                Statement("INSERT INTO location_shadow SELECT * FROM location"),
                Statement("INSERT INTO projection_offset VALUES ('location_shadow', 0, 7, 7)"),
            ]
        )
        assert (await rebuild(site.log, site.database)).equal is True
        assert await left_over(site) == []
        assert await site.shown() == site.expected()


async def test_a_rebuild_whose_hold_was_taken_back_swaps_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.happen(20)
    monkeypatch.setattr("runtime.database.rebuild.hold", lambda tables: Statement("DELETE FROM location WHERE 1 = 0"))
    with pytest.raises(PositionConflict):
        await rebuild(site.log, site.database)
    assert await site.rows("location") == []


async def test_a_rebuild_that_begins_while_another_is_about_to_swap_is_refused_and_spoils_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.happen(30)
    second: list[BaseException] = []

    async def meanwhile(self: Rebuild, source: Source) -> Position:
        if not second:
            monkeypatch.undo()
            second.extend(await asyncio.gather(rebuild(site.log, site.database), return_exceptions=True))
        return await Rebuild._live(self, source)

    async with serving(site):
        await site.projected()
        monkeypatch.setattr(Rebuild, "_live", meanwhile)
        assert (await rebuild(site.log, site.database)).equal is True
        (refused,) = second
        assert isinstance(refused, DatabaseUnavailable)
        assert "another rebuild of location is running" in str(refused)
        assert await site.shown() == site.expected()
        assert (await rebuild(site.log, site.database)).equal is True


async def test_a_rebuild_that_may_not_be_alone_any_more_swaps_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.happen(20)
    alone = site.database.alone

    @contextlib.asynccontextmanager
    async def lost(what: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        async def confirm() -> None:
            raise PositionConflict("whether another runs is not known any more")

        async with alone(what):
            yield confirm

    monkeypatch.setattr(site.database, "alone", lost)
    with pytest.raises(PositionConflict):
        await rebuild(site.log, site.database)
    assert await site.rows("location") == []


async def test_of_two_rebuilds_at_once_the_tables_are_right_afterwards(site: Site) -> None:
    await site.happen(60)
    async with serving(site):
        await site.projected()
        await asyncio.gather(
            *(rebuild(site.log, site.database) for _ in range(2)),
            return_exceptions=True,
        )
        await site.happen(10, first=60)
        await rebuild(site.log, site.database)
        await site.projected()
        assert await site.shown() == site.expected()
