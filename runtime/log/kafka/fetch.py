"""Reads from Kafka: one FetchRequest in flight to each broker, the next one sent while a batch is handled.

aiokafka's consumer keeps the group (join, heartbeat, commit); its fetcher is made for many
readers of single records and costs half of a service's CPU at low rates, so batches are
fetched over connections of our own (docs/architecture.md, section "Kafka").
Positions are the caller's: what arrives for a position that has changed meanwhile is
thrown away, so a record from before a `begin` is never delivered after it.
What is wrong with one partition, or with one broker, holds up no other: it rests and is asked again.
"""

import asyncio
import functools
import logging
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import errors
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from runtime.errors import LogUnavailable
from runtime.log.kafka.codes import FETCH, Then, meaning
from runtime.log.kafka.link import Links
from runtime.log.kafka.session import Client
from runtime.log.kafka.wire import FetchedPart, Malformed, fetch, fetch_throttle, fetched
from runtime.log.port import Headers, Unreadable

MAX_WAIT_MS = 2000
"""A fetch that finds nothing waits at the broker for this long. Each costs it more than half a millisecond while the
load is light; and it is this much later that a broker which hangs is given up."""
PARTITION_BYTES = 1024 * 1024
FETCH_BYTES = 8 * 1024 * 1024
BACKOFF_SECONDS = 0.1
RESTING_WAIT_MS = 100
"""While a partition rests, the others' fetch waits no longer than it does."""

log = logging.getLogger("ramal.log")

_UNREADABLE = (errors.KafkaError, ValueError, LookupError, OSError, EOFError, struct.error, zlib.error, RuntimeError)
"""What aiokafka's readers raise on octets that make no batch, and on a codec that is unknown here."""


class Fetched(NamedTuple):
    """One record as read."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


_new = tuple.__new__
"""Twice as fast as a named tuple's own."""


class NoSuchOffset(Exception):
    """The log has no such offset in this partition; the caller decides where to go on."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"partition {partition} has no offset {offset}")
        self.partition, self.offset = partition, offset


class _Asked(NamedTuple):
    """The positions that a broker was asked for, and how long it waits for what is behind them."""

    positions: dict[int, int]
    wait_ms: int


class _Answer(NamedTuple):
    """What a broker answered, and the positions it was asked for."""

    positions: dict[int, int]
    outcome: bytes | errors.KafkaError


class Fetcher:
    """Fetches partitions of one topic. `client` knows the cluster; `timeout` (seconds) is that of one request.

    `committed` leaves out what transactions have not committed, and waits where one is open.
    """

    def __init__(self, client: Client, topic: str, timeout: float, *, committed: bool = False) -> None:
        self._client, self._topic, self._committed = client, topic, committed
        # A fetch waits at the broker: it needs this much longer.
        self._links = Links(client, timeout + MAX_WAIT_MS / 1000)
        self._positions: dict[int, int] = {}
        self._held: dict[int, list[Fetched]] = {}
        self._in_flight: dict[int, _Asked] = {}
        """By broker, what it owes us an answer to."""
        self._answers: list[_Answer] = []
        self._arrived: asyncio.Future[None] | None = None
        """Whoever waits for the next answer."""
        self._suspect: dict[int, int] = {}
        """Positions whose octets could not be read once: perhaps it was the way here."""
        self._resting: dict[int, float] = {}
        """Partitions that are not asked for until this time of the loop."""
        self._failing: dict[int, str] = {}
        """Why the last answer about a partition was none."""
        self._faults: dict[int, NoSuchOffset | Unreadable] = {}
        """What `poll` has to raise about partitions that have ended."""

    def begin(self, partition: int, offset: int) -> None:
        """Delivery of this partition goes on at this offset."""
        self.end(partition)
        self._positions[partition] = offset

    def end(self, partition: int) -> None:
        """No more of this partition is delivered."""
        for about in (self._positions, self._held, self._resting, self._failing, self._faults):
            about.pop(partition, None)

    @property
    def active(self) -> bool:
        """Whether any partition is begun."""
        return bool(self._positions)

    @property
    def holding(self) -> bool:
        """Whether records wait for the next `poll`."""
        return bool(self._held)

    def position(self, partition: int) -> int:
        """The offset behind all that was fetched of a begun partition."""
        return self._positions[partition]

    async def poll(self, timeout: float, max_records: int) -> dict[int, list[Fetched]]:
        """Records as soon as there are any; empty after `timeout`.

        Raises NoSuchOffset or Unreadable for one partition (which then has ended); LogUnavailable if nothing of any
        partition can be fetched.
        """
        if not self._held and not self._faults:
            await self._wait(timeout)
        if self._faults:
            raise self._faults.pop(next(iter(self._faults)))
        batch = self._take(max_records)
        if batch and not self._held:
            # The broker gathers the next batch while this one is handled. Not before the end of this turn of the
            # loop: what the caller sends in it goes along, and the broker wakes up once for both.
            asyncio.get_running_loop().call_soon(self._send)
        return batch

    async def stop(self) -> None:
        """Ends all partitions and closes our connections; the client is closed by its owner."""
        self._positions.clear()
        self._held.clear()
        await self._links.close()

    def _take(self, max_records: int) -> dict[int, list[Fetched]]:
        if sum(map(len, self._held.values())) <= max_records:
            batch, self._held = self._held, {}
            return batch
        batch = {}
        for partition, records in list(self._held.items()):
            batch[partition] = records[:max_records]
            max_records -= len(batch[partition])
            if left := records[len(batch[partition]) :]:
                self._held[partition] = left
            else:
                del self._held[partition]
            if max_records <= 0:
                break
        return batch

    async def _wait(self, timeout: float) -> None:
        self._send()
        if not self._answers:
            if self._resting or not self._in_flight:  # or nothing to fetch, or nobody leads
                timeout = min(timeout, BACKOFF_SECONDS)
            await self._next_answer(timeout)
        answers, self._answers = self._answers, []
        for answer in answers:
            self._receive(answer)
        if self._failing and not self._held and self._failing.keys() == self._positions.keys():
            raise LogUnavailable(f"the log does not answer: {next(iter(self._failing.values()))}")

    async def _next_answer(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._arrived = arrived = loop.create_future()
        timer = loop.call_later(timeout, _wake, arrived)
        try:
            await arrived
        finally:
            self._arrived = None
            timer.cancel()

    def _send(self) -> None:
        """One request to each broker that has none in flight, for the partitions it leads.

        One that waits there, and does not know of a partition that has begun since, is called off.
        """
        if self._answers:  # positions are about to move: the same would be fetched again
            return
        wanted: dict[int, dict[int, int]] = {}
        if self._resting:
            now = asyncio.get_running_loop().time()
            self._resting = {partition: until for partition, until in self._resting.items() if until > now}
        for partition, position in self._positions.items():
            if partition in self._resting:
                continue
            node = self._links.leader(TopicPartition(self._topic, partition))
            if node is None:
                self._client.force_metadata_update()
            else:
                wanted.setdefault(node, {})[partition] = position
        wait_ms = RESTING_WAIT_MS if self._resting else MAX_WAIT_MS
        for node, positions in wanted.items():
            if before := self._in_flight.get(node):
                if before.wait_ms < MAX_WAIT_MS or positions.items() <= before.positions.items():
                    continue
                del self._in_flight[node]
                self._links.hang_up(node)
            request = fetch(
                self._topic,
                positions.items(),
                wait_ms=wait_ms,
                most=FETCH_BYTES,
                most_per_partition=PARTITION_BYTES,
                committed=self._committed,
            )
            self._in_flight[node] = asked = _Asked(positions, wait_ms)
            self._links.send(node, request, functools.partial(self._answered, node, asked))

    def _answered(self, node: int, asked: _Asked, outcome: bytes | errors.KafkaError) -> None:
        """What it is made of is found out by whoever polls, who is to hear what is wrong with it."""
        if self._in_flight.get(node) is not asked:  # called off
            return
        del self._in_flight[node]
        if isinstance(outcome, bytes):
            self._links.throttle(node, fetch_throttle(outcome))
        self._answers.append(_Answer(asked.positions, outcome))
        if self._arrived is not None:
            _wake(self._arrived)

    def _receive(self, answer: _Answer) -> None:
        # What has changed since it was asked for is not of interest any more.
        asked = {p: position for p, position in answer.positions.items() if self._positions.get(p) == position}
        try:
            if isinstance(answer.outcome, errors.KafkaError):
                raise answer.outcome
            parts = fetched(answer.outcome)
        except (errors.KafkaError, Malformed) as error:
            self._client.force_metadata_update()
            self._rest(asked, str(error) or type(error).__name__)
            return
        for part in parts:
            position = asked.pop(part.partition, None)
            if position is None:
                continue
            if part.code == 0:
                self._keep(part, position)
            else:
                self._refused(part, position)

    def _refused(self, part: FetchedPart, position: int) -> None:
        """Does as the table says."""
        name, then, stale, _ = meaning(FETCH, part.code)
        if then is Then.MOVE:
            self.end(part.partition)
            self._faults[part.partition] = NoSuchOffset(part.partition, position)
            return
        if stale:  # that it has moved is no news: it will be found
            self._client.force_metadata_update()
            self._resting[part.partition] = _soon()
        else:
            self._rest((part.partition,), name)

    def _rest(self, partitions: Iterable[int], why: str) -> None:
        """Asks for them a moment later."""
        if new := sorted(partition for partition in partitions if partition not in self._failing):
            log.warning("cannot be fetched; trying again", extra=self._extra(new, why))
        for partition in partitions:
            self._resting[partition], self._failing[partition] = _soon(), why

    def _extra(self, partitions: list[int], cause: str) -> dict[str, object]:
        return {"topic": self._topic, "partitions": partitions, "cause": cause}

    def _keep(self, part: FetchedPart, position: int) -> None:
        """Holds the records of a response from `position` on, and moves the position behind them."""
        partition = part.partition
        if not part.octets:
            self._failing.pop(partition, None)
            return
        try:
            if self._committed:
                records, behind = self._committed_records(partition, position, part.octets, part.aborted)
            else:
                records, behind = _records(partition, position, part.octets)
        except _UNREADABLE as error:
            self._cannot_read(partition, position, error)
            return
        self._suspect.pop(partition, None)
        if behind <= position:
            self._rest((partition,), "older records than those asked for")
            return
        self._failing.pop(partition, None)
        self._positions[partition] = behind
        if records:
            self._held.setdefault(partition, []).extend(records)

    def _cannot_read(self, partition: int, position: int, error: Exception) -> None:
        """The first time it is fetched once more; the second time the partition has ended, and `poll` says so."""
        unreadable = Unreadable(partition, position, str(error) or type(error).__name__)
        if self._suspect.get(partition) != position:
            log.warning("fetching once more", extra={"topic": self._topic, "cause": str(unreadable)})
            self._suspect[partition] = position
            return
        del self._suspect[partition]
        self.end(partition)
        unreadable.__cause__ = error
        self._faults[partition] = unreadable

    def _committed_records(
        self, partition: int, position: int, octets: bytes, aborted: list[tuple[int, int]] | None
    ) -> tuple[list[Fetched], int]:
        """By aiokafka's own reader, which knows aborted transactions and costs twice as much."""
        there = TopicPartition(self._topic, partition)
        batches = PartitionRecords(there, MemoryRecords(octets), aborted, position, None, None, True, READ_COMMITTED)
        records: list[Fetched] = []
        try:
            for r in batches:
                records.append(Fetched(partition, r.offset, r.timestamp, r.key, r.value, r.headers))  # noqa: PERF401
        except _UNREADABLE:
            if batches.next_fetch_offset == position:
                raise
        behind = int(batches.next_fetch_offset)
        if behind <= position:
            raise errors.CorruptRecordException("it is cut short")
        return records, behind


def _soon() -> float:
    return asyncio.get_running_loop().time() + BACKOFF_SECONDS


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _records(partition: int, position: int, octets: bytes) -> tuple[list[Fetched], int]:
    """All records from `position` on, and the offset behind them; those before a batch that cannot be read.

    Raises one of _UNREADABLE if that is the first one. An offset that is no further than `position` means that only
    older batches came.
    """
    records: list[Fetched] = []
    behind = position
    batch = None
    try:
        batches = MemoryRecords(octets)
        while (following := batches.next_batch()) is not None:
            batch = following
            if not batch.validate_crc():
                raise errors.CorruptRecordException("its checksum is wrong")
            if not batch.is_control_batch:
                records += [
                    _new(Fetched, (partition, r.offset, r.timestamp, r.key, r.value, r.headers))
                    for r in batch
                    if r.offset >= position
                ]
            behind = max(behind, batch.next_offset)
    except _UNREADABLE:
        if behind == position:
            raise
    if batch is None:
        raise errors.CorruptRecordException("it is cut short")
    return records, behind
