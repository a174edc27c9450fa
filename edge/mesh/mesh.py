"""Mesh: the other edges, as a transport of this one (DESIGN section 8; CHECKLIST N12, E05).

This edge dials every other that has a lease, and asks it by that connection: to send by its flows, to take what came
by ours, to say whether an INVITE is its own. By the connections that others have dialled it only answers
(`edge.mesh.accepted`). All that one wake-up brings for an edge is one write, and one timer serves all of them.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from edge.config import endpoint
from edge.core import actions
from edge.core.flow import Flow
from edge.mesh import frames
from edge.mesh.accepted import Accepted
from edge.mesh.channel import FRAME, Channel, End
from edge.mesh.frames import Frame, Hello
from edge.mesh.link import Link
from edge.mesh.sealing import NONCE, Sealing
from events.leases import EdgeLease
from runtime.errors import ConfigError
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

TICK = 0.2
"""Seconds between two looks at who is silent."""
LINKS = 1000
"""Other edges with leases; more are dropped by name."""
FORGET = 180.0
"""Seconds for which an edge is dialled that is dead and whose lease is not renewed."""


class MeshCore(Protocol):
    """What is told of the other edges: `edge.core.dispatch.EdgeCore`."""

    def unsent(self, failures: Iterable[tuple[str, int]], now: float) -> None: ...
    def forward(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> None: ...
    def claims(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> bool: ...
    def found_elsewhere(self, id_: str) -> None: ...
    def edge_lost(self, edge: str, boot: str, now: float) -> None: ...
    def edges(self, live: Iterable[tuple[str, str]], now: float) -> None: ...


class Mesh:
    """The connections of one edge with all others."""

    def __init__(
        self,
        edge: str,
        boot: str,
        keys: Mapping[str, bytes],
        core: MeshCore,
        deliver: Callable[[actions.Send], None],
        flush: Callable[[], None],
    ) -> None:
        """`deliver` sends by one of our own sockets, and has `failed` called if it cannot; `flush` does what the
        core wants done, once after each wake-up in which it was told something."""
        self._hello = Hello(edge, boot)
        self._keys = keys
        self._core = core
        self._deliver, self._flush = deliver, flush
        self._links: dict[str, Link] = {}
        """By edge."""
        self._live: list[tuple[str, str]] = []
        self._dirty: dict[Link, None] = {}
        self._failures: list[tuple[str, int]] = []
        self._told = False
        """Whether the core was told something since the last flush."""
        self._accepted_by_us = Accepted(self._hello, keys, self)
        self._waking = False
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    async def start(self, address: tuple[str, int] | None) -> None:
        """Listens for other edges, if there may be any; raises OSError when the address is taken."""
        self._loop = asyncio.get_running_loop()
        if address is None:
            return
        self._server = await self._loop.create_server(self._accepted_by_us.accept, *address)
        self._due = time.monotonic() + TICK
        self._timer = self._loop.call_later(TICK, self._tick)

    @property
    def address(self) -> tuple[str, int]:
        """Where other edges connect, with the real port."""
        if self._server is None:
            raise RuntimeError("not started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    @property
    def live(self) -> list[tuple[str, str]]:
        """The other edges that live, each with its life."""
        return list(self._live)

    async def stop(self) -> None:
        """Closes everything; what was written still leaves."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._server is not None:
            self._server.close()
        self._wake()
        self._loop = None
        links, self._links = self._links, {}
        self._accepted_by_us.stop()
        await asyncio.gather(*(link.stop() for link in links.values()), return_exceptions=True)

    # --- what the core wants --------------------------------------------------------------------------------------

    def send(self, send: actions.Send) -> None:
        """Has another edge send by its flow; `MeshCore.unsent` is called, later, if that is not possible."""
        link = self._links.get(send.edge)
        if link is None or not link.live:
            # Of our own earlier life, too, every connection is gone.
            status = 430 if send.boot and send.edge == self._hello.edge else 503
            self._fail(send.id, status, "edge-not-there")
        elif send.boot and send.boot != link.boot:
            self._fail(send.id, 430, "edge-of-another-life")
        elif len(send.data) > FRAME:
            self._fail(send.id, 503, "edge-frame-too-long")
        elif self._put(link, frames.SendFrame(send.flow, send.data, send.port, send.id, send.name)):
            return
        else:
            self._fail(send.id, 503, "edge-unsent-full")

    def forward(self, forward: actions.Forward) -> None:
        """Gives a message to the edge whose it is; dropped by name if that is not possible."""
        link = self._links.get(forward.edge)
        if link is None or not link.live:
            dropped("edge-not-there")
        elif forward.boot and forward.boot != link.boot:
            dropped("edge-of-another-life")
        elif len(forward.data) > FRAME:
            dropped("edge-frame-too-long")
        elif not self._put(link, frames.ForwardFrame(forward.flow, forward.data)):
            dropped("edge-unsent-full")

    def seek(self, seek: actions.Seek) -> None:
        """Asks all edges; `MeshCore.found_elsewhere` is called, later, if one says that it is its own."""
        if len(seek.data) > FRAME:
            dropped("edge-frame-too-long")
            return
        frame = frames.SeekFrame(seek.id, seek.flow, seek.data)
        for link in self._links.values():
            if link.live and not self._put(link, frame):
                dropped("edge-unsent-full")

    def failed(self, id_: str, status: int) -> bool:
        """Whether an id of `deliver` was another edge's, which is then told; the core's own are left to the caller."""
        return self._accepted_by_us.failed(id_, status)

    def _put(self, link: Link, frame: Frame) -> bool:
        if not link.put(frame):
            return False
        self._dirty[link] = None
        self.soon()
        return True

    def _fail(self, id_: str, status: int, name: str) -> None:
        dropped(name)
        if id_:
            self._failures.append((id_, status))
            self.soon()

    # --- once a wake-up -------------------------------------------------------------------------------------------

    def soon(self) -> None:
        """Has what has gathered done after this wake-up."""
        if not self._waking and self._loop is not None:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Tells the core what has gathered, has done what it wants, and writes to everybody what is for him."""
        now = time.monotonic()
        if self._failures:
            failures, self._failures = self._failures, []
            self.tell(self._core.unsent, failures, now)
        if self._told:
            self._told = False
            self._guard(self._flush)
        self._waking = False
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            self._guard(link.write, now)
        self._guard(self._accepted_by_us.write)
        if self._failures or self._told:  # by what the flush or a write led to
            self.soon()

    def tell(self, tell: Callable[..., object], *values: Any) -> object:
        """Tells the core or the sockets something, after which they are flushed."""
        self._told = True
        self.soon()
        return self._guard(tell, *values)

    @staticmethod
    def _guard(call: Callable[..., object], *values: Any) -> object:
        try:
            return call(*values)
        except Exception:  # a bug costs what was told, never the connections
            log.exception("news of other edges broke the edge")
            dropped("bug")
            return None

    def _tick(self) -> None:
        if self._loop is None:
            return
        now = time.monotonic()
        late = max(0.0, now - self._due - TICK)
        self._due = now + TICK
        self._timer = self._loop.call_later(TICK, self._tick)
        for link in list(self._links.values()):
            self._guard(link.beat, now, late)
        self._accepted_by_us.beat(now, late)

    # --- leases ---------------------------------------------------------------------------------------------------

    def learn(self, leases: Sequence[EdgeLease], ended: Sequence[tuple[str, str]]) -> None:
        """What the log says of other edges (`topics.neighbours`): leases that began or go on, and lives that ended."""
        now = time.monotonic()
        for edge, boot in ended:
            link = self._links.get(edge)
            if link is not None and link.boot == boot:
                self._end_link(link)
        for lease in leases:
            self._lease(lease, now)
        # Only what the log says moves this: its silence ends no lease.
        for link in [link for link in self._links.values() if not link.live and link.leased_at < now - FORGET]:
            self._end_link(link)
        self._survey(now)

    def _lease(self, lease: EdgeLease, now: float) -> None:
        if lease.edge == self._hello.edge:
            return
        link = self._links.get(lease.edge)
        try:
            address = endpoint(lease.addresses.get("edges", ""), "edges")
        except ConfigError:
            address = None  # it takes no connections of edges
        if link is not None and (link.boot, link.host, link.port) != (lease.boot, *(address or ("", 0))):
            self._end_link(link)
            link = None
        if link is None and address is not None:
            if len(self._links) >= LINKS:
                dropped("edge-too-many")
                return
            link = self._links[lease.edge] = Link(self, lease.edge, lease.boot, *address)
            link.start()
        if link is not None:
            link.leased_at = now

    def _end_link(self, link: Link) -> None:
        del self._links[link.edge]
        self._dirty.pop(link, None)
        link.end()

    def _survey(self, now: float) -> None:
        """Tells the core which edges live, if that has changed."""
        live = [(link.edge, link.boot) for link in self._links.values() if link.live]
        if live != self._live:
            self._live = live
            self.tell(self._core.edges, live, now)

    # --- links: what others answer ----------------------------------------------------------------------------------

    def channel(self, end: End) -> Channel:
        """A channel that dials."""
        return Channel(end, Sealing(self._keys, os.urandom(NONCE), dials=True), self._hello, dials=True)

    def opened(self, link: Link) -> None:
        """The link can be written to."""
        log.info("connected to another edge", extra={"edge": link.edge, "boot": link.boot})
        self._dirty[link] = None
        self.soon()
        self._survey(time.monotonic())

    def died(self, link: Link, unsent: list[Frame]) -> None:
        """The other edge is dead: the core first tries other ways, then hears what never left."""
        now = time.monotonic()
        self.tell(self._core.edge_lost, link.edge, link.boot, now)
        self._survey(now)
        for frame in unsent:
            self._fail(frame.id if isinstance(frame, frames.SendFrame) else "", 503, "edge-lost-unsent")

    def answered(self, link: Link, said: list[Frame]) -> None:
        """The other edge has said these."""
        for frame in said:
            kind = type(frame)
            if kind is frames.Pong:
                link.pong()
            elif isinstance(frame, frames.Unsent):
                self._failures.append((frame.id, frame.status))
                self.soon()
            elif isinstance(frame, frames.ClaimFrame):
                if frame.yes:  # edges of before said also that it is not theirs
                    self.tell(self._core.found_elsewhere, frame.id)
            else:
                dropped("edge-frame-unexpected")

    # --- asked: what others want of us ------------------------------------------------------------------------------

    def deliver(self, send: actions.Send) -> None:
        """Another edge sends by a flow of ours."""
        self.tell(self._deliver, send)

    def receive_forward(self, forward: frames.ForwardFrame, peer: Hello, now: float) -> None:
        """Another edge hands us what is ours."""
        self.tell(self._core.forward, forward.data, peer.edge, peer.boot, forward.flow, now)

    def claims(self, seek: frames.SeekFrame, peer: Hello, now: float) -> bool:
        """Another edge asks whether this is ours."""
        return bool(self.tell(self._core.claims, seek.data, peer.edge, peer.boot, seek.flow, now))

    def back(self, edge: str) -> None:
        """Another edge has dialled us, so it lives."""
        link = self._links.get(edge)
        if link is not None:
            link.dial_now()
