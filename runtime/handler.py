"""What a service is to a worker: a handler of one topic's records (runtime/worker.py drives it)."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from events.limits import DEAD_LETTER_BYTES
from events.topics import AUTH_COMMANDS, DEAD
from runtime.log.port import Append, Batch, Record


class Lost(Exception):
    """The state of these partitions is not to be trusted any more: release them and restore them again.

    Raised from `handle` after all other partitions of the batch were dealt with; `offsets` are what those
    may commit. `stopped` are those that cannot go on and wait for a person, and why; they are among `partitions`.
    `cause`: why the others are lost, for people; "" where they need not hear of it.
    """

    def __init__(
        self,
        partitions: Iterable[int],
        offsets: Mapping[int, int] | None = None,
        stopped: Mapping[int, str] | None = None,
        cause: str = "",
    ) -> None:
        self.offsets = offsets or {}
        self.stopped = stopped or {}
        self.cause = cause
        self.partitions = frozenset(partitions) | self.stopped.keys()
        super().__init__(f"lost partitions {sorted(self.partitions)}")


class Handler(Protocol):
    """What a service does with a topic's records."""

    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def dead_letters(self) -> bool:
        """False: a record that raises stops its partition, instead of going to `dead`."""
        ...

    async def restore(self, partition: int) -> int | None:
        """Rebuilds the state of a partition just assigned; the offset to go on at. None: the group's committed
        one, else the beginning. Cancelled when the partition is revoked meanwhile.

        Also called where the log turns out to end before our position. An offset beyond the log's end stops the
        partition: whoever knows better than to wait for a person gives another.
        """
        ...

    def release(self, partition: int) -> None:
        """Forgets the partition, also one whose restore has not ended; never while `handle` has it in hand."""
        ...

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Deals with records; returns the next offsets that the group may commit (may be empty).

        Raises Unavailable (all partitions of the batch are restored, and it is delivered again), Lost (only
        those are), or anything else for a bug.
        """
        ...


def dead_letter(topic: str, record: Record, cause: str) -> Append:
    """The record for `dead`: key as received, value cut; of a topic that carries digests, no value at all."""
    value = b"" if topic == AUTH_COMMANDS else (record.value or b"")[:DEAD_LETTER_BYTES]
    headers = (
        ("cause", cause.encode("utf-8", "replace")[:1024]),
        ("topic", topic.encode()),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
    )
    return Append(DEAD, 0, record.key, value, headers)
