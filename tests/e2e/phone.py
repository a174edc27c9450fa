"""A SIP phone for tests: registers with digest over UDP or TCP, and shows every message that passed.

Synchronous and independent of sipcore, so that a mistake there is not made twice.
"""

import hashlib
import re
import secrets
import socket
import time
from typing import NamedTuple, Self

T1, T2 = 0.5, 4.0
"""RFC 3261 section 17.1.2.2."""
DEADLINE = 10.0
ANSWERED_WITH = ("via", "from", "to", "call-id", "cseq")
"""What a response copies from its request (RFC 3261 section 8.2.6.2)."""
_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^,\s]+))')


class NoAnswer(AssertionError):
    """The edge was silent for DEADLINE seconds."""


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: list[tuple[str, str]]
    """Name in lower case, value."""

    def first(self, name: str) -> str:
        """The first header of that name; KeyError when there is none."""
        for each, value in self.headers:
            if each == name.lower():
                return value
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether there is such a header."""
        return any(each == name.lower() for each, _ in self.headers)

    @property
    def contacts(self) -> dict[str, int]:
        """Seconds left by contact URI."""
        found = {}
        for name, value in self.headers:
            if name in ("contact", "m"):
                for part in re.findall(r"<([^>]*)>([^<]*)", value):
                    seconds = re.search(r";expires=(\d+)", part[1])
                    assert seconds, f"a Contact without expires: {value}"
                    found[part[0]] = int(seconds[1])
        return found


def _md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode()).hexdigest()


class Phone:
    """One user agent on one socket. Its CSeq only rises; a nonce is used again with a higher nc."""

    def __init__(
        self,
        edge: tuple[str, int],
        user: str,
        password: str,
        domain: str,
        *,
        transport: str = "udp",
        request_host: str | None = None,
    ) -> None:
        self.user, self.domain, self._password = user, domain, password
        self.realm = domain
        self._host = request_host or domain
        self._transport = transport
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.connect(edge)
        self.address: tuple[str, int] = self._socket.getsockname()
        self._buffer = b""
        self.call_id = secrets.token_hex(8)
        self.cseq = 0
        self._nonce = ""
        self._uses = 0
        self.answers: list[int] = []
        """Status codes of all final answers, in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    @property
    def contact(self) -> str:
        """The URI under which this phone is reached."""
        suffix = "" if self._transport == "udp" else f";transport={self._transport}"
        return f"sip:{self.user}@{self.address[0]}:{self.address[1]}{suffix}"

    def register(self, *contacts: str, expires: int | None = 300, password: str | None = None) -> Answer:
        """REGISTER these contacts (header values; ours without any), with credentials when challenged."""
        lines = [f"Contact: {value}" for value in contacts or (f"<{self.contact}>",)]
        return self._authenticated(lines, expires, password)

    def query(self) -> Answer:
        """REGISTER without Contact: what is registered."""
        return self._authenticated([], None, None)

    def deregister(self) -> Answer:
        """REGISTER with `Contact: *` and Expires 0."""
        return self._authenticated(["Contact: *"], 0, None)

    def _authenticated(self, lines: list[str], expires: int | None, password: str | None) -> Answer:
        if expires is not None:
            lines = [*lines, f"Expires: {expires}"]
        answer = self.ask("REGISTER", [*lines, *self._credentials(password)])
        if answer.status == 401:
            stale = "stale=true" in answer.first("www-authenticate").lower()
            if not self._nonce or stale or password is None:
                self._take(answer)
                answer = self.ask("REGISTER", [*lines, *self._credentials(password)])
        return answer

    def _take(self, answer: Answer) -> None:
        challenge = {name: quoted or plain for name, quoted, plain in _PAIR.findall(answer.first("www-authenticate"))}
        assert challenge["realm"] == self.realm
        assert "auth" in challenge["qop"]
        assert challenge.get("algorithm", "MD5") == "MD5"
        self._nonce, self._uses = challenge["nonce"], 0

    def _credentials(self, password: str | None) -> list[str]:
        if not self._nonce:
            return []
        self._uses += 1
        uri, cnonce, nc = f"sip:{self._host}", secrets.token_hex(4), f"{self._uses:08x}"
        a1 = _md5(self.user, self.realm, self._password if password is None else password)
        response = _md5(a1, self._nonce, nc, cnonce, "auth", _md5("REGISTER", uri))
        parameters = {
            "username": self.user,
            "realm": self.realm,
            "nonce": self._nonce,
            "uri": uri,
            "response": response,
            "cnonce": cnonce,
        }
        quoted = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
        return [f"Authorization: Digest {quoted}, algorithm=MD5, qop=auth, nc={nc}"]

    def ask(self, method: str, lines: list[str]) -> Answer:
        """One request and its final answer; resends it over UDP as timer E says. Raises NoAnswer."""
        self.cseq += 1
        aor = f"<sip:{self.user}@{self._host}>"
        via = f"SIP/2.0/{self._transport.upper()} {self.address[0]}:{self.address[1]}"
        request = "\r\n".join(
            [
                f"{method} sip:{self._host} SIP/2.0",
                f"Via: {via};branch=z9hG4bK{secrets.token_hex(8)};rport",
                "Max-Forwards: 70",
                f"From: {aor};tag={self.call_id[:8]}",
                f"To: {aor}",
                f"Call-ID: {self.call_id}",
                f"CSeq: {self.cseq} {method}",
                *lines,
                "User-Agent: test phone",
                "Content-Length: 0",
                "\r\n",
            ]
        ).encode()
        answer = self._exchange(request, f"{self.cseq} {method}")
        self.answers.append(answer.status)
        return answer

    def _exchange(self, request: bytes, cseq: str) -> Answer:
        until = time.monotonic() + DEADLINE
        interval = T1
        self._socket.sendall(request)
        resend = time.monotonic() + interval
        while True:
            now = time.monotonic()
            if now >= until:
                raise NoAnswer(f"{self.user}: no answer to {cseq} within {DEADLINE:.0f} s")
            if self._transport == "udp" and now >= resend:
                self._socket.sendall(request)
                interval = min(2 * interval, T2)
                resend = now + interval
            self._socket.settimeout(max(0.001, min(until, resend if self._transport == "udp" else until) - now))
            try:
                answer = self._receive()
            except TimeoutError:
                continue
            if answer and answer.status >= 200 and answer.first("cseq") == cseq:
                return answer

    def _receive(self) -> Answer | None:
        """The next answer; None if it was a request (the edge's OPTIONS to a binding it has not heard of), answered."""
        if self._transport == "udp":
            head = self._socket.recv(65536)
        else:
            while b"\r\n\r\n" not in self._buffer:
                data = self._socket.recv(65536)
                if not data:
                    raise NoAnswer(f"{self.user}: the edge closed the connection")
                self._buffer += data
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n\r\n")[0].split("\r\n")
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if not start.startswith("SIP/2.0 "):
            kept = [f"{name}: {value}" for name, value in headers if name in ANSWERED_WITH]
            self._socket.sendall("\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "\r\n"]).encode())
            return None
        answer = Answer(int(start.split(" ", 2)[1]), headers)
        assert answer.first("content-length") == "0", "an answer to REGISTER has no body"
        return answer
