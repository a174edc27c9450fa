"""SIP messages as values: `Request`, `Response`, what is made of them, and their bytes.

A message does not change: its rows are a tuple, and what is parsed out of them is kept.
The typed properties raise ParseError where a header is missing or malformed. `sipcore.parser` has read those of a
request that whoever routes it needs, and of a response the top Via: these raise nothing there.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeVar

from sipcore.address import Address, OddVia, Via, parse_address, parse_addresses, parse_via
from sipcore.errors import ParseError
from sipcore.grammar import MAX_UINT32, PARAMETERS, VALUES, split_first, split_list, too_many, uint
from sipcore.headers import LISTS, SPELLED
from sipcore.reasons import REASONS
from sipcore.uri import Uri, parse_uri

Header = tuple[str, str]
"""Name and value of a row of our own making."""
COPIED: Final = frozenset({"via", "from", "to", "call-id", "cseq"})
"""What a response takes from its request (RFC 3261 section 8.2.6.2)."""


class Row:
    """One header row; folding is undone, white space around the value removed. It does not change."""

    # No named tuple: compiled, this is made and read many times faster, and a call has 200 rows.
    __slots__ = ("name", "original", "value")

    def __init__(self, name: str, original: str, value: str) -> None:
        self.name = name
        """Lower-case long form."""
        self.original = original
        """As sent."""
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return self.name == other.name and self.original == other.original and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.name, self.original, self.value))

    def __repr__(self) -> str:
        return f"<Row {self.original}: {self.value}>"


class CSeq(NamedTuple):
    """Sequence number and method."""

    number: int
    method: str


class Message:
    """What requests and responses share: header rows and a body."""

    __slots__ = ("_contacts", "_cseq", "_first", "_from", "_repeated", "_star", "_to", "_via", "body", "rows")

    def __init__(self, rows: Iterable[Row], body: bytes) -> None:
        self.rows = tuple(rows)
        self.body = body
        self._first: dict[str, str] | None = None
        self._repeated: list[str] = []
        """Names of second and further rows, as the parser found them."""
        self._via: Via | None = None
        self._from: Address | None = None
        self._to: Address | None = None
        self._cseq: CSeq | None = None
        self._contacts: list[Address] | None = None
        self._star = False

    def like(self, other: "Message", via: str) -> None:
        """Takes over what was read of another whose rows are the same but for Via; `via` is the first one here."""
        first = other._first  # noqa: SLF001  # its own class
        self._first = None if first is None else {**first, "via": via}
        self._from, self._to, self._cseq = other._from, other._to, other._cseq  # noqa: SLF001
        self._contacts, self._star = other._contacts, other._star  # noqa: SLF001

    def first(self, name: str) -> str | None:
        """The value of the first row of this lower-case long name."""
        if self._first is None:
            self._first = {row.name: row.value for row in reversed(self.rows)}
        return self._first.get(name)

    def values(self, name: str) -> list[str]:
        """The values of all rows of this name, in order; those of list headers split at commas, without empty ones.

        A row whose quotes do not end is one value, and so is each where there are more than anybody needs.
        """
        rows = [row.value for row in self.rows if row.name == name]
        if name not in LISTS or sum([value.count(",") for value in rows]) > VALUES:
            return rows
        values: list[str] = []
        for value in rows:
            try:
                values.extend(filter(None, split_list(value)))
            except ParseError:
                values.append(value)
        return values

    def counted(self, name: str) -> list[str]:
        """The rows of a header that is to be parsed; ParseError, before it is, where it has more than anybody needs."""
        rows = [row.value for row in self.rows if row.name == name]
        commas = semicolons = 0
        for value in rows:
            commas += value.count(",")
            semicolons += value.count(";")
        if commas > VALUES:
            raise too_many("values", name)
        if semicolons > PARAMETERS:
            raise too_many("parameters", name)
        return rows

    def _required(self, name: str) -> str:
        value = self.first(name)
        if value is None:
            raise ParseError(f"missing-{name}", f"Missing {SPELLED[name]}")
        return value

    @property
    def call_id(self) -> str:
        """Call-ID, compared with case."""
        return self._required("call-id")

    @property
    def cseq(self) -> CSeq:
        """CSeq; ParseError above 2**32-1."""
        if self._cseq is None:
            self._cseq = parse_cseq(self._required("cseq"))
        return self._cseq

    @property
    def from_(self) -> Address:
        """From."""
        if self._from is None:
            self._from = parse_address(self._required("from"))
        return self._from

    @property
    def to(self) -> Address:
        """To."""
        if self._to is None:
            self._to = parse_address(self._required("to"))
        return self._to

    @property
    def vias(self) -> list[Via]:
        """The Via values that can be read, in order: those below the top one are for others to read."""
        found: list[Via] = []
        for number, value in enumerate(self.values("via")):
            try:
                found.append(parse_via(value) if number else self.via)
            except ParseError:
                continue
        return found

    @property
    def via(self) -> Via:
        """The top Via; nothing behind it is looked at."""
        if self._via is None:
            self._via = parse_via(split_first(self._required("via"))[0])
        return self._via

    @property
    def branch(self) -> str:
        """The top Via's branch as sent; "" when absent."""
        return self.via.branch

    @property
    def contacts(self) -> list[Address]:
        """All Contact values but `*`, in order; see `star`."""
        if self._contacts is None:
            rows = self.counted("contact")
            if rows:
                elements = [element for value in rows for element in split_list(value)]
                self._contacts = parse_addresses([element for element in elements if element != "*"])
                self._star = len(self._contacts) != len(elements)
            else:
                self._contacts = []
        return self._contacts

    @property
    def star(self) -> bool:
        """Whether a Contact is `*`, alone or beside others."""
        _ = self.contacts  # finds out
        return self._star

    def addresses(self, name: str) -> list[Address]:
        """All values of a header made of name-addrs: `route`, `record-route`, `path`, `service-route`."""
        return parse_addresses(self.counted(name))

    def _start_line(self) -> str:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The message's bytes, with the Content-Length of the body.

        ValueError if CR, LF or NUL stands in what would be the start line or a row; a NUL behind a
        backslash is a quoted-pair and allowed (RFC 4475 section 3.1.1.2).
        """
        length = str(len(self.body))
        lines = [self._start_line()]
        has_length = False
        for each in self.rows:
            value = each.value
            if each.name == "content-length":
                value = length  # the one row that the body decides
                has_length = True
            lines.append(f"{each.original}: {value}")
        if not has_length:
            lines.append(f"Content-Length: {length}")
        text = "\r\n".join(lines)
        breaks = len(lines) - 1
        if text.count("\n") != breaks or text.count("\r") != breaks or ("\x00" in text and has_bare_nul(text)):
            raise ValueError("CR, LF or NUL in a header")
        return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + self.body


class Request(Message):
    """A request."""

    __slots__ = ("_uri", "key", "method", "uri")

    def __init__(self, method: str, uri: str, rows: Iterable[Row], body: bytes = b"") -> None:
        super().__init__(rows, body)
        self.method = method
        """Compared with case."""
        self.uri = uri
        """The Request-URI as sent."""
        self._uri: Uri | None = None
        self.key = ""
        """That of its transaction, once `sipcore.transaction.transaction_key` has found it out."""

    @property
    def parsed_uri(self) -> Uri:
        """The parts of the Request-URI."""
        if self._uri is None:
            self._uri = parse_uri(self.uri)
        return self._uri

    def _start_line(self) -> str:
        return f"{self.method} {self.uri} SIP/2.0"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message):
    """A response."""

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, rows: Iterable[Row], body: bytes = b"") -> None:
        super().__init__(rows, body)
        self.status = status
        self.reason = reason

    def _start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


AnyMessage = TypeVar("AnyMessage", bound=Message)


def has_bare_nul(text: str) -> bool:
    """Whether a NUL stands in the text that no backslash makes a quoted-pair."""
    # Backslashes are pairs from the start of their run on; one that is left over makes a pair with what follows.
    return "\x00" in text.replace("\\\\", "").replace("\\\x00", "")


def parse_cseq(text: str) -> CSeq:
    """`1*DIGIT LWS Method`, the number at most 2**32-1."""
    digits, _, rest = text.replace("\t", " ").partition(" ")
    number = uint(digits, MAX_UINT32)
    method = rest.strip(" ")
    if number is None or not method or " " in method:
        raise ParseError("bad-cseq", "Bad CSeq")
    return CSeq(number, method)


def row(original: str, value: str) -> Row:
    """A header row of our own making."""
    return Row(original.lower(), original, value)


def respond(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Iterable[Header] = (),
    body: bytes = b"",
) -> Response:
    """A response to a request, by RFC 3261 section 8.2.6: its Via rows as they are, From, To, Call-ID and CSeq.

    `to_tag` goes into a To without a tag. `headers` are (name, value) in order. A 100 takes the
    Timestamp too. Also for a `ParseError.message`: what is missing there is missing here.
    """
    rows = repeated(request, to_tag)
    if status == 100:
        rows += [each for each in request.rows if each.name == "timestamp"]
    rows += [Row(name.lower(), name, value) for name, value in headers]
    return Response(status, REASONS.get(status, "Unknown") if reason is None else reason, rows, body)


def repeated(request: Request, to_tag: str | None = None, source: tuple[str, int] | None = None) -> list[Row]:
    """The rows that every response to a request repeats: Via, From, To, Call-ID and CSeq.

    `to_tag` goes into a To without a tag; `source`, the host and port that the request came from, into the top Via,
    where it is not there already.
    """
    rows: list[Row] = []
    seen = set()
    for each in request.rows:
        name = each.name
        if name not in COPIED:
            continue
        if name == "via":
            if source is not None:
                each = Row(name, each.original, _with_source(request, each.value, *source))
                source = None
        elif name in seen:
            continue
        else:
            seen.add(name)
            if name == "to" and to_tag is not None and not _has_tag(request):
                each = Row(name, each.original, f"{each.value};tag={to_tag}")
        rows.append(each)
    return rows


def _with_source(request: Request, value: str, host: str, port: int) -> str:
    """The row of a request's top Via with the source in it."""
    try:
        via = request.via
    except ParseError:
        return OddVia(value).with_source(host, port)
    sent = via.params
    if "received" not in sent and sent.get("rport", "") is None and value.count(";rport") == 1 and "," not in value:
        return value.replace(";rport", f";received={host};rport={port}")  # the same, as most phones have it
    changed = via.with_source(host, port)
    if changed is via:
        return value
    rest = split_first(value)[1]
    return f"{changed}, {rest}" if rest else str(changed)


def _has_tag(request: Request) -> bool:
    try:
        return request.to.tag is not None
    except ParseError:
        return True  # a To that we cannot read goes back as it came


def with_received(request: Request, host: str, port: int) -> Request:
    """The request with the source it came from in the top Via, as every server must add it (`Via.with_source`).

    A request without a readable Via comes back as it is.
    """
    try:
        top = request.via
    except ParseError:
        return request
    changed = top.with_source(host, port)
    if changed is top:
        return request
    rows = list(request.rows)
    index = next(index for index, each in enumerate(rows) if each.name == "via")
    value = str(changed)
    if rest := split_first(rows[index].value)[1]:
        value = f"{value}, {rest}"
    rows[index] = Row("via", rows[index].original, value)
    new = Request(request.method, request.uri, rows, request.body)
    new.like(request, value)
    new._via, new._uri = changed, request._uri  # noqa: SLF001  # its own class
    new.key = request.key  # no part of which is what we add
    return new
