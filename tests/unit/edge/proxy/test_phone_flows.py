"""A phone with several flows is one: called by one of them, by the next where that is gone (RFC 5626, R34, N08)."""

import msgspec
import pytest

from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import established, invite, routes_of_caller

PHONE, OTHER = "<urn:uuid:1>", "<urn:uuid:2>"


def two_flows(cluster: Cluster) -> tuple[Phone, Phone]:
    """Bob's phone by both edges; the second flow is the newer."""
    older = cluster.phone("bob", "edge-1", "tcp", instance=PHONE)
    return older, cluster.phone("bob", "edge-2", "tcp", instance=PHONE)


def test_r34_n08_a_call_rings_by_one_flow_of_a_phone_the_newest_and_at_every_other_phone() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    other, nameless = cluster.phone("bob", instance=OTHER), cluster.phone("bob", "edge-2")
    invite(alice)
    for phone in (newer, other, nameless):
        assert phone.got_request("INVITE").uri == phone.contact
    assert not older.inbox


@pytest.mark.parametrize("status", [404, 480, 486, 503])
def test_r34_n08_a_phone_that_answers_is_not_asked_again_by_its_other_flow(status: int) -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    invite(alice)
    newer.respond(newer.got_request("INVITE"), status)
    alice.got_response(500 if status == 503 else status)
    assert not older.inbox


def test_r34_n08_where_a_flow_is_gone_the_next_one_rings_and_nobody_else_hears_of_it() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    del cluster.phones[newer.flow]  # its connection is gone, and the tables do not know it yet
    invite(alice)
    assert cluster.drops["flow-replaced"] == 1
    received = older.got_request("INVITE")
    assert received.uri == older.contact
    older.respond(received, 200)
    alice.got_response(200)


def test_r34_where_every_flow_is_gone_the_user_is_away() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    for flow in two_flows(cluster):
        del cluster.phones[flow.flow]
    invite(alice)
    alice.got_response(480)


def test_r34_where_an_edge_has_died_its_phones_ring_by_the_other() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    cluster.kill("edge-2")
    invite(alice)
    older.respond(older.got_request("INVITE"), 200)
    alice.got_response(200)
    assert not newer.inbox


def test_r34_a_phone_that_loses_its_flow_while_it_rings_hears_the_same_invite_by_the_other() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    invite(alice)
    first = newer.got_request("INVITE")
    newer.respond(first, 180)
    alice.got_response(180)
    cluster.close(newer)
    cluster.turn(2)
    again = older.got_request("INVITE")
    assert again.branch == first.branch  # a phone that rings takes it for a copy
    older.respond(again, 200)
    alice.got_response(200)


def test_r34_y10_a_flow_that_is_added_while_its_phone_rings_does_not_ring() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    bob = cluster.phone("bob", "edge-1", "tcp", instance=PHONE)
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    second = cluster.phone("bob", "edge-2", "tcp", instance=PHONE)
    cluster.turn(4)
    assert not second.inbox


def test_r34_n08_a_silent_flow_gives_way_to_the_next_after_timer_b() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    invite(alice)
    newer.got_request("INVITE")
    cluster.turn(33)
    older.got_request("INVITE")


def test_r34_a_dialog_by_the_older_flow_stays_there() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    older, newer = two_flows(cluster)
    del cluster.phones[newer.flow]
    _, response = established(alice, older)
    routes = [f"Route: {route}" for route in routes_of_caller(response)]
    to, from_ = response.first("to"), response.first("from")
    alice.request("BYE", older.contact, *routes, to=to, from_=from_, cseq=2, branch="z9hG4bKbye")
    assert older.got_request("BYE").uri == older.contact
    assert not newer.inbox


def test_r34_t18_a_sips_call_takes_the_flow_that_is_secure_though_another_is_newer() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice", transport="tls")
    secure = cluster.phone("bob", "edge-1", "tls", instance=PHONE)
    newer = cluster.phone("bob", "edge-2", "tcp", instance=PHONE)
    rows = cluster.bindings[f"bob@{DOMAIN}"]
    rows[:] = [msgspec.structs.replace(row, contact=row.contact.replace("sip:", "sips:")) for row in rows]
    invite(alice, f"sips:bob@{DOMAIN}")
    secure.respond(secure.got_request("INVITE"), 200)
    alice.got_response(200)
    assert not newer.inbox
