"""Writes to Kafka: one ProduceRequest at a time to each broker, carrying all that gathered meanwhile.

aiokafka's producer is made for streams of single records: a future, a lock and a hand-over
between tasks for each. Our services append whole batches and wait once, so they talk to
aiokafka's client directly; measured on a chain of four topics, this halves the services'
CPU at 100 records/s and saves 40 % at 2,000/s (docs/architecture.md, section "Kafka").

No request is ever repeated when its outcome is unknown, so nothing is written twice and no
producer id is needed: the caller hears LogUnavailable and knows what that means for it.
Errors that say "not written, another broker leads" are tried again within the deadline.
Since nothing outlives its request, a refused record breaks nothing for the next one.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from runtime.errors import LogRefused, LogUnavailable
from runtime.log.checks import check_record
from runtime.log.kafka_wire import Produce, Produced
from runtime.log.port import Append, Position

BATCH_BYTES = 900 * 1024
"""Of one partition in one request; the broker's `message.max.bytes` is 1 MiB."""
WAITING_BYTES = 32 * 1024 * 1024
"""All that may wait for acknowledgement; beyond it an append is refused at once with LogUnavailable."""
RECORD_OVERHEAD = 192
RETRY_SECONDS = 0.05

_NOT_WRITTEN = (
    errors.NotLeaderForPartitionError,
    errors.LeaderNotAvailableError,
    errors.UnknownTopicOrPartitionError,
    errors.NotEnoughReplicasError,
    errors.ReplicaNotAvailableError,
)
_REFUSED = (
    errors.MessageSizeTooLargeError,
    errors.InvalidMessageError,
    errors.InvalidTimestampError,
    errors.InvalidTopicError,
    errors.RecordListTooLargeError,
    errors.TopicAuthorizationFailedError,
    errors.PolicyViolationError,
)


class _Part:
    """The records of one append for one partition: sent whole, acknowledged whole."""

    __slots__ = ("indexes", "key", "records", "size", "whole")

    def __init__(self, whole: "_Whole", key: tuple[str, int]) -> None:
        self.whole, self.key = whole, key
        self.records: list[Append] = []
        self.indexes: list[int] = []
        self.size = 0


class _Whole:
    """One append: done when all its parts are."""

    __slots__ = ("left", "outcome", "positions", "size")

    def __init__(self, count: int, outcome: asyncio.Future[None]) -> None:
        self.positions: list[Position | None] = [None] * count
        self.outcome = outcome
        self.left = 0
        self.size = 0

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def finish_part(self) -> None:
        self.left -= 1
        if not self.left and not self.outcome.done():
            self.outcome.set_result(None)


class Appender:
    """Appends batches over a started aiokafka client that knows the topics' metadata."""

    def __init__(self, client: AIOKafkaClient, prefix: str, timeout: float) -> None:
        self._client, self._prefix, self._timeout = client, prefix, timeout
        self._lanes: dict[int, list[_Part]] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._again_tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    async def append(self, records: Sequence[Append]) -> list[Position]:
        """See `Log.append`."""
        if not records:
            return []
        whole = _Whole(len(records), asyncio.get_running_loop().create_future())
        parts = self._split(records, whole)
        if self._waiting_bytes + whole.size > WAITING_BYTES:
            raise LogUnavailable("too much already waits for the log")
        self._waiting_bytes += whole.size
        try:
            async with asyncio.timeout(self._timeout):
                leaders = [await self._leader(part.key) for part in parts]
                for part, node in zip(parts, leaders, strict=True):
                    self._enqueue(part, node)
                await whole.outcome
        except TimeoutError as error:
            raise LogUnavailable(f"no acknowledgement within {self._timeout} s") from error
        finally:
            self._waiting_bytes -= whole.size
        return whole.positions  # type: ignore[return-value]  # all are set when the outcome is

    async def stop(self) -> None:
        """Drops what waits; the client is closed by its owner."""
        tasks = [*self._busy.values(), *self._again_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in [part for lane in self._lanes.values() for part in lane]:
            part.whole.fail(LogUnavailable("the log is being closed"))
        self._lanes.clear()

    def _split(self, records: Sequence[Append], whole: _Whole) -> list[_Part]:
        """Parts by partition, each within BATCH_BYTES, which no record alone exceeds; raises LogRefused."""
        parts: list[_Part] = []
        filling: dict[tuple[str, int], _Part] = {}
        for index, record in enumerate(records):
            size = RECORD_OVERHEAD + check_record(record)
            key = (record.topic, record.partition)
            part = filling.get(key)
            if part is None or part.size + size > BATCH_BYTES:
                part = filling[key] = _Part(whole, key)
                parts.append(part)
            part.records.append(record)
            part.indexes.append(index)
            part.size += size
            whole.size += size
        whole.left = len(parts)
        return parts

    async def _leader(self, key: tuple[str, int]) -> int:
        """The broker that leads a partition; waits (within the caller's deadline) until one does.

        Raises LogRefused for a partition that its topic does not have.
        """
        partition = TopicPartition(self._prefix + key[0], key[1])
        while True:
            node = self._client.cluster.leader_for_partition(partition)
            if node is not None and node >= 0:
                return int(node)
            # Metadata of all topics: to ask for one that is missing may make it, with the broker's defaults.
            await self._refresh()
            if key[1] not in (self._client.cluster.partitions_for_topic(partition.topic) or {key[1]}):
                raise LogRefused(f"there is no partition {key[1]} of topic {key[0]}")

    async def _refresh(self) -> None:
        self._client.force_metadata_update()
        await asyncio.sleep(RETRY_SECONDS)

    def _enqueue(self, part: _Part, node: int) -> None:
        self._lanes.setdefault(node, []).append(part)
        if node not in self._busy:
            self._busy[node] = asyncio.create_task(self._drain(node), name=f"append to broker {node}")

    async def _drain(self, node: int) -> None:
        """Sends all that waits for one broker, request after request, until nothing does."""
        try:
            while lane := self._lanes.pop(node, None):
                request, later = _take(lane)
                if later:
                    self._lanes[node] = later
                if request:
                    await self._send(node, request)
        finally:
            # Not in a callback: whoever enqueues between our last look and that would wait for nobody.
            del self._busy[node]

    async def _send(self, node: int, request: list[_Part]) -> None:
        """One ProduceRequest; whatever comes of it is told to the parts' callers."""
        try:
            response = await self._client.send(node, self._produce_request(request))
            self._settle(request, response)
        except (errors.KafkaError, OSError) as error:
            unknown = LogUnavailable(f"the log did not acknowledge: {type(error).__name__}")
            unknown.__cause__ = error
            for part in request:
                part.whole.fail(unknown)
            self._client.force_metadata_update()
        except asyncio.CancelledError:
            for part in request:
                part.whole.fail(LogUnavailable("the log is being closed"))
            raise
        except Exception as error:  # noqa: BLE001  # a bug of ours is the callers' to hear, not this task's to die of
            for part in request:
                part.whole.fail(error)

    def _produce_request(self, request: list[_Part]) -> Produce:
        builders: dict[tuple[str, int], DefaultRecordBatchBuilder] = {}
        counts: dict[tuple[str, int], int] = {}
        for part in request:
            builder = builders.get(part.key)
            if builder is None:
                builder = builders[part.key] = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2 * BATCH_BYTES)
            first = counts.get(part.key, 0)
            for number, record in enumerate(part.records, first):
                builder.append(number, 0, record.key, record.value, list(record.headers))
            counts[part.key] = first + len(part.records)
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, partition), builder in builders.items():
            topics.setdefault(self._prefix + topic, []).append((partition, bytes(builder.build())))
        return Produce(int(self._timeout * 1000), topics)

    def _settle(self, request: list[_Part], response: list[Produced]) -> None:
        """Gives each part its positions or its error."""
        answers: dict[tuple[str, int], list[Any]] = {}
        prefix = len(self._prefix)
        for topic, partition, code, offset, timestamp in response:
            answers[topic[prefix:], partition] = [code, offset, timestamp]
        together = Counter(part.key for part in request)
        for part in request:
            code, offset, timestamp = answers[part.key]
            if code == 0:
                partition = part.key[1]
                for index in part.indexes:
                    part.whole.positions[index] = Position(partition, offset, timestamp)
                    offset += 1
                answers[part.key][1] = offset
                part.whole.finish_part()
                continue
            error = errors.for_code(code)
            if issubclass(error, _NOT_WRITTEN) and part.whole.left == 1:
                self._again(part)
            elif issubclass(error, _REFUSED) and together[part.key] == 1:
                part.whole.fail(LogRefused(f"the broker refuses a record for {part.key[0]}: {error.__name__}"))
            elif issubclass(error, _REFUSED):
                self._again(part, alone=True)
            else:
                part.whole.fail(LogUnavailable(f"the log did not acknowledge: {error.__name__}"))

    def _again(self, part: _Part, *, alone: bool = False) -> None:
        """Sends a part that was certainly not written once more, to whoever leads then.

        Only the last part of its append: another one of the same partition could have overtaken it.
        """
        task = asyncio.create_task(self._resend(part, alone), name="append again")
        self._again_tasks.add(task)
        task.add_done_callback(self._again_tasks.discard)

    async def _resend(self, part: _Part, alone: bool) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                if alone:  # the batch was refused for one record in it: find out whose
                    await self._send(await self._leader(part.key), [part])
                    return
                await self._refresh()
                node = await self._leader(part.key)
            if not part.whole.outcome.done():
                self._enqueue(part, node)
        except TimeoutError:
            part.whole.fail(LogUnavailable(f"no broker leads {part.key[0]} {part.key[1]}"))


def _take(lane: list[_Part]) -> tuple[list[_Part], list[_Part]]:
    """What the next request carries, within BATCH_BYTES of each partition; and what has to wait."""
    request: list[_Part] = []
    later: list[_Part] = []
    sizes: dict[tuple[str, int], int] = {}
    for part in lane:
        if part.whole.outcome.done():  # its caller has given up: it is not sent any more
            continue
        size = sizes.get(part.key, 0) + part.size
        if size > BATCH_BYTES:
            later.append(part)
            sizes[part.key] = BATCH_BYTES + 1  # order: nothing of this partition overtakes it
        else:
            request.append(part)
            sizes[part.key] = size
    return request, later
