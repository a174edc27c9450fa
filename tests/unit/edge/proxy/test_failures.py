"""Time that runs out, targets that cannot be reached, and the next server (RFC 3261 sections 16.8 and 16.9)."""

import pytest

from edge.core.actions import NextHop
from sipcore.message import Request, Response
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, invite


def test_y17_timer_c_cancels_what_rings_too_long() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.turn(180)
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.turn(180)
    assert not bob.inbox
    cluster.turn(10)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)
    assert alice.got_response(487)


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_y34_when_no_phone_answers_an_invite_ends_with_408_and_others_in_silence(method: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    alice.request(method, BOB, authorized=True)
    cluster.turn(70)
    statuses = [message.status for message in alice.inbox if isinstance(message, Response)]
    assert {message.method for message in bob.inbox if isinstance(message, Request)} == {method}
    assert set(statuses) == ({100, 408} if method == "INVITE" else {100})
    cluster.turn(70)
    assert not any(len(core._layer) for core in cluster.edges.values())


def test_n06_a_flow_that_is_gone_is_480_or_the_next_binding() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    del cluster.phones[bob.flow]
    invite(alice)
    alice.got_response(480)
    other = cluster.phone("bob", "edge-1", "ws")
    invite(alice, call_id="2")
    other.respond(other.got_request("INVITE"), 200)
    alice.got_response(200)


@pytest.mark.parametrize("transport", ["udp", "tcp", "ws"])
@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
def test_n06_a_phone_that_is_switched_off_is_480_and_never_500(edge: str, transport: str) -> None:
    """Whatever the transport knows of it: that nobody listens at its port, or that its connection has gone."""
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", edge, transport)
    del cluster.phones[bob.flow]
    invite(alice)
    alice.got_response(480)


def test_n05_a_route_with_a_changed_token_is_403() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", BOB, routes=["<sip:abcdefgh234567@192.0.2.1;lr>"], authorized=True)
    alice.got_response(403)


@pytest.mark.parametrize("how", ["503", "unreachable", "silent"])
def test_t17_another_domains_next_server_is_tried_with_a_new_branch(how: str) -> None:
    cluster = Cluster("edge-1")
    alice = cluster.phone("alice")
    first, second = Phone(cluster, "x", "edge-1"), Phone(cluster, "x", "edge-1")
    uri = "sip:x@elsewhere.test"
    cluster.hops[uri] = [NextHop("udp", far.flow.remote_host, 5062, "elsewhere.test") for far in (first, second)]
    if how == "unreachable":
        del cluster.phones[first.flow]
    invite(alice, uri)
    branch = ""
    if how == "503":
        received = first.got_request("INVITE")
        first.respond(received, 503)
        branch = received.branch
    elif how == "silent":
        branch = first.got_request("INVITE").branch
        cluster.turn(33)
    received = second.got_request("INVITE")
    assert received.branch != branch
    second.respond(received, 200)
    alice.got_response(200)


def test_a_non_invite_is_not_tried_elsewhere_after_its_client_has_given_up() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = Phone(cluster, "x", "edge-1"), Phone(cluster, "x", "edge-1")
    cluster.hops["sip:x@elsewhere.test"] = [
        NextHop("udp", phone.flow.remote_host, 5062, "elsewhere.test") for phone in (one, two)
    ]
    alice.request("MESSAGE", "sip:x@elsewhere.test", authorized=True)
    cluster.turn(40)
    assert one.inbox
    assert not two.inbox
