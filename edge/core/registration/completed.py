"""Answered REGISTERs on UDP, kept for retransmissions within a bound: of their number, and of their octets. PURE.

A storm costs retransmissions their answer, never a new phone its own.
"""

from collections import deque

from sipcore.transactions import TERMINATED, Server, Transactions

OCTETS = 128 * 1024 * 1024
"""Of responses kept: one repeats the request's Via rows, and those may be 60 KiB."""


class Completed:
    """Those of one layer, the oldest first."""

    def __init__(self, layer: Transactions, most: int, octets: int = OCTETS) -> None:
        self._layer = layer
        self._most, self._most_octets = most, octets
        self._kept: deque[tuple[Server, int]] = deque()
        self._octets = 0

    def add(self, server: Server) -> int:
        """Keeps one that has been answered; returns how many had to end early for it."""
        if server.state is TERMINATED:
            return 0  # on a stream nothing is repeated
        octets = len(server.sent)
        self._kept.append((server, octets))
        self._octets += octets
        ended = 0
        self.trim()
        while len(self._kept) > self._most or self._octets > self._most_octets:
            self._layer.forget(self._pop())
            ended += 1
        return ended

    def trim(self) -> None:
        """Lets go of those that Timer J has ended."""
        while self._kept and self._kept[0][0].state is TERMINATED:
            self._pop()

    def _pop(self) -> Server:
        server, octets = self._kept.popleft()
        self._octets -= octets
        return server
