"""Remote targets that are servers, that carry marks, or that no registration knows (RFC 3261 section 12.2)."""

import pytest

from edge.core.actions import NextHop, Send
from edge.core.flow import Flow, Hop
from edge.core.place import place_of
from edge.core.tokens.dialog import Dialog, Marks
from edge.core.tokens.record_route import DialogTokens
from sipcore.message import Response
from sipcore.uri import parse_uri
from tests.kit.calls import DOMAIN, KEYS, Cluster, Phone
from tests.kit.dialogs import invite, routes_of_caller
from tests.kit.moved import BY, Called, moved

# --- servers ----------------------------------------------------------------------------------------------------


def to_far_proxy(cluster: Cluster, alice: Phone, far: Phone) -> Response:
    """A call of alice's that a proxy of another domain has let through."""

    cluster.hops["sip:x@elsewhere.test"] = [NextHop("udp", far.flow.remote_host, 5060)]
    invite(alice, "sip:x@elsewhere.test")
    received = far.got_request("INVITE")
    record = f"Record-Route: <sip:{far.flow.remote_host}:5070;lr>"
    far.respond(received, 200, record)
    return alice.got_response(200)


def test_y26_the_next_proxy_is_where_its_route_says_if_that_is_its_host() -> None:
    cluster = Cluster()
    alice, far = cluster.phone("alice"), cluster.phone("far", register=False)
    ok = to_far_proxy(cluster, alice, far)
    sent: list[Send] = []
    cluster._deliver = lambda name, core, send: sent.append(send)  # type: ignore[method-assign]
    host = far.flow.remote_host
    for route, port in (
        (f"<sip:{host}:5070;lr>", 5070),
        (f"<sip:{host};lr>", 5060),
        ("<sip:203.0.113.9:5090;lr>", 5060),
    ):
        alice.request("BYE", "sip:x@10.9.9.9", to=ok.first("to"), routes=[*routes_of_caller(ok)[:1], route], cseq=port)
        bye = sent.pop()
        assert (bye.flow.remote_host, bye.port) == (host, port)
        assert f"Route: {route}".encode() in bye.data
        sent.clear()


# --- marks ------------------------------------------------------------------------------------------------------


PHONE = Hop(Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000), "edge-1")
AT = 1_700_000_000_000


def test_marks_are_known_again_by_every_key_and_tell_nothing_of_another_call() -> None:
    made, both = DialogTokens(KEYS), DialogTokens({"k9": bytes(32), **KEYS})
    place = place_of(parse_uri("sip:bob@198.51.100.7:40000"))
    marks = made.marks("call-1", place, "bob@example.test", direct=True)
    token = made.make(Dialog(PHONE, PHONE, 0, Marks(), marks), "call-1", "t", AT)
    opened = both.open(token, "call-1", ("t", ""), AT)
    assert opened is not None
    kept = opened[0].callee_marks
    assert kept == marks
    assert both.is_at(kept, "call-1", place)
    assert both.is_party(kept, "call-1", "bob@example.test")
    assert not both.is_at(kept, "call-1", place_of(parse_uri("sip:bob@198.51.100.7:40001")))
    assert not both.is_party(kept, "call-1", "eve@example.test")
    assert not both.is_party(kept, "call-2", "bob@example.test")
    assert not both.is_party(Marks(), "call-1", "")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("sip:bob@192.0.2.1", ("udp", "192.0.2.1", 5060)),
        ("sips:bob@[2001:DB8::0:1]", ("tls", "2001:db8::1", 5061)),
        ("sips:bob@x.invalid;transport=ws", ("wss", "x.invalid", 443)),
        ("sip:bob@H.test.;transport=TCP", ("tcp", "h.test", 5060)),
        ("sip:bob@h;maddr=192.0.2.9:5", ("udp", "192.0.2.9:5", 5060)),
        ("sip:bob@h:7;maddr=192.0.2.9;transport=sctp", ("sctp", "192.0.2.9", 7)),
    ],
)
def test_a_place_is_transport_host_and_port(uri: str, place: tuple[str, str, int]) -> None:
    assert place_of(parse_uri(uri)) == place


def test_a_token_of_before_there_were_marks_still_leads_to_its_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.tokens.record_route._marked", lambda marks: b"")
    monkeypatch.setattr("edge.core.tokens.record_route._beginning", lambda dialog: b"")
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    call = Called(cluster, alice, bob)
    for target in (bob.contact, "sip:bob@203.0.113.9"):
        call.passes(alice, "INFO", bob, target)


# --- without a registration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mover", ["alice", "bob"])
@pytest.mark.parametrize("after", BY)
@pytest.mark.parametrize("before", BY)
def test_y26_where_a_phone_that_has_not_registered_yet_refreshes_from_it_is_reached_by_that_edge(
    before: str, after: str, mover: str
) -> None:
    cluster = Cluster()
    phones = {name: cluster.phone(name, "edge-1", before if name == mover else "udp") for name in ("alice", "bob")}
    call = Called(cluster, phones["alice"], phones["bob"])
    old, other = phones.pop(mover), next(iter(phones.values()))
    new = moved(old, "edge-1", after)
    cluster.bindings[f"{mover}@{DOMAIN}"].clear()
    cluster.phones.pop(old.flow)
    call.passes(new, "UPDATE", other)
    for method in ("INVITE", "ACK", "BYE"):
        call.passes(other, method, new)
    assert not cluster.lost


def test_y35_who_forges_the_tag_of_the_other_end_gets_but_his_own_requests() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob", "edge-1", "tcp")
    eve = cluster.phone("eve", "edge-1", "tcp")
    call = Called(cluster, alice, bob)
    # Bob's helper, who has the token from him, says that alice is where he is.
    routes = call.received.values("record-route")
    eve.request("UPDATE", bob.contact, from_=call.alice_is, to=call.bob_is, routes=routes, cseq=20)
    bob.respond(bob.got_request("UPDATE"), 200)
    eve.got_response(200)
    for who, to in ((bob, alice), (alice, bob)):
        call.passes(who, "INFO", to)
    assert not eve.inbox


def test_y26_a_phone_that_came_back_to_where_it_was_is_reached_there() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    away = moved(alice, "edge-1", "wss")
    call.passes(away, "UPDATE", bob)
    call.passes(bob, "INFO", away)
    call.passes(alice, "UPDATE", bob)
    call.passes(bob, "INFO", alice)
