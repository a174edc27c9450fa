"""Commands that wait for a look-up: in order for each user, out of everybody else's way.

A user's later commands queue behind the first that waits, so that they are decided in the order in which
they were appended. What may be committed ends before the oldest that waits.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from authsvc.users.remembered import Key
from events.commands import AuthCommand
from runtime.log.port import Record


class Parked(NamedTuple):
    """A command that waits."""

    record: Record
    until: float
    """When its deadline passes, in monotonic seconds."""
    command: AuthCommand


class Parking:
    """What waits of one partition."""

    def __init__(self) -> None:
        self._queues: dict[Key, deque[Parked]] = {}
        self._offsets: dict[int, None] = {}
        self._next = -1

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, user: Key) -> bool:
        return user in self._queues

    def seen(self, offset: int) -> None:
        """The next offset that will be read."""
        self._next = offset

    def committable(self) -> int:
        """The next offset that may be committed: before the oldest that waits."""
        return next(iter(self._offsets), self._next)

    def park(self, user: Key, parked: Parked) -> None:
        """Queues a command behind its user's others; commands come in the order of their offsets."""
        self._queues.setdefault(user, deque()).append(parked)
        self._offsets[parked.record.offset] = None

    def of(self, user: Key) -> tuple[Parked, ...]:
        """All that waits of a user, oldest first."""
        return tuple(self._queues.get(user, ()))

    def leave(self, user: Key, count: int) -> None:
        """The user's oldest `count` have been answered, durably; whoever came meanwhile still waits."""
        queue = self._queues[user]
        for _ in range(count):
            del self._offsets[queue.popleft().record.offset]
        if not queue:
            del self._queues[user]

    def overdue(self, now: float) -> Iterator[Key]:
        """Users whose oldest command's deadline has passed."""
        for user, queue in self._queues.items():
            if queue[0].until <= now:
                yield user
