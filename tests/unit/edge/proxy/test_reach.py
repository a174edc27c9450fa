"""By which hop a request goes, with which Via and Record-Route (RFC 3261 sections 16.6 and 18.1.1)."""

import pytest

from edge.core.actions import NextHop
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, OFFER, contact, invite, routes_of_caller


@pytest.mark.parametrize("method", ["INVITE", "REFER"])
def test_y12_what_makes_a_dialog_has_a_record_route_with_lr_that_any_edge_takes(method: str) -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request(method, BOB, "Refer-To: <sip:carol@example.test>", authorized=True, body=OFFER)
    if method == "INVITE":
        alice.got_response(100)
    received = bob.got_request(method)
    assert received.values("record-route")
    assert all(value.endswith((";lr>", ";lr;r2=on>")) for value in received.values("record-route"))
    bob.respond(received, 200)
    ok = alice.got_response(200)
    cluster.kill("edge-1")
    alice.edge = "edge-3"
    alice.request("NOTIFY", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.got_request("NOTIFY")


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO"])
def test_y12_what_makes_no_dialog_has_no_record_route(method: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request(method, BOB, authorized=True)
    assert not bob.got_request(method).values("record-route")


@pytest.mark.parametrize(
    ("caller_by", "callee_by", "callee_at", "count"),
    [
        ("udp", "udp", "edge-1", 1),
        ("udp", "tcp", "edge-1", 2),
        ("wss", "udp", "edge-1", 2),
        ("udp", "udp", "edge-2", 2),
    ],
)
def test_y13_where_transport_or_address_changes_there_are_two_record_routes_ours_to_the_next_first(
    caller_by: str, callee_by: str, callee_at: str, count: int
) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", caller_by), cluster.phone("bob", callee_at, callee_by)
    invite(alice)
    values = bob.got_request("INVITE").values("record-route")
    assert len(values) == count
    assert all((";r2=on" in value) == (count == 2) for value in values)
    if caller_by != callee_by:
        named = [
            "udp" if ";transport=" not in value else value.split("transport=")[1].split(";")[0] for value in values
        ]
        assert [name.rstrip(">") for name in named] == [callee_by, caller_by]


def test_t06_t15_a_request_within_a_dialog_to_a_far_proxy_has_our_address_in_via_and_goes_by_tcp_if_large() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    far = Phone(cluster, "x", "edge-1")
    uri = "sip:x@elsewhere.test"
    cluster.hops[uri] = [NextHop("udp", far.flow.remote_host, 5062, "elsewhere.test")]
    invite(alice, uri)
    far.respond(far.got_request("INVITE"), 200)
    ok = alice.got_response(200)
    alice.request("INFO", far.contact, to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    assert far.got_request("INFO").via.host == "192.0.2.1"
    alice.request("INFO", far.contact, to=ok.first("to"), routes=routes_of_caller(ok), cseq=3, body="x" * 1400)
    assert any(send.flow.transport == "tcp" for send in cluster.lost)


def test_t15_a_next_hop_of_the_other_family_is_reached_from_an_address_of_that_family() -> None:
    cluster = Cluster("edge-1")
    core = cluster.edges["edge-1"]
    core.reach.addresses = {**core.reach.addresses, ("udp", True): ("2001:db8::1", 5060)}
    alice = cluster.phone("alice")
    uri = "sip:x@six.example"
    cluster.hops[uri] = [NextHop("udp", "2001:db8::9", 5060, "six.example")]
    invite(alice, uri)
    (sent,) = cluster.lost
    assert sent.flow.local_host == "2001:db8::1"
    assert b"Via: SIP/2.0/UDP [2001:db8::1]:5060" in sent.data
    assert b"@[2001:db8::1]:5060;lr;r2=on>" in sent.data
