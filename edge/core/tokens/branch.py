"""Branches of our Vias: unique in space and time, and only we can make them (RFC 3261 section 8.1.1.7, 16.6 step 8).

A branch is `z9hG4bK` and four parts between dots, all of them compared without case:

    edge and boot in base32 . number . loop digest . 10 octets of HMAC in base32

The edge and its life tell any other edge whose response it is (CHECKLIST E05, E11); the loop digest tells a loop
from a spiral (RFC 5393 section 4.2); the HMAC covers all of it.
"""

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from edge.core.tokens import base32
from sipcore import mac

COOKIE = "z9hG4bK"
PURPOSE = b"ramal branch\x00"
MAC = 10
LONGEST = 400


class Branch(NamedTuple):
    """What a branch of ours says."""

    edge: str
    boot: str
    loop: str
    """`sipcore.proxy.loop_digest` of the request that it was made for."""


class Branches:
    """Makes the branches of one edge's life and knows those of all others."""

    def __init__(self, keys: Mapping[str, bytes], edge: str, boot: str) -> None:
        """The first key signs, all verify."""
        self._keys = tuple(keys.values())
        self._prefix = f"{COOKIE}{base32.encode(f'{edge}/{boot}'.encode())}."
        self._number = 0

    def make(self, loop: str) -> str:
        """A branch that nobody has made before."""
        self._number += 1
        signed = f"{self._prefix}{self._number:x}.{loop}"
        return f"{signed}.{_mac(self._keys[0], signed)}"

    def anothers(self, branch: str) -> Branch | None:
        """What a branch of another edge or life says; None for one of ours, or of nobody's."""
        own = self._prefix
        return None if branch[: len(own)].lower() == own.lower() else self.verify(branch)

    def verify(self, branch: str) -> Branch | None:
        """What a branch says; None for one that none of our edges made."""
        if len(branch) > LONGEST or not branch.isascii():
            return None
        signed, _, proof = branch.rpartition(".")
        signed = COOKIE + signed[len(COOKIE) :].lower()
        parts = signed.split(".")
        if len(parts) != 3:
            return None
        if not any(hmac.compare_digest(_mac(key, signed), proof.lower()) for key in self._keys):
            return None
        edge, slash, boot = _text(parts[0][len(COOKIE) :]).rpartition("/")
        return Branch(edge, boot, parts[2]) if slash else None


def _mac(key: bytes, signed: str) -> str:
    return base32.encode(mac.digest(key, PURPOSE + signed.encode())[:MAC])


@lru_cache(maxsize=1024)
def _text(encoded: str) -> str:
    try:
        return base32.decode(encoded).decode()
    except ValueError:
        return ""
