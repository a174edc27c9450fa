"""Turns: how much is done for whom before the event loop looks at its sockets again.

What a wake-up brings is done at once, up to a budget. What is beyond waits, by source, and is done in further turns,
each as long as the budget, in which the sources take turns. So whoever sends without end waits for himself: everybody
else waits for one turn at the most, and nobody's octets pile up here: a connection that waits is not read from, and a
source has so much room for datagrams.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Protocol

from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

BUDGET = 64
"""Units of work of one turn: some 5 ms. A unit is a message, or 1,024 octets of one."""
SHARE = 8
"""Units of it that a source gets before the next one."""
HELD = 1024
"""Units of datagrams that wait for one source; more are lost, as they would be in the kernel's buffer."""
HELD_IN_ALL = 16 * HELD


def cost(octets: int) -> int:
    """The units of a message of so many octets."""
    return 1 + (octets >> 10)


def network(host: str) -> str:
    """Whom an address stands for: with IPv6, everybody has at least 2**64 of them."""
    return IPv6Address(host).packed[:8].hex() if ":" in host else host


class Work(Protocol):
    """What waits for its turn."""

    def go_on(self, most: int) -> int:
        """Does up to so many units of work, one message at the least, and says how many it did."""


class _Queue(deque[Work]):
    """What waits for one source."""

    held = 0
    """Units of datagrams in it."""


class Turns:
    """The turns of one event loop."""

    def __init__(self, ended: Callable[[], None]) -> None:
        """`ended` is called after each turn that was not a wake-up's own."""
        self._ended = ended
        self._spent = 0
        self._queues: dict[str, _Queue] = {}
        """By source; the next to have its turn is the first."""
        self._held = 0
        self._handle: asyncio.Handle | None = None

    @property
    def left(self) -> int:
        """What a wake-up may still do at once; nothing, while anybody waits."""
        return 0 if self._queues else BUDGET - self._spent

    def spend(self, units: int) -> None:
        """So much was done at once."""
        self._spent += units

    def begin(self) -> None:
        """The loop has looked at its sockets."""
        self._spent = 0

    def room(self, source: str, units: int) -> bool:
        """Whether so many units of datagrams of this source may wait beside those that do."""
        queue = self._queues.get(source)
        return self._held + units <= HELD_IN_ALL and (queue is None or queue.held + units <= HELD)

    def wait(self, source: str, work: Work, units: int = 0) -> None:
        """Has work done in a later turn; `units` are those of a datagram."""
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue()
        queue.append(work)
        queue.held += units
        self._held += units
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        """What waits is not done any more."""
        self._queues.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        self._handle = None
        left = BUDGET
        while self._queues and left > 0:
            source, queue = next(iter(self._queues.items()))
            left -= self._serve(queue)
            del self._queues[source]
            if queue:
                self._queues[source] = queue
        self._ended()
        if self._queues and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _serve(self, queue: _Queue) -> int:
        """A source's share; what it costs."""
        spent = 0
        while queue and spent < SHARE:
            work = queue.popleft()
            try:
                units = work.go_on(SHARE - spent)
            except Exception:  # a bug costs this piece of work, never the others'
                log.exception("a turn broke", extra={"work": type(work).__name__})
                dropped("bug")
                units = SHARE
            spent += units
            if isinstance(work, Datagram):
                queue.held -= units
                self._held -= units
        return spent


class Datagram:
    """A datagram that waits for its turn."""

    __slots__ = ("_receive", "_units")

    def __init__(self, receive: Callable[[], None], units: int) -> None:
        self._receive, self._units = receive, units

    def go_on(self, most: int) -> int:
        """Hands it on."""
        del most
        self._receive()
        return self._units
