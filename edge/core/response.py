"""The octets of responses of our own, and where they go (RFC 3261 sections 8.2.7 and 18.2.2; RFC 3581 section 4)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b

from edge.core.flow import PORTS, Flow
from sipcore.address import OddVia, Via
from sipcore.errors import ParseError
from sipcore.message import Header, Request, repeated, row
from sipcore.reasons import REASONS

PURPOSE = b"ramal to tag"

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def to_tag(key: bytes, request: Request) -> str:
    """A tag that a repeated request gets again, and that only we can make (RFC 3261 section 8.2.7)."""
    try:
        identity = f"{request.call_id}\0{request.from_.tag}\0{request.cseq.number}\0{request.uri}"
    except ParseError:  # its ACK will have the same texts
        identity = "\0".join([request.uri, *(request.first(name) or "" for name in ("call-id", "from"))])
    return blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=8, key=key[:64], person=PURPOSE).hexdigest()


def head(key: bytes, request: Request, flow: Flow) -> str:
    """The rows that every response of ours to a request has, with a tag that its repetition would get, too."""
    rows = repeated(request, to_tag(key, request), (flow.remote_host, flow.remote_port))
    if (timestamp := request.first("timestamp")) is not None:
        rows.append(row("Timestamp", timestamp))
    return "".join([f"{each.original}: {each.value}\r\n" for each in rows])


def reply_port(request: Request, flow: Flow) -> int:
    """The port at the source's address that the response goes to.

    On UDP by RFC 3261 section 18.2.2 and RFC 3581; the address is always the source's own, so neither
    `maddr` nor a sent-by leads anywhere else (CHECKLIST T05). On a stream, where a new connection goes
    if the request's is gone. ParseError if the Via does not say.
    """
    try:
        via: Via | OddVia = request.via
    except ParseError:
        text = request.first("via")
        if text is None:
            raise
        via = OddVia(text)
    wants_port = "rport" in via.params if isinstance(via, Via) else via.wants_port
    if not flow.reliable and wants_port:
        return flow.remote_port
    if not flow.reliable and not via.host:
        raise ParseError("bad-via", "Bad Via")
    return via.port or PORTS[flow.transport]


def encode(status: int, reason: str, head: str, headers: Iterable[Header] = ()) -> bytes:
    """A response without a body; `head` has the rows that are repeated of its request, each with its CRLF."""
    rows = "".join([f"{name}: {value}\r\n" for name, value in headers])
    reason = reason or REASONS.get(status, "Unknown")
    return f"SIP/2.0 {status} {reason}\r\n{head}{rows}Content-Length: 0\r\n\r\n".encode("utf-8", "surrogateescape")


def lines(headers: Iterable[Header]) -> list[Header]:
    """Headers that somebody else made; a control character in one never comes out raw (CHECKLIST P24)."""
    return [(printable(name), printable(value)) for name, value in headers]


def printable(text: str) -> str:
    """The text with every control character replaced by a space."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else " " for c in text)


def http_date(seconds: int) -> str:
    """RFC 1123 date in GMT, as the Date header has it (RFC 3261 section 20.17); in English whatever the locale."""
    at = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year}"
        f" {at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )
