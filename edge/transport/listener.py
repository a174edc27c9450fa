"""Listening sockets, and the way of an accepted one to a connection: place, PROXY header, TLS.

All three are bounded before a transport exists: asyncio's own servers count nothing until TLS has been
agreed upon, so that half-open handshakes would be free.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from ipaddress import ip_address

from edge.core.addresses import Network
from edge.core.flow import SECURE
from edge.transport import proxy_protocol
from edge.transport.connections import HANDSHAKE_SECONDS, Connection, Streams
from edge.transport.proxy_protocol import BadHeader, Parties
from edge.transport.tcp import TcpConnection
from edge.transport.tls import Certificates
from edge.transport.turns import network
from edge.transport.websocket import WebSocketConnection
from runtime.inherited import inherited
from runtime.metrics import dropped
from runtime.pages import Pages
from runtime.tasks import Tasks

log = logging.getLogger("ramal.edge")

BACKLOG = 1024
ACCEPTS = 16
"""Connections accepted at one wake-up, before others have their turn."""
HANDSHAKES = 16
"""TLS handshakes of one source at a time; each is a millisecond of work, and all may ask for it at one wake-up."""
REST_SECONDS = 1.0
"""Without accepting, when the process has no file descriptors left."""

PROBES = {socket.TCP_KEEPIDLE: 120, socket.TCP_KEEPINTVL: 30, socket.TCP_KEEPCNT: 4}
"""Seconds of silence, seconds between probes, probes: a peer that vanished is gone after four minutes."""

Accepted = Callable[[socket.socket, str, int], None]


def listen(sock: socket.socket, host: str, port: int) -> None:
    """Binds it and listens; OSError when the address is taken."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    sock.listen(BACKLOG)


class Listener:
    """One listening socket."""

    def __init__(self, transport: str, host: str, port: int, accepted: Accepted) -> None:
        """`accepted` gets each new socket, and the address and port it comes from."""
        self._accepted = accepted
        self._socket = inherited(transport, host, port) or socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM
        )
        self._address = (host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest: asyncio.TimerHandle | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds and listens; raises OSError when the address is taken."""
        if not self._socket.getsockname()[1]:
            listen(self._socket, *self._address)
        self._address = self._socket.getsockname()[:2]
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._acceptable)

    @property
    def address(self) -> tuple[str, int]:
        """Where connections are accepted, with the real port once it is open."""
        return self._address

    def close(self) -> None:
        """Accepts no more."""
        if self._rest:
            self._rest.cancel()
            self._rest = None
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def _acceptable(self) -> None:
        for _ in range(ACCEPTS):
            try:
                connected, source = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:  # EMFILE and its like: the socket stays readable, and would be for ever
                dropped("accept-failed")
                log.warning("connections cannot be accepted", extra={"error": str(error)})
                self._have_rest()
                return
            self._accepted(connected, source[0], source[1])

    def _have_rest(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._rest = self._loop.call_later(REST_SECONDS, self._wake)

    def _wake(self) -> None:
        self._rest = None
        if self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self._acceptable)


class Entrance:
    """Makes connections of accepted sockets."""

    def __init__(
        self, streams: Streams, certificates: Certificates, origins: Iterable[str], proxies: Collection[Network]
    ) -> None:
        """`proxies`: who must begin with a PROXY header; `origins`: see `WebSocketConnection`."""
        self._streams, self._certificates, self._proxies = streams, certificates, proxies
        self._origins = frozenset(origin.lower() for origin in origins)
        self.pages: Pages | None = None
        """What a listener for WebSockets gives to who asks for a page."""
        self._tasks = Tasks()
        self._shaking: Tally[str] = Tally()
        """By source, how many shake hands or wait for it."""
        self._gates: dict[str, asyncio.Semaphore] = {}

    def accept(self, transport: str, connected: socket.socket, host: str, port: int) -> None:
        """Takes a place for a new socket and begins with it; without a place it is closed."""
        proxied = bool(self._proxies) and any(ip_address(host) in network for network in self._proxies)
        # Until a balancer has said for whom it speaks, it takes places of its own; then of that source.
        place = f"balancer {host}" if proxied else host
        if not self._streams.take_place(place):
            connected.close()
            return
        parties = Parties(host, port, *connected.getsockname()[:2])
        self._tasks.begin(self._open(transport, connected, parties, place, proxied=proxied), "accept")

    async def stop(self) -> None:
        """Ends what has begun."""
        await self._tasks.stop()

    async def _open(
        self, transport: str, connected: socket.socket, parties: Parties, place: str, *, proxied: bool
    ) -> None:
        connection: Connection | None = None
        try:
            connected.setblocking(False)
            if proxied:
                parties = await _told_parties(connected) or parties
                self._streams.leave_place(place)
                place = ""
                if not self._streams.take_place(parties.remote_host):
                    return
                place = parties.remote_host
            _probe_when_idle(connected)
            if transport in SECURE:
                async with self._handshake(network(parties.remote_host)):
                    connection = self._connection(transport, place, parties)
                    await self._connect(transport, connected, connection)
            else:
                connection = self._connection(transport, place, parties)
                await self._connect(transport, connected, connection)
        except BadHeader:
            dropped("proxy-protocol-bad")
        except TimeoutError:
            dropped("slow-handshake")
        except ssl.SSLError:
            dropped("tls-handshake-failed")
        except OSError:
            dropped("connection-gone")
        finally:
            if connection is None:
                connected.close()  # else it is the loop's to close
            if connection is None or not connection.entered:
                if connection is not None:
                    connection.refused = True
                if place:
                    self._streams.leave_place(place)

    @contextlib.asynccontextmanager
    async def _handshake(self, source: str) -> AsyncIterator[None]:
        """One of the handshakes that a source may have at a time; TimeoutError if its others take too long."""
        gate = self._gates.setdefault(source, asyncio.Semaphore(HANDSHAKES))
        self._shaking[source] += 1
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await gate.acquire()
            try:
                yield
            finally:
                gate.release()
        finally:
            self._shaking[source] -= 1
            if not self._shaking[source]:
                del self._shaking[source], self._gates[source]

    def _connection(self, transport: str, place: str, parties: Parties) -> Connection:
        if transport in ("ws", "wss"):
            return WebSocketConnection(
                self._streams, transport, place, parties, origins=self._origins, pages=self.pages
            )
        return TcpConnection(self._streams, transport, place, parties)

    async def _connect(self, transport: str, connected: socket.socket, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if transport in SECURE:
            await loop.connect_accepted_socket(
                lambda: connection,
                connected,
                ssl=self._certificates.server(loop.time()),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            )
        else:
            await loop.connect_accepted_socket(lambda: connection, connected)


async def _told_parties(connected: socket.socket) -> Parties | None:
    """Reads the PROXY header, and nothing behind it; raises BadHeader, TimeoutError, OSError."""
    loop = asyncio.get_running_loop()
    header = b""
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        while missing := proxy_protocol.missing(header):
            octets = await loop.sock_recv(connected, missing)
            if not octets:
                raise ConnectionResetError("closed within the PROXY header")
            header += octets
    return proxy_protocol.parse(header)


def _probe_when_idle(connected: socket.socket) -> None:
    """An idle connection stays, but not one whose peer has vanished."""
    with contextlib.suppress(OSError):  # it is gone already: the transport will say so
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in PROBES.items():
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
