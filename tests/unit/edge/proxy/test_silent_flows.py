"""A phone that answered pings by a flow on UDP and does no more is called by its next flow at once (R34).

No ICMP tells of a NAT that has forgotten it: without pings Timer B alone, 32 s later, would.
"""

import pytest

from edge.core.flow import Flow
from events.registrations import Binding
from events.replies import Registered
from sipcore.message import Request, respond
from tests.kit.calls import WALL, Cluster, Phone
from tests.kit.dialogs import invite

PHONE = "<urn:uuid:1>"
PING = 20.0


def phone(cluster: Cluster, edge: str) -> Phone:
    """A flow of bob's one phone, registered by a REGISTER that its edge has answered."""
    made = cluster.phone("bob", edge, instance=PHONE)
    core = cluster.edges[edge]
    path = core._flows._tokens.names(made.flow).path
    end = int((WALL + 3600) * 1000)
    binding = Binding(1, made.contact, "c", 1, end, 3600, 0, 0, path=(path,))
    reply = Registered("1", edge, "b00t", 0, (binding,))
    core._flows.registered(made.flow, "bob@example.test", "bob@example.test", path, reply, cluster.now)
    return made


def answers_a_ping(cluster: Cluster, phone: Phone) -> None:
    cluster.turn(PING, 1.0)
    while phone.inbox:
        ping = phone.inbox.popleft()
        if isinstance(ping, Request) and ping.method == "OPTIONS":
            phone.send(respond(ping, 200, to_tag="x").encode())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(keepalive_seconds=PING)


@pytest.mark.parametrize("edge", ["edge-1", "edge-2"], ids=["its edge is the callers", "its edge is another"])
def test_r34_a_phone_whose_newest_flow_is_silent_rings_by_the_other_at_once(cluster: Cluster, edge: str) -> None:
    alice = cluster.phone("alice")
    older, newer = phone(cluster, "edge-1"), phone(cluster, edge)
    answers_a_ping(cluster, newer)
    cluster.turn(4 * PING, 1.0)
    for each in (older, newer):
        each.inbox.clear()
    invite(alice)
    received = older.got_request("INVITE")
    older.respond(received, 200)
    alice.got_response(200)
    asked = [message for message in newer.inbox if isinstance(message, Request)]
    assert [message.branch for message in asked] == ([] if edge == "edge-1" else [received.branch])


@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
def test_r34_a_silent_flow_that_is_the_last_one_is_tried_all_the_same(cluster: Cluster, edge: str) -> None:
    alice, bob = cluster.phone("alice"), phone(cluster, edge)
    answers_a_ping(cluster, bob)
    cluster.turn(4 * PING, 1.0)
    bob.inbox.clear()
    assert cluster.edges[edge]._flows.is_silent(bob.flow)
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 200)
    alice.got_response(200)


def test_r34_a_phone_that_never_answered_a_ping_or_answers_again_rings_by_its_newest_flow(cluster: Cluster) -> None:
    alice = cluster.phone("alice")
    older, newer = phone(cluster, "edge-1"), phone(cluster, "edge-2")
    cluster.turn(4 * PING, 1.0)
    newer.inbox.clear()
    invite(alice)
    newer.respond(newer.got_request("INVITE"), 486)
    alice.got_response(486)
    answers_a_ping(cluster, newer)
    cluster.turn(4 * PING, 1.0)
    answers_a_ping(cluster, newer)
    alice.inbox.clear()
    invite(alice, call_id="2")
    assert newer.got_request("INVITE")
    assert not any(isinstance(message, Request) and message.method == "INVITE" for message in older.inbox)


def test_nobody_is_silent_where_nobody_is_pinged() -> None:
    core = Cluster().edges["edge-1"]
    assert not core._flows.is_silent(Flow("udp", "192.0.2.1", 5060, "198.51.100.1", 5062))
