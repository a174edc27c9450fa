"""The messages of RFC 4475 and RFC 5118, as the parser alone judges them."""

import json
from pathlib import Path
from typing import Any

import pytest

from sipcore.address import Address
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import StreamParser, parse_datagram

HERE = Path(__file__).parents[1] / "rfc4475"
MESSAGES: list[dict[str, Any]] = json.loads((HERE / "expected.json").read_text())["messages"]
ROLES: dict[str, dict[str, Any]] = {r["file"]: r for r in json.loads((HERE / "roles.json").read_text())["roles"]}
PARSERS_OWN = {"accept", "drop", "400", "501", "505"}


def read(name: str) -> bytes:
    return (HERE / name).read_bytes()


def section(prefix: str) -> list[str]:
    return [m["file"] for m in MESSAGES if str(m["section"]).startswith(prefix)]


def verdict(data: bytes) -> str:
    try:
        parse_datagram(data)
    except ParseError as error:
        return "drop" if error.status is None else str(error.status)
    return "accept"


def request(name: str) -> Request:
    message = parse_datagram(read(name))
    assert isinstance(message, Request)
    return message


def address_fields(address: Address) -> object:
    return address.display, address.uri, address.params, str(address.parsed_uri)


def fields(message: Request | Response) -> object:
    """Everything a message says, however it is spelled."""
    start = (message.method, message.uri) if isinstance(message, Request) else (message.status, message.reason)
    rows = [(row.name, row.value) for row in message.rows if row.name != "content-length"]
    parsed = (
        [str(via) for via in message.vias],
        address_fields(message.from_),
        address_fields(message.to),
        message.call_id,
        message.cseq,
        [address_fields(contact) for contact in message.contacts],
        message.star,
    )
    return start, rows, parsed, message.body


def test_the_corpus_is_whole() -> None:
    assert len(section("3.1.1")) == 13
    assert len(section("3.1.2")) == 19
    assert len(MESSAGES) == len(list(HERE.glob("*.dat"))) == 50


@pytest.mark.parametrize("name", section("3.1.1"))
def test_p01_a_valid_message_serialised_and_parsed_again_has_the_same_fields(name: str) -> None:
    message = parse_datagram(read(name))
    again = parse_datagram(message.encode())
    assert fields(again) == fields(message)
    assert again.encode() == message.encode()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m["file"])
def test_p02_p03_each_message_gets_its_verdict_on_udp_or_passes_to_the_role_that_gives_it(message: Any) -> None:
    name = message["file"]
    if name in ROLES:
        assert verdict(read(name)) == "accept"
    else:
        assert message["proxy"] in PARSERS_OWN
        assert verdict(read(name)) == message["proxy"]


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda r: r["file"])
def test_p03_the_table_of_roles_agrees_with_the_corpus(role: Any) -> None:
    expected = next(m for m in MESSAGES if m["file"] == role["file"])
    if "proxy" in role:
        assert str(role["proxy"]) == expected["proxy"]
    if "registrar" in role:
        assert expected["registrar"].startswith((str(role["registrar"]), "two distinct"))


@pytest.mark.parametrize("name", [m["file"] for m in MESSAGES if "stream" in m])
def test_p02_p12_a_wrong_content_length_on_a_stream_is_awaited_or_ends_it(name: str) -> None:
    expected = next(m["stream"] for m in MESSAGES if m["file"] == name)
    stream = StreamParser()
    items = stream.feed(read(name))
    if expected == "error and close":
        (error,) = items
        assert isinstance(error, ParseError)
        assert (error.status, error.name) == (400, "bad-content-length")
        assert stream.closed
        assert not stream.pending
    else:
        assert expected == "wait for more, then close"
        assert items == []
        assert stream.pending
        assert not stream.closed


def test_p02_the_400_for_non_token_characters_in_a_display_name_is_for_the_display_name() -> None:
    # The file of the archive has no empty line at its end; with one, the name alone is wrong.
    with pytest.raises(ParseError) as caught:
        parse_datagram(read("baddn.dat") + b"\r\n")
    assert (caught.value.status, caught.value.name) == (400, "bad-address")


def test_the_tortuous_invite_says_what_it_says() -> None:
    message = request("wsinv.dat")
    assert message.to.uri == "sip:vivekg@chair-dnrc.example.com"
    assert message.to.tag == "1918181833n"
    assert message.from_.display == 'J Rosenberg \\"'
    assert message.first("max-forwards") == "0068"
    assert message.cseq == (9, "INVITE")
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    assert message.first("subject") == ""
    assert message.first("newfangledheader") == "newfangled value continued newfangled value"
    assert message.contacts[0].params == [("newparam", "newvalue"), ("secondparam", None), ("q", "0.33")]


def test_the_wide_range_of_characters_is_kept() -> None:
    message = request("intmeth.dat")
    assert message.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert message.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert message.parsed_uri.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert message.parsed_uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert message.from_.get("fromparam''~+*_!.-%") == "работающий"
    assert message.from_.tag == "_token~1'+`*%!-."


def test_p17_a_percent_outside_of_uris_is_not_an_escape() -> None:
    message = request("esc02.dat")
    assert message.method == "RE%47IST%45R"
    assert message.to.display == "%Z%45"
    assert [contact.uri for contact in message.contacts] == ROLES["esc02.dat"]["contacts"]
    assert message.first("c%6fntact") == "<sip:alias2@host2.example.com>"


def test_p20_only_three_digits_from_100_to_699_are_a_status() -> None:
    good = read("noreason.dat")
    for status in (b"099", b"700", b"999", b"0200", b"20", b"2000", b"-1", b"4294967301", b"1e2"):
        with pytest.raises(ParseError) as caught:
            parse_datagram(good.replace(b"SIP/2.0 100", b"SIP/2.0 " + status))
        assert (caught.value.status, caught.value.name) == (None, "bad-status-line")
    for status in (b"100", b"699"):
        message = parse_datagram(good.replace(b"SIP/2.0 100", b"SIP/2.0 " + status))
        assert isinstance(message, Response)
        assert message.status == int(status)


def test_dblreq_is_one_register_on_udp_and_semiuri_has_no_parameters() -> None:
    assert request("dblreq.dat").method == "REGISTER"
    assert request("dblreq.dat").body == b""
    uri = request("semiuri.dat").parsed_uri
    assert (uri.user, uri.params) == ("user;par=u%40example.net", ())


@pytest.mark.parametrize("name", [r["file"] for r in ROLES.values() if "contacts" in r])
def test_p03_p09_contacts_come_out_as_sent(name: str) -> None:
    contacts = request(name).contacts
    assert [contact.uri for contact in contacts] == ROLES[name]["contacts"]
    assert contacts[0].raw_params == ROLES[name].get("params", "")


@pytest.mark.parametrize(
    ("via", "uri", "received"),
    [
        # RFC 5118 sections 4.1, 4.3, 4.4, 4.5, 4.10
        ("[2001:db8::9:1]", "sip:[2001:db8::10]", None),
        ("[2001:db8::9:1]:6050", "sip:[2001:db8::10:5070]", None),
        ("[2001:db8::9:1]", "sip:[2001:db8::10]:5070", "[2001:db8::9:255]"),
        ("[2001:db8::9:1]", "sip:user@[2001:db8::10]", "2001:db8::9:255"),
        ("lab1.east.example.com", "sip:user@[2001:db8:::192.0.2.1]", None),
        ("lab1.east.example.com", "sip:user@[2001:db8::192.0.2.1]", "192.0.2.200"),
    ],
)
def test_p18_ipv6_references_parse(via: str, uri: str, received: str | None) -> None:
    text = (
        f"OPTIONS {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {via}{f';received={received}' if received else ''};branch=z9hG4bKas3-111\r\n"
        "Route: <sip:[2001:db8::20]:5060;lr>\r\n"
        f'To: <{uri}>\r\nFrom: "Caller" <sip:caller@[2001:db8::9:1]>;tag=8\r\n'
        "Contact: <sip:caller@[2001:db8::9:1]>\r\nCall-ID: a@[2001:db8::9:1]\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    message = parse_datagram(text.encode())
    assert message.via.received == (received.strip("[]") if received else None)
    assert str(message.via).startswith(f"SIP/2.0/UDP {via}")


@pytest.mark.parametrize("uri", ["sip:2001:db8::10", "sip:[2001:db8::10", "sip:[g::1]", "sip:[1:2:3]", "sip:[]"])
def test_p18_what_is_no_ipv6_reference_is_400(uri: str) -> None:
    text = (
        f"OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nTo: <sip:a@b>\r\n"
        "From: <sip:a@b>;tag=8\r\nCall-ID: a\r\nCSeq: 1 OPTIONS\r\n\r\n"
    )
    assert verdict(text.encode()) == "400"
