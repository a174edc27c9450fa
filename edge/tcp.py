"""TCP: connections, each with its parser, and bounds for all that a peer could make us hold.

A connection is closed that keeps a message unfinished too long (slow-loris), that does not read what it is
sent, or whose octets can no longer be cut into messages. An idle one stays: it is a phone's flow.
"""

import asyncio
import logging
import socket
from collections import Counter as Tally
from collections.abc import Callable
from typing import cast

import msgspec

from edge.actions import Send
from edge.flow import Flow
from runtime.metrics import dropped
from sipcore.parser import Item, StreamParser

log = logging.getLogger("ramal.edge")

UNSENT = 256 * 1024
"""Octets a peer may leave unread before it is cut off."""
DIALS = 64
"""New connections for responses (RFC 3261 section 18.2.2) that are being opened at one time."""
DIAL_SECONDS = 2.0

PROBES = {socket.TCP_KEEPIDLE: 120, socket.TCP_KEEPINTVL: 30, socket.TCP_KEEPCNT: 4}
"""Seconds of silence, seconds between probes, probes: a peer that vanished is gone after four minutes."""

Received = Callable[[list[Item], Flow], None]


class TcpLimits(msgspec.Struct, frozen=True):
    """What peers may take."""

    connections: int
    per_source: int
    message_seconds: float
    """From a message's first octet to its last."""


class TcpConnections:
    """Listeners and connections of one edge."""

    def __init__(
        self, limits: TcpLimits, received: Received, later: Callable[[], None], flush: Callable[[], None]
    ) -> None:
        """`received` gets messages; `later` asks for a flush after this wake-up, `flush` does it now."""
        self.limits = limits
        self.received, self.later, self.flush = received, later, flush
        self._servers: list[asyncio.Server] = []
        self._connections: dict[int, Connection] = {}
        self._sources: Tally[str] = Tally()
        self._numbers = 0
        self._partial: dict[Connection, float] = {}
        """Connections that hold a part of a message, since when; in order of time."""
        self._sweep: asyncio.TimerHandle | None = None
        self._dials: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> None:
        """Accepts connections at an address; raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), host, port, backlog=1024))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where connections are accepted, with real ports."""
        return [bound.getsockname()[:2] for server in self._servers for bound in server.sockets]

    def __len__(self) -> int:
        return len(self._connections)

    async def stop_listening(self) -> None:
        """Accepts no more."""
        for server in self._servers:
            server.close()

    async def stop(self) -> None:
        """Closes all connections and listeners."""
        await self.stop_listening()
        if self._sweep:
            self._sweep.cancel()
        for task in self._dials:
            task.cancel()
        for connection in list(self._connections.values()):
            connection.close()

    # --- called by connections ------------------------------------------------------------------------------------

    def enter(self, connection: "Connection", source: str) -> int | None:
        """The number of a new connection; None if there are too many."""
        if len(self._connections) >= self.limits.connections or self._sources[source] >= self.limits.per_source:
            dropped("too-many-connections")
            return None
        self._sources[source] += 1
        self._numbers += 1
        self._connections[self._numbers] = connection
        return self._numbers

    def leave(self, connection: "Connection", number: int, source: str) -> None:
        """A connection is gone."""
        del self._connections[number]
        self._partial.pop(connection, None)
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def holds_part(self, connection: "Connection", *, since_now: bool) -> None:
        """A message of this connection has begun and not ended; `since_now`: not the one of before."""
        if since_now:
            self._partial.pop(connection, None)
        loop = asyncio.get_running_loop()
        self._partial.setdefault(connection, loop.time())
        if self._sweep is None:
            self._sweep = loop.call_later(self.limits.message_seconds, self._close_slow)

    def holds_none(self, connection: "Connection") -> None:
        """All that this connection has sent were whole messages."""
        self._partial.pop(connection, None)

    def _close_slow(self) -> None:
        """Closes those whose message has not ended in time; comes again when the next may be due."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        while self._partial:
            connection, since = next(iter(self._partial.items()))
            due = since + self.limits.message_seconds
            if due > loop.time():
                self._sweep = loop.call_at(due, self._close_slow)
                return
            del self._partial[connection]
            dropped("slow-message")
            connection.abort()

    # --- out ------------------------------------------------------------------------------------------------------

    def send(self, send: Send) -> None:
        """Sends by the flow's connection; a response whose connection is gone, by a new one (CHECKLIST T04)."""
        connection = self._connections.get(send.flow.connection)
        if connection is not None:
            connection.send(send.data)
        elif not send.port:
            dropped("connection-gone")
        elif len(self._dials) >= DIALS:
            dropped("too-many-dials")
        else:
            task = asyncio.get_running_loop().create_task(self._dial(send), name="dial")
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dial(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                _, connection = await loop.create_connection(lambda: Connection(self), send.flow.remote_host, send.port)
        except (OSError, TimeoutError):
            dropped("connection-gone")
            return
        connection.send(send.data)


class Connection(asyncio.Protocol):
    """One connection: octets in, messages to the core."""

    def __init__(self, connections: TcpConnections) -> None:
        self._connections = connections
        self._parser = StreamParser()
        self._transport: asyncio.Transport | None = None
        self._flow: Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enters it, or closes it when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        number = self._connections.enter(self, remote[0]) if remote and local else None
        if number is None:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=UNSENT)
        _probe_when_idle(transport.get_extra_info("socket"))
        self._flow = Flow("tcp", local[0], local[1], remote[0], remote[1], number)
        # Who opens a connection has something to say: one that stays silent holds its place no longer than a slow one.
        self._connections.holds_part(self, since_now=True)

    def data_received(self, data: bytes) -> None:
        """Cuts octets into messages; RFC 3261 section 18.3."""
        if self._flow is None or self._transport is None:
            return
        items = self._parser.feed(data)
        if items:
            self._connections.received(items, self._flow)
            self._connections.later()
        if self._parser.closed:
            dropped("stream-broken")
            self._connections.flush()
            self._transport.close()
        elif self._parser.pending:
            self._connections.holds_part(self, since_now=bool(items))
        else:
            self._connections.holds_none(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        if self._flow is not None:
            self._connections.leave(self, self._flow.connection, self._flow.remote_host)
            self._flow = None
        self._transport = None

    def pause_writing(self) -> None:
        """The peer does not read: it is cut off, for nothing that waits for it may pile up."""
        dropped("slow-reader")
        self.abort()

    def send(self, data: bytes) -> None:
        """Writes octets, unless the connection is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
        else:
            dropped("connection-gone")

    def close(self) -> None:
        """Closes it once all is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()


def _probe_when_idle(connected: socket.socket) -> None:
    """An idle connection stays, but not one whose peer has vanished."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in PROBES.items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)
