"""Reads of the embedded log: one partition from an offset on, and a consumer group's member."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence, Set

from runtime.errors import LogUnavailable
from runtime.log.embedded import sql
from runtime.log.embedded.groups import Member, groups_of
from runtime.log.port import END_SECONDS, Batch, OutOfRange, Record
from runtime.store import EmbeddedStore, StoreUnavailable

IDLE_SECONDS = 0.5
"""A reader that waits looks by itself this often."""
READ_RECORDS = 1000


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Says LogUnavailable where the store does not answer."""
    try:
        yield
    except (StoreUnavailable, sqlite3.Error) as error:
        raise LogUnavailable(f"the embedded log does not answer: {error}") from error


async def reading(
    store: EmbeddedStore, topic: str, part: sql.Part, begin: int, end: int | None
) -> AsyncGenerator[Sequence[Record], None]:
    """The records from `begin` on, as they come; those before `end` where there is one."""
    news = asyncio.Event()

    def watcher(partitions: Set[int] | None) -> None:
        if partitions is None or part.partition in partitions:
            news.set()

    store.watch(topic, watcher)
    try:
        position = begin
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while end is None or position < end:
            news.clear()
            start = position
            with mapped():
                chunk = await store.read(lambda connection: sql.read(connection, part, start, end, READ_RECORDS))  # noqa: B023  # awaited in this turn
            position = chunk.next
            if chunk.records:
                yield chunk.records
                moved = loop.time()
            elif end is None or position < end:
                if end is not None and loop.time() - moved > END_SECONDS:
                    raise OutOfRange(part.partition, end, chunk.bounds.end)
                with store.waiting(), contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_SECONDS):
                        await news.wait()
    finally:
        store.unwatch(topic, watcher)


class _Delivery:
    """Where delivery of a partition stands; a new one takes its place at each `begin` and `seek`."""

    __slots__ = ("checked", "next")

    def __init__(self, offset: int | None, checked: bool) -> None:
        self.next = offset
        self.checked = checked


class EmbeddedSubscription:
    """A member of a group of this process."""

    def __init__(
        self,
        store: EmbeddedStore,
        parts: Sequence[sql.Part],
        topic: str,
        group: str,
        on_assigned: Callable[[int], None],
        on_revoked: Callable[[int], None],
    ) -> None:
        self._store = store
        self._parts = parts
        self._topic = topic
        self._group = group
        self._on_revoked = on_revoked
        self._member = Member(on_assigned, self._revoked)
        self._joined = False
        self._stopped = False
        self._deliveries: dict[int, _Delivery] = {}
        self._fresh: set[int] = set()
        """Begun partitions that may have records we have not seen."""
        self._news = asyncio.Event()
        self.on_stop: Callable[[EmbeddedSubscription], None] = lambda _: None

    async def poll(self, timeout: float, max_records: int = 500) -> Batch:
        """See the port."""
        if not self._joined and not self._stopped:
            self._joined = True
            self._store.watch(self._topic, self._watcher)
            groups_of(self._store).join(self._topic, self._group, self._member, len(self._parts))
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while not self._stopped:
            self._news.clear()
            if self._fresh and (batch := await self._fetch(max_records)):
                return batch
            if self._fresh:
                continue
            with self._store.waiting():
                try:
                    async with asyncio.timeout_at(until):
                        await self._news.wait()
                except TimeoutError:
                    break
        return {}

    def begin(self, partition: int, offset: int | None) -> None:
        """See the port."""
        if partition in self._member.assigned:
            self._deliver(partition, _Delivery(offset, checked=False))

    def seek(self, partition: int, offset: int) -> None:
        """See the port."""
        if partition in self._deliveries:
            self._deliver(partition, _Delivery(offset, checked=False))

    async def confirm(self, partition: int) -> None:
        """See the port: the groups of one process tell their members at once."""

    def pause(self, partition: int) -> None:
        """See the port."""
        self._deliveries.pop(partition, None)
        self._fresh.discard(partition)

    def assigned(self) -> frozenset[int]:
        """See the port."""
        return self._member.assigned

    def joined(self) -> bool:
        """See the port."""
        return self._joined and not self._stopped

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """See the port."""
        ours = [(partition, offset) for partition, offset in offsets.items() if partition in self._member.assigned]
        if ours:
            with mapped():
                await self._store.write(
                    lambda connection: sql.commit_offsets(connection, self._topic, self._group, ours)
                )

    async def stop(self, deadline: float = 3.0) -> None:
        """See the port."""
        self._stopped = True
        self._store.unwatch(self._topic, self._watcher)
        groups_of(self._store).leave(self._topic, self._group, self._member, len(self._parts))
        self._news.set()
        self.on_stop(self)

    def _deliver(self, partition: int, delivery: _Delivery) -> None:
        self._deliveries[partition] = delivery
        self._fresh.add(partition)
        self._news.set()

    def _revoked(self, partition: int) -> None:
        self.pause(partition)
        self._on_revoked(partition)

    def _watcher(self, partitions: Set[int] | None) -> None:
        news = self._deliveries.keys() if partitions is None else partitions & self._deliveries.keys()
        if news:
            self._fresh |= news
            self._news.set()

    async def _fetch(self, max_records: int) -> dict[int, Sequence[Record]]:
        wanted = {partition: self._deliveries[partition] for partition in self._fresh}
        self._fresh.clear()
        limit = max(1, max_records // len(wanted))
        try:
            with mapped():
                chunks = await self._store.read(lambda connection: self._read(connection, wanted, limit))
        except LogUnavailable:
            self._fresh |= {p for p, delivery in wanted.items() if self._deliveries.get(p) is delivery}
            raise
        batch: dict[int, Sequence[Record]] = {}
        beyond: OutOfRange | None = None
        for partition, (position, chunk) in chunks.items():
            delivery = wanted[partition]
            # Begun anew, sought or revoked while we read: this is not what is wanted now.
            if self._deliveries.get(partition) is not delivery:
                continue
            if not delivery.checked and position > chunk.bounds.end:
                self.pause(partition)
                beyond = OutOfRange(partition, position, chunk.bounds.end)
                continue
            delivery.checked = True
            delivery.next = chunk.next
            if chunk.records:
                batch[partition] = chunk.records
                if chunk.next < chunk.bounds.end:
                    self._fresh.add(partition)
        if beyond:
            # The others' records are read again by the next poll.
            for partition, records in batch.items():
                self._deliver(partition, _Delivery(records[0].offset, checked=True))
            raise beyond
        return batch

    def _read(
        self, connection: sqlite3.Connection, wanted: Mapping[int, _Delivery], limit: int
    ) -> dict[int, tuple[int, sql.Chunk]]:
        """Runs in the reader's thread."""
        found = {}
        committed: Mapping[int, int] | None = None
        for partition, delivery in wanted.items():
            position = delivery.next
            if position is None:
                if committed is None:
                    committed = sql.committed(connection, self._topic, self._group)
                position = committed.get(partition, 0)
            found[partition] = position, sql.read(connection, self._parts[partition], position, None, limit)
        return found
