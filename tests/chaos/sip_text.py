"""The few SIP messages that the chaos suite's phones say and hear, as text.

Written apart from `sipcore` on purpose: what is tested must not be its own witness.
"""

import hashlib
import re
from dataclasses import dataclass, field

_PAIR = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_CONTACT = re.compile(r"<([^>]*)>([^,]*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: the parts a phone acts on."""

    status: int
    branch: str
    headers: dict[str, list[str]]

    def first(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        values = self.headers.get(name)
        return values[0] if values else None

    def contacts(self) -> frozenset[str]:
        """The URIs of all Contact values."""
        return frozenset(uri for value in self.headers.get("contact", ()) for uri, _ in _CONTACT.findall(value))

    def seconds_left(self, contact: str) -> int | None:
        """The expires parameter of one contact."""
        for value in self.headers.get("contact", ()):
            for uri, params in _CONTACT.findall(value):
                if uri == contact and (found := re.search(r";\s*expires=(\d+)", params)):
                    return int(found[1])
        return None


def read_answer(datagram: bytes) -> Answer | None:
    """A response that came in; None for anything else (an edge may ping its flows)."""
    head = datagram.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").split("\r\n")
    start = head[0].split(" ", 2)
    if len(start) < 2 or start[0] != "SIP/2.0" or not start[1].isdigit():
        return None
    headers: dict[str, list[str]] = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    via = headers.get("via", [""])[0]
    branch = re.search(r";\s*branch=([^;,\s]+)", via)
    return Answer(int(start[1]), branch[1] if branch else "", headers)


@dataclass(slots=True)
class Credentials:
    """A user's digest state (RFC 7616): the last nonce, and how often it has been used."""

    user: str
    realm: str
    password: str = field(repr=False)
    nonce: str | None = None
    nc: int = 0

    def challenged(self, answer: Answer) -> bool:
        """Takes the challenge of a 401; False when it has none for MD5. `stale` is not looked at."""
        for value in answer.headers.get("www-authenticate", ()):
            pairs = {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(value)}
            if pairs.get("algorithm", "MD5").upper() == "MD5" and pairs.get("nonce"):
                self.nonce, self.realm, self.nc = pairs["nonce"], pairs.get("realm", self.realm), 0
                return True
        return False

    def authorization(self, method: str, uri: str, cnonce: str) -> str:
        """The Authorization value for one more use of the nonce."""
        self.nc += 1
        ha1 = _md5(f"{self.user}:{self.realm}:{self.password}")
        response = _md5(f"{ha1}:{self.nonce}:{self.nc:08x}:{cnonce}:auth:{_md5(f'{method}:{uri}')}")
        return (
            f'Digest username="{self.user}", realm="{self.realm}", nonce="{self.nonce}", uri="{uri}", '
            f'response="{response}", algorithm=MD5, qop=auth, nc={self.nc:08x}, cnonce="{cnonce}"'
        )


def stale(answer: Answer) -> bool:
    """Whether a 401 says that only the nonce was at fault."""
    return any(re.search(r"stale\s*=\s*\"?true", v, re.IGNORECASE) for v in answer.headers.get("www-authenticate", ()))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def request(
    method: str,
    uri: str,
    aor: str,
    call_id: str,
    cseq: int,
    branch: str,
    sent_by: tuple[str, int],
    rows: tuple[str, ...] = (),
) -> bytes:
    """A request of one phone to its registrar."""
    lines = (
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {sent_by[0]}:{sent_by[1]};branch={branch};rport",
        "Max-Forwards: 70",
        f"From: <sip:{aor}>;tag={branch[-8:]}",
        f"To: <sip:{aor}>",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        "User-Agent: chaos",
        *rows,
        "Content-Length: 0",
        "",
        "",
    )
    return "\r\n".join(lines).encode()
