"""Bytes to messages: `parse_datagram` and `StreamParser`.

Any bytes give messages or ParseErrors, in time linear in their number and memory bounded by
`Limits`. Tolerant where RFC 4475 is tolerant and where the meaning is one; where two readers could
read differently (bare CR or LF, repeated From, two Content-Lengths, one parameter twice) it refuses.
What only passes through a proxy is not read: of a response all but the top Via, of a request Record-Route, Path, the
lower values of Via and Route and, but in REGISTER, Contact (RFC 3261 section 16.3, step 1).

Header text is UTF-8 with surrogateescape, so every octet comes out again as it came in.
"""

import enum
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from sipcore.address import parse_address
from sipcore.errors import ParseError
from sipcore.grammar import split_first, uint
from sipcore.headers import CANONICAL, SINGLE, canonical_name
from sipcore.message import Request, Response, Row, has_bare_nul

_METHODS = "ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE"
METHODS: Final = frozenset(_METHODS.split())
"""The methods of the RFCs; others are valid and known to nobody."""

# Request-Line = Method SP Request-URI SP SIP-Version; one SP each, no <> around the URI.
_REQUEST_LINE = re.compile(r"([A-Za-z0-9\-.!%*_+`'~]++) ([^\x00-\x20\x7f<>\"]++) ([Ss][Ii][Pp]/[0-9]++\.[0-9]++)")
# Status-Line = SIP-Version SP Status-Code SP Reason-Phrase
_STATUS_LINE = re.compile(r"[Ss][Ii][Pp]/2\.0 ([1-6][0-9]{2})(?>(?: (.*+))?)", re.DOTALL)
# The start line of another message, whatever line breaks, NULs or white space stand before it.
_ANOTHER = re.compile(
    rb"[\r\n\t \x00]*+(?:[A-Za-z0-9\-.!%*_+`'~]++ [^\x00-\x20\x7f<>\"]++ [Ss][Ii][Pp]/[0-9]"
    rb"|[Ss][Ii][Pp]/2\.0 [1-6][0-9]{2})"
)
# CRLFCRLFs between messages: many are answered as one is.
_KEEPALIVES = re.compile(rb"(?>(?:\r\n\r\n)+)")
# callid = word [ "@" word ]; wider: any text without white space.
_CALL_ID = re.compile(r"[^\x00-\x20\x7f]++")


class Limits(NamedTuple):
    """What a message may have, in octets and numbers."""

    message: int = 64 * 1024
    """The whole message; more is 513."""
    rows: int = 200
    lines: int = 1000
    """With those that a folded row goes on in; more are too many rows."""
    line: int = 8 * 1024
    """One header row, unfolded, or the start line; more is 400, as with all the others."""
    vias: int = 70


DEFAULT_LIMITS: Final = Limits()


class Keepalive(enum.Enum):
    """CRLFCRLF between messages on a stream; a CRLF answers it (RFC 5626 section 3.5.1)."""

    KEEPALIVE = "keepalive"


KEEPALIVE: Final = Keepalive.KEEPALIVE
Item = Request | Response | ParseError | Keepalive


def parse_datagram(data: bytes, limits: Limits = DEFAULT_LIMITS, *, alone: bool = False) -> Request | Response:
    """The one message of a datagram or WebSocket message (RFC 3261 section 18.3); raises ParseError.

    CRLFs in front are ignored. Without Content-Length the body is the rest; octets behind the body are dropped.
    Where the message must be `alone` (RFC 7118 section 5), another one behind it is an error.
    """
    if data[:1] in (b"\r", b"\n"):
        data = data.lstrip(b"\r\n")
    if not data:
        raise ParseError("keepalive", "Keepalive", None)
    if len(data) > limits.message:
        raise _too_large(data[: limits.message], limits)
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise _unended(data, limits)
    message = _structure(data[:end], limits)
    try:
        length = _content_length(message)
        body = data[end + 4 :]
        if length is not None and length != len(body):
            if length > len(body):
                raise ParseError("short-body", "Content-Length Larger Than Message")
            if alone and _ANOTHER.match(body, length):
                raise ParseError("second-message", "More Than One Message")
            body = body[:length]
        message.body = body
        _check(message, limits)
    except ParseError as error:
        raise _told(error, message) from None
    return message


class StreamParser:
    """Cuts a byte stream into messages: the same ones, however the stream is cut into segments.

    Keep-alives that come together are one: there is at most one in what a call of `feed` gives.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.closed = False
        """Where the next message begins is lost: answer what was returned, and close the connection."""
        self.more = False
        """Whether `feed` stopped at its bound, and may give more without more octets."""
        self.spent = 0
        """What the last call cost: messages, and 1,024 octets for each further one."""
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        """Octets of the buffer that are known to hold no end of a header section."""
        self._message: Request | Response | None = None
        """The head whose body has not come yet."""
        self._length = 0
        """Octets of that body."""

    @property
    def pending(self) -> bool:
        """Whether a part of a message is held."""
        return self._message is not None or not b"\r\n\r".startswith(self._buffer)

    def feed(self, data: bytes, most: int = 2**31) -> list[Item]:
        """What these octets and those held complete, in order, up to a cost of about `most`; nothing once `closed`."""
        items: list[Item] = []
        self.more, self.spent = False, 0
        if self.closed:
            return items
        self._buffer += data
        at = 0
        try:
            while self.spent < most:
                after = self._step(at, items)
                if after is None:
                    break
                at = after
                self.spent = len(items) + (at >> 10)
            else:
                self.more = at < len(self._buffer)
        except ParseError as error:
            items.append(error)
            self.closed = True
            self._buffer.clear()
            self._message = None
            return items
        if at:
            del self._buffer[:at]
            self._scanned = max(0, self._scanned - at)
        return items

    def _step(self, at: int, items: list[Item]) -> int | None:
        """Reads one thing at `at` and returns where the next begins, None if it is not whole yet.

        A ParseError that leaves here is fatal: the framing is lost.
        """
        if self._message is not None:
            return self._body(self._message, at, items)
        if self._buffer[at : at + 1] == b"\r":
            return self._line_breaks(at, items)
        return self._head(at)

    def _line_breaks(self, at: int, items: list[Item]) -> int | None:
        if (run := _KEEPALIVES.match(self._buffer, at)) is not None:
            if KEEPALIVE not in items:
                items.append(KEEPALIVE)
            return run.end()
        found = self._buffer[at : at + 4]
        if b"\r\n\r\n".startswith(found):
            return None
        if found[:2] != b"\r\n":
            raise ParseError("bare-line-break", "Bare CR or LF", None)
        return at + 2

    def _head(self, at: int) -> int | None:
        buffer, limit = self._buffer, self._limits.message
        end = buffer.find(b"\r\n\r\n", max(at, self._scanned - 3), at + limit)
        if end < 0:
            if len(buffer) - at >= limit:
                raise _too_large(bytes(buffer[at : at + limit]), self._limits)
            self._scanned = len(buffer)
            return None
        message = _structure(bytes(buffer[at:end]), self._limits)
        try:
            length = _content_length(message)
            if length is None:
                # RFC 3261 section 20.14: on a stream it is the only framing there is.
                raise ParseError("missing-content-length", "Missing Content-Length")
            if end + 4 - at + length > limit:
                raise ParseError("message-too-large", "Message Too Large", 513)
        except ParseError as error:
            raise _told(error, message) from None
        self._message, self._length = message, length
        return end + 4

    def _body(self, message: Request | Response, at: int, items: list[Item]) -> int | None:
        after = at + self._length
        if len(self._buffer) < after:
            return None
        self._message = None
        message.body = bytes(self._buffer[at:after])
        try:
            _check(message, self._limits)
        except ParseError as error:
            items.append(_told(error, message))
        else:
            items.append(message)
        return after


def _told(error: ParseError, message: Request | Response) -> ParseError:
    """The error with what could be read; without a status where nothing may be answered."""
    error.message = message
    if isinstance(message, Response) or message.method == "ACK":
        error.status = None
    return error


def _too_large(data: bytes, limits: Limits) -> ParseError:
    error = ParseError("message-too-large", "Message Too Large", 513)
    end = data.find(b"\r\n\r\n")
    return _with_head(error, data[:end] if end >= 0 else data, limits)


def _unended(data: bytes, limits: Limits) -> ParseError:
    return _with_head(ParseError("no-header-end", "Header Section Does Not End"), data, limits)


def _with_head(error: ParseError, head: bytes, limits: Limits) -> ParseError:
    """The error with the message that a damaged head belongs to, as far as it can be read."""
    try:
        return _told(error, _structure(head, limits))
    except ParseError as structural:
        error.message = structural.message
        if structural.status is None:
            error.status = None
            error.name = structural.name if structural.name == "not-sip" else error.name
        return error


def _structure(head: bytes, limits: Limits) -> Request | Response:
    """Start line and rows of a header section, without its last CRLFCRLF; raises ParseError with what was readable."""
    text = head.decode("utf-8", "surrogateescape")
    lines = text.split("\r\n", limits.lines)
    fault: ParseError | None = None
    if len(lines) > limits.lines:
        fault = ParseError("too-many-rows", "Too Many Header Rows")
        text = text[: -len(lines.pop()) - 2]
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or ("\x00" in text and has_bare_nul(text)):
        fault = fault or ParseError("bare-line-break", "Bare CR, LF or NUL")
        lines = _only(lines, lambda line: "\r" not in line and "\n" not in line and not has_bare_nul(line))
    if "\r\n " in text or "\r\n\t" in text:
        lines = _unfold(lines)
    if len(lines) > limits.rows + 1:
        fault = fault or ParseError("too-many-rows", "Too Many Header Rows")
        del lines[limits.rows + 1 :]
    if len(head) > limits.line and max(map(len, lines), default=0) > limits.line:
        fault = fault or ParseError("line-too-long", "Header Line Too Long")
        lines = _only(lines, lambda line: len(line) <= limits.line)
    rows: list[Row] = []
    first: dict[str, str] = {}
    repeated: list[str] = []
    passes = lines[0][:4].lower() == "sip/"
    for line in lines[1:]:
        original, colon, value = line.partition(":")
        name = CANONICAL.get(original)
        if name is None or not colon:
            try:
                original, name = _row_name(original, colon)
            except ParseError as error:
                if not passes:
                    fault = fault or error
                    continue
                if not colon:
                    continue  # of a response, no header at all
                name = original.lower()
        value = value.strip(" \t")
        rows.append(Row(name, original, value))
        if name in first:
            repeated.append(name)
        else:
            first[name] = value
    message = _start_line(lines[0], rows, fault)
    message._first = first  # noqa: SLF001  # the parser makes messages whole
    message._repeated = repeated  # noqa: SLF001
    return message


def _only(lines: list[str], keep: Callable[[str], bool]) -> list[str]:
    """The start line, or an empty one, and those rows that are to be kept."""
    return [lines[0] if keep(lines[0]) else "", *filter(keep, lines[1:])]


def _unfold(lines: list[str]) -> list[str]:
    """Each folded line and what it goes on from as one, with one SP (RFC 3261 section 7.3.1)."""
    whole: list[list[str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and whole:
            whole[-1].append(line.strip(" \t"))
        else:
            whole.append([line])
    return [
        parts[0] if len(parts) == 1 else " ".join([parts[0].rstrip(" \t"), *filter(None, parts[1:])]) for parts in whole
    ]


def _row_name(original: str, colon: str) -> tuple[str, str]:
    """The name as sent and its long form; white space before the colon is allowed."""
    original = original.rstrip(" \t")
    if not colon:
        raise ParseError("bad-header-line", "Header Line Without Colon")
    return original, canonical_name(original)


def _start_line(line: str, rows: list[Row], fault: ParseError | None) -> Request | Response:
    """The message of a start line; raises `fault`, or what is wrong with the line, with what could be read."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is not None:
        method, uri, version = match.groups()
        request = Request(method, uri, rows)
        if version[4:] != "2.0":
            raise _told(ParseError("bad-version", "Version Not Supported", 505), request)
        if fault is not None:
            raise _told(fault, request)
        return request
    if line[:4].lower() == "sip/":
        status = _STATUS_LINE.fullmatch(line)
        if status is None:
            raise ParseError("bad-status-line", "Bad Status-Line", None)
        response = Response(int(status[1]), status[2] or "", rows)
        if fault is not None:
            raise _told(fault, response)
        return response
    if not rows:
        raise ParseError("not-sip", "Not SIP", None)
    words = [*line.split(" "), "", ""]
    raise _told(fault or ParseError("bad-request-line", "Bad Request-Line"), Request(words[0], words[1], rows))


def _content_length(message: Request | Response) -> int | None:
    """Content-Length; None when absent. Several must say the same."""
    text = message.first("content-length")
    if text is None:
        return None
    length = uint(text, 2**31)
    if length is None:
        raise ParseError("bad-content-length", "Bad Content-Length")
    if "content-length" in message._repeated:  # noqa: SLF001
        for other in message.values("content-length"):
            if uint(other, 2**31) != length:
                raise ParseError("bad-content-length", "Differing Content-Length")
    return length


def _check(message: Request | Response, limits: Limits) -> None:
    """What a message must have and may not have, each header once parsed and kept; raises ParseError."""
    message.via  # noqa: B018  # raises when there is none
    if isinstance(message, Request):
        for name in message._repeated:  # noqa: SLF001
            if name in SINGLE:
                raise ParseError("repeated-header", "Repeated Header")
        _check_request(message, limits)


def _check_request(request: Request, limits: Limits) -> None:
    """What is read of a request before it is known where it goes."""
    if sum([row.value.count(",") + 1 for row in request.rows if row.name == "via"]) > limits.vias:
        raise ParseError("too-many-vias", "Too Many Via Values")
    _check_start(request)
    request.from_.parsed_uri  # noqa: B018
    request.to.parsed_uri  # noqa: B018
    if not _CALL_ID.fullmatch(request.call_id):
        raise ParseError("bad-call-id", "Bad Call-ID")
    if request.method == "REGISTER":
        for contact in request.contacts:
            contact.parsed_uri  # noqa: B018
    route = request.first("route")
    if route is not None:  # the top value; what follows may be read by the next
        parse_address(split_first(route)[0]).parsed_uri  # noqa: B018


def _check_start(request: Request) -> None:
    """The Request-URI, and what says the method and the hops that are left."""
    if request.parsed_uri.headers:
        # RFC 3261 section 19.1.1: not allowed in a Request-URI.
        raise ParseError("bad-request-uri", "Headers in Request-URI")
    if request.cseq.method != request.method:
        if request.method in METHODS:
            raise ParseError("bad-cseq", "CSeq Method Mismatch")
        raise ParseError("unknown-method", "Not Implemented", 501)
    hops = request.first("max-forwards")
    if hops is not None and uint(hops, 255) is None:
        raise ParseError("bad-max-forwards", "Bad Max-Forwards")
