"""What stands in From, To, Contact, Route, Record-Route and Path: `Address`; and in Via: `Via`."""

import re
from functools import lru_cache

from sipcore.errors import ParseError
from sipcore.grammar import LWS, QUOTED_STRING, Params, parse_params, split_list, split_params, uint, unquote
from sipcore.uri import HOST, REMEMBERED, SHORT, Uri, ipv6, parse_uri

# name-addr = [ display-name ] LAQUOT addr-spec RAQUOT; display-name = *(token LWS) / quoted-string.
# Wider: octets above 127 in an unquoted display name.
_NAME_ADDR = re.compile(
    rf"(?:({QUOTED_STRING})|([A-Za-z0-9\-.!%*_+`'~ \t\x80-\U0010ffff]*+)){LWS}"
    rf'<([^\x00-\x20\x7f<>"]++)>{LWS}(?>(;.*+)?)',
    re.DOTALL,
)
# addr-spec without <>: a comma, question mark or semicolon would need them (section 20), so `;` starts a parameter
# of the header and `?` is an error.
_ADDR_SPEC = re.compile(rf'([^\x00-\x20\x7f<>",;?]++){LWS}(?>(;.*+)?)', re.DOTALL)
# via-parm = sent-protocol LWS sent-by *( SEMI via-params )
_VIA = re.compile(
    rf"[Ss][Ii][Pp]{LWS}/{LWS}2\.0{LWS}/{LWS}([A-Za-z0-9\-.!%*_+`'~]++)[ \t]++({HOST}){LWS}"
    rf"(?>(?::{LWS}([0-9]{{1,5}}+){LWS})?)(?>(;.*+)?)",
    re.DOTALL,
)
# The sent-by of a Via of any version, whatever stands behind it; and an rport without a value.
_SENT_BY = re.compile(
    rf"[Ss][Ii][Pp]{LWS}/{LWS}[0-9.]++{LWS}/{LWS}[A-Za-z0-9\-.!%*_+`'~]++[ \t]++({HOST}){LWS}"
    rf"(?>(?::{LWS}([0-9]{{1,5}}+){LWS})?)(?=[;,( \t]|$)"
)
_RPORT = re.compile(rf"(;{LWS}rport){LWS}(?=[;, \t]|$)", re.IGNORECASE)


class Address:
    """A name-addr or addr-spec with its header parameters."""

    __slots__ = ("_parsed", "display", "params", "raw_params", "uri")

    def __init__(self, display: str, uri: str, params: Params, raw_params: str) -> None:
        self.display = display
        """Unquoted."""
        self.uri = uri
        """As sent, without `<>`."""
        self.params = params
        """Lower-case names and unquoted values, in order."""
        self.raw_params = raw_params
        """As sent, from the first `;`."""
        self._parsed: Uri | None = None

    @property
    def parsed_uri(self) -> Uri:
        """The parts of the URI."""
        if self._parsed is None:
            self._parsed = parse_uri(self.uri)
        return self._parsed

    @property
    def tag(self) -> str | None:
        """The tag parameter; None when absent."""
        return self.get("tag")

    def get(self, name: str) -> str | None:
        """A parameter by its lower-case name: "" if it has no value, None if it is absent."""
        for key, value in self.params:
            if key == name:
                return value or ""
        return None

    def params_without(self, *names: str) -> str:
        """The parameters as sent, each with its `;`, but those of these lower-case names."""
        return "".join(sent for name, _, sent in split_params(self.raw_params) if name not in names)

    def __repr__(self) -> str:
        return f"<Address {self.uri}>"


class Via:
    """One Via value; `received` and `rport` are parameters."""

    __slots__ = ("host", "params", "port", "transport")

    def __init__(self, transport: str, host: str, port: int | None, params: dict[str, str | None]) -> None:
        self.transport = transport
        """Upper-case."""
        self.host = host
        """As sent; an IPv6 address has its brackets."""
        self.port = port
        self.params = params
        """Lower-case names; values as sent."""

    @property
    def branch(self) -> str:
        """The branch as sent; "" when absent."""
        return self.params.get("branch") or ""

    @property
    def received(self) -> str | None:
        """The received address without brackets; None when absent."""
        value = self.params.get("received")
        return value.strip("[]") if value else None

    @property
    def rport(self) -> int | None:
        """The rport value; None when absent or without a value (`"rport" in params` tells which)."""
        value = self.params.get("rport")
        return uint(value, 65535) if value else None

    def with_source(self, host: str, port: int) -> "Via":
        """This Via with the source that the message came from, as every server must add it; itself if it has it.

        `received` if the sent-by host is not the source address (RFC 3261 section 18.2.1), or if there is an `rport`,
        whose value becomes the source port (RFC 3581 section 4); a `received` or `rport` value that the sender wrote
        is replaced. `host` has no brackets.
        """
        sent = self.params
        wants_port = "rport" in sent
        if not wants_port and "received" not in sent and _is_source(self.host, host):
            return self
        params = dict(sent)
        params.pop("received", None)
        if wants_port:
            params["rport"] = str(port)
        if wants_port or not _is_source(self.host, host):
            params["received"] = host
        return Via(self.transport, self.host, self.port, params)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        params = "".join([f";{name}" if value is None else f";{name}={value}" for name, value in self.params.items()])
        return f"SIP/2.0/{self.transport} {self.host}{port}{params}"

    def __repr__(self) -> str:
        return f"<Via {self}>"


def _is_source(sent_by: str, source: str) -> bool:
    if sent_by == source:
        return True
    if sent_by[0] != "[":
        return False
    try:
        return ipv6(sent_by) == ipv6(source)
    except ParseError:
        return False  # the source is an IPv4 address


def parse_address(text: str) -> Address:
    """One Address, its URI checked for form only by its characters; ParseError otherwise. Short ones are remembered."""
    return _remembered(text) if len(text) <= SHORT else _parsed(text)


def _parsed(text: str) -> Address:
    match = _NAME_ADDR.fullmatch(text)
    if match is not None:
        quoted, tokens, uri, raw_params = match.groups()
        display = unquote(quoted) if quoted else (tokens or "").strip(" \t")
    else:
        match = _ADDR_SPEC.fullmatch(text)
        if match is None:
            raise ParseError("bad-address", "Bad Address")
        uri, raw_params = match.groups()
        display = ""
    if raw_params is None:
        return Address(display, uri, [], "")
    return Address(display, uri, parse_params(raw_params), raw_params)


def uri_of(text: str) -> str:
    """The URI of one name-addr or addr-spec, as sent; "" where it cannot be read. A display name may hold anything."""
    try:
        return parse_address(text).uri
    except ParseError:
        return ""


def parse_addresses(values: list[str]) -> list[Address]:
    """The Addresses of rows of one name, in order."""
    return [parse_address(element) for value in values for element in split_list(value)]


_remembered = lru_cache(maxsize=REMEMBERED)(_parsed)


def parse_via(text: str) -> Via:
    """One Via value; ParseError for anything else, also for another SIP version."""
    match = _VIA.fullmatch(text)
    if match is None:
        raise ParseError("bad-via", "Bad Via")
    transport, host, digits, raw_params = match.groups()
    port = None
    if digits is not None and (port := uint(digits, 65535)) is None:
        raise ParseError("bad-via", "Bad Via")
    if host[0] == "[":
        ipv6(host)
    params: dict[str, str | None] = {}
    if raw_params:
        params = {name: value for name, value, _ in split_params(raw_params)}
        # "z9hG4bK" alone is a cookie without an identifier (RFC 4475 section 3.2.1).
        branch = params.get("branch")
        if branch is not None and branch.lower() == "z9hg4bk":
            raise ParseError("bad-branch", "Bad Branch")
    return Via(transport.upper(), host, port, params)


class OddVia:
    """What can be read of a top Via outside the grammar: enough to answer the request (RFC 3261 section 18.2.2)."""

    __slots__ = ("_sent_by", "_text", "host", "port", "wants_port")

    def __init__(self, text: str) -> None:
        self._text = text
        self._sent_by = _SENT_BY.match(text)
        self.host = self._sent_by[1] if self._sent_by else ""
        """As sent; "" if it cannot be read."""
        self.port = uint(self._sent_by[2] or "", 65535) if self._sent_by else None
        self.wants_port = _RPORT.search(text) is not None
        """Whether the response goes to the source port (RFC 3581)."""

    def with_source(self, host: str, port: int) -> str:
        """The text with the source in it, wherever there is a place for it."""
        text = self._text
        if self._sent_by and "received" not in text.lower() and (self.wants_port or not _is_source(self.host, host)):
            end = self._sent_by.end()
            text = f"{text[:end].rstrip()};received={host}{text[end:]}"
        return _RPORT.sub(rf"\1={port}", text, count=1)
