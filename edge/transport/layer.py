"""The transport layer (RFC 3261 section 18): joins the sockets, the core and the ways to all else.

All that one wake-up brings goes through the core first; then what has gathered is sent, published, asked
and counted at once, and the one timer is set. No task, future or timer belongs to a single message.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple, ParamSpec, Protocol

import msgspec

from edge import metrics
from edge.core.actions import Actions, Forward, LookUp, Media, Publish, Resolve, Seek, Send
from edge.core.addresses import Network
from edge.core.flow import SECURE, TRANSPORTS, WILDCARDS, Flow
from edge.transport.connections import GONE, UNAVAILABLE, StreamLimits, Streams
from edge.transport.dial import Dials
from edge.transport.floods import FloodGate
from edge.transport.listener import Entrance, Listener
from edge.transport.tls import Certificates
from edge.transport.turns import Datagram, Turns, cost, network
from edge.transport.udp import UdpSocket
from events.calls import CallEvent
from events.replies import Reply
from runtime.metrics import dropped
from runtime.pages import Pages
from sipcore.parser import Item

log = logging.getLogger("ramal.edge")

TICK = 0.1
"""Seconds between two looks at the timers, at the least: deadlines may be that late, wake-ups are what costs."""

P = ParamSpec("P")


class TransportCore(Protocol):
    """What the transports ask of `edge.core.dispatch.EdgeCore`."""

    def datagram(self, data: bytes, flow: Flow, now: float) -> None: ...

    def stream(self, items: Iterable[Item], flow: Flow, now: float) -> None: ...

    def closed(self, flow: Flow, now: float) -> None: ...

    def unsent(self, failures: Iterable[tuple[str, int]], now: float) -> None: ...

    def replied(self, replies: Iterable[Reply], now: float) -> None: ...

    def unpublished(self, ids: Iterable[str], now: float) -> None: ...

    def take(self) -> Actions: ...

    def next_timer(self) -> float | None: ...

    def on_time(self, now: float) -> None: ...


class Outside(NamedTuple):
    """Ways to what is not a socket of ours; none of these waits, nor calls the core before it returns."""

    send: Callable[[Send], None]
    """By a flow of another edge."""
    forward: Callable[[Forward], None]
    seek: Callable[[Seek], None]
    failed: Callable[[str, int], bool]
    """Whether the id of a send that failed, with its status, is another edge's, which is told then."""
    look_up: Callable[[list[LookUp]], None]
    resolve: Callable[[list[Resolve]], None]
    media: Callable[[list[Media]], None]


class StreamSettings(msgspec.Struct, frozen=True):
    """What connections need to know."""

    limits: StreamLimits
    certificates: Certificates
    origins: tuple[str, ...] = ()
    """Whose pages may open a WebSocket; none: all."""
    proxies: Collection[Network] = ()
    """Balancers that speak the PROXY protocol."""


class Transports:
    """The sockets of one edge and its core."""

    def __init__(
        self,
        core: TransportCore,
        publish: Callable[[list[Publish]], None],
        streams: StreamSettings,
        *,
        edge: str = "",
        boot: str = "",
        tell: Callable[[list[CallEvent]], None] = lambda events: None,
    ) -> None:
        """`publish` gets the commands of a wake-up together; `edge` and `boot` tell our own flows from those of others.

        `tell` gets what a wake-up has done to calls.

        `outside` is to be set before the start by whoever has one: an edge by itself sends by its own flows only.
        """
        self.outside: Outside | None = None
        self._core = core
        self._publish = publish
        self._tell_of_calls = tell
        self._edge, self._boot = edge, boot
        self._udp: list[UdpSocket] = []
        self._sockets: dict[tuple[str, int, bool], UdpSocket] = {}
        self._certificates = streams.certificates
        self._turns = Turns(self.flush)
        self._gate = FloodGate(self._udp)
        self._streams = Streams(streams.limits, self, self._turns)
        self._dials = Dials(self._streams, streams.certificates)
        self._entrance = Entrance(self._streams, streams.certificates, streams.origins, streams.proxies)
        self._listeners: dict[str, list[Listener]] = {}
        self._unsent: list[tuple[str, int]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        """None before the start and after the end: nothing is told to the core then."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flushing = False
        self._deaf = False

    async def start(self, endpoints: Mapping[str, Iterable[tuple[str, int]]]) -> None:
        """Opens sockets, by transport; raises OSError when an address is taken, ConfigError without a certificate."""
        loop = self._loop = asyncio.get_running_loop()
        for transport in TRANSPORTS:
            for host, port in endpoints.get(transport, ()):
                if transport == "udp":
                    socket = UdpSocket(host, port, self._datagram, self._drained, self._datagram_failed)
                    self._udp.append(socket)
                    socket.open(loop)
                    continue
                if transport in SECURE:
                    self._certificates.server(loop.time())
                listener = Listener(transport, host, port, partial(self._entrance.accept, transport))
                self._listeners.setdefault(transport, []).append(listener)
                listener.open(loop)

    @property
    def connections(self) -> int:
        """How many are open, on all stream transports."""
        return len(self._streams)

    def serve_pages(self, pages: Pages) -> None:
        """Lets the listeners for WebSockets serve pages, too."""
        self._entrance.pages = pages

    async def refuse_new(self) -> None:
        """No new connections; what is open goes on."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()

    def deafen(self) -> None:
        """Takes no datagrams any more: a phone repeats what nobody answers, and somebody else may hear it then."""
        self._deaf = True

    async def stop(self) -> None:
        """Closes everything."""
        self._loop = None
        self._turns.stop()
        self._gate.stop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for socket in self._udp:
            socket.close()
        await self.refuse_new()
        await self._entrance.stop()
        await self._dials.stop()
        self._streams.stop()

    def bound(self, transport: str) -> list[tuple[str, int]]:
        """The addresses that are open, with their real ports."""
        if transport == "udp":
            return [(socket.host, socket.port) for socket in self._udp]
        return [listener.address for listener in self._listeners.get(transport, ())]

    # --- in -------------------------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, flow: Flow) -> None:
        turns, units = self._turns, cost(len(data))
        if self._deaf:
            dropped("stopping")
        elif turns.left > 0:
            turns.spend(units)
            self._handle(data, flow)
        else:
            source = network(flow.remote_host)
            if turns.room(source, units):
                turns.wait(source, Datagram(partial(self._handle, data, flow), units), units)
                return
            dropped("udp-flood")
            self._gate.refused(source)

    def _drained(self) -> None:
        """All is taken that datagrams brought at this wake-up."""
        self._turns.begin()
        self.flush()

    def _handle(self, data: bytes, flow: Flow) -> None:
        try:
            self._core.datagram(data, flow, time.monotonic())
        except Exception:  # a bug costs this message, never the socket
            log.exception("a datagram broke the core", extra={"source": flow.remote_host, "octets": len(data)})
            dropped("bug")

    def received(self, items: list[Item], flow: Flow) -> None:
        """What came by a connection."""
        try:
            self._core.stream(items, flow, time.monotonic())
        except Exception:  # a bug costs these messages, never the server
            log.exception("a stream broke the core", extra={"source": flow.remote_host})
            dropped("bug")

    def closed(self, flow: Flow) -> None:
        """A connection is gone."""
        if self._loop is not None:
            self.tell(self._core.closed, flow, time.monotonic())
            self.later()

    def unsent(self, id_: str, status: int) -> None:
        """A message cannot be sent; whoever wanted it hears of it soon, never from within the sending."""
        self._unsent.append((id_, status))
        self.later()

    def _datagram_failed(self, id_: str) -> None:
        self.unsent(id_, UNAVAILABLE)

    def replied(self, replies: list[Reply]) -> None:
        """A batch of replies to this boot."""
        self.tell(self._core.replied, replies, time.monotonic())
        self.flush()

    def unpublished(self, ids: list[str]) -> None:
        """Commands that the log did not take."""
        self.tell(self._core.unpublished, ids, time.monotonic())
        self.flush()

    def tell(self, what: Callable[P, None], *values: P.args, **named: P.kwargs) -> None:
        """Tells the core something; a bug costs it what was told, and never the one who tells."""
        try:
            what(*values, **named)
        except Exception:
            log.exception("the core broke", extra={"told": getattr(what, "__name__", "")})
            dropped("bug")

    # --- out ------------------------------------------------------------------------------------------------------

    def later(self) -> None:
        """Flushes once after all connections that are readable now."""
        if not self._flushing and self._loop:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._turns.begin()
        if self._unsent:
            self._tell_unsent()
        self.flush()

    def _tell_unsent(self) -> None:
        failures, self._unsent = self._unsent, []
        if (outside := self.outside) is not None:
            failures = [(id_, status) for id_, status in failures if not outside.failed(id_, status)]
        if failures:
            self.tell(self._core.unsent, failures, time.monotonic())

    def flush(self) -> None:
        """Does what the core wants done."""
        actions = self._core.take()
        for send in actions.sends:
            if send.edge and (send.edge != self._edge or (send.boot and send.boot != self._boot)):
                self._send_away(send)
            else:
                self.deliver(send)
        for flow in actions.closes:
            self._streams.close(flow)
        for id_ in actions.gone:
            self.unsent(id_, GONE)
        if actions.publishes:
            self._publish(actions.publishes)
        if actions.forwards or actions.seeks or actions.lookups or actions.resolves or actions.media:
            self._ask(actions)
        self._count(actions)
        self._set_timer()

    def deliver(self, send: Send) -> None:
        """Sends by a flow of ours, whoever wants it; a failure is told later to the core, or by `Outside.failed`."""
        flow = send.flow
        if flow.transport != "udp":
            address = self._streams.send(send)
            if address is not None:
                self._dials.send(send, address)
            return
        host = flow.local_host
        ipv6 = ":" in flow.remote_host
        socket = self._sockets.get((host, flow.local_port, ipv6)) or self._socket(flow, ipv6)
        if socket is None:
            self._streams.fail(send, "udp-no-socket")
        else:
            socket.send(send.data, flow.remote_host, send.port, "" if host in WILDCARDS else host, send.id)

    def _socket(self, flow: Flow, ipv6: bool) -> UdpSocket | None:
        """The socket that a flow's datagrams came in by; remembered, as many as we have addresses.

        Where the flow has no address of ours yet, any that reaches its family will do.
        """
        anywhere = flow.local_host in WILDCARDS
        for socket in self._udp:
            named = socket.port == flow.local_port and socket.serves(flow.local_host)
            if socket.ipv6 == ipv6 and (anywhere or named):
                self._sockets[flow.local_host, flow.local_port, ipv6] = socket
                return socket
        return None

    def _send_away(self, send: Send) -> None:
        """By another edge; what was a connection of an earlier life of ours is gone (CHECKLIST N07)."""
        if send.edge != self._edge and self.outside is not None:
            self.outside.send(send)
            return
        dropped("edge-of-another-life" if send.edge == self._edge else "edge-not-there")
        if send.id:
            self.unsent(send.id, GONE if send.edge == self._edge else UNAVAILABLE)

    def _ask(self, actions: Actions) -> None:
        """Hands on what sockets have no part in."""
        outside = self.outside
        if outside is None:
            dropped("nothing-outside")
            return
        for forward in actions.forwards:
            outside.forward(forward)
        for seek in actions.seeks:
            outside.seek(seek)
        if actions.lookups:
            outside.look_up(actions.lookups)
        if actions.resolves:
            outside.resolve(actions.resolves)
        if actions.media:
            outside.media(actions.media)

    def _count(self, actions: Actions) -> None:
        if actions.events:
            self._tell_of_calls(actions.events)
        for phone in actions.unserved:
            log.info("a phone registers with a domain that is not served", extra=phone._asdict())
        for name, count in actions.drops.items():
            dropped(name, count)
        metrics.count(actions)

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
        self.tell(self._core.on_time, time.monotonic())
        self.flush()
