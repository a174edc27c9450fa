"""The proxy's steps on messages alone (RFC 3261 section 16)."""

from itertools import permutations

import pytest

from sipcore import proxy
from sipcore.message import Request, Response, Row, row
from sipcore.parser import parse_datagram
from sipcore.uri import parse_uri

TEXT = (
    "INVITE sip:bob@example.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1\r\nX-Odd:  kept  \r\n"
    "Max-Forwards: 7\r\nRoute: <sip:a;lr>, <sip:b;lr>\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: c\r\n"
    "CSeq: 1 INVITE\r\nx-ODD: again\r\nContent-Type: application/x\r\nContent-Length: 3\r\n\r\n\0\xff\n"
)


def invite() -> Request:
    message = parse_datagram(TEXT.encode("latin-1"))
    assert isinstance(message, Request)
    return message


def test_p22_a_proxied_request_differs_only_where_it_must() -> None:
    sent = proxy.proxied(invite(), "sip:bob@1.2.3.4", "SIP/2.0/UDP us;branch=z9hG4bK2", record_routes=["<sip:us;lr>"])
    again = parse_datagram(sent.encode())
    assert isinstance(again, Request)
    assert again.uri == "sip:bob@1.2.3.4"
    assert again.body == invite().body
    added = [Row("via", "Via", "SIP/2.0/UDP us;branch=z9hG4bK2"), Row("record-route", "Record-Route", "<sip:us;lr>")]
    rest = [Row(row.name, row.original, "6") if row.name == "max-forwards" else row for row in invite().rows]
    assert list(again.rows) == added + rest + [Row("max-breadth", "Max-Breadth", "60")]


def test_16_6_3_an_absent_max_forwards_becomes_70_less_this_hop() -> None:
    request = Request("BYE", "sip:b@b", [each for each in invite().rows if each.name != "max-forwards"])
    assert proxy.proxied(request, request.uri, "v").first("max-forwards") == "69"


@pytest.mark.parametrize(
    ("values", "breadth"),
    [
        ((), None),
        (("1",), 1),
        (("060",), 60),
        (("61",), 60),
        (("9" * 5000,), 60),
        (("0",), 0),
        (("-1",), None),
        (("2;x=1",), None),
        (("",), None),
        (("٣",), None),
        (("3", "9"), 3),
    ],
)
def test_y04_max_breadth_is_one_number_of_at_most_60(values: tuple[str, ...], breadth: int | None) -> None:
    request = Request("BYE", "sip:b@b", [*invite().rows, *(row("max-breadth", value) for value in values)])
    assert proxy.max_breadth(request) == breadth
    sent = proxy.proxied(request, request.uri, "v", breadth=17)
    assert sent.values("max-breadth") == ["17"]


@pytest.mark.parametrize(("breadth", "branches"), [(60, 1), (60, 2), (60, 7), (7, 7), (1, 1)])
def test_y04_shares_are_all_that_there_is_and_none_is_empty(breadth: int, branches: int) -> None:
    shares = proxy.shares(breadth, branches)
    assert len(shares) == branches
    assert sum(shares) == breadth
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


def test_routes_given_replace_those_that_came() -> None:
    sent = proxy.proxied(invite(), "sip:x@y", "v", routes=["<sip:b;lr>"])
    assert sent.values("route") == ["<sip:b;lr>"]
    assert proxy.proxied(invite(), "sip:x@y", "v", routes=[]).values("route") == []


def test_y11_a_stored_contact_loses_headers_and_method_as_request_uri() -> None:
    assert proxy.request_uri(parse_uri("sip:a@b:5061;method=BYE;x=1;transport=tcp?Route=%3Csip:c%3E")) == (
        "sip:a@b:5061;x=1;transport=tcp"
    )


def test_y18_only_the_top_via_is_removed_in_either_form() -> None:
    rows = [row("Via", "SIP/2.0/UDP us;branch=1, SIP/2.0/UDP b"), row("Via", "SIP/2.0/TCP c")]
    upward = proxy.without_top_via(Response(200, "OK", rows))
    assert upward is not None
    assert [str(via) for via in upward.vias] == ["SIP/2.0/UDP b", "SIP/2.0/TCP c"]
    upward = proxy.without_top_via(Response(200, "OK", rows[1:]))
    assert upward is None


def response(status: int, *headers: tuple[str, str]) -> Response:
    return Response(status, "R", [row(name, value) for name, value in headers])


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ((486, 603, 302), 603),
        ((486, 302), 302),
        ((503, 486), 486),
        ((500, 408), 408),
        ((486, 407), 407),
        ((486, 484, 404), 484),
        ((408, 486), 486),
        ((430, 480), 480),
        ((503,), 500),
    ],
)
def test_y21_the_best_response_whatever_the_order(statuses: tuple[int, ...], chosen: int) -> None:
    for order in permutations(statuses):
        assert proxy.best([response(status) for status in order]).status == chosen


def test_a13_all_challenges_are_gathered_into_the_one_response() -> None:
    one = response(401, ("WWW-Authenticate", 'Digest realm="a"'), ("To", "<sip:x>;tag=1"))
    two = response(407, ("Proxy-Authenticate", 'Digest realm="b"'), ("To", "<sip:x>;tag=2"))
    best = proxy.best([response(486), one, two])
    assert best.status == 401
    assert best.values("www-authenticate") == ['Digest realm="a"']
    assert best.values("proxy-authenticate") == ['Digest realm="b"']
    assert best.values("to") == ["<sip:x>;tag=1"]


def test_a12_credentials_of_ours_are_removed_those_for_others_stay() -> None:
    def credentials(realm: str) -> str:
        return f'Digest username="a", realm="{realm}", nonce="n", uri="sip:b", response="{"0" * 32}"'

    rows = [row("Proxy-Authorization", credentials("ours")), row("Proxy-Authorization", credentials("theirs"))]
    assert proxy.without_credentials(rows, ["ours"]) == rows[1:]


def test_y03_the_loop_digest_changes_with_the_target_and_not_with_the_top_via() -> None:
    one = invite()
    other = Request(one.method, one.uri, [row("Via", "SIP/2.0/UDP z;branch=z9hG4bKz"), *one.rows])
    assert proxy.loop_digest(one) == proxy.loop_digest(other)
    assert proxy.loop_digest(one) != proxy.loop_digest(Request(one.method, "sip:a@c", one.rows))
