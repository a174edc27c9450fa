"""Reads from Kafka: one FetchRequest in flight to each broker, the next one sent while a batch is handled.

aiokafka's consumer keeps the group (join, heartbeat, commit); its fetcher is made for many
readers of single records and costs half of a service's CPU at low rates, so a batch is
fetched over aiokafka's client directly (docs/architecture.md, section "Kafka").
Positions are the caller's: what arrives for a position that has changed meanwhile is
thrown away, so a record from before a `begin` is never delivered after it.
"""

import asyncio
import logging
from typing import NamedTuple

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from runtime.errors import LogUnavailable
from runtime.log.kafka_wire import Fetch, FetchedPart
from runtime.log.port import Headers

MAX_WAIT_MS = 500
PARTITION_BYTES = 1024 * 1024
FETCH_BYTES = 8 * 1024 * 1024
BACKOFF_SECONDS = 0.1

log = logging.getLogger("ramal.log")

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


_Answer = tuple[list[FetchedPart], dict[int, int]]
"""What came, and the positions it was asked for."""


class Fetcher:
    """Fetches partitions of one topic over a started aiokafka client.

    `committed` leaves out what transactions have not committed, and waits where one is open.
    """

    def __init__(self, client: AIOKafkaClient, topic: str, *, committed: bool = False) -> None:
        self._client, self._topic, self._committed = client, topic, committed
        self._positions: dict[int, int] = {}
        self._held: dict[int, list[Fetched]] = {}
        self._in_flight: dict[int, asyncio.Task[_Answer]] = {}
        self._connection = object()
        """Our own connection to each broker: a waiting fetch would hold up whatever else is sent over it."""

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
            self._send()  # the broker gathers the next batch while this one is handled
        return batch

    async def stop(self) -> None:
        """Ends what is in flight and closes our connections; the client is closed by its owner."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._in_flight.clear()
        connections = self._client._conns  # noqa: SLF001  # the client has no call for this
        for key in [key for key in connections if key[1] is self._connection]:
            connections.pop(key).close()

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
        if not self._in_flight:  # nothing to fetch, or nobody leads
            await asyncio.sleep(min(timeout, BACKOFF_SECONDS))
            return
        done, _ = await asyncio.wait(self._in_flight.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for node in [node for node, task in self._in_flight.items() if task in done]:
            await self._receive(self._in_flight.pop(node))

    def _send(self) -> None:
        """One request to each broker that has none in flight, for the partitions it leads."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for partition, position in self._positions.items():
            node = self._client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
            if node is None or node < 0:
                self._client.force_metadata_update()
            elif node not in self._in_flight:
                wanted.setdefault(node, []).append((partition, position))
        for node, positions in wanted.items():
            self._in_flight[node] = asyncio.create_task(self._fetch(node, positions), name="fetch")

    async def _fetch(self, node: int, positions: list[tuple[int, int]]) -> _Answer:
        request = Fetch(
            self._topic,
            positions,
            wait_ms=MAX_WAIT_MS,
            most=FETCH_BYTES,
            most_per_partition=PARTITION_BYTES,
            committed=self._committed,
        )
        return await self._client.send(node, request, group=self._connection), dict(positions)

    async def _receive(self, task: asyncio.Task[_Answer]) -> None:
        try:
            fetched, positions = task.result()
        except (errors.KafkaError, OSError) as error:
            self._client.force_metadata_update()
            await asyncio.sleep(BACKOFF_SECONDS)
            raise LogUnavailable(f"the log does not answer: {type(error).__name__}") from error
        for part in fetched:
            partition = part.partition
            if self._positions.get(partition) != positions[partition]:
                continue
            if part.code == 0:
                self._keep(part, positions[partition])
                continue
            kind = errors.for_code(part.code)
            if issubclass(kind, errors.OffsetOutOfRangeError):
                self.end(partition)
                raise NoSuchOffset(partition, positions[partition])
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
        except errors.CorruptRecordException as error:
            raise LogUnavailable(f"partition {partition} of {self._topic} has a corrupt batch") from error
        self._positions[partition] = behind
        if records:
            self._held.setdefault(partition, []).extend(records)

    def _committed_records(
        self, partition: int, position: int, octets: bytes, aborted: list[tuple[int, int]] | None
    ) -> tuple[list[Fetched], int]:
        """By aiokafka's own reader, which knows aborted transactions and costs twice as much."""
        there = TopicPartition(self._topic, partition)
        batches = PartitionRecords(there, MemoryRecords(octets), aborted, position, None, None, True, READ_COMMITTED)
        records = [Fetched(partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in batches]
        return records, batches.next_fetch_offset


def _records(partition: int, position: int, octets: bytes) -> tuple[list[Fetched], int]:
    """All records from `position` on, and the offset behind them."""
    records: list[Fetched] = []
    batches = MemoryRecords(octets)
    while (batch := batches.next_batch()) is not None:
        if not batch.validate_crc():
            raise errors.CorruptRecordException
        if not batch.is_control_batch:
            records += [
                Fetched(partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                for r in batch
                if r.offset >= position
            ]
        position = max(position, batch.next_offset)
    return records, position
