"""The PROXY protocol, versions 1 and 2: a balancer's word on who speaks (CHECKLIST T14).

PURE. The header stands before everything else on a connection, TLS included, and is read to its last octet
and no further: `missing` says how many octets may be read, `parse` reads the header once none is missing.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

V1 = b"PROXY "
V1_LEAST = len("PROXY UNKNOWN\r\n")
V1_LIMIT = 107
"""Octets of the longest line, CRLF included."""
V2 = b"\r\n\r\n\x00\r\nQUIT\n"
V2_HEAD = 16
V2_LIMIT = 1024
"""Octets of addresses and TLVs that are read; no balancer sends as many."""
V2_LOCAL, V2_PROXY = 0x20, 0x21
TCP4, TCP6 = 0x11, 0x21


class BadHeader(Exception):
    """Not a PROXY header, or one that breaks its rules."""


class Parties(msgspec.Struct, frozen=True):
    """Who speaks to whom, by the balancer's word."""

    remote_host: str
    remote_port: int
    local_host: str
    local_port: int


def begins(data: bytes) -> bool:
    """Whether a connection's first octets are those of a PROXY header."""
    return data.startswith((V1, V2))


def missing(held: bytes) -> int:
    """How many octets there must be yet at the least, 0 when the header is whole; raises BadHeader."""
    if len(held) < V1_LEAST:
        if not V1.startswith(held[: len(V1)]) and not V2.startswith(held[: len(V2)]):
            raise BadHeader("no PROXY header")
        return V1_LEAST - len(held)
    if held.startswith(V2):
        if len(held) < V2_HEAD:
            return V2_HEAD - len(held)
        length = int.from_bytes(held[14:16], "big")
        if length > V2_LIMIT:
            raise BadHeader("too long")
        return V2_HEAD + length - len(held)
    if not held.startswith(V1):
        raise BadHeader("no PROXY header")
    if held.endswith(b"\r\n"):
        return 0
    if len(held) >= V1_LIMIT:
        raise BadHeader("too long")
    return 1 if held.endswith(b"\r") else 2


def parse(header: bytes) -> Parties | None:
    """What a whole header says; None where the balancer speaks for itself or does not know. Raises BadHeader."""
    try:
        return _version2(header) if header.startswith(V2) else _version1(header)
    except ValueError as error:
        raise BadHeader(str(error)) from None


def _version1(header: bytes) -> Parties | None:
    words = header[:-2].decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadHeader("not TCP4, TCP6 or UNKNOWN")
    remote, local = ip_address(words[2]), ip_address(words[3])
    if {remote.version, local.version} != {4 if words[1] == "TCP4" else 6}:
        raise BadHeader("address of another family")
    return Parties(str(remote), _port(words[4]), str(local), _port(words[5]))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise BadHeader("not a port")
    return int(text)


def _version2(header: bytes) -> Parties | None:
    if header[12] == V2_LOCAL:
        return None
    if header[12] != V2_PROXY:
        raise BadHeader("unknown version or command")
    remote: IPv4Address | IPv6Address
    local: IPv4Address | IPv6Address
    if header[13] == TCP4 and len(header) >= V2_HEAD + 12:
        remote, local, ports = IPv4Address(header[16:20]), IPv4Address(header[20:24]), header[24:28]
    elif header[13] == TCP6 and len(header) >= V2_HEAD + 36:
        remote, local, ports = IPv6Address(header[16:32]), IPv6Address(header[32:48]), header[48:52]
    else:
        raise BadHeader("not TCP over IPv4 or IPv6")
    return Parties(str(remote), int.from_bytes(ports[:2], "big"), str(local), int.from_bytes(ports[2:], "big"))
