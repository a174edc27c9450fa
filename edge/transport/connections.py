"""The connections of one edge on all its stream transports: their bounds, their deadlines, and what is sent by which.

A connection is closed that keeps a message unfinished too long (slow-loris), does not read what it is sent, or
breaks its framing; and one by which no message has come yet, when it is silent for too long. One that has spoken
SIP may then be silent: it is a phone's flow. Those that we opened ourselves are closed once unused.
"""

import asyncio
from collections import Counter as Tally
from collections import deque
from typing import Protocol, cast

import msgspec

from edge.core.actions import Send
from edge.core.flow import Flow
from edge.transport.deadlines import Deadlines
from edge.transport.proxy_protocol import Parties
from edge.transport.reading import UNREAD, UNREAD_SECONDS, Reading
from edge.transport.turns import Turns, network
from runtime.metrics import dropped
from sipcore.parser import Item

UNHEARD = 64
"""Messages of one connection whose failure is told if it ends without having answered anything."""
HANDSHAKE_SECONDS = 5.0
"""For each of: the PROXY header, the TLS handshake, the WebSocket handshake."""
UNUSED_SECONDS = 300.0
"""A connection that we opened is closed after this long without a message (RFC 3261 section 18: at least 32 s)."""
IDLE_SECONDS = 25.0
"""Between two looks at whether a WebSocket is silent: it is pinged, and closed if it says nothing until the next."""

GONE, UNAVAILABLE = 430, 503
"""What the core hears when a message cannot be sent: its connection is gone (RFC 5626 section 5.3.1), or all else."""

Address = tuple[str, str, int, str]
"""Transport, remote address, remote port, and the SIP domain that the peer of a TLS connection has proven to be."""


class StreamLimits(msgspec.Struct, frozen=True):
    """What peers may take, of all stream transports together."""

    connections: int
    per_source: int
    message_seconds: float
    """From a message's first octet to its last."""
    idle_seconds: float
    """How long a connection by which no message has come yet may say nothing at all."""


class Receiver(Protocol):
    """Whom connections tell; `edge.transport.layer.Transports`."""

    def received(self, items: list[Item], flow: Flow) -> None: ...

    def closed(self, flow: Flow) -> None: ...

    def unsent(self, id_: str, status: int) -> None: ...

    def later(self) -> None:
        """Asks for a flush after this wake-up."""

    def flush(self) -> None:
        """Does at once what the core wants done."""


class Connection(Reading):
    """What the connections of all stream transports are; `read` and `write` are theirs."""

    def __init__(self, streams: "Streams", transport: str, place: str, parties: Parties, *, dialled: bool) -> None:
        """`place` is the source that it takes a place of; `parties` are who speaks and which of our addresses to."""
        super().__init__(streams.turns, streams.unread, network(parties.remote_host))
        self.streams, self.kind, self.place, self.parties, self.dialled = streams, transport, place, parties, dialled
        self.name = ""
        """The SIP domain that the peer has proven to be."""
        self.flow: Flow | None = None
        """None before the connection is made and after it is lost."""
        self.entered = False
        """Whether it was ever made: then its loss gives its place back."""
        self.refused = False
        """Whether it is too late for it to be made."""
        self.heard = dialled
        """Whether a message has come by it; what we opened need not prove that it is worth its place."""
        self.used = False
        """Whether a message went by it since this was last looked at."""
        self._unheard: deque[tuple[str, int]] = deque(maxlen=UNHEARD)
        """Messages after which nothing came yet: id, and the status that is told if nothing will."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes its number."""
        self._transport = cast(asyncio.Transport, transport)
        if self.refused or not self.acceptable():
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=UNREAD)
        if not self.parties.local_host:
            local = transport.get_extra_info("sockname")
            self.parties = Parties(self.parties.remote_host, self.parties.remote_port, local[0], local[1])
        self.entered = True
        parties = self.parties
        number = self.streams.enter(self)
        self.flow = Flow(
            self.kind, parties.local_host, parties.local_port, parties.remote_host, parties.remote_port, number
        )
        self.begun()

    def acceptable(self) -> bool:
        """Whether the peer is who it must be."""
        return True

    def begun(self) -> None:
        """Sets the first deadline."""
        if not self.dialled:
            self.streams.silent.keep(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it, and tells what was lost with it."""
        flow, self.flow, self._transport = self.flow, None, None
        if flow is not None:
            self.streams.leave(self, flow)
            for id_, status in self._unheard:
                self.streams.receiver.unsent(id_, status)
            self.streams.receiver.closed(flow)

    # --- out ------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether anything can be sent by it."""
        return self.flow is not None and self._transport is not None and not self._transport.is_closing()

    def send(self, send: Send) -> None:
        """Sends a message; if the peer ends the connection instead of answering, that is told."""
        self.used = True
        if send.id:
            self._unheard.append((send.id, status_of(send)))
        self.write(send.data)

    def write(self, data: bytes) -> None:
        """Writes a message as this transport has it."""
        raise NotImplementedError

    def take(self, items: list[Item], *, message: bool) -> None:
        """Hands on what came; `message`: not keep-alives and unreadable octets alone."""
        if self.flow is None:
            return
        self.used = True
        self._unheard.clear()
        if message and not self.heard:
            self.heard = True
            self.streams.silent.end(self)
        self.streams.receiver.received(items, self.flow)
        self.streams.receiver.later()

    def wait(self, *, pending: bool, new: bool) -> None:
        """Sets the deadline of what is `pending`, after octets came; `new`: of a message that began just now."""
        if not self.heard:
            self.streams.silent.begin(self)
        if not pending or self.more:  # what is held is whole, and late by our doing
            self.streams.slow.end(self)
        elif new:
            self.streams.slow.begin(self)
        else:
            self.streams.slow.keep(self)

    def close(self) -> None:
        """Closes it once all is written."""
        if self._transport is not None:
            if not self._transport.is_closing():  # TLS of Python 3.11.2 that is closed twice cannot be aborted
                self._transport.close()
            # A peer that reads nothing more must not keep it.
            self.streams.closing.keep(self)

    def end(self, reason: str = "the edge ends") -> None:
        """Closes it because we want to; `reason` is told where this transport can."""
        del reason
        self.close()

    def abort(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()

    def cut(self, reason: str) -> None:
        """Closes it because of what the peer did or did not do; `reason` is told where this transport can."""
        del reason
        self.abort()

    def look_alive(self) -> None:
        """Called every IDLE_SECONDS where that is asked for."""
        raise NotImplementedError


class Streams:
    """All open connections of one edge."""

    def __init__(self, limits: StreamLimits, receiver: Receiver, turns: Turns) -> None:
        self.receiver = receiver
        self.turns = turns
        self._limits = limits
        self._connections: dict[int, Connection] = {}
        self._numbers = 0
        self._by_address: dict[Address, Connection] = {}
        self._sources: Tally[str] = Tally()
        self._places = 0
        self.slow: Deadlines[Connection] = Deadlines(limits.message_seconds, lambda late: _cut(late, "slow-message"))
        self.silent: Deadlines[Connection] = Deadlines(limits.idle_seconds, lambda late: _cut(late, "idle-connection"))
        self.unread: Deadlines[Reading] = Deadlines(UNREAD_SECONDS, Reading.cut_unread)
        self.shaking: Deadlines[Connection] = Deadlines(HANDSHAKE_SECONDS, lambda late: _cut(late, "slow-handshake"))
        self.closing: Deadlines[Connection] = Deadlines(HANDSHAKE_SECONDS, lambda late: late.abort())
        self.idle: Deadlines[Connection] = Deadlines(IDLE_SECONDS, lambda silent: silent.look_alive())
        self._unused = Deadlines(UNUSED_SECONDS, self._close_unused)
        self._all: tuple[Deadlines[Connection], ...] = (
            self.slow,
            self.silent,
            self.shaking,
            self.closing,
            self.idle,
            self._unused,
        )

    def __len__(self) -> int:
        return len(self._connections)

    def stop(self) -> None:
        """Ends all connections, after what is written; what is lost with them is nobody's concern any more."""
        for connection in list(self._connections.values()):
            connection.end()
        for deadlines in self._all:
            deadlines.stop()
        self.unread.stop()

    # --- bounds ---------------------------------------------------------------------------------------------------

    def take_place(self, source: str) -> bool:
        """Takes one of the places that there are, in all and for this source; False: there is none."""
        if self._places >= self._limits.connections or self._sources[source] >= self._limits.per_source:
            if not self._sources[source]:
                del self._sources[source]
            dropped("too-many-connections")
            return False
        self._places += 1
        self._sources[source] += 1
        return True

    def leave_place(self, source: str) -> None:
        """Gives a place back."""
        self._places -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    # --- called by connections ------------------------------------------------------------------------------------

    def enter(self, connection: Connection) -> int:
        """The number of a connection that is open now."""
        self._numbers += 1
        self._connections[self._numbers] = connection
        for address in _addresses(connection):
            self._by_address[address] = connection
        if connection.dialled:
            self._unused.begin(connection)
        return self._numbers

    def leave(self, connection: Connection, flow: Flow) -> None:
        """A connection is gone."""
        del self._connections[flow.connection]
        for address in _addresses(connection):
            if self._by_address.get(address) is connection:
                del self._by_address[address]
        for deadlines in self._all:
            deadlines.end(connection)
        self.unread.end(connection)
        self.leave_place(connection.place)

    def _close_unused(self, connection: Connection) -> None:
        if connection.used:
            connection.used = False
            self._unused.begin(connection)
        else:
            connection.close()

    # --- out ------------------------------------------------------------------------------------------------------

    def send(self, send: Send) -> Address | None:
        """Sends by the connection that the flow names or one to its address; else where a new one must lead.

        None: it is sent, or that it cannot be is told.
        """
        flow = send.flow
        if flow.connection:
            connection = self._connections.get(flow.connection)
            if connection is not None and connection.open:
                connection.send(send)
                return None
            if not send.port:
                self.fail(send, "connection-gone")
                return None
        name = send.name.lower() if flow.transport == "tls" else ""
        address = (flow.transport, flow.remote_host, send.port or flow.remote_port, name)
        connection = self._by_address.get(address)
        if connection is not None and connection.open:
            connection.send(send)
            return None
        return address

    def close(self, flow: Flow) -> None:
        """Closes a connection, if it is still there, once all is written."""
        connection = self._connections.get(flow.connection)
        if connection is not None:
            connection.end("the registration was ended")

    def fail(self, send: Send, name: str) -> None:
        """A message cannot be sent: counted by this name, and told."""
        dropped(name)
        if send.id:
            self.receiver.unsent(send.id, status_of(send))


def status_of(send: Send) -> int:
    """What the core hears if this cannot be sent."""
    return GONE if send.flow.connection else UNAVAILABLE


def _addresses(connection: Connection) -> set[Address]:
    """By which it is found again: for who must prove to be a domain, only if that is what it has proven."""
    kind, parties = connection.kind, connection.parties
    return {(kind, parties.remote_host, parties.remote_port, name) for name in ("", connection.name)}


def _cut(connection: Connection, name: str) -> None:
    dropped(name)
    connection.cut(name.replace("-", " "))
