"""Edges that talk to each other on loopback, with leases in the embedded log: frames and seeks."""

import asyncio

from edge.core import actions
from edge.mesh.channel import FRAME, UNSENT
from runtime.log.embedded.log import EmbeddedLog
from runtime.metrics import drops
from tests.kit.peers import TCP, UDP, Begin, Edge, deaf, joined, opened, send

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
