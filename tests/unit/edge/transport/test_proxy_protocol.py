"""The PROXY protocol, versions 1 and 2 (CHECKLIST T14)."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.transport.proxy_protocol import V2, BadHeader, Parties, begins, missing, parse


def version2(remote: str, local: str, ports: tuple[int, int], *, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    addresses = ip_address(remote).packed + ip_address(local).packed
    body = addresses + ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + tlvs
    family = 0x11 if len(addresses) == 8 else 0x21
    return V2 + bytes((command, family)) + len(body).to_bytes(2, "big") + body


HEADERS = {
    b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 5060\r\n": Parties("203.0.113.9", 56324, "192.0.2.1", 5060),
    b"PROXY TCP6 2001:db8::9 2001:db8::1 1 65535\r\n": Parties("2001:db8::9", 1, "2001:db8::1", 65535),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n": None,
    version2("203.0.113.9", "192.0.2.1", (56324, 5060)): Parties("203.0.113.9", 56324, "192.0.2.1", 5060),
    version2("2001:db8::9", "2001:db8::1", (1, 2), tlvs=b"\x04\x00\x01x"): Parties("2001:db8::9", 1, "2001:db8::1", 2),
    version2("203.0.113.9", "192.0.2.1", (1, 2), command=0x20): None,
}


@pytest.mark.parametrize(("header", "parties"), HEADERS.items())
def test_t14_a_header_is_read_to_its_last_octet_and_no_further(header: bytes, parties: Parties | None) -> None:
    behind = b"REGISTER sip:example.test SIP/2.0\r\n"
    octets, held = header + behind, b""
    while wanted := missing(held):
        assert wanted > 0
        held, octets = held + octets[:wanted], octets[wanted:]
    assert (held, octets) == (header, behind)
    assert parse(held) == parties
    assert begins(header)


@pytest.mark.parametrize(
    "octets",
    [
        b"REGISTER sip:example.test SIP/2.0\r\n",
        b"PROXX TCP4 ",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY TCP4 203.0.113.9 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1 70000\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 -1 2\r\n",
        b"PROXY TCP4 phone.example.test 192.0.2.1 1 2\r\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 \xff 192.0.2.1 1 2\r\n",
        V2 + b"\x31\x11\x00\x0c" + b"\0" * 12,
        V2 + b"\x21\x12\x00\x0c" + b"\0" * 12,
        V2 + b"\x21\x11\x00\x04" + b"\0" * 4,
        V2 + b"\x21\x11\xff\xff",
    ],
)
def test_t14_what_breaks_the_rules_is_refused(octets: bytes) -> None:
    with pytest.raises(BadHeader):
        _read(octets)


@given(st.binary(max_size=40), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11"]))
def test_any_octets_give_parties_or_bad_header(octets: bytes, start: bytes) -> None:
    with contextlib.suppress(BadHeader, EOFError):
        _read(start + octets)


def _read(octets: bytes) -> Parties | None:
    held = b""
    while wanted := missing(held):
        if not octets:
            raise EOFError
        held, octets = held + octets[:wanted], octets[wanted:]
    return parse(held)
