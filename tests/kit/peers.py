"""Edges that talk to each other on loopback, with leases in the embedded log and a fake core in each."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from edge.core import actions
from edge.core.clock import LogClock
from edge.core.flow import Flow
from edge.mesh.channel import Channel
from edge.mesh.link import Link
from edge.mesh.mesh import Mesh
from edge.topics.lease import Lease
from edge.topics.neighbours import Neighbours
from events.leases import EdgeLease
from runtime.log.embedded.log import EmbeddedLog

DEADLINE = 8.0
OLD, NEW = bytes(range(32)), bytes(range(1, 33))
KEYS = {"k1": OLD}
UDP = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000)
TCP = Flow("tcp", "192.0.2.1", 5060, "198.51.100.7", 40_000, 3)


class Edge:
    """One edge's peers and neighbours; it is its own fake core, and remembers what it was told, in order."""

    def __init__(self, log: EmbeddedLog, name: str, boot: str = "b1", keys: dict[str, bytes] | None = None) -> None:
        self.log, self.name, self.boot = log, name, boot
        self.peers = Mesh(name, boot, keys or KEYS, self, self.deliver, self.flush)
        self.neighbours = Neighbours(log, name, boot, self.peers.learn)
        self.lease: Lease | None = None
        self.told: list[tuple[object, ...]] = []
        self.live: list[tuple[str, str]] = []
        self.flushes = 0
        self.mine: set[bytes] = set()
        """What it says yes to when it is sought."""
        self.refuses = 0
        """The status with which its sockets fail."""
        self.breaks = False
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def start(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> "Edge":
        await self.peers.start(address)
        host, port = self.peers.address
        clock = LogClock(0.0, 0.0)
        self.lease = Lease(self.log, clock, EdgeLease(self.name, self.boot, 5, {"edges": f"{host}:{port}"}))
        await self.lease.renew()
        self._reading = asyncio.create_task(self.neighbours.run())
        return self

    async def kill(self) -> None:
        """As by kill -9: nothing is said, sockets are reset."""
        await self._stop_reading()
        peers = self.peers
        if peers._server is not None:
            peers._server.close()
        if peers._timer is not None:
            peers._timer.cancel()
        peers._loop = None
        links, peers._links = peers._links, {}
        for link in links.values():
            if link._task is not None:
                link._task.cancel()
        for channel in list(peers._accepted_by_us._accepted.values()):
            channel.abort()

    async def stop(self) -> None:
        await self._stop_reading()
        await self.peers.stop()

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
            self._reading = None

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not reached():
                self._news.clear()
                await self._news.wait()

    async def hears(self, *what: object) -> None:
        await self.until(lambda: what in self.told)

    def link(self, name: str) -> Link:
        return self.peers._links[name]

    def heard_of(self, kind: str) -> list[tuple[object, ...]]:
        return [each for each in self.told if each[0] == kind]

    def _tell(self, *what: object) -> None:
        self.told.append(what)
        self._news.set()

    # --- what `Mesh` calls

    def deliver(self, send: actions.Send) -> None:
        self._tell("deliver", send.flow, send.data, send.port, send.name)
        if self.refuses and not self.peers.failed(send.id, self.refuses):
            self._tell("own", send.id)

    def flush(self) -> None:
        self.flushes += 1

    def unsent(self, failures: Iterable[tuple[str, int]], now: float) -> None:
        for id_, status in failures:
            self._tell("unsent", id_, status)

    def forward(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> None:
        self._tell("forward", data, edge, boot, flow)
        if self.breaks:
            raise ValueError("a bug")

    def claims(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> bool:
        self._tell("sought", data, edge, boot, flow)
        return data in self.mine

    def found_elsewhere(self, id_: str) -> None:
        self._tell("found", id_)

    def edge_lost(self, edge: str, boot: str, now: float) -> None:
        self._tell("lost", edge, boot)

    def edges(self, live: Iterable[tuple[str, str]], now: float) -> None:
        self.live = sorted(live)
        self._news.set()


Begin = Callable[..., Awaitable[Edge]]


def opened(edge: Edge, name: str) -> bool:
    """Whether its connection to the other has proved the key."""
    link = edge.peers._links.get(name)
    return link is not None and link._channel is not None and link._channel.open


async def joined(*edges: Edge) -> None:
    """Waits until each is connected with all others."""
    names = {edge.name for edge in edges}
    async with asyncio.timeout(DEADLINE):
        while not all(opened(edge, name) for edge in edges for name in names - {edge.name}):  # noqa: ASYNC110  # no event says so
            await asyncio.sleep(0.01)


def accepted(edge: Edge, name: str) -> Channel:
    """The connection that the other has dialled."""
    (channel,) = [c for c in edge.peers._accepted_by_us._accepted.values() if c.peer and c.peer.edge == name]
    return channel


def deaf(edge: Edge, name: str) -> Channel:
    """Makes it take nothing any more of what the other says, as if it were stopped."""
    channel = accepted(edge, name)
    assert channel._transport is not None
    channel._transport.pause_reading()
    return channel


def send(edge: str, data: bytes = b"INVITE", boot: str = "", id_: str = "i1", flow: Flow = UDP) -> actions.Send:
    return actions.Send(flow, data, 5062, edge, boot, id_, "example.test")
