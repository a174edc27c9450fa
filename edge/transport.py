"""The transport layer (RFC 3261 section 18): joins the sockets, the core and the way to the log.

All that one wake-up brings goes through the core first; then what has gathered is sent, published and
counted at once, and the one timer is set. No task, future or timer belongs to a single request.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from prometheus_client import Counter

from edge.actions import Actions, Publish, Send
from edge.core import EdgeCore
from edge.flow import Flow
from edge.tcp import TcpConnections, TcpLimits
from edge.udp import UdpSocket
from events.replies import Reply
from runtime.metrics import dropped
from sipcore.parser import Item

log = logging.getLogger("ramal.edge")

TICK = 0.1
"""Seconds between two looks at the timers, at the least: deadlines may be that late, wake-ups are what costs."""

RESPONSES = Counter("ramal_edge_responses", "Responses sent, by status.", ["status"])


class Transports:
    """The sockets of one edge and its core."""

    def __init__(self, core: EdgeCore, publish: Callable[[list[Publish]], None], limits: TcpLimits) -> None:
        """`publish` gets the commands of a wake-up together."""
        self._core = core
        self._publish = publish
        self._udp: list[UdpSocket] = []
        self._sockets: dict[tuple[str, int], UdpSocket] = {}
        self.tcp = TcpConnections(limits, self._stream, self._later, self.flush)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flushing = False
        self._responses: dict[int, Counter] = {}

    async def start(self, udp: Iterable[tuple[str, int]], tcp: Iterable[tuple[str, int]]) -> None:
        """Opens all sockets; raises OSError when an address is taken."""
        self._loop = asyncio.get_running_loop()
        for host, port in udp:
            socket = UdpSocket(host, port, self._datagram, self.flush)
            socket.open(self._loop)
            self._udp.append(socket)
        for host, port in tcp:
            await self.tcp.listen(host, port)

    async def refuse_new(self) -> None:
        """No new connections; what is open goes on."""
        await self.tcp.stop_listening()

    async def stop(self) -> None:
        """Closes everything."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for socket in self._udp:
            socket.close()
        await self.tcp.stop()

    def bound(self, transport: str) -> list[tuple[str, int]]:
        """The addresses that are open, with their real ports."""
        if transport == "udp":
            return [(socket.host, socket.port) for socket in self._udp]
        return self.tcp.addresses

    # --- in -------------------------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, flow: Flow) -> None:
        try:
            self._core.datagram(data, flow, time.monotonic())
        except Exception:  # a bug costs this message, never the socket
            log.exception("a datagram broke the core", extra={"source": flow.remote_host, "octets": len(data)})
            dropped("bug")

    def _stream(self, items: list[Item], flow: Flow) -> None:
        try:
            self._core.stream(items, flow, time.monotonic())
        except Exception:  # a bug costs these messages, never the server
            log.exception("a stream broke the core", extra={"source": flow.remote_host})
            dropped("bug")

    def replied(self, replies: list[Reply]) -> None:
        """A batch of replies to this boot."""
        try:
            self._core.replied(replies, time.monotonic())
        except Exception:  # a bug costs this batch its answers, never the reading of the next
            log.exception("replies broke the core", extra={"count": len(replies)})
            dropped("bug")
        self.flush()

    def unpublished(self, ids: list[str]) -> None:
        """Commands that the log did not take."""
        self._core.unpublished(ids, time.monotonic())
        self.flush()

    # --- out ------------------------------------------------------------------------------------------------------

    def _later(self) -> None:
        """Flushes once after all connections that are readable now."""
        if not self._flushing and self._loop:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Does what the core wants done."""
        actions = self._core.take()
        for send in actions.sends:
            self._send(send)
        if actions.publishes:
            self._publish(actions.publishes)
        self._count(actions)
        self._set_timer()

    def _send(self, send: Send) -> None:
        flow = send.flow
        if flow.reliable:
            self.tcp.send(send)
            return
        socket = self._sockets.get((flow.local_host, flow.local_port)) or self._socket(flow)
        if socket is None:
            dropped("udp-no-socket")
        else:
            socket.send(send.data, flow.remote_host, send.port, flow.local_host)

    def _socket(self, flow: Flow) -> UdpSocket | None:
        """The socket that a flow's datagrams came in by; remembered, as many as we have addresses."""
        for socket in self._udp:
            if socket.port == flow.local_port and socket.serves(flow.local_host):
                self._sockets[flow.local_host, flow.local_port] = socket
                return socket
        return None

    def _count(self, actions: Actions) -> None:
        for name, count in actions.drops.items():
            dropped(name, count)
        for status, count in actions.statuses.items():
            counter = self._responses.get(status)
            if counter is None:
                counter = self._responses[status] = RESPONSES.labels(status)
            counter.inc(count)

    def _set_timer(self) -> None:
        at = self._core.next_timer()
        if at is None or self._loop is None:
            return
        now = time.monotonic()
        # Compared with the tick added: else every wake-up under load would put off a timer that is overdue.
        due = max(at, now + TICK)
        if self._timer:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(self._timer_at - now, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._core.on_time(time.monotonic())
        self.flush()
