"""A user's HA1s: what digest authentication can be checked with. Pure.

No repr of these types shows a secret, so that none reaches a log or a traceback.
"""

import re
from collections.abc import Collection, Iterable

import msgspec

from sipcore import digest

ALGORITHMS = ("MD5", "SHA-256", "SHA-512-256")
DIGITS = {"MD5": 32, "SHA-256": 64, "SHA-512-256": 64}
"""Hex digits of an HA1 and of a response."""


class User(msgspec.Struct, frozen=True, gc=False):
    """The HA1s that a user has, by algorithm; None where there is none. One who has none cannot authenticate."""

    md5: str | None = None
    sha256: str | None = None
    sha512_256: str | None = None

    def ha1(self, algorithm: str) -> str | None:
        """The HA1 for `MD5`, `SHA-256` or `SHA-512-256`, in lower-case hex."""
        if algorithm == "MD5":
            return self.md5
        if algorithm == "SHA-256":
            return self.sha256
        return self.sha512_256

    def has_all(self, algorithms: Iterable[str]) -> bool:
        """Whether every one of these algorithms can be checked."""
        return all(self.ha1(algorithm) is not None for algorithm in algorithms)

    def completed(self, other: "User") -> "User":
        """This user's HA1s, and the other's where there is none."""
        return User(self.md5 or other.md5, self.sha256 or other.sha256, self.sha512_256 or other.sha512_256)

    def __repr__(self) -> str:
        return f"User({', '.join(algorithm for algorithm in ALGORITHMS if self.ha1(algorithm))})"


def from_ha1s(values: dict[str, str]) -> User:
    """A user of the HA1s by algorithm; what is empty or not of the algorithm's length in hex is left out."""
    return User(*(_hex(values.get(algorithm, ""), DIGITS[algorithm]) for algorithm in ALGORITHMS))


def from_password(name: str, realm: str, password: str, algorithms: Collection[str] = ALGORITHMS) -> User:
    """A user whose HA1s are computed from the clear-text password (RFC 7616 section 3.4.2)."""
    return User(*[digest.ha1(each, name, realm, password) if each in algorithms else None for each in ALGORITHMS])


def _hex(text: str, digits: int) -> str | None:
    text = text.lower()
    return text if len(text) == digits and _HEX.fullmatch(text) else None


_HEX = re.compile(r"[0-9a-f]*")
