"""Edges that talk to each other on loopback, with leases in the embedded log and a fake core in each."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from edge.core import actions
from edge.core.clock import LogClock
from edge.core.flow import Flow
from edge.mesh import frames
from edge.mesh.accepted import STRANGERS
from edge.mesh.channel import FRAME, UNSENT, Channel, size
from edge.mesh.link import SILENT, Link
from edge.mesh.mesh import FORGET, Mesh
from edge.mesh.sealing import HEAD, Sealing
from edge.topics.lease import Lease
from edge.topics.neighbours import Neighbours
from events.leases import EdgeLease
from runtime.log.embedded.log import EmbeddedLog
from runtime.metrics import drops
from runtime.store import EmbeddedStore

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


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, 2)
    await log.start()
    yield log
    await log.stop()
    await store.stop()


@pytest.fixture
async def begin(log: EmbeddedLog) -> AsyncIterator[Begin]:
    """Begins an edge, and ends it."""
    begun: list[Edge] = []

    async def begin(
        name: str, boot: str = "b1", keys: dict[str, bytes] | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> Edge:
        begun.append(Edge(log, name, boot, keys))
        return await begun[-1].start(address)

    yield begin
    for edge in begun:
        await edge.stop()


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


async def lease(log: EmbeddedLog, name: str, port: int, boot: str = "b1", host: str = "127.0.0.1") -> None:
    await Lease(log, LogClock(0.0, 0.0), EdgeLease(name, boot, 5, {"edges": f"{host}:{port}"})).renew()


# --- frames -----------------------------------------------------------------------------------------------------------


async def test_three_edges_find_each_other_by_their_leases(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    assert (a.live, b.live, c.live) == (
        [("b", "b1"), ("c", "b1")],
        [("a", "b1"), ("c", "b1")],
        [("a", "b1"), ("b", "b1")],
    )
    assert sorted(a.peers.live) == a.live


async def test_n09_an_edge_sends_by_the_flow_of_another(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    await asyncio.sleep(0.01)  # what `joined` has led to is flushed
    b.flushes = 0
    a.peers.send(send("b", boot="b1", flow=TCP))
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    assert [each[1] for each in b.heard_of("deliver")] == [TCP, UDP]
    assert not a.heard_of("unsent")
    assert not c.told
    assert b.flushes == 1  # what came together is flushed together


async def test_what_is_sent_before_the_connection_is_there_waits_for_it(begin: Begin, log: EmbeddedLog) -> None:
    b = await begin("b")
    a = await begin("a")
    await a.until(lambda: a.live == [("b", "b1")])
    assert not opened(a, "b")
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")


async def test_n06_a_flow_that_is_gone_at_its_owner_is_told_as_430(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    b.refuses = 430
    a.peers.send(send("b", boot="b1", flow=TCP))
    await a.hears("unsent", "i1", 430)
    b.refuses = 503
    a.peers.send(send("b", id_="z9@2@hG4bK"))
    await a.hears("unsent", "z9@2@hG4bK", 503)
    a.peers.send(send("b", id_=""))
    await b.hears("own", "")  # nobody waits for that


async def test_a_failure_for_one_who_has_left_is_dropped(begin: Begin) -> None:
    b = await begin("b")
    before = drops("edge-unsent-late")
    assert b.peers.failed("@77@i1", 430)
    assert drops("edge-unsent-late") == before + 1
    assert not b.peers.failed("i1", 430)


async def test_e11_n07_a_flow_of_another_life_is_gone_at_once(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    a.peers.send(send("b", boot="b0", flow=TCP))
    await a.hears("unsent", "i1", 430)
    a.peers.send(send("a", boot="b0", flow=TCP, id_="i2"))  # our own earlier life
    await a.hears("unsent", "i2", 430)
    assert not b.told


async def test_an_edge_that_nobody_knows_is_told_as_503(begin: Begin) -> None:
    a = await begin("a")
    a.peers.send(send("nobody"))
    await a.hears("unsent", "i1", 503)
    before = drops("edge-not-there")
    a.peers.forward(actions.Forward("nobody", "b1", UDP, b"SIP/2.0 200 OK"))
    assert drops("edge-not-there") == before + 1


async def test_e05_what_came_to_the_wrong_edge_is_handed_over(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    a.peers.forward(actions.Forward("c", "b1", UDP, b"SIP/2.0 200 OK"))
    await c.hears("forward", b"SIP/2.0 200 OK", "a", "b1", UDP)
    before = drops("edge-of-another-life")
    a.peers.forward(actions.Forward("c", "b0", UDP, b"SIP/2.0 180 Ringing"))
    assert drops("edge-of-another-life") == before + 1
    assert not b.told


async def test_a_bug_in_the_core_costs_one_message(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    b.breaks = True
    before = drops("bug")
    a.peers.forward(actions.Forward("b", "b1", UDP, b"1"))
    await b.hears("forward", b"1", "a", "b1", UDP)
    b.breaks = False
    a.peers.forward(actions.Forward("b", "b1", UDP, b"2"))
    await b.hears("forward", b"2", "a", "b1", UDP)
    assert drops("bug") == before + 1
    assert not a.heard_of("lost")


# --- seeks ------------------------------------------------------------------------------------------------------------


async def test_e06_what_one_edge_says_yes_to_is_found(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    c.mine.add(b"CANCEL")
    a.peers.seek(actions.Seek("s1", UDP, b"CANCEL"))
    await a.hears("found", "s1")
    await b.hears("sought", b"CANCEL", "a", "b1", UDP)


async def test_e06_only_who_has_what_is_sought_answers_and_only_if_somebody_waits(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    c.mine |= {b"ACK", b"CANCEL"}
    before = drops("edge-frame-unexpected")
    a.peers.seek(actions.Seek("s1", UDP, b"CANCEL of nobody"))
    a.peers.seek(actions.Seek("", UDP, b"ACK"))
    a.peers.seek(actions.Seek("s2", UDP, b"CANCEL"))
    await a.hears("found", "s2")
    await b.hears("sought", b"CANCEL", "a", "b1", UDP)
    assert a.heard_of("found") == [("found", "s2")]
    assert [each[1] for each in c.heard_of("sought")] == [b"CANCEL of nobody", b"ACK", b"CANCEL"]
    assert drops("edge-frame-unexpected") == before


async def test_with_no_other_edge_what_is_sent_to_one_is_told_as_503(log: EmbeddedLog) -> None:
    alone = Edge(log, "a")
    await alone.peers.start(None)
    alone.peers.seek(actions.Seek("s1", UDP, b"CANCEL"))
    alone.peers.send(send("b"))
    await alone.hears("unsent", "i1", 503)
    await alone.stop()


async def test_what_is_sought_of_one_that_reads_nothing_is_bounded(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    before = drops("edge-unsent-full")
    for number in range(UNSENT // FRAME + 1):
        a.peers.seek(actions.Seek(f"s{number}", UDP, bytes(FRAME)))
    assert drops("edge-unsent-full") > before


# --- life and death ---------------------------------------------------------------------------------------------------


async def test_n12_a_killed_edge_is_lost_by_its_connection_while_its_lease_stands(begin: Begin) -> None:
    a, b, c = await begin("a"), await begin("b"), await begin("c")
    await joined(a, b, c)
    await b.kill()
    await a.hears("lost", "b", "b1")
    await c.hears("lost", "b", "b1")
    assert a.live == [("c", "b1")]
    a.peers.send(send("b"))
    await a.hears("unsent", "i1", 503)
    a.peers.send(send("c"))
    await c.hears("deliver", UDP, b"INVITE", 5062, "example.test")


async def test_n12_an_edge_that_stopped_answering_is_lost(begin: Begin) -> None:
    """SIGSTOP: the kernel still takes what is written."""
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    a.peers.send(send("b"))
    await a.hears("lost", "b", "b1")
    assert a.live == []
    await a.until(lambda: a.live == [("b", "b1")])  # what woke up is back
    await joined(a, b)


async def test_n12_an_idle_edge_that_stopped_is_lost_too(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    await a.hears("lost", "b", "b1")


async def test_our_own_absence_is_nobodys_silence(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    link = a.link("b")
    a.peers.send(send("b"))
    await a.until(lambda: True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    owed = link._owes_since
    assert owed
    link.beat(owed + 5 * SILENT, 5 * SILENT)
    assert link.live
    link.beat(owed + 5 * SILENT + SILENT, 0.0)
    assert not link.live
    assert a.told == [("lost", "b", "b1")]


async def test_a_connection_that_breaks_is_opened_again_and_nobody_is_lost(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    first = accepted(b, "a")
    first.abort()
    a.peers.send(send("b", b"1"))
    await b.hears("deliver", UDP, b"1", 5062, "example.test")
    assert accepted(b, "a") is not first
    assert not a.heard_of("lost")
    assert not a.heard_of("unsent")


async def test_what_a_broken_connection_did_not_take_is_said_again(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    channel = deaf(b, "a")
    a.peers.send(send("b", b"1"))
    a.peers.send(send("b", b"2"))
    await asyncio.sleep(0.01)  # it is in the kernel's buffer now, which nobody will read
    assert not a.link("b")._queue
    channel.abort()
    await b.hears("deliver", UDP, b"2", 5062, "example.test")
    assert [each[2] for each in b.heard_of("deliver")] == [b"1", b"2"]
    assert not a.heard_of("lost")


async def test_what_was_taken_is_not_said_again(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    a.peers.send(send("b", b"1"))
    async with asyncio.timeout(DEADLINE):
        while a.link("b")._unproved or not b.told:  # noqa: ASYNC110  # the pong changes nothing else
            await asyncio.sleep(0.01)
    accepted(b, "a").abort()
    a.peers.send(send("b", b"2"))
    await b.hears("deliver", UDP, b"2", 5062, "example.test")
    assert [each[2] for each in b.heard_of("deliver")] == [b"1", b"2"]


async def test_n12_one_that_accepts_and_says_nothing_is_lost_with_what_waited(begin: Begin, log: EmbeddedLog) -> None:
    a = await begin("a")
    server = socket.create_server(("127.0.0.1", 0))  # the kernel accepts for it
    await lease(log, "mute", server.getsockname()[1])
    await a.until(lambda: a.live == [("mute", "b1")])
    a.peers.send(send("mute"))
    a.peers.seek(actions.Seek("s1", UDP, b"CANCEL"))
    await a.hears("unsent", "i1", 503)
    assert a.told.index(("lost", "mute", "b1")) < a.told.index(("unsent", "i1", 503))
    server.close()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"SIP/2.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "edge-stranger"),
        (b"ramal/1\n" + bytes(32) + b"\xff" * 100, "edge-record-too-long"),
        (b"ramal/1\n" + bytes(32) + b"\0\0\0\x20" + bytes(32), "edge-stranger"),
    ],
)
async def test_one_that_answers_garbage_is_lost(begin: Begin, log: EmbeddedLog, said: bytes, name: str) -> None:
    a = await begin("a")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    before = drops(name)
    await lease(log, "mad", server.sockets[0].getsockname()[1])
    await a.hears("lost", "mad", "b1")
    assert drops(name) > before
    server.close()


async def test_an_address_that_leads_nowhere_is_lost(begin: Begin, log: EmbeddedLog) -> None:
    a = await begin("a")
    await lease(log, "gone", 1)
    await lease(log, "typo", 1, host=".")
    await a.hears("lost", "gone", "b1")
    await a.hears("lost", "typo", "b1")


async def test_one_without_an_address_for_edges_is_no_neighbour(begin: Begin, log: EmbeddedLog) -> None:
    a = await begin("a")
    await Lease(log, LogClock(0.0, 0.0), EdgeLease("alone", "b1", 5, {"udp": "127.0.0.1:5060"})).renew()
    b = await begin("b")
    await joined(a, b)
    assert a.live == [("b", "b1")]


async def test_a_tombstone_ends_an_edge(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    assert b.lease
    await b.lease.end()
    await a.hears("lost", "b", "b1")
    assert "b" not in a.peers._links
    assert a.live == []


async def test_e11_an_edge_that_restarts_is_another_life(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    address = b.peers.address
    await b.kill()
    await a.hears("lost", "b", "b1")
    again = await begin("b", "b2", address=address)
    await joined(a, again)
    assert a.live == [("b", "b2")]
    a.peers.send(send("b", boot="b1", flow=TCP))
    await a.hears("unsent", "i1", 430)
    a.peers.send(send("b", b"new", boot="b2", flow=TCP))
    await again.hears("deliver", TCP, b"new", 5062, "example.test")
    assert a.heard_of("lost") == [("lost", "b", "b1")]


async def test_e11_another_life_at_the_same_address_is_known_before_the_log_says_so(
    begin: Begin, log: EmbeddedLog
) -> None:
    a, b = await begin("a"), await begin("b", "b2")
    await joined(a, b)
    before = drops("edge-other-life")
    await lease(log, "c", b.peers.address[1])  # its old address is b's now
    await a.hears("lost", "c", "b1")
    assert drops("edge-other-life") > before
    assert a.live == [("b", "b2")]


async def test_a_dead_edge_is_dialled_again_as_soon_as_it_dials(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    link = a.link("b")
    link._die("a test says so")
    accepted(b, "a").abort()
    await a.hears("lost", "b", "b1")
    a.peers.back("b")
    a.peers.back("nobody")
    await a.until(lambda: a.live == [("b", "b1")])


async def test_a_dead_edge_without_a_lease_is_not_dialled_for_ever(begin: Begin, log: EmbeddedLog) -> None:
    a = await begin("a")
    await lease(log, "gone", 1)
    await a.hears("lost", "gone", "b1")
    link = a.link("gone")
    link.leased_at -= FORGET + 1
    a.peers.learn([], [])
    assert "gone" not in a.peers._links
    assert link._task is not None
    await asyncio.wait({link._task}, timeout=DEADLINE)
    assert link._task.cancelled()
    assert a.heard_of("lost") == [("lost", "gone", "b1")]


# --- keys and strangers -----------------------------------------------------------------------------------------------


async def test_t19_an_edge_with_another_key_is_nobody(begin: Begin) -> None:
    before = drops("edge-stranger")
    a, b = await begin("a"), await begin("b", keys={"k1": NEW})
    await a.hears("lost", "b", "b1")
    await b.hears("lost", "a", "b1")
    assert (a.live, b.live) == ([], [])
    assert drops("edge-stranger") >= before + 2


async def test_edges_whose_keys_are_being_rotated_find_each_other(begin: Begin) -> None:
    a = await begin("a", keys={"k1": OLD, "k2": NEW})
    b = await begin("b", keys={"k2": NEW, "k1": OLD})
    c = await begin("c", keys={"k2": NEW, "k1": OLD})
    await joined(a, b, c)
    a.peers.send(send("b"))
    b.peers.send(send("a"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    await a.hears("deliver", UDP, b"INVITE", 5062, "example.test")


async def heard_by_stranger(address: tuple[str, int], said: bytes) -> bytes:
    """All that a stranger hears until the connection is closed."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(said)
    async with asyncio.timeout(DEADLINE):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n".ljust(200, b"x"),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\xff\xff\xff\xff" + bytes(100),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\0\0\x01\0" + bytes(256),
        b"k1".ljust(8, b"\0") + bytes(32) + b"\0\0\x01\0",
    ],
    ids=["silent", "another protocol", "huge", "no key", "unfinished"],
)
async def test_a_stranger_gets_nothing_and_is_closed(begin: Begin, said: bytes) -> None:
    a = await begin("a")
    heard = await heard_by_stranger(a.peers.address, said)
    assert len(heard) in (0, HEAD)
    assert not a.told
    assert not a.peers._accepted_by_us._strangers


async def test_one_who_repeats_what_an_edge_said_gets_nothing(begin: Begin, log: EmbeddedLog) -> None:
    b = await begin("b")
    taken = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*b.peers.address)

        async def answers() -> None:
            while data := await there.read(65536):
                writer.write(data)

        answering = asyncio.create_task(answers())
        while data := await reader.read(65536):
            taken.extend(data)
            back.write(data)
        answering.cancel()
        back.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    a = Edge(log, "a")
    await a.peers.start(("127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    a.peers.learn([EdgeLease("b", "b1", 5, {"edges": f"127.0.0.1:{port}"})], [])
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    assert b"INVITE" not in taken
    heard = await heard_by_stranger(b.peers.address, bytes(taken))
    assert len(heard) in (0, HEAD)
    assert len(b.heard_of("deliver")) == 1
    await a.stop()
    server.close()


async def test_strangers_are_few_and_edges_come_in_all_the_same(begin: Begin) -> None:
    a = await begin("a")
    before = drops("edge-too-many-strangers")
    strangers = [await asyncio.open_connection(*a.peers.address) for _ in range(STRANGERS + 10)]
    assert len(a.peers._accepted_by_us._strangers) <= STRANGERS
    b = await begin("b")
    await joined(a, b)
    assert drops("edge-too-many-strangers") >= before + 10
    for _, writer in strangers:
        writer.close()


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_message_too_long_for_a_frame_is_told_as_503(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    before = drops("edge-frame-too-long")
    a.peers.send(send("b", bytes(FRAME + 1)))
    a.peers.forward(actions.Forward("b", "b1", UDP, bytes(FRAME + 1)))
    a.peers.seek(actions.Seek("s1", UDP, bytes(FRAME + 1)))
    await a.hears("unsent", "i1", 503)
    assert drops("edge-frame-too-long") == before + 3


async def test_more_than_one_record_of_frames_arrives_in_order(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    messages = [bytes([number]) * FRAME for number in range(10)]
    for message in messages:
        a.peers.send(send("b", message))
    await b.until(lambda: len(b.told) == 10)
    assert [each[2] for each in b.told] == messages


async def test_what_waits_for_an_edge_is_bounded_and_the_rest_told_as_503(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    deaf(b, "a")
    before = drops("edge-unsent-full")
    count = UNSENT // FRAME + 1
    for number in range(count):
        a.peers.send(send("b", bytes(FRAME), id_=f"i{number}"))
    a.peers.forward(actions.Forward("b", "b1", UDP, bytes(FRAME)))
    await a.hears("unsent", f"i{count - 1}", 503)
    assert drops("edge-unsent-full") >= before + 2
    link = a.link("b")
    assert link._queued <= UNSENT
    assert sum(map(size, link._unproved)) <= UNSENT


async def test_one_that_does_not_read_our_answers_is_closed(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    channel = accepted(b, "a")
    dialled = a.link("b")._channel
    assert dialled is not None
    assert dialled._transport is not None
    dialled._transport.pause_reading()
    before = drops("edge-unread")
    (number,) = b.peers._accepted_by_us._numbers.values()
    for _ in range(400):
        for answer in range(20):
            b.peers.failed(f"@{number}@{'i' * 2000}{answer}", 503)
        await asyncio.sleep(0)
        if not channel.open:
            break
    assert not channel.open
    assert drops("edge-unread") == before + 1


async def test_a_frame_that_is_no_question_is_dropped_by_name(begin: Begin) -> None:
    a, b = await begin("a"), await begin("b")
    await joined(a, b)
    before = drops("edge-frame-unexpected")
    channel = a.link("b")._channel
    assert channel is not None
    channel.write([frames.Pong(), frames.ClaimFrame("s", True)], 0)
    a.peers.send(send("b"))
    await b.hears("deliver", UDP, b"INVITE", 5062, "example.test")
    b_channel = accepted(b, "a")
    b_channel.write([frames.Ping(), frames.ClaimFrame("s1", True), frames.Unsent("i9", 430)], 0)
    await a.hears("unsent", "i9", 430)
    assert drops("edge-frame-unexpected") == before + 3


async def test_a_hello_that_cannot_be_read_closes_the_connection(begin: Begin) -> None:
    a = await begin("a")
    before = drops("edge-hello-unreadable")
    sealing = Sealing(KEYS, bytes(32), dials=True)
    reader, writer = await asyncio.open_connection(*a.peers.address)
    sealing.feed(await reader.readexactly(HEAD))
    writer.write(sealing.head + sealing.seal(b"what"))
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    assert drops("edge-hello-unreadable") == before + 1
    writer.close()
