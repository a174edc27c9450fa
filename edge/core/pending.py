"""What is waited for, each thing for as long: the replies of the log, the answers of tables and of DNS. PURE."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def earliest(*times: float | None) -> float | None:
    """The first of these times; None where there is none."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


class Pending(Generic[K, T]):
    """Things by key, each until it is taken or its time is over."""

    def __init__(self, seconds: float, over: Callable[[T], bool] = lambda thing: False) -> None:
        """`over`: whether nobody waits for a thing any more, though it was not taken."""
        self._seconds = seconds
        self._over = over
        self._things: dict[K, T] = {}
        self._deadlines: deque[tuple[float, K]] = deque()

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, key: K) -> bool:
        return key in self._things

    def wait(self, key: K, thing: T, now: float) -> None:
        """A thing is waited for; no other has ever had its key."""
        self._things[key] = thing
        self._deadlines.append((now + self._seconds, key))

    def take(self, key: K) -> T | None:
        """The thing, which is waited for no longer; None if it is not (any more)."""
        return self._things.pop(key, None)

    def forget(self, which: Callable[[T], bool]) -> None:
        """These things are waited for no longer."""
        for key in [key for key, thing in self._things.items() if which(thing)]:
            del self._things[key]

    def next_timer(self) -> float | None:
        """When `overdue` is next of use."""
        while self._deadlines:
            at, key = self._deadlines[0]
            thing = self._things.get(key)
            if thing is not None and not self._over(thing):
                return at
            self._things.pop(key, None)
            self._deadlines.popleft()
        return None

    def overdue(self, now: float) -> Iterator[T]:
        """Those whose time is over; they are waited for no longer."""
        while self._deadlines and self._deadlines[0][0] <= now:
            thing = self._things.pop(self._deadlines.popleft()[1], None)
            if thing is not None:
                yield thing
