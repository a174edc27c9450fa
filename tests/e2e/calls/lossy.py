"""A wire between one phone and its edge that loses, delays and repeats datagrams, the same way for the same seed.

    phone <--> `phone_side` [Wire] `edge_side` <--> edge

The edge knows the phone by `edge_side` alone, so that received and rport lead back through the wire.
"""

import dataclasses
import heapq
import itertools
import random
import selectors
import socket
import threading
import time
from typing import Self

from tests.kit.wire import Address

LOSS, DELAY, TWICE = 0.08, 0.10, 0.05
"""How many of all datagrams are lost; of the others, how many come late, and how many come twice."""
LATEST = 0.25
"""Seconds that a datagram may be late: many others overtake it."""
TICK = 0.05
"""Seconds after which the thread looks whether it is to end."""


@dataclasses.dataclass
class Fate:
    """What has become of the datagrams so far."""

    passed: int = 0
    lost: int = 0
    late: int = 0
    twice: int = 0


class Wire:
    """One phone's way to its edge, carried by a thread of its own until the end of the `with`."""

    def __init__(self, phone: Address, edge: Address, seed: int) -> None:
        self._phone, self._edge = phone, edge
        self._random = random.Random(seed)
        self._phone_side, self._edge_side = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self._phone_side, self._edge_side):
            each.bind(("127.0.0.1", 0))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.setblocking(False)
        self.phone_side: Address = self._phone_side.getsockname()
        """What the phone takes for its edge."""
        self.fate = Fate()
        self.perfect = False
        """Whether nothing is lost, late or repeated for now."""
        self._order = itertools.count()
        self._late: list[tuple[float, int, socket.socket, bytes, Address]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._carry, name=f"wire of {phone}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._phone_side.close()
        self._edge_side.close()

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._phone_side, selectors.EVENT_READ, (self._edge_side, self._edge))
            selector.register(self._edge_side, selectors.EVENT_READ, (self._phone_side, self._phone))
            while not self._ends.is_set():
                wait = self._late[0][0] - time.monotonic() if self._late else TICK
                for key, _ in selector.select(max(0.0, min(wait, TICK))):
                    self._take(key.fileobj, *key.data)  # type: ignore[arg-type]  # both are sockets
                while self._late and self._late[0][0] <= time.monotonic():
                    _, _, by, octets, to = heapq.heappop(self._late)
                    _send(by, octets, to)

    def _take(self, source: socket.socket, by: socket.socket, to: Address) -> None:
        """Decides about all that waits in a socket."""
        while True:
            try:
                octets = source.recv(65536)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # an ICMP for what was sent to a phone that is not there
            if octets.startswith(b"OPTIONS "):
                continue  # pings that keep NATs open: SIPp takes one for a new call
            if self.perfect:
                _send(by, octets, to)
                continue
            if self._random.random() < LOSS:
                self.fate.lost += 1
                continue
            for again in range(1 + (self._random.random() < TWICE)):
                self.fate.twice += again
                self._pass(by, octets, to)

    def _pass(self, by: socket.socket, octets: bytes, to: Address) -> None:
        self.fate.passed += 1
        if self._random.random() < DELAY:
            self.fate.late += 1
            at = time.monotonic() + self._random.uniform(0.02, LATEST)
            heapq.heappush(self._late, (at, next(self._order), by, octets, to))
        else:
            _send(by, octets, to)


def _send(by: socket.socket, octets: bytes, to: Address) -> None:
    try:
        by.sendto(octets, to)
    except ConnectionRefusedError:
        by.sendto(octets, to)  # the error was an earlier datagram's
