"""sipcore.parser: datagrams.

Over 400 lines: the checklist of the parser by its numbers.
"""

from typing import Any

import pytest

from sipcore.errors import ParseError
from sipcore.grammar import PARAMETERS, VALUES, delta_seconds, qvalue
from sipcore.headers import COMPACT
from sipcore.message import Request, Response, respond
from sipcore.parser import DEFAULT_LIMITS, parse_datagram

ROWS = {
    "Via": "SIP/2.0/UDP 192.0.2.4:5062;branch=z9hG4bK1;rport",
    "Max-Forwards": "70",
    "From": "<sip:alice@example.test>;tag=1",
    "To": "<sip:alice@example.test>",
    "Call-ID": "abc@192.0.2.4",
    "CSeq": "2 REGISTER",
    "Contact": "<sip:alice@192.0.2.4:5062>",
    "Content-Length": "0",
}


def text(start: Any = "REGISTER sip:example.test SIP/2.0", body: Any = b"", **changed: str | None) -> bytes:
    """A REGISTER with some rows changed (by name with `_` for `-`), added, or (None) left out."""
    rows: dict[str, str | None] = dict(ROWS)
    for name, value in changed.items():
        rows[next((known for known in ROWS if known.lower() == name.lower().replace("_", "-")), name)] = value
    lines = [f"{name}: {value}" for name, value in rows.items() if value is not None]
    data: bytes = "\r\n".join([start, *lines, "", ""]).encode() + body
    return data


def parse(data: bytes) -> Request:
    message = parse_datagram(data)
    assert isinstance(message, Request)
    return message


def refused(data: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_datagram(data)
    return caught.value


def name_of(data: bytes) -> tuple[int | None, str]:
    error = refused(data)
    return error.status, error.name


def test_p04_header_and_parameter_names_compare_without_case() -> None:
    message = parse(text(via=None, vIA="sip/2.0/udp HOST;BRANCH=z9hG4bK1", From="<sip:a@b>;TAG=Xy"))
    assert message.via.transport == "UDP"
    assert message.branch == "z9hG4bK1"
    assert message.from_.tag == "Xy"


def test_p04_call_id_and_quoted_strings_keep_their_case() -> None:
    message = parse(text(call_id="AbC@h", to='"Alice \\"A\\" B" <sip:a@b>'))
    assert message.call_id == "AbC@h"
    assert message.to.display == 'Alice "A" B'


@pytest.mark.parametrize(("short", "long"), COMPACT.items())
def test_p05_compact_forms_equal_long_forms(short: str, long: str) -> None:
    value = {"via": ROWS["Via"], "from": ROWS["From"], "to": ROWS["To"], "call-id": "x", "contact": "<sip:c@d>"}.get(
        long, "0"
    )
    for name in (short, short.upper(), long.upper()):
        message = parse(text(**{long.replace("-", "_"): None, name: value}))
        assert message.first(long) == value


def test_p05_compact_and_long_forms_mix_in_order() -> None:
    data = text().replace(b"Max-Forwards", b"v: SIP/2.0/TCP two\r\nVIA: SIP/2.0/TLS three\r\nMax-Forwards")
    assert [via.transport for via in parse(data).vias] == ["UDP", "TCP", "TLS"]
    assert name_of(text(f="<sip:x@y>;tag=2")) == (400, "repeated-header")


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", " \r\n  ", "\r\n \r\n ", "\t\r\n\t \t"])
def test_p06_a_folded_header_equals_one_sp(fold: str) -> None:
    message = parse(text(subject=f"a{fold}b", cseq=f"2{fold}REGISTER", to=f'"x{fold}y"{fold}<sip:a@b>{fold};tag=3'))
    assert message.first("subject") == "a b"
    assert message.cseq == (2, "REGISTER")
    assert (message.to.display, message.to.tag) == ("x y", "3")
    assert b"\r\n " not in message.encode()


def test_p07_rows_of_one_name_equal_the_comma_form_in_order() -> None:
    one = parse(text(contact="<sip:a@b>;q=1, <sip:c@d>,\t<sip:e@f>"))
    three = parse(
        text(contact="<sip:a@b>;q=1").replace(b"Content-L", b"m: <sip:c@d>\r\nContact: <sip:e@f>\r\nContent-L")
    )
    assert [c.uri for c in one.contacts] == [c.uri for c in three.contacts] == ["sip:a@b", "sip:c@d", "sip:e@f"]
    assert one.values("contact") == three.values("contact")
    assert parse(text(require="a, b,,c")).values("require") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name", ["WWW-Authenticate", "Authorization", "Proxy-Authenticate", "Proxy-Authorization", "Subject", "Date"]
)
def test_p07_credentials_challenges_and_prose_are_never_split_at_commas(name: str) -> None:
    message = parse(text(**{name: 'Digest realm="a", nonce="b"'}))
    assert message.values(name.lower()) == ['Digest realm="a", nonce="b"']
    assert f'{name}: Digest realm="a", nonce="b"\r\n'.encode() in message.encode()


def test_p08_separators_inside_of_quotes_and_brackets_split_nothing() -> None:
    value = '"a, \\"b; <c>" <sip:a,b;c@d;x=1?y=2>;p="q, r; s" , <sip:e@f>'
    first, second = parse(text(contact=value)).contacts
    assert first.display == 'a, "b; <c>'
    assert first.uri == "sip:a,b;c@d;x=1?y=2"
    assert first.params == [("p", "q, r; s")]
    assert second.uri == "sip:e@f"


def test_p09_without_brackets_a_parameter_is_the_headers() -> None:
    (contact,) = parse(text(contact="sip:a@b;p=1;Q=0.5")).contacts
    assert (contact.uri, contact.raw_params) == ("sip:a@b", ";p=1;Q=0.5")
    assert contact.params == [("p", "1"), ("q", "0.5")]


def test_parameters_but_the_named_ones_come_out_as_sent() -> None:
    (contact,) = parse(text(contact='<sip:a@b> ; Q=0.5;Expires = 60 ;+sip.instance="<urn:uuid:1>" ;x')).contacts
    assert contact.params_without("expires") == '; Q=0.5;+sip.instance="<urn:uuid:1>";x'
    assert contact.get("+sip.instance") == "<urn:uuid:1>"
    assert (contact.get("x"), contact.get("y")) == ("", None)


def test_star_is_seen_beside_contacts_too() -> None:
    assert parse(text(contact="*")).star
    assert parse(text(contact="*")).contacts == []
    both = parse(text(contact="*, <sip:a@b>"))
    assert both.star
    assert [c.uri for c in both.contacts] == ["sip:a@b"]
    assert not parse(text()).star


def test_p10_line_breaks_before_the_start_line_are_ignored() -> None:
    assert parse(b"\r\n\r\n\r\n" + text()).method == "REGISTER"
    assert name_of(b"\r\n\r\n") == (None, "keepalive")
    assert name_of(b"") == (None, "keepalive")


def test_p11_the_body_is_bounded_by_content_length_or_by_the_datagram() -> None:
    assert parse(text(content_length=None, body=b"v=0\r\n\r\n\xff")).body == b"v=0\r\n\r\n\xff"
    assert parse(text(content_length="3", body=b"v=0\r\n")).body == b"v=0"
    assert name_of(text(content_length="6", body=b"v=0\r\n")) == (400, "short-body")
    response = text("SIP/2.0 200 OK", content_length="6", body=b"v=0\r\n")
    assert name_of(response) == (None, "short-body")


@pytest.mark.parametrize("length", ["-1", "+0", "0x0", "", "1 1", "١", "9" * 5000, "1e1"])
def test_p12_what_is_no_content_length_is_400(length: str) -> None:
    assert name_of(text(content_length=length)) == (400, "bad-content-length")


def test_p12_two_content_lengths_must_agree() -> None:
    assert name_of(text(l="1", body=b"x")) == (400, "bad-content-length")
    assert parse(text(l="00")).body == b""


@pytest.mark.parametrize(
    "cseq",
    ["4294967296 REGISTER", "x REGISTER", "1", "REGISTER", "1 register", "1 INVITE", "-1 REGISTER", "1 REGISTER x", ""],
)
def test_p13_a_bad_cseq_is_400(cseq: str) -> None:
    assert name_of(text(cseq=cseq)) == (400, "bad-cseq")


def test_p13_the_greatest_cseq_is_accepted() -> None:
    assert parse(text(cseq="4294967295 REGISTER")).cseq.number == 2**32 - 1
    assert parse(text(cseq="0 REGISTER")).cseq.number == 0
    assert parse(text(cseq="00000000000000000000000001\tREGISTER")).cseq.number == 1


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        ("4294967295", 2**32 - 1),
        ("4294967296", 2**32 - 1),
        ("9" * 8000, 2**32 - 1),
        ("0" * 8000 + "7", 7),
        ("", 3600),
        ("-1", 3600),
        ("1.5", 3600),
        ("soon", 3600),
        ("Thu, 01 Dec 1994 16:00:00 GMT", 3600),
        ("٣", 3600),
    ],
)
def test_p14_malformed_expires_is_an_hour_and_an_overlarge_one_is_capped(sent: str, seconds: int) -> None:
    assert delta_seconds(sent) == seconds
    parse(text(expires=sent, contact=f'<sip:a@b>;expires="{sent}"'))


def test_r24_q_is_zero_to_one_with_three_decimals() -> None:
    for good, value in {"0": 0.0, "1": 1.0, "0.5": 0.5, "0.333": 0.333, "1.000": 1.0, "1.": 1.0, "0.": 0.0}.items():
        assert qvalue(good) == value
    for bad in ("1.1", "2", "0.3333", "-0", ".5", "", "1e0", "0,5", "nan", "1.001", "0x1"):
        with pytest.raises(ParseError) as caught:
            qvalue(bad)
        assert (caught.value.status, caught.value.name) == (400, "bad-q")


@pytest.mark.parametrize("hops", ["256", "300", "-1", "", "1.0", "9" * 5000])
def test_max_forwards_is_0_to_255(hops: str) -> None:
    assert name_of(text(max_forwards=hops)) == (400, "bad-max-forwards")


def test_max_forwards_may_be_absent_or_have_leading_zeros() -> None:
    assert parse(text(max_forwards=None)).first("max-forwards") is None
    assert parse(text(max_forwards="0068")).first("max-forwards") == "0068"


def test_p19_the_version_is_compared_without_case_and_another_one_is_505() -> None:
    assert parse(text("REGISTER sip:example.test sip/2.0")).method == "REGISTER"
    for version in ("SIP/2.1", "SIP/3.0", "SIP/7.0", "SIP/02.0", "SIP/1.0"):
        error = refused(text(f"REGISTER sip:example.test {version}"))
        assert (error.status, error.name) == (505, "bad-version")
        assert error.message is not None
        assert respond(error.message, 505).encode().startswith(b"SIP/2.0 505 Version Not Supported\r\nVia: SIP")
    assert name_of(text("SIP/3.0 200 OK")) == (None, "bad-status-line")


@pytest.mark.parametrize(
    "start",
    [
        "REGISTER  sip:example.test SIP/2.0",
        "REGISTER sip:example.test SIP/2.0 ",
        " REGISTER sip:example.test SIP/2.0",
        "REGISTER\tsip:example.test SIP/2.0",
        "REGISTER <sip:example.test> SIP/2.0",
        "REGISTER sip:example.test",
        "REGI(STER sip:example.test SIP/2.0",
        "REGISTER sip:example.test HTTP/1.1",
        "REGISTER sip:exam\x00ple.test SIP/2.0",
        "",
    ],
)
def test_a_malformed_request_line_is_400(start: str) -> None:
    assert refused(text(start)).status == 400


@pytest.mark.parametrize(
    "uri",
    [
        "sip:", "sip:@b", "sip:a@", "sip:a@b@c", "sip:a@b:", "sip:a@b:x", "sip:a@b:65536", "sip:a@b;;", "sip:a@b;;x",
        "sip:a@b;x=1;X=2", "sip:a@b;x;%78", "sip:a%4@b", "sip:a%zz@b", "sip:a@b%41", "sip:a@-", "example.test", ":x",
        "sip:a@b?x=y", "1sip:a@b", "sip:a@[::1", "sip:a@b c",
    ],
)  # fmt: skip
def test_a_malformed_request_uri_is_400(uri: str) -> None:
    assert refused(text(f"REGISTER {uri} SIP/2.0")).status == 400


def test_a_method_nobody_knows_is_accepted_and_501_when_the_cseq_differs() -> None:
    assert parse(text("NEWMETHOD sip:b SIP/2.0", cseq="1 NEWMETHOD")).method == "NEWMETHOD"
    assert name_of(text("NEWMETHOD sip:b SIP/2.0", cseq="1 INVITE")) == (501, "unknown-method")


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_a_missing_mandatory_header_is_400_and_the_rest_is_readable(name: str) -> None:
    error = refused(text(**{name.replace("-", "_"): None}))
    assert (error.status, error.name, error.reason) == (400, f"missing-{name.lower()}", f"Missing {name}")
    assert error.message is not None
    assert error.message.first("max-forwards") == "70"


@pytest.mark.parametrize("name", ["From", "To", "Call-ID", "CSeq", "Max-Forwards"])
def test_a_repeated_single_header_is_400(name: str) -> None:
    data = text().replace(b"Content-Length", f"{name.lower()}: {ROWS[name]}\r\nContent-Length".encode())
    assert name_of(data) == (400, "repeated-header")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Via", "SIP/2.0/UDP h;branch=z9hG4bK1;branch=z9hG4bK2"),
        ("Via", "SIP/2.0/UDP h;rport;RPORT=5"),
        ("From", "<sip:a@b>;tag=1;tag=2"),
        ("From", "<sip:a@b>;tag=1;Tag=1"),
        ("To", '<sip:a@b>;x="1";x'),
        ("To", "<sip:a@b;p;p>"),
        ("Contact", "<sip:a@b>;expires=0;expires=60"),
        ("Contact", "<sip:a@b;transport=udp;TRANSPORT=tcp>"),
        ("Route", "<sip:a@b>;x;x"),
    ],
)
def test_p23_one_parameter_name_twice_is_400(name: str, value: str) -> None:
    assert name_of(text(**{name: value})) == (400, "duplicate-parameter")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Via", ""), ("Via", "SIP/2.0/UDP"), ("Via", "SIP/2.0/UDP h;;branch=z9hG4bK1"),
        ("Via", "SIP/3.0/UDP h"), ("Via", "HTTP/2.0/UDP h"), ("Via", "SIP/2.0/UDP h:x"), ("Via", "SIP/2.0/UDP h:65536"),
        ("Via", "SIP/2.0/UDP h;branch=z9hG4bK"), ("Via", "SIP/2.0/UDP h h"), ("Via", "SIP/2.0/UDP 2001:db8::1"),
        ("From", ""), ("From", "sip"), ("From", "<>"), ("From", '"x <sip:a@b>'), ("From", "<sip:a@b"),
        ("From", "<sip:a@b> x"),
        ("From", "a, b <sip:a@b>"), ("From", "<sip:a@b>, <sip:c@d>"), ("From", "< sip:a@b>"), ("From", "<sip:a b@c>"),
        ("To", "sip:a@b?x=y"), ("To", "sip:a@b,c"), ("To", '"x"y <sip:a@b>'), ("To", "<sip:a@b>;=1"),
        ("To", "<sip:a@b>;x y"),
        ("Contact", ""), ("Contact", ","), ("Contact", "<sip:a@b>,"), ("Contact", '"x'), ("Contact", "*;expires=0"),
        ("Call-ID", ""), ("Call-ID", "a b"), ("Route", "x"), ("Route", ""),
    ],
)  # fmt: skip
def test_malformed_values_are_400(name: str, value: str) -> None:
    assert refused(text(**{name: value})).status == 400


@pytest.mark.parametrize("line", ["Foobar roobar", "Foo bar: x", ": x", "Fo(o: x", "Fö: x", "Foo\x00: x"])
def test_a_malformed_header_line_is_400(line: str) -> None:
    error = refused(text().replace(b"Content-L", line.encode() + b"\r\nContent-L"))
    assert error.status == 400
    assert error.message is not None
    assert error.message.call_id == ROWS["Call-ID"]


@pytest.mark.parametrize("octet", [b"\r", b"\n", b"\x00", b"\\\\\x00"])
@pytest.mark.parametrize("where", ["Subject: a", "Via: SIP/2.0/UDP evil", "To: <sip:a", "REGISTER sip:x"])
def test_p24_a_bare_line_break_or_nul_is_400_and_never_echoed(octet: bytes, where: str) -> None:
    if where.startswith("REGISTER"):
        data = text().replace(b"REGISTER sip:", b"REGISTER sip:x" + octet)
    else:
        data = text().replace(b"Max-F", where.encode() + octet + b"Evil: 1\r\nMax-F")
    error = refused(data)
    assert error.status == 400
    assert error.message is not None
    answer = respond(error.message, 400).encode()
    assert b"Evil" not in answer.replace(b"evil", b"")
    assert octet not in answer.replace(b"\r\n", b"")


def test_a_quoted_pair_may_hold_a_nul() -> None:
    assert parse(text(to='"a\\\x00b" <sip:a@b>')).to.display == "a\x00b"


def test_p25_more_than_the_limits_is_refused_by_name() -> None:
    limits = DEFAULT_LIMITS
    body = b"x" * (limits.message - len(text()) + 1)
    error = refused(text(content_length=None, body=body + b"x" * 40))
    assert (error.status, error.name) == (513, "message-too-large")
    assert error.message is not None
    assert error.message.call_id == ROWS["Call-ID"]
    rows = b"".join(b"X: %d\r\n" % n for n in range(limits.rows))
    assert name_of(text().replace(b"Content-L", rows + b"Content-L")) == (400, "too-many-rows")
    assert name_of(text(subject="x" * limits.line)) == (400, "line-too-long")
    assert name_of(text(subject="x" + "\r\n xxxxxxxxxx" * (limits.line // 11))) == (400, "line-too-long")
    assert name_of(text(f"REGISTER sip:{'x' * limits.line} SIP/2.0")) == (400, "line-too-long")
    vias = ", ".join(["SIP/2.0/UDP h"] * limits.vias)
    assert len(parse(text(via=vias)).vias) == limits.vias
    assert name_of(text(via=vias + ", SIP/2.0/UDP h")) == (400, "too-many-vias")
    back = parse_datagram(text("SIP/2.0 200 OK", via=vias + ", SIP/2.0/UDP h"))  # a request that went on with ours
    assert len(back.vias) == limits.vias + 1


MANY = b"a:b," * 1900 + b"a:b\r\n"


def many(name: bytes, value: bytes = MANY) -> bytes:
    """Eight rows of 8 KB."""
    return text().replace(b"Content-L", (name + b": " + value) * 8 + b"Content-L")


def test_p25_what_is_read_is_counted_before_it_is_parsed_and_what_passes_is_not_read() -> None:
    assert name_of(many(b"Contact")) == (400, "too-many-contact-values")
    assert name_of(many(b"Via")) == (400, "too-many-vias")
    for name in ("Route", "Path", "Record-Route", "Service-Route", "Require", "Supported"):
        message = parse(many(name.encode()))
        assert message.values(name.lower()) == [MANY.decode().strip()] * 8
        with pytest.raises(ParseError, match=f"Too Many {name} Values"):
            message.addresses(name.lower())
    response = parse_datagram(many(b"Contact").replace(b"REGISTER sip:example.test SIP/2.0", b"SIP/2.0 200 OK"))
    assert isinstance(response, Response)
    with pytest.raises(ParseError, match="Too Many Contact Values"):
        _ = response.contacts


def test_p25_as_many_values_and_parameters_as_anybody_needs_are_read() -> None:
    most = ", ".join([f"<sip:a@b{n}>" for n in range(VALUES + 1)])
    assert len(parse(text(contact=most)).contacts) == VALUES + 1
    assert name_of(text(contact=most + ", <sip:a@b>")) == (400, "too-many-contact-values")
    most = "<sip:a@b>" + "".join([f";p{n}" for n in range(PARAMETERS)])
    assert len(parse(text(contact=most)).contacts[0].params) == PARAMETERS
    assert name_of(text(contact=most + ";q=1")) == (400, "too-many-contact-parameters")
    assert len(parse(text(to=most)).to.params) == PARAMETERS
    assert name_of(text(to=most + ";tag=1")) == (400, "too-many-parameters")
    assert name_of(text(via="SIP/2.0/UDP h" + ";a" * (PARAMETERS + 1))) == (400, "too-many-parameters")
    assert name_of(text("REGISTER sip:b" + ";a" * (PARAMETERS + 1) + " SIP/2.0")) == (400, "too-many-parameters")
    assert name_of(text(contact="<sip:b;" + "%41" * 101 + ">")) == (400, "too-many-escapes")


def test_p25_folded_lines_are_counted_before_they_are_joined() -> None:
    folded = b"Subject: a" + b"\r\n b" * 900 + b"\r\n"
    assert parse(text().replace(b"Content-L", folded + b"Content-L")).first("subject") == "a" + " b" * 900
    error = refused(text().replace(b"Content-L", folded * 2 + b"Content-L"))
    assert (error.status, error.name) == (400, "too-many-rows")
    assert error.message is not None
    assert error.message.call_id == ROWS["Call-ID"]


def test_an_ack_and_a_response_are_never_answered() -> None:
    assert name_of(text("ACK sip:b SIP/2.0", cseq="1 INVITE")) == (None, "bad-cseq")
    assert name_of(text("SIP/2.0 200 OK", via="x")) == (None, "bad-via")
    assert name_of(text("SIP/2.0 200 OK").replace(b"Content-L", b"Bad: \n\r\nContent-L")) == (None, "bare-line-break")


@pytest.mark.parametrize(
    "data", [b"\x00", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x00\x01\x00\x00!\x12\xa4B", b"x"]
)
def test_what_is_no_sip_at_all_is_dropped_without_an_answer(data: bytes) -> None:
    assert name_of(data) == (None, "not-sip")


def test_a_datagram_that_ends_in_its_header_section_is_400() -> None:
    error = refused(text()[:-2])
    assert (error.status, error.name) == (400, "no-header-end")
    assert error.message is not None
    assert error.message.via.host == "192.0.2.4"


def test_p21_octets_that_are_no_utf8_come_out_as_they_came_in() -> None:
    data = text(body=b"\xff\x00\r\n\xfe", content_length="5").replace(b"Content-L", b"X-Raw: \xff\xfe\xc3\r\nContent-L")
    assert parse(data).encode() == data


def test_a_response_keeps_an_unusual_reason() -> None:
    message = parse_datagram(text("SIP/2.0 404 Não  existe\t!"))
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (404, "Não  existe\t!")
    assert message.encode() == text("SIP/2.0 404 Não  existe\t!")


@pytest.mark.parametrize("name", ["From", "To", "Call-ID", "CSeq", "Contact", "Record-Route", "Max-Forwards"])
def test_a_response_is_its_top_via(name: str) -> None:
    """Whatever else is missing, twice there or outside the grammar is for others (RFC 3261 section 16.7)."""
    start = "SIP/2.0 200 OK"
    for data in (
        text(start, **{name: None}),
        text(start, **{name: '"<'}),
        text(start).replace(b"Content-L", f"{name}: x\r\nContent-L".encode()),
    ):
        assert parse_datagram(data).encode() == data


def test_what_only_passes_through_is_not_read_in_a_request() -> None:
    for name in ("Contact", "Record-Route", "Path", "Service-Route"):
        data = text("OPTIONS sip:b SIP/2.0", cseq="1 OPTIONS", **{name: '"<'})
        assert parse(data).encode() == data
    data = text(route="<sip:b;lr>, ???", via="SIP/2.0/UDP h;branch=z9hG4bK1, SIP/3.0/UDP <")
    assert parse(data).encode() == data
