"""HMAC-SHA-256 (RFC 2104) of what only we can make: nonces, branches and tokens.

A call has a dozen of them, and half of what `hmac.digest` takes is to look for the hash and to begin with the key: here
that is done once for each key, and what has begun is copied.
"""

import hashlib
from functools import lru_cache
from typing import Any, Final

_BLOCK: Final = 64
_INNER: Final = bytes(octet ^ 0x36 for octet in range(256))
_OUTER: Final = bytes(octet ^ 0x5C for octet in range(256))


def digest(key: bytes, covered: bytes) -> bytes:
    """The 32 octets of the HMAC."""
    begun, ended = _begun(key)
    inner = begun.copy()
    inner.update(covered)
    outer = ended.copy()
    outer.update(inner.digest())
    return outer.digest()  # type: ignore[no-any-return]  # typeshed has no name for what hashlib gives


@lru_cache(maxsize=16)
def _begun(key: bytes) -> tuple[Any, Any]:
    block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))
