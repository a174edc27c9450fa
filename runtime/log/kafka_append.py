"""Writes to Kafka: one ProduceRequest at a time to each broker, carrying all that gathered meanwhile.

aiokafka's producer is made for streams of single records: a future, a lock and a hand-over
between tasks for each. Our services append whole batches and wait once: one future and one
timer for each append, over connections of our own (docs/architecture.md, section "Kafka").

No request is ever repeated when its outcome is unknown, so nothing is written twice and no
producer id is needed: the caller hears LogUnavailable and knows what that means for it.
Errors that say "not written, another broker leads" are tried again within the deadline.
Since nothing outlives its request, a refused record breaks nothing for the next one.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from runtime.errors import LogRefused, LogUnavailable
from runtime.log.checks import check_record
from runtime.log.kafka_link import Links
from runtime.log.kafka_wire import Malformed, Produced, Request, produce, produced
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

    def give_up(self, seconds: float) -> None:
        """Its deadline has passed."""
        self.fail(LogUnavailable(f"no acknowledgement within {seconds} s"))

    def finish_part(self) -> None:
        self.left -= 1
        if not self.left and not self.outcome.done():
            self.outcome.set_result(None)


class Appender:
    """Appends batches. `client`, a started one, knows the topics' metadata."""

    def __init__(self, client: AIOKafkaClient, prefix: str, timeout: float) -> None:
        self._client, self._prefix, self._timeout = client, prefix, timeout
        self._links = Links(client, timeout)
        self._lanes: dict[int, list[_Part]] = {}
        """What waits for a broker."""
        self._busy: set[int] = set()
        """Brokers that owe us an answer, or are sent to at the end of this turn of the loop."""
        self._again_tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    async def append(self, records: Sequence[Append]) -> list[Position]:
        """See `Log.append`."""
        if not records:
            return []
        loop = asyncio.get_running_loop()
        whole = _Whole(len(records), loop.create_future())
        parts = self._split(records, whole)
        if self._waiting_bytes + whole.size > WAITING_BYTES:
            raise LogUnavailable("too much already waits for the log")
        self._waiting_bytes += whole.size
        until = loop.time() + self._timeout
        try:
            leaders = [self._links.leader(self._there(part)) for part in parts]
            if None in leaders:
                leaders = await self._wait_for_leaders(parts, until)
            for part, node in zip(parts, leaders, strict=True):
                self._enqueue(part, cast(int, node))
            timer = loop.call_at(until, whole.give_up, self._timeout)
            try:
                await whole.outcome
            finally:
                timer.cancel()
        finally:
            self._waiting_bytes -= whole.size
        return whole.positions  # type: ignore[return-value]  # all are set when the outcome is

    async def stop(self) -> None:
        """Drops what waits and closes our connections; the client is closed by its owner."""
        tasks = list(self._again_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waiting = [part for lane in self._lanes.values() for part in lane]
        self._lanes.clear()
        _fail(waiting, LogUnavailable("the log is being closed"))
        await self._links.close()

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

    def _there(self, part: _Part) -> TopicPartition:
        return TopicPartition(self._prefix + part.key[0], part.key[1])

    async def _wait_for_leaders(self, parts: list[_Part], until: float) -> list[int | None]:
        """The broker that leads each part's partition; raises LogRefused or LogUnavailable."""
        try:
            async with asyncio.timeout_at(until):
                return [await self._leader(part) for part in parts]
        except TimeoutError as error:
            raise LogUnavailable(f"nobody leads all partitions within {self._timeout} s") from error

    async def _leader(self, part: _Part) -> int:
        """The broker that leads a partition; waits (within the caller's deadline) until one does.

        Raises LogRefused for a partition that its topic does not have.
        """
        there = self._there(part)
        while True:
            node = self._links.leader(there)
            if node is not None:
                return node
            # Metadata of all topics: to ask for one that is missing may make it, with the broker's defaults.
            await self._refresh()
            if there.partition not in (self._client.cluster.partitions_for_topic(there.topic) or {there.partition}):
                raise LogRefused(f"there is no partition {there.partition} of topic {part.key[0]}")

    async def _refresh(self) -> None:
        self._client.force_metadata_update()
        await asyncio.sleep(RETRY_SECONDS)

    def _enqueue(self, part: _Part, node: int) -> None:
        self._lanes.setdefault(node, []).append(part)
        if node not in self._busy:
            self._busy.add(node)
            # At the end of this turn: whoever else appends in it goes along.
            asyncio.get_running_loop().call_soon(self._send_lane, node)

    def _send_lane(self, node: int) -> None:
        """Sends what waits for a broker that owes us no answer."""
        lane = self._lanes.pop(node, None)
        request: list[_Part] = []
        if lane:
            request, later = _take(lane)
            if later:
                self._lanes[node] = later
        if request:
            self._send(node, request, functools.partial(self._answered, node, request))
        else:
            self._busy.discard(node)

    def _send(self, node: int, parts: list[_Part], answered: Callable[[bytes | Exception], None]) -> None:
        """One ProduceRequest."""
        try:
            request = self._produce_request(parts)
        except Exception as error:  # noqa: BLE001  # a bug of ours is the callers' to hear, not the loop's
            answered(error)
        else:
            self._links.send(node, request, answered)

    def _answered(self, node: int, parts: list[_Part], outcome: bytes | Exception) -> None:
        self._settle(parts, outcome)
        self._send_lane(node)

    def _produce_request(self, request: list[_Part]) -> Request:
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
        return produce(int(self._timeout * 1000), topics)

    def _settle(self, request: list[_Part], outcome: bytes | Exception) -> None:
        """Tells the parts' callers what became of a request."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._settle_each(request, produced(outcome))
        except (errors.KafkaError, Malformed) as error:
            unknown = LogUnavailable(f"the log did not acknowledge: {error or type(error).__name__}")
            unknown.__cause__ = error
            _fail(request, unknown)
            self._client.force_metadata_update()
        except Exception as error:  # noqa: BLE001  # as above
            _fail(request, error)

    def _settle_each(self, request: list[_Part], response: list[Produced]) -> None:
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
                if not alone:
                    await self._refresh()
                node = await self._leader(part)
        except TimeoutError:
            part.whole.fail(LogUnavailable(f"no broker leads {part.key[0]} {part.key[1]}"))
            return
        if part.whole.outcome.done():
            return
        if alone:  # the batch was refused for one record in it: find out whose
            self._send(node, [part], functools.partial(self._settle, [part]))
        else:
            self._enqueue(part, node)


def _fail(parts: list[_Part], error: Exception) -> None:
    for part in parts:
        part.whole.fail(error)


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
