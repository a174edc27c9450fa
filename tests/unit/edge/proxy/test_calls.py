"""Calls through one and two edges without sockets, by every pair of transports, and every other method."""

import pytest

from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, OFFER, answered, contact, invite, routes_of_caller


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("callee_by", ["udp", "tcp", "tls", "ws", "wss"])
@pytest.mark.parametrize("caller_by", ["udp", "tcp", "tls", "ws", "wss"])
def test_n09_a_call_passes_with_ack_reinvite_update_and_bye_from_both_sides(
    caller_by: str, callee_by: str, callee_at: str
) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", caller_by), cluster.phone("bob", callee_at, callee_by)
    invite(alice)
    received, ok = answered(alice, bob)
    to, from_ = ok.first("to"), ok.first("from")
    assert received.uri == bob.contact
    assert received.body == OFFER.encode()
    assert ok.body == OFFER.encode()
    assert received.via.transport == callee_by.upper()
    forward, backward = routes_of_caller(ok), received.values("record-route")
    lookups = len(cluster.commands)
    alice.request("ACK", contact(ok), to=to, routes=forward)
    ack = bob.got_request("ACK")
    assert (ack.uri, ack.values("route"), ack.branch != received.branch) == (bob.contact, [], True)
    for number, (method, body) in enumerate((("INVITE", OFFER), ("UPDATE", OFFER), ("INFO", "x")), 2):
        alice.request(method, contact(ok), to=to, routes=forward, cseq=number, body=body)
        if method == "INVITE":
            alice.got_response(100)
        request = bob.got_request(method)
        bob.respond(request, 200)
        assert alice.got_response(200).body == b""
        if method == "INVITE":
            alice.request("ACK", contact(ok), to=to, routes=forward, cseq=number)
            bob.got_request("ACK")
    bob.request("UPDATE", alice.contact, from_=to, to=from_, routes=backward, cseq=1)
    alice.respond(alice.got_request("UPDATE"), 200)
    bob.got_response(200)
    bob.request("BYE", alice.contact, from_=to, to=from_, routes=backward, cseq=2)
    bye = alice.got_request("BYE")
    assert bye.values("route") == []
    alice.respond(bye, 200)
    bob.got_response(200)
    assert len(cluster.commands) == lookups
    assert not alice.inbox
    assert not bob.inbox
    assert not cluster.lost


def test_x01_the_100_leaves_though_nobody_answers() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.log = lambda edge, command: None
    invite(alice)
    cluster.turn(3.0)
    refused = alice.got_response(503)
    assert refused.first("retry-after")


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO", "REFER", "UPDATE", "PRACK", "FOO"])
@pytest.mark.parametrize("status", [200, 486, 603])
def test_y34_every_method_reaches_the_phone_and_its_answer_comes_back(method: str, status: int) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request(method, BOB, authorized=True)
    bob.respond(bob.got_request(method), status)
    alice.got_response(status)
    cluster.turn(70)
    assert not any(len(core._layer) for core in cluster.edges.values())


def test_y36_one_invite_at_two_edges_rings_once() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    branch = invite(alice)
    alice.request("INVITE", BOB, authorized=True, branch=branch, body=OFFER, edge="edge-2")
    bob.got_request("INVITE")
    assert not bob.inbox
    assert cluster.drops["handed-over"] == 1
