"""The log in one SQLite file: same port, same order, same promises as Kafka's, on one machine.

An append is on the disk (fsync) when it is acknowledged. Transactions are SQLite's, so there are no aborted
records to hide; a transactional id is fenced by its epoch. Consumer groups live in one process
(`runtime.log.embedded.groups`); other processes may append and read.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence, Set

from events.topics import TOPICS, VIEW, Topic
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.embedded import sql
from runtime.log.embedded.groups import Member, groups_of
from runtime.log.port import (
    END_SECONDS,
    Append,
    Batch,
    Bounds,
    OutOfRange,
    Position,
    Reading,
    Record,
    Subscription,
    check_record,
)
from runtime.store import EmbeddedStore, StoreUnavailable

log = logging.getLogger("ramal.log")

CLEAN_SECONDS = 60.0
IDLE_SECONDS = 0.5
"""A reader that waits looks by itself this often."""
READ_RECORDS = 1000


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, sqlite3.Error) as error:
        raise LogUnavailable(f"the embedded log does not answer: {error}") from error


class EmbeddedLog:
    """The log of one file; several may share a store. `now` is the clock of LogAppendTime, in seconds."""

    def __init__(self, store: EmbeddedStore, partitions: int, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._partitions = partitions
        self._now = now
        self._parts: dict[str, list[sql.Part]] = {}
        self._epochs: dict[str, int] = {}
        self._subscriptions: set[_EmbeddedSubscription] = set()
        self._cleaning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the store if nobody has, and makes the topics that are missing."""
        await self._store.start()
        await self.create_topics(self._partitions)
        self._cleaning = asyncio.create_task(self._clean_for_ever(), name="embedded-clean")

    async def stop(self, deadline: float = 3.0) -> None:
        """Leaves the groups; the store is stopped by whoever made it."""
        for subscription in tuple(self._subscriptions):
            await subscription.stop(deadline)
        if self._cleaning:
            self._cleaning.cancel()
            await asyncio.wait({self._cleaning}, timeout=deadline)
            self._cleaning = None

    async def append(self, records: Sequence[Append]) -> list[Position]:
        """See the port."""
        if not records:
            return []
        self._check(records)
        now_ms = int(self._now() * 1000)
        with _mapped():
            return await self._store.write(
                lambda connection: sql.append(connection, records, self._parts, now_ms), _touches(records)
            )

    async def append_transaction(self, transactional_id: str, records: Sequence[Append]) -> None:
        """See the port."""
        self._check(records)
        now_ms = int(self._now() * 1000)
        # Whatever goes wrong, the next call is a first one again.
        epoch = self._epochs.pop(transactional_id, None)

        def write(connection: sqlite3.Connection) -> int:
            if epoch is not None:
                sql.check_epoch(connection, transactional_id, epoch)
            sql.append(connection, records, self._parts, now_ms)
            return sql.next_epoch(connection, transactional_id) if epoch is None else epoch

        with _mapped():
            self._epochs[transactional_id] = await self._store.write(write, _touches(records))

    def subscribe(
        self,
        topic: str,
        group: str,
        on_assigned: Callable[[int], None],
        on_revoked: Callable[[int], None],
    ) -> Subscription:
        """See the port."""
        subscription = _EmbeddedSubscription(self._store, self._topic(topic), topic, group, on_assigned, on_revoked)
        self._subscriptions.add(subscription)
        subscription.on_stop = self._subscriptions.discard
        return subscription

    def read(
        self, topic: str, partition: int, begin: int, end: int | None = None, *, committed: bool = False
    ) -> Reading:
        """See the port; everything here is committed."""
        return _reading(self._store, topic, self._part(topic, partition), begin, end)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """See the port."""
        part = self._part(topic, partition)
        with _mapped():
            return await self._store.read(lambda connection: sql.bounds(connection, part))

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """See the port."""
        part = self._part(topic, partition)
        with _mapped():
            return await self._store.read(lambda connection: sql.offset_at(connection, part, timestamp))

    async def partitions(self, topic: str) -> int:
        """See the port."""
        if topic not in self._parts:  # another process may have made it
            with _mapped():
                self._parts = await self._store.read(sql.parts)
        return len(self._topic(topic))

    async def create_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        """See the port."""
        wanted = {topic.name: topic.partitions or partitions for topic in topics}
        with _mapped():
            made = await self._store.write(lambda connection: sql.create(connection, wanted))
            self._parts = await self._store.read(sql.parts)
        return made

    async def check_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        """See the port."""
        wrong = []
        for topic in topics:
            wanted, there = topic.partitions or partitions, len(self._parts.get(topic.name, ()))
            if wanted != there:
                wrong.append(f"topic {topic.name} has {there} partitions, but {wanted} are configured")
        return wrong

    async def kept(self, topic: Topic) -> int | None:
        """See the port."""
        return sql.TOMBSTONE_MS if topic.compacted else topic.retention_ms + int(CLEAN_SECONDS * 1000)

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        """See the port."""
        with _mapped():
            return await self._store.read(lambda connection: sql.committed(connection, topic, group))

    async def clean(self) -> None:
        """Deletes what the topics need not keep, in small steps between other writes."""
        now_ms = int(self._now() * 1000)
        for topic in (*TOPICS, *VIEW):
            for part in self._parts.get(topic.name, ()):

                def step(connection: sqlite3.Connection, topic=topic, part=part) -> bool:  # type: ignore[no-untyped-def]  # bound now
                    if topic.compacted:
                        return sql.compact(connection, part, now_ms)
                    return sql.expire(connection, topic, part, now_ms)

                with _mapped():
                    while await self._store.write(step):
                        pass
        with _mapped():
            await self._store.write(sql.vacuum)

    async def _clean_for_ever(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_SECONDS)
            try:
                await self.clean()
            except LogUnavailable as error:
                log.warning("old records could not be deleted; trying again", extra={"cause": str(error)})
            except Exception:
                log.exception("old records could not be deleted; trying again")

    def _topic(self, topic: str) -> Sequence[sql.Part]:
        try:
            return self._parts[topic]
        except KeyError:
            raise KeyError(f"there is no topic {topic}") from None

    def _part(self, topic: str, partition: int) -> sql.Part:
        parts = self._topic(topic)
        if not 0 <= partition < len(parts):
            raise KeyError(f"topic {topic} has no partition {partition}")
        return parts[partition]

    def _check(self, records: Sequence[Append]) -> None:
        for record in records:
            check_record(record)
            if not 0 <= record.partition < len(self._parts.get(record.topic, ())):
                raise LogRefused(f"there is no partition {record.partition} of topic {record.topic}")


def _touches(records: Sequence[Append]) -> Mapping[str, Set[int]]:
    touched: dict[str, set[int]] = {}
    for record in records:
        touched.setdefault(record.topic, set()).add(record.partition)
    return touched


async def _reading(
    store: EmbeddedStore, topic: str, part: sql.Part, begin: int, end: int | None
) -> AsyncGenerator[Sequence[Record], None]:
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
            with _mapped():
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


class _EmbeddedSubscription:
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
        self.on_stop: Callable[[_EmbeddedSubscription], None] = lambda _: None

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
            with _mapped():
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
            with _mapped():
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
