"""The bytes of responses, and where they go (RFC 3261 sections 8.2.6, 18.2.1 and 18.2.2; RFC 3581 section 4).

A transaction outlives its request: it keeps the *head*, the rows that every response to the request
repeats, as one text. A whole response is a status line, the head and rows of our own.
"""

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime

from edge.core.flow import Flow
from sipcore.address import OddVia, Via
from sipcore.errors import ParseError
from sipcore.grammar import split_first
from sipcore.message import Request
from sipcore.reasons import REASONS

PORTS = {"tls": 5061, "wss": 443, "ws": 80}
"""Where a sent-by without a port means another than 5060 (RFC 3261 section 19.1.2, RFC 7118 section 5)."""
PURPOSE = b"ramal to tag\x00"
REPEATED = frozenset({"via", "from", "to", "call-id", "cseq", "timestamp"})

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def to_tag(key: bytes, request: Request) -> str:
    """A tag that a repeated request gets again, and that only we can make (RFC 3261 section 8.2.7)."""
    try:
        identity = f"{request.call_id}\0{request.from_.tag}\0{request.cseq.number}\0{request.uri}"
    except ParseError:  # its ACK will have the same texts
        identity = "\0".join([request.uri, *(request.first(name) or "" for name in ("call-id", "from"))])
    return hmac.digest(key, PURPOSE + identity.encode("utf-8", "surrogateescape"), "sha256")[:8].hex()


def head(request: Request, flow: Flow, key: bytes) -> str:
    """The rows that every response repeats: Via with `received` and `rport`, From, To with our tag, Call-ID, CSeq.

    Of a request that was only partly readable, those that are there; ParseError if there is no Via to go by.
    """
    via: Via | OddVia | None = _top(request)
    lines: list[str] = []
    seen: set[str] = set()
    for name, original, value in request.rows:
        if name not in REPEATED:
            continue
        if name == "via":
            if isinstance(via, Via):
                value = _with_source(via, value, flow)
            elif via:
                value = via.with_source(flow.remote_host, flow.remote_port)
            via = None
        elif name in seen:
            continue
        elif name == "to":
            value += _missing_tag(request, key)
        seen.add(name)
        lines.append(f"{original}: {value}\r\n")
    return "".join(lines)


def _top(request: Request) -> Via | OddVia:
    """The top Via, as far as it can be read."""
    try:
        return request.via
    except ParseError:
        text = request.first("via")
        if text is None:
            raise
        return OddVia(text)


def _missing_tag(request: Request, key: bytes) -> str:
    try:
        return "" if request.to.tag is not None else f";tag={to_tag(key, request)}"
    except ParseError:
        return ""  # what we cannot read goes back as it came


def _with_source(via: Via, row: str, flow: Flow) -> str:
    """The row that begins with this Via, with the source in it; what the sender wrote there counts for nothing.

    `received` when the sent-by host is not the source's address, and always with `rport`, which gets its
    value (RFC 3581 section 4).
    """
    if "received" not in via.params:
        if "rport" not in via.params:
            if via.host.strip("[]") == flow.remote_host:
                return row
        elif via.params["rport"] is None and row.count(";rport") == 1 and "," not in row:
            return row.replace(";rport", f";received={flow.remote_host};rport={flow.remote_port}")
    params = dict(via.params)
    params.pop("received", None)
    if "rport" in params:
        params["rport"] = str(flow.remote_port)
    if "rport" in params or via.host.strip("[]") != flow.remote_host:
        params["received"] = flow.remote_host
    rest = split_first(row)[1]
    return f"{Via(via.transport, via.host, via.port, params)}{', ' if rest else ''}{rest}"


def reply_port(request: Request, flow: Flow) -> int:
    """The port at the source's address that the response goes to.

    On UDP by RFC 3261 section 18.2.2 and RFC 3581; the address is always the source's own, so neither
    `maddr` nor a sent-by leads anywhere else (CHECKLIST T05). On a stream, where a new connection goes
    if the request's is gone. ParseError if the Via does not say.
    """
    via = _top(request)
    wants_port = "rport" in via.params if isinstance(via, Via) else via.wants_port
    if not flow.reliable and wants_port:
        return flow.remote_port
    if not flow.reliable and not via.host:
        raise ParseError("bad-via", "Bad Via")
    return via.port or PORTS.get(flow.transport, 5060)


def encode(status: int, reason: str, head: str, rows: str = "") -> bytes:
    """A response without a body; `rows` are whole lines, each with its CRLF."""
    text = f"SIP/2.0 {status} {reason}\r\n{head}{rows}Content-Length: 0\r\n\r\n"
    return text.encode("utf-8", "surrogateescape")


def reason_phrase(status: int, reason: str = "") -> str:
    """The reason given, in one line; the RFC's where there is none."""
    return printable(reason) or REASONS.get(status, "Unknown")


def lines(headers: Iterable[tuple[str, str]]) -> str:
    """Header rows of our own; a control character in a value never comes out raw (CHECKLIST P24)."""
    return "".join(f"{printable(name)}: {printable(value)}\r\n" for name, value in headers)


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
