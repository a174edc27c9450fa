"""Nonces that need no store: key id, time, salt and a tag of whom it was given to, under an HMAC with the realm.

`KEYID.TIME.SALT.TAG.MAC`, all but the id in lower-case hex. Any process with the key can check any other's nonce;
a key that was taken out of the keys ends its nonces. A nonce is good from any address (phones roam); the tag only
tells who may be blamed for a wrong response: who forges a victim's address never saw the victim's nonces.
"""

import enum
import hmac
import re
from collections.abc import Mapping
from typing import Final

from sipcore import mac

_NONCE = re.compile(r"([0-9a-z]{1,8}+)\.([0-9a-f]{8})\.([0-9a-f]{8,32}+)\.([0-9a-f]{8})\.([0-9a-f]{32})")
SKEW: Final = 30
"""Seconds that the clock of another of our processes may be ahead."""


class Nonce(enum.Enum):
    """What a nonce is worth."""

    FRESH = "fresh"
    STALE = "stale"
    """Ours, but too old, or from a clock too far ahead."""
    FORGED = "forged"
    """Not ours, or of a key that is no longer in use."""


def _mac(key: bytes, signed: str, realm: str) -> str:
    return mac.digest(key, f"{signed}.{realm}".encode("utf-8", "surrogateescape"))[:16].hex()


def _tag(key: bytes, salt: str, source: str) -> str:
    return mac.digest(key, f"nonce for\0{salt}\0{source}".encode())[:4].hex()


def make(keys: Mapping[str, bytes], realm: str, now: int, salt: bytes, source: str) -> str:
    """A nonce signed by the first of the keys; `now` in seconds, `salt` 4 to 16 random bytes, for an IP address."""
    key_id = next(iter(keys))
    signed = f"{key_id}.{now:08x}.{salt.hex()}.{_tag(keys[key_id], salt.hex(), source)}"
    return f"{signed}.{_mac(keys[key_id], signed, realm)}"


def given_to(keys: Mapping[str, bytes], nonce: str, source: str) -> bool:
    """Whether a nonce that `check` found ours was sent to this IP address."""
    match = _NONCE.fullmatch(nonce)
    if match is None or (key := keys.get(match[1])) is None:
        return False
    return hmac.compare_digest(_tag(key, match[3], source), match[4])


def check(keys: Mapping[str, bytes], realm: str, nonce: str, now: int, lifetime: int) -> Nonce:
    """What a nonce is worth `now`, in seconds; it lives for `lifetime` seconds."""
    match = _NONCE.fullmatch(nonce)
    if match is None or (key := keys.get(match[1])) is None:
        return Nonce.FORGED
    signed, _, proof = nonce.rpartition(".")
    if not hmac.compare_digest(_mac(key, signed, realm), proof):
        return Nonce.FORGED
    age = now - int(match[2], 16)
    return Nonce.FRESH if -SKEW <= age < lifetime else Nonce.STALE


def issued_at(nonce: str) -> int:
    """When a nonce was made, in seconds; 0, older than any, for text that is no nonce of ours."""
    match = _NONCE.fullmatch(nonce)
    return int(match[2], 16) if match else 0
