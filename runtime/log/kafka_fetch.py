"""Reads from Kafka: one FetchRequest in flight to each broker, the next one sent while a batch is handled.

aiokafka's consumer keeps the group (join, heartbeat, commit); its fetcher is made for many
readers of single records and costs half of a service's CPU at low rates, so batches are
fetched over connections of our own (docs/architecture.md, section "Kafka").
Positions are the caller's: what arrives for a position that has changed meanwhile is
thrown away, so a record from before a `begin` is never delivered after it.
"""

import asyncio
import functools
import logging
import struct
import zlib
from typing import NamedTuple

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from runtime.errors import LogUnavailable
from runtime.log.kafka_link import Links
from runtime.log.kafka_wire import FetchedPart, Malformed, fetch, fetched
from runtime.log.port import Headers, Unreadable

MAX_WAIT_MS = 500
PARTITION_BYTES = 1024 * 1024
FETCH_BYTES = 8 * 1024 * 1024
BACKOFF_SECONDS = 0.1

log = logging.getLogger("ramal.log")

_UNREADABLE = (errors.KafkaError, ValueError, LookupError, OSError, EOFError, struct.error, zlib.error, RuntimeError)
"""What aiokafka's readers raise on octets that make no batch, and on a codec that is unknown here."""
_MOVED = (
    errors.NotLeaderForPartitionError,
    errors.LeaderNotAvailableError,
    errors.ReplicaNotAvailableError,
    errors.UnknownTopicOrPartitionError,
)


class Fetched(NamedTuple):
    """One record as read."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class NoSuchOffset(Exception):
    """The log has no such offset in this partition; the caller decides where to go on."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"partition {partition} has no offset {offset}")
        self.partition, self.offset = partition, offset


class _Answer(NamedTuple):
    """What a broker answered, and the positions it was asked for."""

    positions: dict[int, int]
    outcome: bytes | errors.KafkaError


class Fetcher:
    """Fetches partitions of one topic. `client` knows the cluster; `timeout` (seconds) is that of one request.

    `committed` leaves out what transactions have not committed, and waits where one is open.
    """

    def __init__(self, client: AIOKafkaClient, topic: str, timeout: float, *, committed: bool = False) -> None:
        self._client, self._topic, self._committed = client, topic, committed
        # A fetch waits at the broker: it needs this much longer.
        self._links = Links(client, timeout + MAX_WAIT_MS / 1000)
        self._positions: dict[int, int] = {}
        self._held: dict[int, list[Fetched]] = {}
        self._in_flight: set[int] = set()
        """Brokers that owe us an answer."""
        self._answers: list[_Answer] = []
        self._arrived: asyncio.Future[None] | None = None
        """Whoever waits for the next answer."""
        self._suspect: dict[int, int] = {}
        """Positions whose octets could not be read once: perhaps it was the way here."""

    def begin(self, partition: int, offset: int) -> None:
        """Delivery of this partition goes on at this offset."""
        self._positions[partition] = offset
        self._held.pop(partition, None)

    def end(self, partition: int) -> None:
        """No more of this partition is delivered."""
        self._positions.pop(partition, None)
        self._held.pop(partition, None)

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

        Raises NoSuchOffset for one partition (which then has ended), or LogUnavailable.
        """
        if not self._held:
            await self._wait(timeout)
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
            if not self._in_flight:  # nothing to fetch, or nobody leads
                await asyncio.sleep(min(timeout, BACKOFF_SECONDS))
                return
            await self._next_answer(timeout)
        answers, self._answers = self._answers, []
        for number, answer in enumerate(answers):
            try:
                await self._receive(answer)
            except BaseException:
                self._answers[:0] = answers[number + 1 :]
                raise

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
        """One request to each broker that has none in flight, for the partitions it leads."""
        wanted: dict[int, dict[int, int]] = {}
        for partition, position in self._positions.items():
            node = self._links.leader(TopicPartition(self._topic, partition))
            if node is None:
                self._client.force_metadata_update()
            elif node not in self._in_flight:
                wanted.setdefault(node, {})[partition] = position
        for node, positions in wanted.items():
            request = fetch(
                self._topic,
                positions.items(),
                wait_ms=MAX_WAIT_MS,
                most=FETCH_BYTES,
                most_per_partition=PARTITION_BYTES,
                committed=self._committed,
            )
            self._in_flight.add(node)
            self._links.send(node, request, functools.partial(self._answered, node, positions))

    def _answered(self, node: int, positions: dict[int, int], outcome: bytes | errors.KafkaError) -> None:
        """What it is made of is found out by whoever polls, who is to hear what is wrong with it."""
        self._in_flight.discard(node)
        self._answers.append(_Answer(positions, outcome))
        if self._arrived is not None:
            _wake(self._arrived)

    async def _receive(self, answer: _Answer) -> None:
        positions, outcome = answer
        try:
            if isinstance(outcome, errors.KafkaError):
                raise outcome
            parts = fetched(outcome)
        except (errors.KafkaError, Malformed) as error:
            self._client.force_metadata_update()
            await asyncio.sleep(BACKOFF_SECONDS)
            raise LogUnavailable(f"the log does not answer: {error or type(error).__name__}") from error
        for part in parts:
            partition = part.partition
            position = positions.get(partition)
            if position is None or self._positions.get(partition) != position:
                continue
            if part.code == 0:
                self._keep(part, position)
                continue
            kind = errors.for_code(part.code)
            if issubclass(kind, errors.OffsetOutOfRangeError):
                self.end(partition)
                raise NoSuchOffset(partition, position)
            if not issubclass(kind, _MOVED):
                raise LogUnavailable(f"the log does not answer: {kind.__name__}")
            self._client.force_metadata_update()
            await asyncio.sleep(BACKOFF_SECONDS)

    def _keep(self, part: FetchedPart, position: int) -> None:
        """Holds the records of a response from `position` on, and moves the position behind them."""
        if not part.octets:
            return
        partition = part.partition
        try:
            if self._committed:
                records, behind = self._committed_records(partition, position, part.octets, part.aborted)
            else:
                records, behind = _records(partition, position, part.octets)
        except _UNREADABLE as error:
            self._cannot_read(partition, position, error)
            return
        self._suspect.pop(partition, None)
        self._positions[partition] = behind
        if records:
            self._held.setdefault(partition, []).extend(records)

    def _cannot_read(self, partition: int, position: int, error: Exception) -> None:
        """The first time it is fetched once more; the second time the partition has ended: raises Unreadable."""
        unreadable = Unreadable(partition, position, str(error) or type(error).__name__)
        if self._suspect.get(partition) != position:
            log.warning("fetching once more", extra={"topic": self._topic, "cause": str(unreadable)})
            self._suspect[partition] = position
            return
        del self._suspect[partition]
        self.end(partition)
        raise unreadable from error

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
        return records, _moved(position, batches.next_fetch_offset)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _records(partition: int, position: int, octets: bytes) -> tuple[list[Fetched], int]:
    """All records from `position` on, and the offset behind them; those before a batch that cannot be read.

    Raises one of _UNREADABLE if that is the first one.
    """
    records: list[Fetched] = []
    behind = position
    try:
        batches = MemoryRecords(octets)
        while (batch := batches.next_batch()) is not None:
            if not batch.validate_crc():
                raise errors.CorruptRecordException("its checksum is wrong")
            if not batch.is_control_batch:
                records += [
                    Fetched(partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    for r in batch
                    if r.offset >= position
                ]
            behind = max(behind, batch.next_offset)
    except _UNREADABLE:
        if behind == position:
            raise
    return records, _moved(position, behind)


def _moved(position: int, behind: int) -> int:
    """`behind`; raises CorruptRecordException where it is no further than `position`."""
    if behind <= position:
        raise errors.CorruptRecordException("it is cut short")
    return behind
