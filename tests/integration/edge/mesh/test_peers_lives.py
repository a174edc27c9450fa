"""Edges that begin, end, fall silent and come back under another life."""

import asyncio
import socket

import pytest

from edge.core import actions
from edge.core.clock import LogClock
from edge.mesh.link import SILENT
from edge.mesh.mesh import FORGET
from edge.topics.lease import Lease
from events.leases import EdgeLease
from runtime.log.embedded.log import EmbeddedLog
from runtime.metrics import drops
from tests.kit.peers import DEADLINE, TCP, UDP, Begin, accepted, deaf, joined, send


async def lease(log: EmbeddedLog, name: str, port: int, boot: str = "b1", host: str = "127.0.0.1") -> None:
    await Lease(log, LogClock(0.0, 0.0), EdgeLease(name, boot, 5, {"edges": f"{host}:{port}"})).renew()


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
