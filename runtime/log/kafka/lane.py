"""One partition's way into the log: appends gathered into batches that stand there once. No I/O, no clock.

A batch has a producer id, an epoch and consecutive sequence numbers, by which the broker knows it again (KIP-98): it is
sent as it is, to whoever leads, until its outcome is known, and meanwhile nothing else of its partition is. So what is
sent twice stands once, and in order.

A batch that nobody waits for any more while its outcome is unknown is let go, and the next one begins at sequence
number 0 under the next epoch: should the one let go still be on its way, the log refuses it behind that. A producer
without transactions may count its epochs itself, in each partition (KIP-360).
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from runtime.errors import LogRefused, LogUnavailable
from runtime.log.kafka.records import batch, prepared
from runtime.log.port import Append, Position, check_record

BATCH_BYTES = 900 * 1024
"""Of one partition in one request; the broker's `message.max.bytes` is 1 MiB."""
RECORD_OVERHEAD = 192
COMPRESSED_FROM = 4
"""Records in a batch: what one repeats of another is what is saved. Of five truths a third of the octets are left, of
ten less than a quarter, for 1 to 2 µs a record (docs/benchmark.md). zstd would save more; Produce v3 has none."""
LAST_SEQUENCE = 0x7FFFFFFF
"""0 follows."""
LAST_EPOCH = 0x7FFF
_new = tuple.__new__
"""Twice as fast as a named tuple's own."""

Key = tuple[str, int]
"""Topic without prefix, partition."""


class Producer(NamedTuple):
    """Who we are to the brokers, as one of them told us."""

    id: int
    epoch: int


class Whole:
    """One append: done when all its parts are."""

    __slots__ = ("left", "outcome", "positions", "size", "why")

    def __init__(self, count: int, outcome: asyncio.Future[None]) -> None:
        self.positions: list[Position | None] = [None] * count
        self.outcome = outcome
        self.left = 0
        self.size = 0
        self.why = ""
        """What was last in the way of it."""

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def give_up(self, seconds: float) -> None:
        """Its deadline has passed."""
        self.fail(LogUnavailable(f"no acknowledgement within {seconds} s{self.why and f': {self.why}'}"))

    def finish_part(self) -> None:
        self.left -= 1
        if not self.left and not self.outcome.done():
            self.outcome.set_result(None)


class Part:
    """The records of one append for one partition: sent whole, acknowledged whole."""

    __slots__ = ("alone", "indexes", "key", "records", "size", "whole")

    def __init__(self, whole: Whole, key: Key) -> None:
        self.whole, self.key = whole, key
        self.records: list[Append] = []
        self.indexes: list[int] = []
        self.size = 0
        self.alone = False
        """Whether it has to be a batch of its own: one that it was in was refused."""

    @property
    def settled(self) -> bool:
        """Whether the log has acknowledged it."""
        return self.whole.positions[self.indexes[0]] is not None


def split(records: Sequence[Append], whole: Whole) -> list[Part]:
    """Parts by partition, each within BATCH_BYTES, which no record alone exceeds; raises LogRefused."""
    parts: list[Part] = []
    filling: dict[Key, Part] = {}
    for index, record in enumerate(records):
        size = RECORD_OVERHEAD + check_record(record)
        key = (record.topic, record.partition)
        part = filling.get(key)
        if part is None or part.size + size > BATCH_BYTES:
            part = filling[key] = Part(whole, key)
            parts.append(part)
        part.records.append(record)
        part.indexes.append(index)
        part.size += size
        whole.size += size
    whole.left = len(parts)
    return parts


class Batch:
    """Records under their sequence numbers."""

    __slots__ = ("count", "doubt", "octets", "parts")

    def __init__(self, parts: list[Part], producer: int, epoch: int, sequence: int, *, dense: bool = False) -> None:
        """`dense`: compressed, where records are many enough."""
        records = parts[0].records if len(parts) == 1 else [record for part in parts for record in part.records]
        dense = dense and len(records) >= COMPRESSED_FROM
        if prepared(records):
            self.octets = batch(records, producer, epoch, sequence, dense=dense)
        else:
            codec = DefaultRecordBatch.CODEC_SNAPPY if dense else DefaultRecordBatch.CODEC_NONE
            builder = DefaultRecordBatchBuilder(2, codec, 0, producer, epoch, sequence, 2 * BATCH_BYTES)
            for number, record in enumerate(records):
                builder.append(number, 0, record.key, record.value, list(record.headers))
            self.octets = bytes(builder.build())
        self.parts, self.count = parts, len(records)
        self.doubt = False
        """Whether it may have been written by an earlier try."""

    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not part.whole.outcome.done() for part in self.parts)

    def fail(self, error: Exception) -> None:
        for part in self.parts:
            part.whole.fail(error)


class Lane:
    """What waits for one partition, and the one batch that is not settled."""

    __slots__ = ("batch", "busy", "dense", "epoch", "producer", "sequence", "slow", "there", "timer", "waiting")

    def __init__(self, there: TopicPartition, *, dense: bool = False) -> None:
        """`dense`: its batches are compressed, for their records are kept for long."""
        self.there, self.dense = there, dense
        self.waiting: list[Part] = []
        self.batch: Batch | None = None
        self.busy = False
        """Whether it waits for a broker's turn, for an answer, or for its next try."""
        self.slow = False
        """Whether its last request timed out at the broker: a replica does not follow."""
        self.timer: asyncio.TimerHandle | None = None
        """Of its next try."""
        self.producer, self.epoch, self.sequence = -1, 0, 0

    def let_go(self) -> None:
        """Forgets a batch that nobody waits for any more."""
        if self.batch is not None and not self.batch.wanted():
            self._give_up(self.batch)
        if self.batch is None:
            self.waiting = [part for part in self.waiting if not part.whole.outcome.done()]

    def to_send(self, producer: Producer) -> Batch | None:
        """The batch to send now: the one that is not settled, else one of what waits.

        A record that the builder does not take raises what it raises, to the part's caller.
        """
        if self.batch is not None:
            return self.batch
        if self.producer != producer.id:
            self.producer, self.epoch, self.sequence = producer.id, producer.epoch, 0
        while parts := self._gather():
            try:
                self.batch = Batch(parts, self.producer, self.epoch, self.sequence, dense=self.dense)
            except Exception as error:  # noqa: BLE001  # a bug of the caller's is theirs to hear, and no one else's
                if len(parts) == 1:
                    parts[0].whole.fail(error)
                else:
                    self._apart(parts)
            else:
                return self.batch
        return None

    def _gather(self) -> list[Part]:
        """The parts of the next batch, taken from what waits: in order, so none overtakes one that does not fit."""
        waiting, size = self.waiting, 0
        parts: list[Part] = []
        for number, part in enumerate(waiting):
            if part.whole.outcome.done():  # its caller has given up: it is not sent any more
                continue
            if parts and (part.alone or parts[0].alone or size + part.size > BATCH_BYTES):
                self.waiting = waiting[number:]
                return parts
            parts.append(part)
            size += part.size
        self.waiting = []
        return parts

    def _apart(self, parts: list[Part]) -> None:
        """Each will be a batch of its own: to find out whose record it is."""
        for part in parts:
            part.alone = True
        self.waiting = parts + self.waiting

    def written(self, offset: int, timestamp: int) -> None:
        """The batch stands in the log from this offset on; offset -1: it stands there, but nobody says where."""
        batch = self._settled()
        self.sequence = (self.sequence + batch.count) & LAST_SEQUENCE
        if offset < 0:
            batch.fail(LogUnavailable("the log has it already, and does not say where"))
            return
        partition = self.there.partition
        for part in batch.parts:
            positions = part.whole.positions
            for index in part.indexes:
                positions[index] = _new(Position, (partition, offset, timestamp))
                offset += 1
            part.whole.finish_part()

    def refused(self, name: str) -> None:
        """The broker will not have the batch: whose record it is has to be found out, each part alone."""
        batch = self._settled()
        if batch.doubt:
            self._give_up(batch, name)
        elif len(batch.parts) == 1:
            topic = batch.parts[0].key[0]
            batch.fail(LogRefused(f"the broker refuses a record for {topic}: {name}"))
        else:
            self._apart(batch.parts)

    def out_of_sequence(self, name: str) -> None:
        """The broker does not go on from our last number: what it certainly has not is sent under the next epoch."""
        batch = self._settled()
        if not batch.doubt:
            self.waiting = batch.parts + self.waiting
            self._next_epoch()
        else:
            self._give_up(batch, name)

    def _settled(self) -> Batch:
        batch, self.batch = self.batch, None
        if batch is None:
            raise RuntimeError("no batch was sent")
        return batch

    def _give_up(self, batch: Batch, name: str = "") -> None:
        """Its outcome stays unknown, if it ever was sent."""
        self.batch = None
        batch.fail(LogUnavailable(f"the log did not acknowledge: {name}"))
        if batch.doubt:
            self._next_epoch()

    def _next_epoch(self) -> None:
        self.epoch, self.sequence = self.epoch + 1, 0

    def worn_out(self, producer: Producer) -> bool:
        """Whether this producer id has no epoch left here: another one is needed."""
        return self.epoch > LAST_EPOCH and self.producer == producer.id

    def note(self, why: str) -> None:
        """Tells whom it concerns what is in the way."""
        for part in (*(self.batch.parts if self.batch is not None else ()), *self.waiting):
            part.whole.why = why

    def drop(self, error: Exception) -> None:
        """Nothing more of it is sent."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.batch is not None:
            self.batch.fail(error)
            self.batch = None
        for part in self.waiting:
            part.whole.fail(error)
        self.waiting = []
