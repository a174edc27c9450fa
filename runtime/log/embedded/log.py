"""The log in one SQLite file: same port, same order, same promises as Kafka's, on one machine.

An append is on the disk (fsync) when it is acknowledged. Transactions are SQLite's, so there are no aborted
records to hide; a transactional id is fenced by its epoch. Consumer groups live in one process
(`runtime.log.embedded.groups`); other processes may append and read.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence, Set

from events.topics import TOPICS, VIEW, Topic
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.embedded import sql
from runtime.log.embedded.reads import EmbeddedSubscription, mapped, reading
from runtime.log.port import (
    Append,
    Bounds,
    Position,
    Reading,
    Subscription,
    check_record,
)
from runtime.store import EmbeddedStore

log = logging.getLogger("ramal.log")

CLEAN_SECONDS = 60.0


class EmbeddedLog:
    """The log of one file; several may share a store. `now` is the clock of LogAppendTime, in seconds."""

    def __init__(self, store: EmbeddedStore, partitions: int, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._partitions = partitions
        self._now = now
        self._parts: dict[str, list[sql.Part]] = {}
        self._epochs: dict[str, int] = {}
        self._subscriptions: set[EmbeddedSubscription] = set()
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
        with mapped():
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

        with mapped():
            self._epochs[transactional_id] = await self._store.write(write, _touches(records))

    def subscribe(
        self,
        topic: str,
        group: str,
        on_assigned: Callable[[int], None],
        on_revoked: Callable[[int], None],
    ) -> Subscription:
        """See the port."""
        subscription = EmbeddedSubscription(self._store, self._topic(topic), topic, group, on_assigned, on_revoked)
        self._subscriptions.add(subscription)
        subscription.on_stop = self._subscriptions.discard
        return subscription

    def read(
        self, topic: str, partition: int, begin: int, end: int | None = None, *, committed: bool = False
    ) -> Reading:
        """See the port; everything here is committed."""
        return reading(self._store, topic, self._part(topic, partition), begin, end)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """See the port."""
        part = self._part(topic, partition)
        with mapped():
            return await self._store.read(lambda connection: sql.bounds(connection, part))

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """See the port."""
        part = self._part(topic, partition)
        with mapped():
            return await self._store.read(lambda connection: sql.offset_at(connection, part, timestamp))

    async def partitions(self, topic: str) -> int:
        """See the port."""
        if topic not in self._parts:  # another process may have made it
            with mapped():
                self._parts = await self._store.read(sql.parts)
        return len(self._topic(topic))

    async def create_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        """See the port."""
        wanted = {topic.name: topic.partitions or partitions for topic in topics}
        with mapped():
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
        with mapped():
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

                with mapped():
                    while await self._store.write(step):
                        pass
        with mapped():
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
