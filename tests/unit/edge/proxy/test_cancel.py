"""CANCEL finds its INVITE at any edge, and ends what rings (RFC 3261 sections 9 and 16.10)."""

import pytest

from sipcore.message import Response
from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, invite


def test_x14_cancel_gets_200_the_phone_a_cancel_and_the_invite_487() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False)
    alice.got_response(200)
    cancel = bob.got_request("CANCEL")
    assert (cancel.uri, cancel.branch, cancel.cseq.number) == (received.uri, received.branch, 1)
    bob.respond(cancel, 200)
    bob.respond(received, 487)
    refused = alice.got_response(487)
    bob.got_request("ACK")
    alice.ack(refused, BOB, branch)
    assert not alice.inbox
    assert not bob.inbox


def test_e05_a_cancel_and_the_ack_at_another_edge_find_their_invite() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    alice.got_response(200)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)
    refused = alice.got_response(487)
    alice.request("ACK", BOB, to=refused.first("to"), branch=branch, contact=False, edge="edge-3")
    alice.inbox.clear()
    cluster.turn(5)
    assert not alice.inbox


def test_e06_a_cancel_that_overtakes_its_invite_waits_for_it_and_without_one_is_481() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("CANCEL", BOB, branch="z9hG4bK-late", contact=False)
    cluster.turn(0.3)
    assert not alice.inbox
    alice.request("INVITE", BOB, branch="z9hG4bK-late", authorized=True)
    cluster.turn(0.3)
    statuses = [message.status for message in alice.inbox if isinstance(message, Response)]
    assert statuses[:2] == [100, 200]
    bob.respond(bob.got_request("INVITE"), 180)
    bob.got_request("CANCEL")
    alice.inbox.clear()
    alice.request("CANCEL", BOB, branch="z9hG4bK-never", contact=False, call_id="9")
    cluster.turn(0.6)
    alice.got_response(481)


def test_c08_three_phones_ring_one_answers_the_others_are_cancelled_as_completed_elsewhere() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob", f"edge-{n}", transport) for n, transport in ((1, "udp"), (2, "ws"), (3, "tls"))]
    invite(alice)
    received = [phone.got_request("INVITE") for phone in phones]
    assert len({request.branch for request in received}) == 3
    for phone, request in zip(phones, received, strict=True):
        phone.respond(request, 180, tag=f"t{phone.edge}")
        alice.got_response(180)
    phones[1].respond(received[1], 200, tag="tedge-2")
    assert alice.got_response(200).to.tag == "tedge-2"
    for index in (0, 2):
        cancel = phones[index].got_request("CANCEL")
        assert cancel.first("reason") == 'SIP;cause=200;text="Call completed elsewhere"'
        phones[index].respond(cancel, 200)
        phones[index].respond(received[index], 487)
        phones[index].got_request("ACK")
    assert not alice.inbox


def test_y38_cancels_of_strangers_cost_no_search_of_what_was_carried() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    bob.got_request("INVITE")
    cancels = cluster.edges["edge-2"].calls.cancels
    cancels.edge_died(("edge-9", "x"), cluster.now)
    cluster.turn(300)
    alice.inbox.clear()
    eve = cluster.phone("eve")
    eve.request("CANCEL", BOB, call_id="never")
    assert not cancels._dead


@pytest.mark.parametrize("method", ["ACK", "CANCEL"])
def test_s01_of_one_stranger_no_more_is_sought_at_other_edges_than_so_much_a_second(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.core.proxy.cancel.SOUGHT_PER_SOURCE", 20.0)
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    eve, alice, bob = cluster.phone("eve"), cluster.phone("alice"), cluster.phone("bob", "edge-2")
    for number in range(50):
        eve.request(method, BOB, call_id=str(number))
    assert cluster.drops["not-sought"] == 30

    branch = invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    alice.got_response(200)
    bob.got_request("CANCEL")

    cluster.turn(0.5)
    for number in range(50):
        eve.request(method, BOB, call_id=str(number))
    assert cluster.drops["not-sought"] == 30 + 40


def test_s01_acks_that_are_sought_leave_the_cancels_of_their_source() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    for number in range(500):
        alice.request("ACK", BOB, call_id=str(number), edge="edge-3")
    assert cluster.drops["not-sought"] == 300
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    alice.got_response(200)
    bob.got_request("CANCEL")


def test_s01_of_all_strangers_together_what_is_sought_is_bounded_and_of_listed_peers_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.core.proxy.cancel.SOUGHT_PER_SECOND", 20.0)
    cluster = Cluster(is_peer=lambda host: host == "198.51.100.1")
    peer, *strangers = [cluster.phone(f"p{number}") for number in range(31)]
    for phone in strangers:
        phone.request("ACK", BOB, call_id=phone.name)
    assert cluster.drops["not-sought"] == 10
    for number in range(300):
        peer.request("ACK", BOB, call_id=str(number))
    assert cluster.drops["not-sought"] == 10
