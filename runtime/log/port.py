"""The port to the log: topics of partitions of records, consumer groups, transactions.

Two implementations, `runtime.log.kafka.log` and `runtime.log.embedded.log`; a service cannot
tell which it has. Topic names here are without the configured prefix. Times are
milliseconds in the log's time (LogAppendTime), offsets are of one partition.
Everything raises `LogUnavailable` when the log does not answer in time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from events.limits import RECORD_BYTES
from events.topics import TOPICS, VIEW, Topic
from events.wire import Happened
from runtime.errors import LogRefused

_TOPICS = frozenset(topic.name for topic in (*TOPICS, *VIEW))

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One record as read (aiokafka's ConsumerRecord already has this shape: it is passed on as it is)."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Append(NamedTuple):
    """One record to write. The partition is always chosen by us (`events.topics.partition_of`)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def check_record(record: Append) -> int:
    """The record's size in bytes; raises LogRefused: too large, for no topic of ours, or with neither key nor value."""
    size = len(record.key or b"") + len(record.value or b"")
    headers = record.headers
    if type(headers) is Happened:
        size += len(headers.octets)
    else:
        for name, value in headers:
            size += len(name) + len(value)
    if size > RECORD_BYTES:
        raise LogRefused(f"a record for {record.topic} has {size} bytes, more than {RECORD_BYTES}")
    if record.topic not in _TOPICS:
        raise LogRefused(f"there is no topic {record.topic}")
    if record.key is None and record.value is None:
        raise LogRefused(f"a record for {record.topic} has neither key nor value")
    return size


class Position(NamedTuple):
    """Where a record was written, and when in the log's time."""

    partition: int
    offset: int
    timestamp: int


class Bounds(NamedTuple):
    """`begin` is the offset of the oldest record there is, `end` that of the next to be written."""

    begin: int
    end: int


Batch = Mapping[int, Sequence[Record]]
"""Records by partition, in offset order."""


END_SECONDS = 5.0
"""A bounded read that nothing comes to for so long asks whether its end is there: a new leader's log may be shorter
for a moment, or for ever."""


class PartitionFault(ValueError):
    """An alarm: one partition cannot be read on, and waiting does not help."""

    def __init__(self, partition: int, reason: str) -> None:
        super().__init__(f"partition {partition}: {reason}")
        self.partition, self.reason = partition, reason


class OutOfRange(PartitionFault):
    """A position is beyond the end of the partition."""

    def __init__(self, partition: int, offset: int, end: int) -> None:
        super().__init__(partition, f"position {offset} is beyond the log's end {end}")


class Unreadable(PartitionFault):
    """What the log has at this offset is no batch of records: damaged, or packed in a way unknown here."""

    def __init__(self, partition: int, offset: int, why: str) -> None:
        super().__init__(partition, f"what is at offset {offset} cannot be read: {why}")


class Reading(Protocol):
    """Batches of one partition in order; an async generator is one.

    Cancelling the task that waits for the next batch ends it too.
    """

    def __aiter__(self) -> AsyncIterator[Sequence[Record]]: ...
    def __anext__(self) -> Awaitable[Sequence[Record]]: ...
    def aclose(self) -> Awaitable[None]:
        """Ends it and frees what it holds; needed (`contextlib.aclosing`) unless it is read to its end."""
        ...


class Subscription(Protocol):
    """Membership of a consumer group on one topic.

    A partition just assigned delivers nothing until `begin` is called for it: restoring its
    state happens outside the rebalance callback (there, heartbeats stand still). Both
    callbacks are plain functions that only mark and schedule.
    """

    async def poll(self, timeout: float, max_records: int = 500) -> Batch:
        """Records of the begun partitions, as soon as there are any; empty after `timeout` seconds.

        Never a record below the offset given to `begin` or `seek`, never one of a partition that is
        not ours any more or that was assigned anew since. Raises LogUnavailable if the log is away
        for longer than the timeout and that is known, Replaced while another process has joined under our name; the
        subscription recovers alone from both. Raises OutOfRange
        once for a partition that was begun beyond the log's end, Unreadable once for one that has come to
        what is no batch; such a partition stays stopped until `begin`.
        """
        ...

    def begin(self, partition: int, offset: int | None) -> None:
        """Starts delivery of an assigned partition at an offset; None: at the group's committed one, else at
        the beginning. An offset below the log's start continues at the start; for one beyond the end the
        next `poll` raises OutOfRange (the range has to be asked for, and this does not wait)."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Delivery of a begun partition goes on at this offset, forwards or backwards."""
        ...

    def pause(self, partition: int) -> None:
        """Stops delivery of a partition until `begin` (used to give it up and restore it again)."""
        ...

    def assigned(self) -> frozenset[int]:
        """The partitions that are ours now, begun or not."""
        ...

    def joined(self) -> bool:
        """Whether the group has told us our partitions, perhaps none."""
        ...

    async def confirm(self, partition: int) -> None:
        """Returns once the group has said, after this was called, that we are its member and the partition ours.

        Raises LogUnavailable when it does not: a process that slept may have lost its place and not know it yet.
        """
        ...

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Stores next offsets for the group; those of partitions lost meanwhile are dropped silently.

        Raises Rebalancing when the group has no settled members just now: nothing was stored, and the offsets
        of partitions that stay ours are to be offered again.
        """
        ...

    async def stop(self, deadline: float = 3.0) -> None:
        """Leaves the group; returns within `deadline` seconds whatever the log does."""
        ...


class Log(Protocol):
    """The log itself. One object a process and service."""

    async def start(self) -> None:
        """Connects; waits for a fresh cluster's first errors to pass."""
        ...

    async def stop(self, deadline: float = 3.0) -> None:
        """Flushes and closes; returns within `deadline` seconds whatever the log does."""
        ...

    async def append(self, records: Sequence[Append]) -> list[Position]:
        """Writes records, in order within each partition, and waits once for all to be durable.

        Raises LogUnavailable (any of them may have been written) or LogRefused (a record larger than
        `events.limits.RECORD_BYTES`, or that the broker will not have: none of the refused one's
        successors is blocked by it). May be called concurrently.

        After either, what was for other partitions may stand in the log: which of it, nobody is told. So whoever
        appends for several does the whole again or says that it is not done, never a part of it; what stands twice
        has one id (`ce_id`), by which its readers count it once.
        """
        ...

    async def append_transaction(self, transactional_id: str, records: Sequence[Append]) -> None:
        """Writes records atomically for `committed` readers, who may see them a moment after this returns
        (but not after a later first call for the same id has returned).

        The first call of an instance for an id fences whoever used it before: their next call raises Fenced.
        After Fenced or LogUnavailable the next call counts as a first one. No records: it only fences.
        """
        ...

    def subscribe(
        self,
        topic: str,
        group: str,
        on_assigned: Callable[[int], None],
        on_revoked: Callable[[int], None],
    ) -> Subscription:
        """Joins a group (at the first poll); callbacks get a partition each."""
        ...

    def read(
        self, topic: str, partition: int, begin: int, end: int | None = None, *, committed: bool = False
    ) -> Reading:
        """Batches of one partition from `begin` to before `end`, outside any group; without `end` for ever.

        `begin` below the log's start continues at the start. `committed` hides open and aborted
        transactions; then `end` counts control records too, and reading stops at it all the same.
        An endless read yields nothing while nothing comes. Raises Unreadable, and
        OutOfRange when for END_SECONDS the log has ended before `end`.
        """
        ...

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """The range of a partition (of committed records: up to the last stable offset)."""
        ...

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        """The offset of the first record at or after this time; the end when there is none."""
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; raises KeyError when there is no such topic."""
        ...

    async def create_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        """Makes those of these topics that are missing; returns their names. Idempotent."""
        ...

    async def check_topics(self, partitions: int, topics: Sequence[Topic] = TOPICS) -> list[str]:
        """What is wrong with these topics, one sentence each; empty when all is well."""
        ...

    async def kept(self, topic: Topic) -> int | None:
        """How long a record (of a compacted topic: one that was replaced) may stay, milliseconds; None: for ever."""
        ...

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        """The group's committed next offset of each partition that has one."""
        ...
