"""Reading: how much is read of a connection, and when.

As far as a turn goes (`turns`); then others have theirs, and nothing comes in meanwhile. And nothing while the
peer leaves unread what it was answered.
"""

import asyncio

from edge.transport.deadlines import Deadlines
from edge.transport.turns import Turns
from runtime.metrics import dropped

AT_ONCE = 16 * 1024
"""Octets taken of a connection before it is known whether it may go on: what comes of very many at once is bounded."""
UNREAD = 64 * 1024
"""Octets a peer may leave unread before nothing more is read of it."""
UNREAD_SECONDS = 10.0
"""How long it may leave more than these."""
UNSENT = 256 * 1024
"""Octets a peer may leave unread before it is cut off."""


_octets = memoryview(bytearray(AT_ONCE))
"""Where all connections' octets arrive, to be copied from there at once."""


class Reading(asyncio.BufferedProtocol):
    """A connection of which a bounded number of octets and messages is read in a turn."""

    def __init__(self, turns: Turns, unread: "Deadlines[Reading]", source: str) -> None:
        """`unread` cuts off who does not read; `source` is whose turns this takes."""
        self._turns, self._unread, self._source = turns, unread, source
        self.more = False
        """Whether octets are held that may be whole messages."""
        self._waits = False
        """Whether it waits for its turn."""
        self._clogged = False
        """Whether the peer has left much unread."""
        self._paused = False
        self._transport: asyncio.Transport | None = None
        """None before it is made and after it is lost."""

    def read(self, data: bytes, most: int) -> int:
        """Takes octets, and does up to so many units of work with them and those held: how many; sets `more`."""
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where octets may arrive."""
        del sizehint
        return _octets

    def buffer_updated(self, nbytes: int) -> None:
        """Reads what came, as far as this turn goes."""
        turns = self._turns
        units = self.read(bytes(_octets[:nbytes]), 0 if self._waits or self._clogged else max(turns.left, 0))
        turns.spend(units or 1)
        if self.more or self._paused:
            self._rest()

    def go_on(self, most: int) -> int:
        """Reads what is held: it is this connection's turn."""
        self._waits = False
        if not self._alive or self._clogged:
            return 0
        units = self.read(b"", most)
        self._rest()
        return units or 1

    def _rest(self) -> None:
        """Waits for a turn if there is something to be done in it; else reads on."""
        if not self._alive:
            return
        if not self.more:
            self._read_on()
            return
        self._read_no_more()
        if not self._waits and not self._clogged:
            self._waits = True
            self._turns.wait(self._source, self)

    @property
    def _alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _read_no_more(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused and not self._clogged and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The peer does not read: what it asks is not read until it does, and it is cut off if it does not soon."""
        if self._alive:
            self._clogged = True
            self._read_no_more()
            self._unread.keep(self)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._clogged = False
        self._unread.end(self)
        self._rest()

    def put(self, data: bytes) -> None:
        """Writes octets; who leaves too many unread is cut off, for nothing that waits for him may pile up."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if self._clogged and transport.get_write_buffer_size() > UNSENT:
            self.cut_unread()

    def cut_unread(self) -> None:
        """Cuts it off: it would not read a farewell either."""
        if self._transport is not None:
            dropped("slow-reader")
            self._transport.abort()
