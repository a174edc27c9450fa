"""The non-INVITE server transactions of one edge: found by key or by command, ended by time.

The machine is `sipcore.transaction.TABLE`. What is added here is what an edge needs: the command that asks
for the answer and its deadline, the flow that the answer leaves by, and a bound at which the oldest
completed transaction makes room (a storm costs retransmissions their answer, never a new phone its own).

All timers of one kind last equally long, so each kind is a queue in order of time, and no timer is ever
cancelled: what is over is skipped when its turn comes. A completed transaction is two texts and one flow.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from edge.core.flow import Flow
from sipcore.transaction import TIMER_J, TRYING_AFTER, Action, State, Stimulus, step

COMPLETED_BYTES = 128 * 1024 * 1024
"""Of responses kept for retransmissions: one repeats the request's Via rows, and those may be 60 KiB."""


class Transaction(msgspec.Struct, gc=False):
    """One request that gets its response later. No cycles: the collector need not look at it."""

    key: str
    flow: Flow
    port: int
    """Where the response goes, at the flow's remote address: `response.reply_port`."""
    head: str
    """The rows every response repeats; empty once completed."""
    size: int
    """Octets of the request."""
    realm: str
    """The served domain that the Request-URI names."""
    command: str
    """The id of the command that asks for the answer."""
    opened: float
    """Monotonic seconds."""
    response: bytes = b""
    """The last response sent; a retransmission gets it again."""
    aor: str = ""
    """Who is registered."""
    user: str = ""
    """The digest's user and realm."""
    path: str = ""
    """The Path value of the binding."""
    state: State = State.TRYING
    ends: float = 0.0
    """Timer J, once completed."""


class ServerTransactions:
    """All of them; `max_completed` and `completed_bytes` bound those that only wait for retransmissions."""

    def __init__(self, reply_seconds: float, max_completed: int, completed_bytes: int = COMPLETED_BYTES) -> None:
        self._reply_seconds = reply_seconds
        self._max_completed = max_completed
        self._completed_bytes = completed_bytes
        self._bytes = 0
        self._by_key: dict[str, Transaction] = {}
        self._by_command: dict[str, Transaction] = {}
        self._deadlines: deque[Transaction] = deque()
        self._trying: deque[Transaction] = deque()
        self._completed: deque[Transaction] = deque()

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def pending(self) -> int:
        """How many have no final response yet."""
        return len(self._by_command)

    def find(self, key: str) -> Transaction | None:
        """The transaction that a request with this key is a retransmission of."""
        return self._by_key.get(key)

    def awaits(self, command: str) -> bool:
        """Whether the answer to this command is still of use."""
        return command in self._by_command

    def open(self, transaction: Transaction) -> None:
        """Enters a new one in state Trying."""
        self._by_key[transaction.key] = transaction
        self._by_command[transaction.command] = transaction
        self._deadlines.append(transaction)
        if self._reply_seconds > TRYING_AFTER:
            self._trying.append(transaction)

    def answered(self, command: str) -> Transaction | None:
        """The pending transaction of this command, which is pending no longer; None if there is none (any more)."""
        return self._by_command.pop(command, None)

    def complete(self, transaction: Transaction, response: bytes, now: float) -> int:
        """Enters Completed; returns how many older ones had to end early for it."""
        transaction.state, _ = step(transaction.state, Stimulus.FINAL)
        transaction.head = ""
        if transaction.flow.reliable:
            del self._by_key[transaction.key]
            return 0
        transaction.response = response
        transaction.ends = now + TIMER_J
        self._completed.append(transaction)
        self._bytes += len(response)
        ended = 0
        while len(self._completed) > self._max_completed or self._bytes > self._completed_bytes:
            self._end_oldest()
            ended += 1
        return ended

    def _end_oldest(self) -> None:
        oldest = self._completed.popleft()
        self._bytes -= len(oldest.response)
        del self._by_key[oldest.key]

    def next_timer(self) -> float | None:
        """When `overdue` or `trying` next has something, or Timer J; None while nothing runs."""
        times = []
        for queue, seconds in ((self._deadlines, self._reply_seconds), (self._trying, TRYING_AFTER)):
            while queue and queue[0].state is State.COMPLETED:
                queue.popleft()
            if queue:
                times.append(queue[0].opened + seconds)
        if self._completed:
            # Nobody waits for the end of Timer J: many end together, at the cost of one wake-up a second.
            times.append(self._completed[0].ends + 1.0)
        return min(times, default=None)

    def expire(self, now: float) -> None:
        """Ends those whose Timer J has fired."""
        while self._completed and self._completed[0].ends <= now:
            self._end_oldest()

    def again(self, transaction: Transaction) -> bytes:
        """What a retransmission gets: the last response, or nothing while there is none (CHECKLIST X04)."""
        _, action = step(transaction.state, Stimulus.REQUEST)
        return transaction.response if action is Action.RESEND else b""

    def trying(self, now: float) -> Iterator[Transaction]:
        """Those that have been without any response for 3.5 s and enter Proceeding: a 100 is due (CHECKLIST X02)."""
        while self._trying and self._trying[0].opened + TRYING_AFTER <= now:
            transaction = self._trying.popleft()
            if transaction.state is State.TRYING:
                transaction.state, _ = step(transaction.state, Stimulus.PROVISIONAL)
                yield transaction

    def overdue(self, now: float) -> Iterator[Transaction]:
        """Those whose answer did not come by the deadline; they await none any more."""
        while self._deadlines and self._deadlines[0].opened + self._reply_seconds <= now:
            transaction = self._deadlines.popleft()
            if self._by_command.pop(transaction.command, None):
                yield transaction
