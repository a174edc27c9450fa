"""STUN Binding on the SIP port (RFC 5626 sections 3.5.2 and 8; RFC 5389): a phone's keep-alive on UDP."""

from ipaddress import ip_address

MAGIC = 0x2112A442
BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
XOR_MAPPED_ADDRESS = 0x0020
HEADER = 20


def is_stun(data: bytes) -> bool:
    """Whether a datagram is STUN: no SIP message begins with an octet below 4 (RFC 5626 section 8)."""
    return len(data) > 0 and data[0] < 4


def binding_response(data: bytes, host: str, port: int) -> bytes | None:
    """The Binding response that tells the source its address; None for any other STUN.

    A request with comprehension-required attributes is not answered either: keep-alives have none.
    """
    if len(data) != HEADER or int.from_bytes(data[:2], "big") != BINDING_REQUEST:
        return None
    if data[2:4] != b"\x00\x00" or int.from_bytes(data[4:8], "big") != MAGIC:
        return None
    address = ip_address(host)
    family = 1 if address.version == 4 else 2
    # RFC 5389 section 15.2: the port against the cookie's first half, the address against cookie and transaction id.
    mask = data[4 : 4 + len(address.packed)]
    xored = bytes(a ^ b for a, b in zip(address.packed, mask, strict=True))
    value = bytes((0, family)) + (port ^ (MAGIC >> 16)).to_bytes(2, "big") + xored
    attribute = XOR_MAPPED_ADDRESS.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    return BINDING_SUCCESS.to_bytes(2, "big") + len(attribute).to_bytes(2, "big") + data[4:HEADER] + attribute
