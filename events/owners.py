"""Whose flow a Path value names: the edge that holds it, for who only has to tell that edge.

Nothing is proven here. `edge.core.tokens.path` makes the token, and the edge that is told verifies it.
"""

import base64
import binascii
import re
from typing import NamedTuple

_TOKEN = re.compile(r"<sips?:([A-Za-z2-7]{1,512})@")
_IPV6, _MAC = 0x80, 10


class Owner(NamedTuple):
    """An edge, and its life where the flow is a connection, else ""."""

    edge: str
    boot: str


def owner_of(path: str) -> Owner | None:
    """Whose the flow is that this Path value (with its `<>`) names; None where it is no token."""
    found = _TOKEN.match(path)
    if found is None:
        return None
    token = found[1].upper()
    try:
        rest = base64.b32decode(token + "=" * (-len(token) % 8))
        _, rest = _text(rest)
        edge, rest = _text(rest)
        size = 16 if rest[0] & _IPV6 else 4
        rest = rest[1 + 2 * (size + 2) :]
        if len(rest) < _MAC:
            return None
        boot = _text(rest)[0] if len(rest) > _MAC else ""
    except (binascii.Error, IndexError, ValueError):
        return None
    return Owner(edge, boot)


def _text(octets: bytes) -> tuple[str, bytes]:
    end = 1 + octets[0]
    if end > len(octets):
        raise ValueError("shorter than it says")
    return octets[1:end].decode(), octets[end:]
