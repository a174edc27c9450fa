"""Connections that close while a call rings by them: a callee's may come back, a caller's has given up.

RFC 3261 sections 16.9, 16.10 and 17.2.4; RFC 5626 section 5.3.1.
"""

import msgspec
import pytest

from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import BOB, OFFER, invite

STREAMS = ["tcp", "tls", "ws", "wss"]


def ringing(callee_by: str, callee_at: str, caller_by: str = "udp") -> tuple[Cluster, Phone, Phone]:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", caller_by), cluster.phone("bob", callee_at, callee_by)
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    return cluster, alice, bob


def nothing_is_left(cluster: Cluster) -> None:
    cluster.turn(40)
    assert [core.calls.transactions for core in cluster.edges.values()] == [0, 0]
    assert not any(core.proxy.ringing for core in cluster.edges.values())


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("callee_by", STREAMS)
def test_the_branch_of_a_phone_that_does_not_come_back_ends_after_some_seconds(callee_by: str, callee_at: str) -> None:
    cluster, alice, bob = ringing(callee_by, callee_at)
    cluster.close(bob)
    cluster.turn(6)
    assert not alice.inbox
    cluster.turn(5)
    alice.got_response(480)
    assert cluster.drops["flow-gone"] == 1
    nothing_is_left(cluster)


def test_a_connection_that_closes_before_it_rings_is_no_different() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-1", "tcp")
    invite(alice)
    bob.got_request("INVITE")
    cluster.close(bob)
    cluster.turn(11)
    alice.got_response(480)
    nothing_is_left(cluster)


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
def test_the_others_ring_on(callee_at: str) -> None:
    cluster, alice, bob = ringing("ws", callee_at)
    other = cluster.phone("bob", "edge-2", "tcp")
    cluster.turn(2)
    received = other.got_request("INVITE")
    other.respond(received, 180)
    alice.got_response(180)
    cluster.close(bob)
    cluster.turn(30)
    assert not alice.inbox
    other.respond(received, 200)
    alice.got_response(200)


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("back_at", ["edge-1", "edge-2"])
def test_a_page_that_is_loaded_anew_registers_another_contact_and_rings_again(callee_at: str, back_at: str) -> None:
    cluster, alice, bob = ringing("ws", callee_at)
    cluster.close(bob)
    cluster.turn(4)
    again = cluster.phone("bob", back_at, "ws")
    cluster.turn(2)
    received = again.got_request("INVITE")
    again.respond(received, 180)
    alice.got_response(180)
    cluster.turn(20)
    assert not alice.inbox
    again.respond(received, 200)
    alice.got_response(200)


class Reconnecting(Phone):
    """A phone that has the same Contact by whatever connection."""

    @property
    def contact(self) -> str:
        """Its Contact URI."""
        return "sip:bob@h8s7.invalid;transport=ws"


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("back_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("first", ["closes", "registers"])
def test_a_phone_that_comes_back_with_its_contact_gets_the_same_invite_again(
    callee_at: str, back_at: str, first: str
) -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.users.add(f"bob@{DOMAIN}")
    bob, back = Reconnecting(cluster, "bob", callee_at, "ws"), Reconnecting(cluster, "bob", back_at, "ws")
    cluster.register(bob)
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180, tag="tb")
    alice.got_response(180)
    if first == "closes":
        cluster.close(bob)
        cluster.register(back)
    else:
        cluster.register(back)
        cluster.turn(2)
        assert not back.inbox  # it rings already
        cluster.close(bob)
    cluster.turn(2.5)
    same = back.got_request("INVITE")
    assert same.branch == received.branch
    assert not back.inbox
    back.respond(same, 180, tag="tb")
    alice.got_response(180)
    cluster.turn(30)
    assert not alice.inbox
    alice.request("CANCEL", BOB, branch=branch, contact=False)
    alice.got_response(200)
    back.respond(back.got_request("CANCEL"), 200)
    back.respond(same, 487, tag="tb")
    alice.got_response(487)


def test_a_phone_that_answers_by_a_new_connection_is_heard_within_those_seconds() -> None:
    cluster, alice, bob = ringing("tcp", "edge-2")
    cluster.close(bob)
    cluster.turn(5)
    back = Phone(cluster, "bob", "edge-1", "tcp")
    (attempt,) = next(iter(cluster.edges["edge-1"].proxy.ringing)).live.values()
    assert attempt.client is not None
    back.respond(attempt.client.request, 200)
    alice.got_response(200)
    nothing_is_left(cluster)


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("caller_by", STREAMS)
def test_the_callee_of_a_caller_who_is_gone_is_cancelled(caller_by: str, callee_at: str) -> None:
    cluster, alice, bob = ringing("udp", callee_at, caller_by)
    cluster.close(alice)
    cluster.turn(2)
    bob.respond(bob.got_request("CANCEL"), 200)
    assert cluster.drops["caller-gone"] == 1
    nothing_is_left(cluster)


def test_a_caller_who_closed_and_can_be_reached_at_his_via_is_not_gone() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    del cluster.phones[alice.flow]
    server = Phone(cluster, "alice", "edge-1", "tcp")
    server.flow = msgspec.structs.replace(server.flow, remote_host=alice.flow.remote_host)
    cluster.phones[server.flow] = server
    cluster.edges["edge-1"].closed(alice.flow, cluster.now)
    cluster.turn(10)
    server.got_response(180)
    assert not bob.inbox
    assert not server.inbox  # asked once
    bob.respond(received, 200)
    server.got_response(200)
    invite(cluster.phone("carol"), call_id="call-2")
    cluster.turn(2)
    assert not cluster.edges["edge-1"].calls.failures._asked


def test_a_peer_that_closes_is_a_server_and_not_gone() -> None:
    cluster = Cluster(is_peer=lambda host: host == "198.51.100.1")
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob", "edge-2")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    cluster.close(alice)
    cluster.turn(20)
    assert not bob.inbox


def test_a_caller_who_goes_while_he_is_looked_up_is_gone_too() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "ws"), cluster.phone("bob", "edge-2")
    held = []
    log, cluster.log = cluster.log, lambda edge, command: held.append((edge, command))
    alice.request("INVITE", BOB, authorized=True, body=OFFER)
    cluster.close(alice)
    for edge, command in held:
        reply = log(edge, command)
        assert reply is not None
        cluster.edges[edge].replied([reply], cluster.now)
    cluster.pump()
    bob.respond(bob.got_request("INVITE"), 180)
    cluster.turn(2)
    bob.got_request("CANCEL")


def test_n12_the_connections_of_an_edge_that_began_anew_are_closed() -> None:
    cluster, alice, _ = ringing("tcp", "edge-2")
    core = cluster.edges["edge-1"]
    del cluster.edges["edge-2"]
    core.edge_lost("edge-2", "b00t", cluster.now)
    cluster.turn(20)
    assert not alice.inbox  # silence is no proof of death
    core.edges([("edge-2", "later")], cluster.now)
    cluster.turn(10)
    alice.got_response(480)


def test_what_is_carried_for_others_is_forgotten_with_its_connection() -> None:
    cluster, _, bob = ringing("tcp", "edge-2")
    cancels = cluster.edges["edge-2"].calls.cancels
    assert len(cancels._by_connection) == 1
    cluster.close(bob)
    assert not cancels._by_connection
    for number in range(3):
        cancels.track(b"INVITE", bob.flow, ("edge-1", "b00t"), f"id-{number}", cluster.now)
    cancels.track(b"INVITE", bob.flow, ("edge-1", "b00t"), "later", cluster.now + 1000)
    assert list(cancels.closed(bob.flow)) == ["later"]


def test_closed_connections_are_remembered_for_some_seconds_only() -> None:
    cluster = Cluster()
    failures = cluster.edges["edge-1"].calls.failures
    bob = cluster.phone("bob", "edge-1", "tcp")
    for number in range(1000):
        failures.closed(msgspec.structs.replace(bob.flow, connection=number + 1), cluster.now + number)
    assert len(failures._closed) <= 11


@pytest.mark.parametrize(
    ("transport", "path", "port", "name"),
    [
        ("tcp", "sip:n4t@198.51.100.2:5080;transport=tcp;lr", 5080, ""),
        ("tcp", "sip:n4t@sbc.example.test:5080;transport=tcp;lr", 5080, ""),
        ("tls", "sip:n4t@198.51.100.2;transport=tls;lr", 5061, "198.51.100.2"),
        ("tls", "sips:n4t@SBC.example.test:5071;lr", 5071, "sbc.example.test"),
        ("tls", "sip:n4t@sbc.example.test;transport=tcp;lr", 0, ""),
        ("tcp", "sip:n4t@203.0.113.7:5080;transport=tcp;lr", 0, ""),
        ("ws", "sip:n4t@sbc.example.test;transport=ws;lr", 0, ""),
    ],
)
def test_r33_a_proxy_whose_connection_is_gone_is_connected_to_on_its_host_where_its_path_says(
    transport: str, path: str, port: int, name: str
) -> None:
    """By the transport that it registered by, on no other host; by TLS who is there must prove the name in the Path."""
    cluster = Cluster()
    alice, proxy = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    (binding,) = cluster.bindings[f"bob@{DOMAIN}"]
    cluster.bindings[f"bob@{DOMAIN}"] = [msgspec.structs.replace(binding, path=f"{binding.path},<{path}>")]
    del cluster.phones[proxy.flow]
    invite(alice)
    alice.got_response(480)
    anew = [(sent.flow.remote_host, sent.flow.remote_port, sent.name) for sent in cluster.lost[1:]]
    assert anew == ([(proxy.flow.remote_host, port, name)] if port else [])
    assert all(f"Route: <{path}>".encode() in sent.data for sent in cluster.lost)
