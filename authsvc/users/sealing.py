"""HA1s at rest: each sealed by AES-256-GCM (NIST SP 800-38D) for one user, realm and algorithm (CHECKLIST A26).

A sealed HA1 that is moved to another user's row, or to another column, does not open. What seals is a key of its own,
named in the row, so that keys can be changed while everything serves.
"""

import base64
import logging
import time
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.errors import ConfigError

log = logging.getLogger("ramal.authsvc")

KEY_BYTES = 32
NONCE_BYTES = 12
READ_AGAIN_SECONDS = 1.0
"""A key that is missing is looked for at most so often."""


class Unopened(Exception):
    """A sealed HA1 cannot be opened: its key is missing, or it is not what was sealed there."""


class Keyring(msgspec.Struct, frozen=True):
    """Keys by id, the one that seals first. No repr shows one."""

    keys: Mapping[str, bytes]

    @classmethod
    def parsed(cls, text: str) -> "Keyring":
        """Of `ID:HEX[,ID:HEX…]`; raises ConfigError that shows no key."""
        keys: dict[str, bytes] = {}
        for part in filter(None, (piece.strip() for piece in text.replace("\n", ",").split(","))):
            id_, colon, hexadecimal = part.partition(":")
            try:
                key = bytes.fromhex(hexadecimal)
            except ValueError:
                key = b""
            if not colon or not (id_.isascii() and id_.isalnum()) or len(id_) > 8 or len(key) != KEY_BYTES:
                raise ConfigError(
                    "RAMAL_ENROLMENT_KEYS: each key is ID:HEX, ID up to 8 letters and digits, HEX 64 hex digits;"
                    " make one with: echo e1:$(openssl rand -hex 32)"
                )
            if id_ in keys:
                raise ConfigError(f"RAMAL_ENROLMENT_KEYS: two keys have the id {id_}")
            keys[id_] = key
        return cls(keys)

    @property
    def sealing(self) -> str:
        """The id of the key that seals; raises ConfigError where there is none."""
        if not self.keys:
            raise ConfigError("RAMAL_ENROLMENT_KEYS: is not set; make one with: echo e1:$(openssl rand -hex 32)")
        return next(iter(self.keys))

    def seal(self, ha1: str, user: str, realm: str, algorithm: str, nonce: bytes) -> str:
        """An HA1 (hex) sealed by the first key; `nonce` is never used twice."""
        cipher = AESGCM(self.keys[self.sealing])
        return base64.b64encode(
            nonce + cipher.encrypt(nonce, bytes.fromhex(ha1), _for(user, realm, algorithm))
        ).decode()

    def open(self, key_id: str, sealed: str, user: str, realm: str, algorithm: str) -> str:
        """The HA1 in hex; raises Unopened."""
        if (key := self.keys.get(key_id)) is None:
            raise Unopened(f"the key {key_id} is missing")
        try:
            octets = base64.b64decode(sealed, validate=True)
            nonce, rest = octets[:NONCE_BYTES], octets[NONCE_BYTES:]
            return AESGCM(key).decrypt(nonce, rest, _for(user, realm, algorithm)).hex()
        except (ValueError, InvalidTag):
            raise Unopened(f"it is not what the key {key_id} sealed there") from None

    def text(self) -> str:
        """The keys as a file has them."""
        return ",".join(f"{id_}:{key.hex()}" for id_, key in self.keys.items())

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.keys)})"


def _for(user: str, realm: str, algorithm: str) -> bytes:
    """What a sealed HA1 is bound to. No part has a NUL, so no two say the same."""
    return "\0".join(("ramal", user, realm, algorithm)).encode("utf-8", "surrogatepass")


class Keys:
    """The keys in force: read at the start, and again where one is missing or something is to be sealed."""

    def __init__(self, read: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        """`read` gives the setting's text, of its file as it is now. Raises ConfigError."""
        self._read = read
        self._clock = clock
        self._next = float("-inf")
        self.ring = Keyring.parsed(read())

    def newest(self) -> Keyring:
        """As they are now; raises ConfigError."""
        self.ring = Keyring.parsed(self._read())
        return self.ring

    def knows(self, key_id: str) -> bool:
        """Whether this key is there, if need be after another look."""
        if key_id not in self.ring.keys and self._clock() >= self._next:
            self._next = self._clock() + READ_AGAIN_SECONDS
            try:
                self.newest()
            except ConfigError as error:
                log.error("the keys of enrolment cannot be read again", extra={"cause": str(error)})
        return key_id in self.ring.keys
