"""A SIP phone for tests that registers, calls and is called, over any transport; each step is one the test says.

    call = alice.invite(bob.aor)      # 407, ACK, INVITE with credentials, 100
    incoming = bob.incoming()         # the INVITE at the other side
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()

It reads its socket only while a test waits for something. Repetitions are absorbed as a transaction layer does.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Self

from tests.kit.sip import Credentials, Message, parse, request, uri_of
from tests.kit.wire import DEADLINE, Address, Link, Silent

SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n"
QUIET = 0.3
"""Seconds in which nothing must come."""
_REASONS = {100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 486: "Busy Here", 487: "Terminated"}
_COPIED = ("via", "from", "call-id", "cseq", "record-route")
_NO_CONTACT = ("CANCEL", "BYE", "OPTIONS")


T1, T2 = 0.5, 4.0
"""RFC 3261 section 17.1.2.2."""


class Phone:
    """One user agent on one link. Its CSeq only rises; a nonce is used again with a higher nc."""

    def __init__(self, link: Link, user: str, password: str, domain: str, *, registrar: str = "") -> None:
        """`registrar`: the host that it sends REGISTER to and is a user of, if that is not the domain."""
        self.link = link
        self.user, self.password, self.domain = user, password, domain
        self._registrar = registrar or domain
        self.inbox: list[Message] = []
        self._seen: set[bytes] = set()
        self._answers: dict[tuple[str, str], bytes] = {}
        """By branch and method, what a request was answered with last."""
        self.requests_from: set[Address] = set()
        """Where requests came from, pings among them."""
        self.responses_from: set[Address] = set()
        """Where responses came from."""
        self.pings = 0
        """OPTIONS that the edge has sent to keep a NAT open."""
        self._credentials = {401: Credentials(user, password, domain), 407: Credentials(user, password)}
        """By the status that challenges."""
        self.answers: list[int] = []
        """Status of each final response outside calls, in order."""
        self.registration = secrets.token_hex(8)
        self.cseq = 0
        self.named = ""
        """Its Contact, if that is not the address of its link."""
        self._host = f"{secrets.token_hex(6)}.invalid" if link.transport in ("ws", "wss") else link.local[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the link."""
        self.link.close()

    # --- who it is ------------------------------------------------------------------------------------------------

    @property
    def aor(self) -> str:
        """The URI by which others call it."""
        return f"sip:{self.user}@{self.domain}"

    @property
    def contact(self) -> str:
        """The URI under which this phone is reached; a browser has no address (RFC 7118 section 5)."""
        if self.named:
            return self.named
        if self._host.endswith(".invalid"):
            return f"sip:{self.user}@{self._host};transport=ws"
        suffix = "" if self.link.transport == "udp" else f";transport={self.link.transport}"
        return f"sip:{self.user}@{self._host}:{self.link.local[1]}{suffix}"

    def via(self, branch: str) -> str:
        """The value of a Via row of ours."""
        host = self._host if self._host.endswith(".invalid") else f"{self._host}:{self.link.local[1]}"
        rport = ";rport" if self.link.transport == "udp" else ""
        return f"SIP/2.0/{self.link.transport.upper()} {host};branch={branch}{rport}"

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, octets: bytes, by: Link | None = None) -> None:
        """Sends a message by our link, or by another."""
        (by or self.link).send(octets)

    def next(self, wanted: Callable[[Message], bool], what: str, seconds: float = DEADLINE) -> Message:
        """The next message that is wanted; others wait in the inbox. Raises Silent."""
        for index, message in enumerate(self.inbox):
            if wanted(message):
                return self.inbox.pop(index)
        until = time.monotonic() + seconds
        while True:
            try:
                message = self._take(until)
            except Silent:
                raise Silent(f"{self.user} waited for {what}; it has {[m.start for m in self.inbox]}") from None
            if message is None:
                continue
            if wanted(message):
                return message
            self.inbox.append(message)

    def _take(self, until: float) -> Message | None:
        """The next message of meaning; None for repetitions and pings, which are answered."""
        octets, source = self.link.receive(until)
        if not octets.strip():
            return None
        message = parse(octets)
        if octets in self._seen:  # branches are unique: it is a repetition
            if not message.status and (again := self._answers.get((message.branch, message.method))):
                self.send(again)
            return None
        self._seen.add(octets)
        if message.status:
            vias = message.all("via")
            assert len(vias) == 1, f"a response goes to its sender with his own Via alone: {vias}"
            self.responses_from.add(source)
            return message
        self.requests_from.add(source)
        if message.method == "OPTIONS" and message.first("call-id").startswith("ping-"):
            self.pings += 1
            self.respond(message, 200)
            return None
        return message

    def quiet(self, seconds: float = QUIET) -> None:
        """Fails if anything has come that nobody waited for, or comes within these seconds."""
        until = time.monotonic() + seconds
        try:
            while (message := self._take(until)) is None:
                pass
        except Silent:
            assert not self.inbox, [message.start for message in self.inbox]
        else:
            raise AssertionError(f"{self.user} did not want {message.start}")

    def respond(self, request: Message, status: int, *rows: str, body: bytes = b"", tag: str = "") -> None:
        """Answers a request."""
        to = request.first("to")
        if tag and ";tag=" not in to:
            to += f";tag={tag}"
        lines = [f"SIP/2.0 {status} {_REASONS.get(status, 'X')}"]
        lines += [f"{name}: {value}" for name, value in request.rows if name in _COPIED]
        lines += [f"To: {to}", *rows]
        if request.method not in _NO_CONTACT:
            lines.append(f"Contact: <{self.contact}>")
        lines += [*(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}", "\r\n"]
        octets = "\r\n".join(lines).encode() + body
        self._answers[request.branch, request.method] = octets
        self.send(octets)

    # --- credentials ----------------------------------------------------------------------------------------------

    def challenged(self, response: Message) -> None:
        """Takes the challenge of a 401 or 407."""
        assert self._credentials[response.status].challenged(response), response.rows

    def credentials(self, method: str, uri: str, password: str | None = None) -> list[str]:
        """The row that answers the last challenge; none before there was one."""
        status, name = (401, "Authorization") if method == "REGISTER" else (407, "Proxy-Authorization")
        known = self._credentials[status]
        return [f"{name}: {known.answer(method, uri, password=password)}"] if known.nonce else []

    # --- outside calls --------------------------------------------------------------------------------------------

    def ask(
        self, method: str, uri: str, *rows: str, to: str = "", call_id: str = "", body: bytes = b"",
        by: Link | None = None, seconds: float = DEADLINE, password: str | None = None,
    ) -> Message:  # fmt: skip
        """A request outside a call and its final response; with credentials once challenged."""
        for _ in range(2):
            self.cseq += 1
            branch = f"z9hG4bK{secrets.token_hex(8)}"
            to = to or f"<{uri}>"
            lines = [
                f"Via: {self.via(branch)}",
                "Max-Forwards: 70",
                f"From: {to if method == 'REGISTER' else f'<{self.aor}>'};tag={self.registration[:8]}",
                f"To: {to}",
                f"Call-ID: {call_id or self.registration}",
                f"CSeq: {self.cseq} {method}",
                *rows,
                *self.credentials(method, uri, password),
            ]
            octets = request(method, uri, lines, body)
            self.send(octets, by)
            answer = self._answered(octets, branch, by, seconds)
            self.answers.append(answer.status)
            if answer.status not in (401, 407):
                break
            self.challenged(answer)
        return answer

    def _answered(self, octets: bytes, branch: str, by: Link | None, seconds: float) -> Message:
        """The final response; what goes by UDP is sent again as timer E says."""
        until, interval = time.monotonic() + seconds, T1
        while True:
            left = until - time.monotonic()
            wait = min(interval, left) if (by or self.link).transport == "udp" else left
            try:
                return self.next(partial(answers, branch), "an answer", wait)
            except Silent:
                if time.monotonic() >= until:
                    raise
            self.send(octets, by)
            interval = min(2 * interval, T2)

    def registers(self, *rows: str, password: str | None = None) -> Message:
        """REGISTER with these rows, and what it is answered."""
        answer = self.ask(
            "REGISTER", f"sip:{self._registrar}", *rows, to=f"<sip:{self.user}@{self._registrar}>", password=password
        )
        assert answer.first("content-length") == "0", "an answer to REGISTER has no body"
        return answer

    def register(self, *contacts: str, expires: int = 300) -> Message:
        """REGISTER these contacts (header values; ours without any); it must succeed."""
        lines = [f"Contact: {value}" for value in contacts or (f"<{self.contact}>",)]
        answer = self.registers(*lines, f"Expires: {expires}")
        assert answer.status == 200, answer.start
        return answer

    def query(self) -> Message:
        """REGISTER without Contact: what is registered."""
        return self.registers()

    def deregister(self) -> Message:
        """Removes every binding of the user."""
        answer = self.registers("Contact: *", "Expires: 0")
        assert answer.status == 200, answer.start
        return answer

    # --- calls ----------------------------------------------------------------------------------------------------

    def invite(self, uri: str, *rows: str, body: bytes = SDP, by: Link | None = None, hears: int = 100) -> "Call":
        """Calls: an INVITE without credentials, its 407, and the INVITE that is then answered `hears`."""
        call = Call(self, secrets.token_hex(8), f"<{self.aor}>;tag={secrets.token_hex(4)}", f"<{uri}>", uri)
        call.by = by
        call.request("INVITE", *rows, body=body)
        self.challenged(call.hears(407))
        call.ack()
        call.request("INVITE", *rows, *self.credentials("INVITE", uri), body=body)
        if hears:
            call.hears(hears)
        return call

    def incoming(self, seconds: float = DEADLINE) -> "Call":
        """The next call that comes."""
        invite = self.next(lambda m: m.method == "INVITE" and not m.status, "an INVITE", seconds)
        tag = secrets.token_hex(4)
        call = Call(self, invite.first("call-id"), f"{invite.first('to')};tag={tag}", invite.first("from"),
                    uri_of(invite.first("contact")))  # fmt: skip
        call.routes = invite.all("record-route")
        call.received, call.tag = invite, tag
        return call


class Call:
    """One side of a call."""

    def __init__(self, phone: Phone, call_id: str, local: str, remote: str, target: str) -> None:
        self.phone, self.call_id = phone, call_id
        self.local, self.remote = local, remote
        """From and To of what we send, with their tags."""
        self.target = target
        self.routes: list[str] = []
        self.cseq = 0
        self.sent = b""
        """The last request of ours but ACK and CANCEL."""
        self.received = Message("", [], b"")
        """The last request that came."""
        self.tag = ""
        self.answered_to = remote
        """To of the last response to our INVITE that did not begin the call."""
        self.failed = False
        """Whether our last INVITE was."""
        self.by: Link | None = None
        """What we send goes by this link instead of the phone's own."""

    # --- what comes -----------------------------------------------------------------------------------------------

    def hears(self, status: int, seconds: float = DEADLINE, method: str = "") -> Message:
        """The response with this status to our last request (or to its CANCEL); another final one is a failure."""
        sent = parse(self.sent)
        method = method or sent.method

        def ours(message: Message) -> bool:
            mine = bool(message.status) and message.branch == sent.branch and message.method == method
            if mine and message.status >= 200 and message.status != status:
                raise AssertionError(f"{self.phone.user} heard {message.start}, not {status}")
            return mine and message.status == status

        response = self.phone.next(ours, f"{status} to {method}", seconds)
        if method == "INVITE" and status >= 200:
            self.failed = status >= 300
        if method == "INVITE" and status // 100 == 2:
            self.begins(response)
        elif status > 100 and method == "INVITE" and not self.routes:
            self.answered_to = response.first("to")
        return response

    def begins(self, response: Message) -> None:
        """A dialog with who sent this response to our INVITE (RFC 3261 section 12.1.2)."""
        self.remote, self.target = response.first("to"), uri_of(response.first("contact"))
        self.routes = response.all("record-route")[::-1] or self.routes

    def gets(self, method: str, seconds: float = DEADLINE) -> Message:
        """The next request of this call with this method."""

        def ours(message: Message) -> bool:
            return not message.status and message.method == method and message.first("call-id") == self.call_id

        request = self.phone.next(ours, method, seconds)
        if method != "CANCEL" and method != "ACK":
            self.received = request
        return request

    # --- what goes ------------------------------------------------------------------------------------------------

    def respond(self, status: int, *rows: str, body: bytes = b"", to: Message | None = None) -> None:
        """Answers the last request that came, or this one."""
        self.phone.respond(to or self.received, status, *rows, body=body, tag=self.tag if status > 100 else "")

    def request(self, method: str, *rows: str, body: bytes = b"") -> None:
        """Sends a request of this call."""
        self.cseq += 1
        self.sent = self._octets(method, self.cseq, f"z9hG4bK{secrets.token_hex(8)}", rows, body)
        self.phone.send(self.sent, self.by)

    def ack(self) -> None:
        """ACKs our INVITE: within its transaction if it failed, else along the route set."""
        sent = parse(self.sent)
        if self.failed:
            octets = self._hop_by_hop("ACK", self.answered_to)
        else:
            octets = self._octets("ACK", int(sent.first("cseq").split()[0]), f"z9hG4bK{secrets.token_hex(8)}", (), b"")
        self.phone.send(octets, self.by)

    def cancel(self) -> None:
        """CANCELs our INVITE."""
        self.phone.send(self._hop_by_hop("CANCEL", parse(self.sent).first("to")), self.by)

    def _hop_by_hop(self, method: str, to: str) -> bytes:
        """What belongs to the INVITE's transaction (RFC 3261 sections 9.1, 17.1.1.3)."""
        sent = parse(self.sent)
        number = sent.first("cseq").split()[0]
        rows = [f"{name}: {value}" for name, value in sent.rows if name in ("via", "max-forwards", "from", "call-id")]
        rows += [f"To: {to}", f"CSeq: {number} {method}"]
        return request(method, sent.uri, rows, b"")

    def _octets(self, method: str, number: int, branch: str, rows: Iterable[str], body: bytes) -> bytes:
        lines = [
            f"Via: {self.phone.via(branch)}",
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in self.routes),
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {number} {method}",
            *([] if method in _NO_CONTACT else [f"Contact: <{self.phone.contact}>"]),
            *rows,
        ]
        return request(method, self.target, lines, body)


def answers(branch: str, message: Message) -> bool:
    return message.status >= 200 and message.branch == branch
