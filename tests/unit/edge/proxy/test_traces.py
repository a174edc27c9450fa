"""The examples of RFC 3261 section 16.12.1 header for header, each proxy of ours in its place (CHECKLIST Y27)."""

from edge.core.actions import NextHop
from sipcore.message import Message, Request
from tests.kit.calls import DOMAIN
from tests.kit.traces import BILOXI, BOB, P1, P1_HOST, P2, P2_HOST, Neighbour, Proxy, Trace, Trapezoid

P3 = "<sip:p3.middle.com>"
"""A strict router: no lr."""


def token(record_route: str) -> str:
    """The user part of a Record-Route value of ours."""
    return record_route.removeprefix("<sip:").partition("@")[0]


def headers(message: Message, *names: str) -> list[list[str]]:
    """The values of these headers."""
    return [message.values(name) for name in names]


def via(value: str) -> tuple[str, str]:
    """Who put a Via value there, and where the message came from as the next one has noted."""
    sent_by, *params = value.split(" ", 1)[1].split(";")
    noted = dict(param.partition("=")[::2] for param in params)
    return sent_by, f"{noted.get('received', '')}:{noted.get('rport', '')}"


def test_y27_rfc3261_16_12_1_1_the_basic_sip_trapezoid() -> None:
    t = Trapezoid()
    alice, bob, between = t.alice, t.bob, t.trace.between
    u1, u2 = ("10.0.0.9:5062", "198.51.100.1:5062"), bob.contact
    branch = alice.request("INVITE", BOB, authorized=True)
    sent = between("alice", "P1")

    at_p2 = between("P1", "P2")
    assert isinstance(at_p2, Request)
    (r1,) = at_p2.values("record-route")
    assert r1 == f"<sip:{token(r1)}@{P1};lr>"
    assert (at_p2.uri, at_p2.values("route"), at_p2.contacts[0].uri) == (BOB, [], alice.contact)
    assert [via(value) for value in at_p2.values("via")] == [(P1, ":"), u1]
    assert [each.branch == branch for each in at_p2.vias] == [False, True]
    assert [at_p2.first(name) for name in ("from", "to", "call-id", "cseq")] == [
        sent.first(name) for name in ("from", "to", "call-id", "cseq")
    ]
    assert at_p2.first("max-forwards") == "69"

    received = bob.got_request("INVITE")
    r2, again = received.values("record-route")
    assert (r2, again) == (f"<sip:{token(r2)}@{P2};lr>", r1)
    assert (received.uri, received.values("route"), received.contacts[0].uri) == (u2, [], alice.contact)
    assert [via(value) for value in received.values("via")] == [(P2, ":"), (P1, f"{P1_HOST}:5060"), u1]
    assert received.first("max-forwards") == "68"

    bob.respond(received, 200)
    for source, target, vias in (("P2", "P1", [(P1, f"{P1_HOST}:5060"), u1]), ("P1", "alice", [u1])):
        ok = between(source, target)
        assert [via(value) for value in ok.values("via")] == vias
        assert headers(ok, "record-route", "route") == [[r2, r1], []]
        assert ok.contacts[0].uri == u2

    for cseq, method in ((1, "ACK"), (2, "BYE")):
        alice.request(method, u2, to=ok.first("to"), routes=[r1, r2], cseq=cseq)
        at_p2 = between("P1", "P2")
        assert isinstance(at_p2, Request)
        assert (at_p2.method, at_p2.uri) == (method, u2)
        assert headers(at_p2, "route", "record-route") == [[r2], []]
        received = bob.got_request(method)
        assert (received.uri, *headers(received, "route", "record-route")) == (u2, [], [])
        assert [via(value) for value in received.values("via")] == [(P2, ":"), (P1, f"{P1_HOST}:5060"), u1]
    bob.respond(received, 200)
    assert between("P1", "alice").values("record-route") == []


def test_y27_rfc3261_16_12_1_1_the_callees_bye_goes_back_the_same_way() -> None:
    t = Trapezoid()
    alice, bob, between = t.alice, t.bob, t.trace.between
    alice.request("INVITE", BOB, authorized=True)
    received = bob.got_request("INVITE")
    r2, r1 = received.values("record-route")
    bob.respond(received, 200)
    ok = between("P1", "alice")
    bob.request("BYE", alice.contact, from_=ok.first("to"), to=ok.first("from"), routes=[r2, r1])
    at_p1 = between("P2", "P1")
    assert isinstance(at_p1, Request)
    assert (at_p1.uri, at_p1.values("route")) == (alice.contact, [r1])
    assert isinstance(bye := between("P1", "alice"), Request)
    assert (bye.uri, bye.values("route")) == (alice.contact, [])
    assert [via(value)[0] for value in bye.values("via")] == [P1, P2, "10.0.0.9:5062"]


def test_y27_y06_rfc3261_16_12_1_2_before_a_strict_router_the_target_goes_behind_the_routes() -> None:
    """Our edge is P4: U1 -> P1 -> P2 -> P3 (strict) -> P4 -> U2."""
    p4 = Proxy("P4", Trace(), BILOXI, "203.0.113", 7, is_peer=lambda host: host == P2_HOST)
    p3, u2 = Neighbour(p4, "P3", P2_HOST), p4.user("callee")
    r1, r2 = "<sip:p1.example.com;lr>", "<sip:p2.example.com;lr>"
    u1 = "sip:caller@u1.example.com"
    p3.request(
        "INVITE", f"sip:callee@{BILOXI}", f"Record-Route: {P3}", f"Record-Route: {r2}", f"Record-Route: {r1}",
        f"Contact: <{u1}>", from_="<sip:caller@example.com>;tag=1", contact=False,
    )  # fmt: skip
    received = u2.got_request("INVITE")
    r4, *others = received.values("record-route")
    assert (r4, others) == (f"<sip:{token(r4)}@203.0.113.1:5060;lr>", [P3, r2, r1])
    assert (received.uri, received.values("route")) == (u2.contact, [])
    u2.respond(received, 200)
    p3.got_response(100)
    ok = p3.got_response(200)
    assert ok.values("record-route") == [r4, P3, r2, r1]
    to, from_ = ok.first("to"), ok.first("from")

    u2.request("BYE", u1, from_=to, to=from_, routes=[r4, P3, r2, r1])
    bye = p3.got_request("BYE")
    assert (bye.uri, bye.values("route")) == ("sip:p3.middle.com", [r2, r1, f"<{u1}>"])

    # A re-INVITE from there and its ACK, which has no transaction here, are reformatted, too.
    u2.request("INVITE", u1, from_=to, to=from_, routes=[r4, P3, r2, r1], cseq=2)
    again = p3.got_request("INVITE")
    assert (again.uri, again.values("route")) == ("sip:p3.middle.com", [r2, r1, f"<{u1}>"])
    p3.respond(again, 200)
    u2.request("ACK", u1, from_=to, to=from_, routes=[r4, P3, r2, r1], cseq=2)
    ack = p3.got_request("ACK")
    assert (ack.uri, ack.values("route")) == ("sip:p3.middle.com", [r2, r1, f"<{u1}>"])


def test_y27_y06_rfc3261_16_12_1_2_behind_a_strict_router_the_last_route_is_the_target() -> None:
    """Our edge is P2, which knows P1 as its caller and P3, the strict router, as its next hop."""
    trace = Trace()
    p2 = Proxy("P2", trace, DOMAIN, "192.0.2", 0, is_peer=lambda host: host == P2_HOST)
    caller, callee = p2.user("alice"), Neighbour(p2, "P3", "198.51.100.77")
    p2.hops[BOB] = [NextHop("udp", "198.51.100.77", 5060)]
    r1, u1 = "<sip:p1.example.com;lr>", "sip:caller@u1.example.com"
    caller.request(
        "INVITE", BOB, f"Record-Route: {r1}", f"Contact: <{u1}>", authorized=True, contact=False
    )  # what P1 sends
    received = callee.got_request("INVITE")
    r2, again = received.values("record-route")
    assert again == r1
    callee.respond(received, 200)
    ok = trace.between("P2", "alice")
    request_uri = r2.removeprefix("<").removesuffix(">")
    callee.request("BYE", request_uri, from_=ok.first("to"), to=ok.first("from"), routes=[r1, f"<{u1}>"])
    bye = trace.between("P2", "alice")
    assert isinstance(bye, Request)
    assert (bye.uri, bye.values("route")) == (u1, [r1])


def test_y27_rfc3261_16_12_1_2_the_first_proxy_takes_its_route_off_and_goes_by_the_request_uri() -> None:
    """Our edge is P1: what comes from P2 has our Route alone."""
    trace = Trace()
    p1 = Proxy("P1", trace, DOMAIN, "192.0.2", 0)
    u1, p2 = p1.user("alice"), Neighbour(p1, "P2", P2_HOST)
    p1.hops[BOB] = [NextHop("udp", P2_HOST, 5060)]
    u1.request("INVITE", BOB, authorized=True)
    received = p2.got_request("INVITE")
    (r1,) = received.values("record-route")
    p2.respond(received, 200)
    ok = trace.between("P1", "alice")
    p2.request("BYE", u1.contact, from_=ok.first("to"), to=ok.first("from"), routes=[r1])
    bye = trace.between("P1", "alice")
    assert isinstance(bye, Request)
    assert (bye.uri, bye.values("route"), bye.values("record-route")) == (u1.contact, [], [])


def test_y27_rfc3261_16_12_1_3_between_two_networks_each_side_sees_its_own_address() -> None:
    """With two Record-Route values instead of a rewritten one (RFC 5658 section 4): the 200 is not changed."""
    trace = Trace()
    p1 = Proxy("P1", trace, DOMAIN, "192.0.2", 0)
    u1, u2 = p1.user("alice", "tls"), p1.user("bob", "tcp")
    bob = f"sip:bob@{DOMAIN}"
    u1.request("INVITE", bob, authorized=True)
    received = u2.got_request("INVITE")
    right, left = received.values("record-route")
    user = token(right)
    assert right == f"<sip:{user}@192.0.2.1:5060;transport=tcp;lr;r2=on>"
    assert left == f"<sip:{user}@192.0.2.1:5061;transport=tls;lr;r2=on>"
    assert (received.uri, received.values("route")) == (u2.contact, [])
    u2.respond(received, 200)
    ok = trace.between("P1", "alice")
    assert ok.values("record-route") == [right, left]

    u1.request("BYE", u2.contact, to=ok.first("to"), routes=[left, right], cseq=2)
    bye = u2.got_request("BYE")
    assert (bye.uri, bye.values("route"), bye.values("record-route")) == (u2.contact, [], [])
    u2.respond(bye, 200)
    u2.request("BYE", u1.contact, from_=ok.first("to"), to=ok.first("from"), routes=[right, left])
    back = trace.between("P1", "alice")
    assert isinstance(back, Request)
    assert (back.uri, back.values("route")) == (u1.contact, [])
