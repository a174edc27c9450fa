"""An edge dies while it rings or talks: the others carry on with what its tokens say."""

import pytest

from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, contact, established, invite, routes_of_caller


@pytest.mark.parametrize(("transport", "seconds"), [("tcp", 0.0), ("udp", 6.0)])
def test_n12_a_dead_owner_costs_480_at_once_on_connections_and_4_s_on_udp(transport: str, seconds: float) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    cluster.kill("edge-2")
    invite(alice)
    if seconds:
        assert bob.got_request("INVITE")  # sent to the stored source, from another address of ours
        cluster.turn(seconds)
    alice.got_response(480)


def test_y38_the_edge_dies_while_it_rings_an_answer_reaches_the_caller() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.kill("edge-1")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    assert len(ok.vias) == 1
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), edge="edge-3")
    bob.got_request("ACK")


def test_y38_a_cancel_after_the_edge_died_ends_the_call_at_the_caller() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.kill("edge-1")
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    cluster.turn(0.6)
    alice.got_response(200)
    refused = alice.got_response(487)
    assert refused.cseq == (1, "INVITE")
    cancel = bob.got_request("CANCEL")
    assert cancel.branch == received.branch


@pytest.mark.parametrize("how", ["lost", "lease ended"])
def test_n12_when_the_owner_dies_before_it_rings_a_phone_on_udp_is_tried_at_its_source(how: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    first = bob.got_request("INVITE")
    del cluster.edges["edge-2"]
    core = cluster.edges["edge-1"]
    if how == "lost":
        core.edge_lost("edge-2", "b00t", cluster.now)
    else:
        core.edges([], cluster.now)
    cluster.pump()
    again = bob.got_request("INVITE")
    assert again.branch != first.branch
    assert again.via.host == "192.0.2.1"
    bob.respond(again, 200, edge="edge-1")
    alice.got_response(200)


def test_n12_the_end_of_a_lease_ends_what_waits_for_its_connections() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    bob.got_request("INVITE")
    del cluster.edges["edge-2"]
    cluster.edges["edge-1"].edges([], cluster.now)
    cluster.pump()
    alice.got_response(480)


def test_a_phone_without_its_owner_that_says_100_may_ring_as_long_as_any() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    cluster.kill("edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 100, edge="edge-1")
    cluster.turn(20)
    assert not bob.inbox
    assert not alice.inbox


def test_the_ack_of_a_2xx_reaches_a_phone_on_udp_whose_owner_died() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    _, ok = established(alice, bob)
    cluster.kill("edge-2")
    alice.request("ACK", bob.contact, to=ok.first("to"), routes=routes_of_caller(ok))
    bob.got_request("ACK")


def test_n07_an_ack_by_a_connection_of_an_earlier_life_goes_nowhere() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-1", "tcp")
    _, ok = established(alice, bob)
    core = cluster.edges["edge-1"]
    core.reach._boot = core._boot = "later"
    alice.request("ACK", bob.contact, to=ok.first("to"), routes=routes_of_caller(ok))
    assert not bob.inbox


@pytest.mark.parametrize("host", ["phone.example.org", "127.0.0.1"])
def test_x10_s10_an_orphaned_2xx_goes_to_no_name_and_to_no_denied_address(host: str) -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3", refuses=lambda address: address == "127.0.0.1")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    cluster.kill("edge-1")
    mine = next(row.value for row in received.rows if row.name == "via")
    answer = (
        f"SIP/2.0 200 OK\r\nVia: {mine}\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bKv\r\n"
        f"From: {received.first('from')}\r\n"
        f"To: <{BOB}>;tag=b\r\nCall-ID: {received.call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    bob.send(answer.encode())
    assert not cluster.lost
    assert not alice.inbox
