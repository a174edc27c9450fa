"""sipcore.message: responses, `received`, bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipcore.errors import ParseError
from sipcore.message import Request, Response, Row, respond, row, with_received
from sipcore.parser import parse_datagram


def register(via: str = "SIP/2.0/UDP 192.0.2.4:5062;branch=z9hG4bK1", to: str = "<sip:a@b>", more: str = "") -> Request:
    text = (
        f"REGISTER sip:b SIP/2.0\r\nv: {via}\r\nVia: SIP/2.0/TCP  second ;branch=z9hG4bK2 , SIP/2.0/TLS third\r\n"
        f"Max-Forwards: 70\r\nf:   <sip:a@b>;tag=1\r\nTO: {to}\r\nCall-ID: c\r\nCSeq:  7   REGISTER\r\n"
        f"Timestamp: 54\r\nX-Unknown:  kept,as  is;;\r\n{more}\r\n"
    )
    message = parse_datagram(text.encode())
    assert isinstance(message, Request)
    return message


def lines(response: Response) -> list[str]:
    return response.encode().decode().split("\r\n")


def test_a_response_has_the_vias_from_to_call_id_and_cseq_of_its_request() -> None:
    response = respond(register(), 200, to_tag="xyz", headers=[("Date", "now"), ("Contact", "<sip:a@c>;expires=5")])
    assert lines(response) == [
        "SIP/2.0 200 OK",
        "v: SIP/2.0/UDP 192.0.2.4:5062;branch=z9hG4bK1",
        "Via: SIP/2.0/TCP  second ;branch=z9hG4bK2 , SIP/2.0/TLS third",
        "f: <sip:a@b>;tag=1",
        "TO: <sip:a@b>;tag=xyz",
        "Call-ID: c",
        "CSeq: 7   REGISTER",
        "Date: now",
        "Contact: <sip:a@c>;expires=5",
        "Content-Length: 0",
        "",
        "",
    ]
    again = parse_datagram(response.encode())
    assert again.to.tag == "xyz"
    assert [via.host for via in again.vias] == ["192.0.2.4", "second", "third"]


def test_a_to_tag_that_is_there_stays() -> None:
    assert respond(register(to="<sip:a@b>;tag=old"), 200, to_tag="new").first("to") == "<sip:a@b>;tag=old"


def test_a_100_has_the_timestamp_and_others_do_not() -> None:
    assert respond(register(), 100).first("timestamp") == "54"
    assert respond(register(), 200, to_tag="x").first("timestamp") is None


def test_a_response_to_an_unreadable_request_has_what_is_there() -> None:
    request = Request("REGISTER", "", [row("Via", "rubbish"), row("To", '"x'), row("CSeq", "1"), row("CSeq", "2")])
    assert lines(respond(request, 400, "Bad", to_tag="t"))[:4] == [
        "SIP/2.0 400 Bad",
        "Via: rubbish",
        'To: "x',
        "CSeq: 1",
    ]


def test_reason_phrases_are_the_rfcs() -> None:
    assert respond(register(), 423).reason == "Interval Too Brief"
    assert respond(register(), 499).reason == "Unknown"


@pytest.mark.parametrize(
    ("via", "top"),
    [
        ("SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1", "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1"),
        ("SIP/2.0/UDP phone;branch=z9hG4bK1", "SIP/2.0/UDP phone;branch=z9hG4bK1;received=198.51.100.7"),
        ("SIP/2.0/UDP 192.0.2.4:99", "SIP/2.0/UDP 192.0.2.4:99;received=198.51.100.7"),
        ("SIP/2.0/UDP h;received=192.0.2.66", "SIP/2.0/UDP h;received=198.51.100.7"),
        ("SIP/2.0/UDP 198.51.100.7;received=192.0.2.66", "SIP/2.0/UDP 198.51.100.7"),
    ],
)
def test_t02_received_is_added_when_the_sent_by_is_not_the_source(via: str, top: str) -> None:
    assert str(with_received(register(via), "198.51.100.7", 4444).via) == top


@pytest.mark.parametrize("sent", ["rport", "RPORT", "rport=", "rport=1"])
@pytest.mark.parametrize("host", ["198.51.100.7", "192.0.2.4", "phone.invalid"])
def test_t03_rport_is_filled_and_received_always_added(host: str, sent: str) -> None:
    via = with_received(register(f"SIP/2.0/UDP {host}:5062;{sent};branch=z9hG4bK1"), "198.51.100.7", 4444).via
    assert (via.received, via.rport, via.branch, via.port) == ("198.51.100.7", 4444, "z9hG4bK1", 5062)


def test_t02_only_the_top_via_changes_and_what_was_parsed_stays() -> None:
    request = register("SIP/2.0/UDP h;branch=z9hG4bK1, SIP/2.0/UDP g;x")
    changed = with_received(request, "2001:db8::1", 5)
    assert changed.rows[0].value == "SIP/2.0/UDP h;branch=z9hG4bK1;received=2001:db8::1, SIP/2.0/UDP g;x"
    assert changed.first("via") == changed.rows[0].value
    assert changed.rows[1:] == request.rows[1:]
    assert changed.to is request.to
    assert str(request.via) == "SIP/2.0/UDP h;branch=z9hG4bK1"
    again = parse_datagram(changed.encode())
    assert again.via.received == "2001:db8::1"


def test_t02_an_ipv6_sent_by_is_compared_as_an_address() -> None:
    assert with_received(register("SIP/2.0/UDP [2001:DB8:0::1]"), "2001:db8::1", 5).via.received is None
    assert with_received(register("SIP/2.0/UDP [2001:db8::2]"), "2001:db8::1", 5).via.received == "2001:db8::1"
    assert with_received(register("SIP/2.0/UDP [2001:db8::2]"), "192.0.2.1", 5).via.received == "192.0.2.1"


def test_a_request_without_a_readable_via_comes_back_as_it_is() -> None:
    for request in (Request("X", "", []), Request("X", "", [row("Via", "?")])):
        assert with_received(request, "192.0.2.1", 5) is request


def test_p22_what_nobody_changed_comes_out_as_it_came_in() -> None:
    request = register(more="Content-Length: 0\r\n")
    assert [f"{row.original}: {row.value}" for row in request.rows] == request.encode().decode().split("\r\n")[1:-2]
    assert request.first("x-unknown") == "kept,as  is;;"


def test_p21_the_body_decides_content_length() -> None:
    rows = [row("L", "99"), row("Content-Length", "98")]
    assert (
        Response(200, "OK", [Row("content-length", "l", "99")], b"abc").encode() == b"SIP/2.0 200 OK\r\nl: 3\r\n\r\nabc"
    )
    assert b"Content-Length: 2\r\n\r\n\xff\x00" in Response(200, "OK", rows[1:], b"\xff\x00").encode()
    assert Response(200, "OK", [], b"x").encode() == b"SIP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx"


EVIL = ["\r\nEvil: 1", "\nEvil: 1", "\rEvil: 1", "\x00", "\\\\\x00", "\r\n\r\nINVITE"]


@pytest.mark.parametrize("evil", EVIL)
def test_p24_no_line_break_or_nul_ever_leaves_in_a_header(evil: str) -> None:
    request = register()
    for response in (
        respond(request, 200, to_tag=f"x{evil}"),
        respond(request, 200, f"OK{evil}"),
        respond(request, 200, headers=[("Contact", f"<sip:a@b>{evil}")]),
        respond(request, 200, headers=[(f"X{evil}", "a")]),
    ):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            response.encode()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Request("REGISTER", f"sip:b{evil}", request.rows).encode()


@given(st.text(), st.text())
def test_p24_what_is_encoded_has_the_rows_that_were_given(name: str, value: str) -> None:
    response = Response(200, "OK", [Row(name.lower(), name, value)])
    try:
        data = response.encode()
    except ValueError:
        return
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b""
    assert len(head.split(b"\r\n")) == (2 if name.lower() == "content-length" else 3)


def test_p24_escaped_line_breaks_stay_escaped() -> None:
    request = register(to="<sip:a%0d%0aEvil@b>")
    assert request.to.parsed_uri.user == "a%0d%0aEvil"
    assert b"a%0d%0aEvil@b" in respond(request, 200, to_tag="x").encode()


def test_values_of_an_unbalanced_row_are_the_row() -> None:
    assert register(more='Warning: 399 h "a, b\r\n').values("warning") == ['399 h "a, b']


def test_the_properties_of_an_unchecked_message_raise_parse_error() -> None:
    request = Request("X", "sip:a b", [row("From", "<")])
    for read in (
        lambda: request.via,
        lambda: request.branch,
        lambda: request.from_,
        lambda: request.to,
        lambda: request.call_id,
        lambda: request.cseq,
        lambda: request.parsed_uri,
    ):
        with pytest.raises(ParseError):
            read()


def test_a25_messages_show_no_headers() -> None:
    assert repr(register(more="Authorization: Digest secret\r\n")) == "<Request REGISTER sip:b>"
    assert repr(respond(register(), 200)) == "<Response 200 OK>"
