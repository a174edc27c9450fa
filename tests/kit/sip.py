"""SIP messages as text, and digest credentials, for the phones of the tests.

Written apart from `sipcore` on purpose: what is tested must not be its own witness.
"""

import dataclasses
import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

_LONG = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "c": "content-type"}
_PAIR = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_CONTACT = re.compile(r"<([^>]*)>([^<]*)")
_BRANCH = re.compile(r";\s*branch=([^;,\s]+)")


class Message(NamedTuple):
    """A request or a response, as it came."""

    start: str
    rows: list[tuple[str, str]]
    """Name in lower case and in its long form, value."""
    body: bytes

    @property
    def status(self) -> int:
        """Of a response; 0 for a request."""
        return int(self.start.split(" ", 2)[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """Of a request; of a response, that of its CSeq."""
        return self.first("cseq").split()[1] if self.status else self.start.split(" ", 1)[0]

    @property
    def uri(self) -> str:
        """The Request-URI."""
        return self.start.split(" ")[1]

    @property
    def branch(self) -> str:
        """Of the top Via."""
        found = _BRANCH.search(self.first("via"))
        return found[1] if found else ""

    @property
    def contacts(self) -> dict[str, int]:
        """Of the answer to a REGISTER: seconds left by Contact URI."""
        left = {}
        for value in self.all("contact"):
            for uri, parameters in _CONTACT.findall(value):
                seconds = re.search(r";\s*expires=(\d+)", parameters)
                assert seconds, f"a Contact without expires: {value}"
                left[uri] = int(seconds[1])
        return left

    @property
    def stale(self) -> bool:
        """Whether a challenge says that only the nonce was at fault."""
        challenges = [*self.all("www-authenticate"), *self.all("proxy-authenticate")]
        return any(re.search(r"stale\s*=\s*\"?true", value, re.IGNORECASE) for value in challenges)

    def first(self, name: str) -> str:
        """The first row of that name; KeyError when there is none."""
        for each, value in self.rows:
            if each == name:
                return value
        raise KeyError(f"no {name} in {self.start}")

    def all(self, name: str) -> list[str]:
        """Every row of that name, in order."""
        return [value for each, value in self.rows if each == name]

    def has(self, name: str) -> bool:
        """Whether there is such a row."""
        return bool(self.all(name))


def parse(octets: bytes) -> Message:
    """The message of these octets."""
    head, _, body = octets.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    rows = [(_LONG.get(name.strip().lower(), name.strip().lower()), value.strip()) for name, _, value in pairs]
    return Message(start, rows, body)


def request(method: str, uri: str, rows: Iterable[str], body: bytes = b"") -> bytes:
    """A request with these rows and body."""
    typed = ["Content-Type: application/sdp"] if body else []
    lines = [f"{method} {uri} SIP/2.0", *rows, *typed, f"Content-Length: {len(body)}", "\r\n"]
    return "\r\n".join(lines).encode() + body


def uri_of(value: str) -> str:
    """The URI of a name-addr."""
    return value.partition("<")[2].partition(">")[0]


@dataclasses.dataclass(slots=True)
class Credentials:
    """A user's digest state (RFC 7616): the last nonce, and how often it has been used."""

    user: str
    password: str = dataclasses.field(repr=False)
    realm: str = ""
    """Whose challenges are answered; any's, if empty."""
    nonce: str = ""
    uses: int = 0

    def challenged(self, response: Message) -> bool:
        """Takes the challenge of a 401 or 407; False when it has none for MD5."""
        name = "www-authenticate" if response.status == 401 else "proxy-authenticate"
        for value in response.all(name):
            pairs = {key.lower(): quoted or plain for key, quoted, plain in _PAIR.findall(value)}
            if pairs.get("algorithm", "MD5").upper() == "MD5" and pairs.get("nonce"):
                assert self.realm in ("", pairs["realm"]), value
                assert "auth" in pairs["qop"], value
                self.realm, self.nonce, self.uses = pairs["realm"], pairs["nonce"], 0
                return True
        return False

    def answer(self, method: str, uri: str, cnonce: str = "", password: str | None = None) -> str:
        """The value of Authorization for one more use of the nonce."""
        self.uses += 1
        nc, cnonce = f"{self.uses:08x}", cnonce or secrets.token_hex(4)
        secret = ha1(self.user, self.realm, self.password if password is None else password)
        response = _md5(secret, self.nonce, nc, cnonce, "auth", _md5(method, uri))
        given = {"username": self.user, "realm": self.realm, "nonce": self.nonce, "uri": uri, "response": response}
        quoted = ", ".join(f'{name}="{value}"' for name, value in {**given, "cnonce": cnonce}.items())
        return f"Digest {quoted}, algorithm=MD5, qop=auth, nc={nc}"


def ha1(user: str, realm: str, password: str) -> str:
    """What is stored of a password (RFC 7616 section 3.4.2), by MD5."""
    return _md5(user, realm, password)


def _md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()
