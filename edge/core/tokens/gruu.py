"""GRUUs: URIs that lead to one phone of a user, whichever edge they reach (RFC 5627; CHECKLIST R37, N15).

A public one is the AOR with `gr`: the phone's instance and 10 octets of HMAC-SHA-256 over both. So nothing is kept of
it, it is the same at each refresh (until another key signs), and one that we never gave is told from one whose phone
is away. A temporary one hides both: `tgruu.`, lower-case base32 of the signing key's id and of

    salt, time, the AOR's user and domain, the instance

by AES-SIV (RFC 5297), under a key made of that one. Two of them tell nothing to who lacks it, not even that they are
of one phone; of what anybody makes up none opens. The time says whether it was given before what has ended all
earlier ones: the end of the phone's last binding, or another Call-ID (RFC 5627 sections 5.1 and 5.3).
"""

import hmac
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from edge.core.actions import Binding
from edge.core.tokens import base32
from sipcore import mac
from sipcore.uri import Uri, aor

PUBLIC = b"ramal public gruu\x00"
TEMPORARY = b"ramal temporary gruu\x00"
"""One key serves several purposes; none of their keys is another's."""
PREFIX = "tgruu."
MAC = 10
SALT = 8
TIME = 6
"""Octets of milliseconds since 1970."""
LONGEST = 1024


class Gruu(NamedTuple):
    """Whom a GRUU is of."""

    aor: str
    instance: str
    """As `instance_of` has it."""
    given: int = 0
    """When a temporary one was given, milliseconds in the log's time; 0: it is public."""

    def among(self, bindings: Iterable[Binding]) -> list[Binding]:
        """The live bindings that it leads to, of those of its AOR: its phone's."""
        return [
            each
            for each in bindings
            if each.instance and instance_of(each.instance) == self.instance and self._outlasts(each)
        ]

    def _outlasts(self, binding: Binding) -> bool:
        return not self.given or 0 < binding.gruus_since <= self.given


class Gruus:
    """Makes and reads the GRUUs of all edges."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """The first key makes them, all read them."""
        self._keys = tuple(keys.values())
        self._signing = next(iter(keys))
        self._ciphers = {id_: AESSIV(hmac.digest(key, TEMPORARY, "sha512")) for id_, key in keys.items()}

    def public(self, aor: str, instance: str) -> str:
        """The public one of a phone, with this `+sip.instance`, of an AOR."""
        name = _inner(instance)
        return f"sip:{aor};gr={quote(name, safe=':')}.{_mac(self._keys[0], aor, name.lower())}"

    def temporary(self, aor: str, instance: str, given: int, salt: bytes) -> str:
        """A temporary one; `salt` is SALT random octets, `given` as in `Gruu`."""
        user, _, domain = aor.rpartition("@")
        parts = (user.encode(), domain.encode(), instance_of(instance).encode())
        content = salt + given.to_bytes(TIME, "big") + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        id_ = self._signing.encode()
        sealed = self._ciphers[self._signing].encrypt(content, [id_])
        return f"sip:{PREFIX}{base32.encode(len(id_).to_bytes(1, 'big') + id_ + sealed)}@{domain};gr"

    def read(self, uri: Uri, domain: str) -> Gruu | None:
        """Whom a URI with `gr` in this domain of ours leads to; None for what is no GRUU that we gave."""
        value = uri.param("gr")
        if value is None or uri.user is None:
            return None
        if value:
            return self._public(aor(Uri("sip", uri.user, None, domain)), value)
        if uri.user[: len(PREFIX)].lower() != PREFIX or len(uri.user) > LONGEST or not uri.user.isascii():
            return None
        try:
            gruu = self._temporary(uri.user[len(PREFIX) :].lower())
        except (IndexError, ValueError, KeyError, InvalidTag):
            return None
        return gruu if gruu.aor.rpartition("@")[2] == domain else None

    def _public(self, address: str, value: str) -> Gruu | None:
        name, _, proof = unquote(value).lower().rpartition(".")
        if not proof.isascii() or not name.isascii():
            return None
        fits = any(hmac.compare_digest(proof, _mac(key, address, name)) for key in self._keys)
        return Gruu(address, name) if fits else None

    def _temporary(self, token: str) -> Gruu:
        octets = base32.decode(token)
        end = 1 + octets[0]
        id_ = octets[1:end]
        content = self._ciphers[id_.decode()].decrypt(octets[end:], [id_])
        given, rest = int.from_bytes(content[SALT : SALT + TIME], "big"), content[SALT + TIME :]
        parts = []
        for _ in range(3):
            size = int.from_bytes(rest[:2], "big")
            parts.append(rest[2 : 2 + size].decode())
            rest = rest[2 + size :]
        return Gruu(f"{parts[0]}@{parts[1]}", parts[2], given)


def can_have(instance: str | None) -> bool:
    """Whether a phone with this `+sip.instance` gets GRUUs: it is text that a URI can hold."""
    return instance is not None and instance != "" and instance.isascii() and instance.isprintable()


def instance_of(instance: str) -> str:
    """A `+sip.instance` as instances are compared: without `<>`, and without case, which URI parameters have not."""
    return _inner(instance).lower()


def _inner(instance: str) -> str:
    return instance[1:-1] if instance[:1] == "<" and instance[-1:] == ">" else instance


def _mac(key: bytes, address: str, name: str) -> str:
    return base32.encode(mac.digest(key, PUBLIC + f"{address}\0{name}".encode())[:MAC])
