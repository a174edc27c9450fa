"""An edge that is asked to end: calls that begin go to another edge, what rings is waited for (CHECKLIST E09)."""

import pytest

from edge.core.flow import Flow
from tests.kit.calls import NOW, Cluster
from tests.unit.edge.proxy.test_calls import BOB, OFFER, answered, invite


def draining(*names: str) -> Cluster:
    """Edges of which the first has been asked to end."""
    cluster = Cluster(*names)
    cluster.edges["edge-1"].drain.begun = True
    return cluster


def busy(cluster: Cluster, edge: str = "edge-1") -> int:
    return cluster.edges[edge].busy


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_e09_a_call_that_begins_is_another_edges_and_is_waited_for_until_it_is_answered(transport: str) -> None:
    cluster = draining()
    alice, bob = cluster.phone("alice", transport=transport), cluster.phone("bob", "edge-2")
    invite(alice)
    assert cluster.edges["edge-1"].calls.transactions == 0
    assert (busy(cluster), busy(cluster, "edge-2")) == (1, 1)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    assert busy(cluster) == 1
    bob.respond(received, 200, body=OFFER)
    alice.got_response(200)
    assert busy(cluster) == 0


def test_e09_a_call_that_is_refused_or_cancelled_is_waited_for_no_longer() -> None:
    cluster = draining()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = alice.request("INVITE", BOB, body=OFFER)
    alice.ack(alice.got_response(407), BOB, branch)
    assert busy(cluster) == 0
    branch = invite(alice, call_id="call-2", cseq=2)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    assert busy(cluster) == 1
    alice.request("CANCEL", BOB, branch=branch, contact=False, call_id="call-2", cseq=2)
    alice.got_response(200)
    bob.respond(bob.got_request("CANCEL"), 200)
    assert busy(cluster) == 1  # the 200 to the CANCEL has the branch of the INVITE, and ends nothing
    bob.respond(received, 487)
    alice.got_response(487)
    assert busy(cluster) == 0


def test_a_copy_of_an_invite_goes_to_the_edge_that_has_it() -> None:
    cluster = draining("edge-1", "edge-2", "edge-3", "edge-4")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    alice.request("INVITE", BOB, authorized=True, body=OFFER, branch=branch)
    bob.got_request("INVITE")
    assert not bob.inbox
    assert sum(core.calls.transactions > 0 for core in cluster.edges.values()) == 1


def test_what_rang_before_goes_on_here_and_is_waited_for() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    cluster.edges["edge-1"].drain.begun = True
    assert busy(cluster) == 1
    answered(alice, bob)
    assert busy(cluster) == 0


def test_without_another_edge_calls_begin_here() -> None:
    cluster = draining("edge-1")
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    answered(alice, bob)
    assert "handed-over" not in cluster.drops


def test_what_another_draining_edge_hands_over_is_not_handed_on() -> None:
    cluster = draining()
    cluster.edges["edge-2"].drain.begun = True
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    answered(alice, bob)
    assert cluster.drops["handed-over"] == 1


def test_a_request_within_a_call_and_a_register_stay_here() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    _, ok = answered(alice, bob)
    cluster.edges["edge-1"].drain.begun = True
    routes = ok.values("record-route")[::-1]
    alice.request("INVITE", bob.contact, to=ok.first("to"), routes=routes, cseq=3, body=OFFER)
    bob.got_request("INVITE")
    assert "handed-over" not in cluster.drops
    alice.request("REGISTER", "sip:example.test", call_id="r")
    alice.got_response(100)
    alice.got_response(401)
    assert "handed-over" not in cluster.drops


@pytest.mark.parametrize("back", [True, False])
def test_a_caller_on_udp_whose_edge_has_gone_is_answered_without_it(back: bool) -> None:
    cluster = draining()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    ended = cluster.edges["edge-1"]
    cluster.kill("edge-1")
    if back:  # the same name, another life
        cluster.edges["edge-1"] = ended
        cluster.edges["edge-2"].edges([("edge-1", "b002")], NOW)
    bob.respond(received, 200, body=OFFER)
    alice.got_response(200)


def test_a_flow_that_nobody_handed_over_ends_nothing() -> None:
    cluster = draining()
    alice = cluster.phone("alice")
    cluster.phone("bob", "edge-2")
    branch = invite(alice)
    drain = cluster.edges["edge-1"].drain
    final = f"SIP/2.0 486 Busy\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nCSeq: 1 INVITE\r\n\r\n".encode()
    drain.track_response(final, Flow("udp", "192.0.2.1", 5060, "198.51.100.99", 5062))
    drain.track_response(final.replace(b"486", b"183"), alice.flow)
    drain.track_response(final.replace(b"1 INVITE", b"1 CANCEL"), alice.flow)
    drain.track_response(b"SIP/2.0 486 Busy\r\nCSeq: 1 INVITE\r\n\r\n", alice.flow)
    assert busy(cluster) == 1
    drain.track_response(final, alice.flow)
    assert busy(cluster) == 0
