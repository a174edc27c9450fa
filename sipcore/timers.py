"""The timers of all transactions: each has at most one that repeats what was sent, and one that ends a state.

All timers of one length stand in one queue in order of time, so starting one costs an append, and none is ever
cancelled: a transaction knows when its timers are due, and an entry of another time is skipped when its turn comes.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from sipcore.transaction import Stimulus, Transaction

SLACK = 1.0
"""Seconds that a lazy timer may be late: many then end together, at the cost of one wake-up."""
NEVER = float("inf")


class Timers:
    """Queues for timers of these lengths in seconds; the `lazy` ones may fire late by SLACK."""

    def __init__(self, exact: Iterable[float], lazy: Iterable[float], repeats: Iterable[float]) -> None:
        self._exact: dict[float, deque[tuple[float, Transaction]]] = {seconds: deque() for seconds in exact}
        self._lazy: dict[float, deque[tuple[float, Transaction]]] = {seconds: deque() for seconds in lazy}
        self._repeats: dict[float, deque[tuple[float, Transaction]]] = {seconds: deque() for seconds in repeats}
        self._wake = NEVER
        """No later than anything that runs, but for the slack."""

    def __len__(self) -> int:
        """How many entries there are, those to be skipped included."""
        queues = (*self._exact.values(), *self._lazy.values(), *self._repeats.values())
        return sum(map(len, queues))

    def end(self, transaction: Transaction, timer: Stimulus, seconds: float, now: float) -> None:
        """Starts the timer that ends a state, in the place of the one that runs."""
        transaction.timer = timer
        transaction.ends = due = now + seconds
        self._exact[seconds].append((due, transaction))
        if due < self._wake:
            self._wake = due

    def end_lazily(self, transaction: Transaction, timer: Stimulus, seconds: float, now: float) -> None:
        """The same where nobody waits for the end."""
        transaction.timer = timer
        transaction.ends = due = now + seconds
        self._lazy[seconds].append((due, transaction))
        if due + SLACK < self._wake:
            self._wake = due + SLACK

    def repeat(self, transaction: Transaction, seconds: float, now: float) -> None:
        """Starts Timer A, E or G; the interval after it is twice as long."""
        transaction.repeats = due = now + seconds
        transaction.interval = 2 * seconds
        self._repeats[seconds].append((due, transaction))
        if due < self._wake:
            self._wake = due

    def next(self) -> float | None:
        """When to look again; None while nothing runs. What was due then may have been answered since."""
        return None if self._wake == NEVER else self._wake

    def look(self) -> None:
        """Finds out when to look again, after all that is due has been taken."""
        wake = NEVER
        for queue in self._repeats.values():
            while queue and queue[0][1].repeats != queue[0][0]:
                queue.popleft()
            if queue and queue[0][0] < wake:
                wake = queue[0][0]
        for queues, slack in ((self._exact, 0.0), (self._lazy, SLACK)):
            for queue in queues.values():
                while queue and queue[0][1].ends != queue[0][0]:
                    queue.popleft()
                if queue and queue[0][0] + slack < wake:
                    wake = queue[0][0] + slack
        self._wake = wake

    def ended(self, now: float) -> Iterator[Transaction]:
        """Those whose ending timer fires."""
        for queues in (self._exact, self._lazy):
            for queue in queues.values():
                while queue and queue[0][0] <= now:
                    due, transaction = queue.popleft()
                    if transaction.ends == due:
                        transaction.ends = 0.0
                        yield transaction

    def repeated(self, now: float) -> Iterator[Transaction]:
        """Those whose repeating timer fires; it runs again only if it is started again."""
        for queue in self._repeats.values():
            while queue and queue[0][0] <= now:
                due, transaction = queue.popleft()
                if transaction.repeats == due:
                    transaction.repeats = 0.0
                    yield transaction
