"""The reader of leases over the embedded log: which lives there are, by the log's order and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from edge.core.clock import LogClock
from edge.topics import neighbours
from edge.topics.lease import Lease
from edge.topics.neighbours import BURY, NAMES, STALE, Neighbours
from events.leases import EdgeLease
from events.topics import EDGE_LEASES
from events.wire import encode
from runtime.errors import LogUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Bounds, Reading
from runtime.metrics import drops
from runtime.store import EmbeddedStore

DEADLINE = 5.0
START = 1_700_000_000.0


class LeaseLog(EmbeddedLog):
    """The embedded log with a clock of its own, that can be away."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.seconds = START
        self.away = False
        super().__init__(store, 2, now=lambda: self.seconds)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        if self.away:
            raise LogUnavailable("gone")
        return await super().bounds(topic, partition)

    def read(
        self, topic: str, partition: int, begin: int, end: int | None = None, *, committed: bool = False
    ) -> Reading:
        if self.away:
            raise LogUnavailable("gone")
        return super().read(topic, partition, begin, end, committed=committed)

    async def lease(self, edge: str, boot: str, since: int = 0) -> int:
        """Appends a lease; its time."""
        lease = EdgeLease(edge, boot, 5, {"edges": "127.0.0.1:1"}, since)
        (position,) = await self.append([Append(EDGE_LEASES, 0, f"{edge}/{boot}".encode(), encode(lease))])
        return position.timestamp

    async def tombstone(self, edge: str, boot: str) -> None:
        await self.append([Append(EDGE_LEASES, 0, f"{edge}/{boot}".encode(), None)])

    async def keys(self) -> list[tuple[bytes | None, bool]]:
        """Every record: its key, and whether it has a value."""
        bounds = await self.bounds(EDGE_LEASES, 0)
        reading = self.read(EDGE_LEASES, 0, bounds.begin, bounds.end)
        return [(record.key, record.value is not None) async for batch in reading for record in batch]


class Watch:
    """A running reader, and what it has said."""

    def __init__(self, log: LeaseLog, edge: str = "me", boot: str = "b0") -> None:
        self.live: dict[str, str] = {}
        self.ended: list[tuple[str, str]] = []
        self.calls = 0
        self._news = asyncio.Event()
        self.reader = Neighbours(log, edge, boot, self._changed)
        self.task = asyncio.create_task(self.reader.run())

    def _changed(self, leases: Sequence[EdgeLease], ended: Sequence[tuple[str, str]]) -> None:
        self.calls += 1
        for edge, boot in ended:
            assert self.live.pop(edge) == boot
        self.live |= {lease.edge: lease.boot for lease in leases}
        self.ended += ended
        self._news.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not reached():
                self._news.clear()
                await self._news.wait()

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LeaseLog]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = LeaseLog(store)
    await log.start()
    yield log
    await log.stop()
    await store.stop()


@pytest.fixture
async def watch(log: LeaseLog) -> AsyncIterator[Callable[..., Watch]]:
    """Begins to read, and ends it."""
    watches: list[Watch] = []

    def begin(edge: str = "me", boot: str = "b0") -> Watch:
        watches.append(Watch(log, edge, boot))
        return watches[-1]

    yield begin
    for each in watches:
        await each.stop()


async def test_e10_it_is_ready_when_all_leases_of_the_start_are_known(
    log: LeaseLog, watch: Callable[..., Watch]
) -> None:
    await log.lease("a", "b1")
    await log.lease("b", "b1")
    await log.tombstone("b", "b1")
    await log.lease("me", "b0")
    seen = watch()
    assert not seen.reader.ready
    await seen.until(lambda: seen.calls > 0)
    assert seen.reader.ready
    assert seen.live == {"a": "b1"}
    assert seen.ended == []


async def test_an_empty_topic_is_known_at_once(watch: Callable[..., Watch]) -> None:
    seen = watch()
    await seen.until(lambda: seen.reader.ready)
    assert seen.live == {}


async def test_e11_a_newer_boot_of_the_same_edge_ends_the_older(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    seen = watch()
    await log.lease("a", "b1")
    await seen.until(lambda: seen.live == {"a": "b1"})
    await log.lease("a", "b2")
    await seen.until(lambda: seen.live == {"a": "b2"})
    assert seen.ended == [("a", "b1")]


async def test_a_tombstone_ends_its_own_life_only(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    seen = watch()
    await log.lease("a", "b1")
    await log.lease("a", "b2")
    await log.tombstone("a", "b1")
    await log.lease("c", "b1")
    await seen.until(lambda: "c" in seen.live)
    assert seen.live == {"a": "b2", "c": "b1"}
    await log.tombstone("a", "b2")
    await seen.until(lambda: seen.live == {"c": "b1"})
    assert ("a", "b2") in seen.ended


async def test_an_older_life_that_renews_late_stays_ended_whatever_compaction_has_left(
    log: LeaseLog, watch: Callable[..., Watch]
) -> None:
    """A stopped process that wakes up after it was replaced: its first lease is compacted away, its last is not."""
    older = int(log.seconds * 1000)
    log.seconds += 10
    newer = await log.lease("a", "b2")
    log.seconds += 10
    before = drops("lease-of-an-ended-life")
    await log.lease("a", "b1", since=older)
    seen = watch()
    await seen.until(lambda: bool(seen.live))
    assert seen.live == {"a": "b2"}
    assert drops("lease-of-an-ended-life") == before + 1
    await log.lease("a", "b1", since=older)
    await log.lease("a", "b2", since=newer)
    await log.lease("c", "b1")
    await seen.until(lambda: "c" in seen.live)
    assert seen.live == {"a": "b2", "c": "b1"}
    assert seen.ended == []


async def test_silence_of_the_log_ends_no_lease(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    seen = watch()
    await log.lease("a", "b1")
    await seen.until(lambda: seen.live == {"a": "b1"})
    log.seconds += 3600
    await log.lease("c", "b1")
    await seen.until(lambda: "c" in seen.live)
    assert seen.live == {"a": "b1", "c": "b1"}


async def test_what_was_stale_at_the_start_is_nobody_until_it_is_renewed(
    log: LeaseLog, watch: Callable[..., Watch]
) -> None:
    first = await log.lease("a", "b1")
    log.seconds += STALE / 1000 + 1
    await log.lease("c", "b1")
    seen = watch()
    await seen.until(lambda: bool(seen.live))
    assert seen.live == {"c": "b1"}
    await log.lease("a", "b1", since=first)
    await seen.until(lambda: "a" in seen.live)


async def test_the_dead_of_yesterday_get_their_tombstones(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    await log.lease("a", "b1")
    await log.lease("a", "b2")
    log.seconds += BURY / 1000 + 1
    await log.lease("a", "b3")
    seen = watch()
    async with asyncio.timeout(DEADLINE):
        while len(keys := await log.keys()) < 5:  # noqa: ASYNC110  # the log is the only witness
            await asyncio.sleep(0.01)
    assert keys[3:] == [(b"a/b1", False), (b"a/b2", False)]
    assert seen.live == {"a": "b3"}


async def test_an_outage_of_the_log_is_named_and_read_over(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    log.away = True
    seen = watch()
    async with asyncio.timeout(DEADLINE):
        while not seen.reader.away:  # noqa: ASYNC110  # it says so nowhere else
            await asyncio.sleep(0.01)
    assert not seen.reader.ready
    log.away = False
    await log.lease("a", "b1")
    await seen.until(lambda: seen.live == {"a": "b1"})
    assert seen.reader.away == ""


async def test_a_lease_that_cannot_be_read_is_dropped_by_name(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    before = drops("poisoned-lease")
    other = encode(EdgeLease("x", "b1", 5, {}))
    records = [(b"a/b1", b"{"), (b"a/b1", other), (None, other), (b"\xff/b1", b"\xff")]
    await log.append([Append(EDGE_LEASES, 0, key, value) for key, value in records])
    seen = watch()
    await log.append([Append(EDGE_LEASES, 0, key, value) for key, value in records])
    await log.lease("c", "b1")
    await seen.until(lambda: seen.live == {"c": "b1"})
    assert drops("poisoned-lease") > before


async def test_a_process_learns_that_another_has_taken_its_name(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    await log.lease("me", "earlier")
    seen = watch()
    await seen.until(lambda: seen.reader.ready)
    assert seen.reader.replaced_by == ""
    await log.lease("me", "b0")
    await log.lease("c", "b1")
    await seen.until(lambda: "c" in seen.live)
    assert seen.reader.replaced_by == ""
    await log.lease("me", "later")
    await log.lease("d", "b1")
    await seen.until(lambda: "d" in seen.live)
    assert seen.reader.replaced_by == "later"
    assert seen.live == {"c": "b1", "d": "b1"}


async def test_the_first_leases_time_goes_with_all_later_ones(log: LeaseLog) -> None:
    lease = Lease(log, LogClock(0.0, START), EdgeLease("a", "b1", 5, {}))
    began = int(log.seconds * 1000)
    for _ in range(3):
        await lease.renew()
        log.seconds += 5
    bounds = await log.bounds(EDGE_LEASES, 0)
    reading = log.read(EDGE_LEASES, 0, bounds.begin, bounds.end)
    values = [record.value async for batch in reading for record in batch]
    assert [neighbours._decode(value).since for value in values] == [0, began, began]


async def test_names_that_are_no_more_are_forgotten_above_a_bound(log: LeaseLog, watch: Callable[..., Watch]) -> None:
    seen = watch()
    await seen.until(lambda: seen.reader.ready)
    leases = [EdgeLease(f"e{number}", "b1", 5, {}) for number in range(NAMES + 1)]
    await log.append([Append(EDGE_LEASES, 0, f"{each.edge}/b1".encode(), encode(each)) for each in leases])
    await seen.until(lambda: len(seen.live) > NAMES)
    log.seconds += STALE / 1000 + 1
    await log.lease("c", "b1")
    await seen.until(lambda: "c" in seen.live)
    assert list(seen.reader._known) == ["c"]
