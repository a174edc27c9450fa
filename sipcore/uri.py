"""SIP and SIPS URIs: parse, compare by RFC 3261 section 19.1.4, and the canonical AOR.

URIs of other schemes are kept whole in `Uri.opaque` (a proxy answers 416, a registrar 400).
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from sipcore.errors import ParseError
from sipcore.grammar import PARAMETERS, too_many, uint

_ESCAPED = r"%[0-9A-Fa-f]{2}"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*+")
# userinfo = ( user / telephone-subscriber ) [ ":" password ] "@"; wider: `#` and the like, which phones dial.
_WHO = rf'(?:[^\x00-\x20\x7f%:@<>"]++|{_ESCAPED})'
_USERINFO = re.compile(rf"((?>{_WHO}+))(?>(?::((?>{_WHO}*)))?)")
# hostport = host [ ":" port ], then uri-parameters and headers; wider: a `;` behind the last parameter, or behind none.
HOST: Final = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}+|\[[0-9A-Fa-f:.]{2,45}\]"
_PCHAR = r"[^\x00-\x20\x7f%;?=<>\"@,]"
_HOSTPORT = re.compile(
    rf"({HOST})(?>(?::([0-9]{{1,5}}+))?)((?>(?:;[^\x00-\x20\x7f;?<>\"@]++)*));?+"
    rf"(?>(?:\?((?>(?:[^\x00-\x20\x7f%<>\"@]++|{_ESCAPED})+)))?)"
)
_URI_PARAM = re.compile(rf";((?>(?:{_PCHAR}++|{_ESCAPED})+))(?>(?:=((?>(?:[^\x00-\x20\x7f%;?<>\"@]++|{_ESCAPED})*)))?)")
_OPAQUE = re.compile(r'[^\x00-\x20\x7f<>"]++')
# unreserved = alphanum / mark, and reserved; what may stand unescaped in a user part.
_PLAIN_USER = re.compile(r"[A-Za-z0-9\-_.!~*'()&=+$,;?/]++")
_UNRESERVED: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!~*'()"
# What changes: runs of escapes, and runs of what must be escaped and is not.
_ODD = re.compile(
    rb"((?>(?:%[0-9A-Fa-f]{2})+))|(?>(?:[^A-Za-z0-9\-_.!~*'()&=+$,;?/:@%]|%(?![0-9A-Fa-f]{2}))+)",
    re.DOTALL,
)
_SPELLED: Final = tuple(bytes((octet,)) if octet in _UNRESERVED else b"%%%02X" % octet for octet in range(256))
ESCAPES: Final = 100
"""Escapes in the name of a URI parameter."""
SHORT: Final = 256
"""Characters of a text whose parts are remembered: the messages of a call repeat its URIs several times."""
REMEMBERED: Final = 16_384
"""Texts, some 10 MB: From, To and Contact of 5,000 phones that refresh in turn; with fewer, each would miss."""

NEVER_IGNORED: Final = frozenset({"user", "ttl", "method", "maddr", "transport"})
"""URI parameters that, in one URI only, make two URIs unequal."""

UriParams = tuple[tuple[str, str | None], ...]


class Uri:
    """A URI in its parts, each as sent (escapes kept); `opaque` has what follows a scheme other than sip and sips."""

    __slots__ = ("headers", "host", "opaque", "params", "password", "port", "scheme", "user")

    def __init__(
        self,
        scheme: str,
        user: str | None = None,
        password: str | None = None,
        host: str = "",
        port: int | None = None,
        params: UriParams = (),
        headers: str = "",
        opaque: str = "",
    ) -> None:
        self.scheme = scheme
        """Lower-case."""
        self.user = user
        self.password = password
        self.host = host
        """An IPv6 address has its brackets."""
        self.port = port
        self.params = params
        self.headers = headers
        """What follows `?`."""
        self.opaque = opaque

    @property
    def is_sip(self) -> bool:
        """Whether the scheme is sip or sips."""
        return not self.opaque

    def param(self, name: str) -> str | None:
        """The value of a parameter by its lower-case name: "" if it has none, None if it is absent."""
        for key, value in self.params:
            if key.lower() == name:
                return value or ""
        return None

    def __str__(self) -> str:
        if self.opaque:
            return f"{self.scheme}:{self.opaque}"
        user = "" if self.user is None else self.user + ("" if self.password is None else f":{self.password}") + "@"
        port = "" if self.port is None else f":{self.port}"
        params = "".join(f";{name}" if value is None else f";{name}={value}" for name, value in self.params)
        return f"{self.scheme}:{user}{self.host}{port}{params}{'?' + self.headers if self.headers else ''}"

    def __repr__(self) -> str:
        return f"<Uri {self}>"


def parse_uri(text: str) -> Uri:
    """The parts of a URI; ParseError (400) for text that is none. Those of short ones are remembered."""
    return _remembered(text) if len(text) <= SHORT else _parsed(text)


def _parsed(text: str) -> Uri:
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in ("sip", "sips"):
        return _other(scheme, colon, rest)
    user = password = None
    # An "@" elsewhere than behind the userinfo must be escaped.
    userinfo, at, tail = rest.partition("@")
    if at:
        who = _USERINFO.fullmatch(userinfo)
        if who is None:
            raise _bad()
        user, password = who[1], who[2]
        rest = tail
    where = _HOSTPORT.fullmatch(rest)
    if where is None:
        raise _bad()
    host, digits, raw_params, headers = where.groups()
    port = None
    if digits is not None and (port := uint(digits, 65535)) is None:
        raise _bad()
    if host[0] == "[":
        ipv6(host)
    params = _params(raw_params) if raw_params else ()
    return Uri(scheme, user, password, host, port, params, headers or "")


_remembered = lru_cache(maxsize=REMEMBERED)(_parsed)


def _other(scheme: str, colon: str, rest: str) -> Uri:
    if not colon or not _SCHEME.fullmatch(scheme) or not _OPAQUE.fullmatch(rest):
        raise _bad()
    return Uri(scheme, opaque=rest)


def _bad() -> ParseError:
    return ParseError("bad-uri", "Bad URI")


def _params(text: str) -> UriParams:
    if text.count(";") > PARAMETERS:
        raise too_many("parameters")
    found: list[tuple[str, str | None]] = []
    names = set()
    start, end = 0, len(text)
    while start < end:
        match = _URI_PARAM.match(text, start)
        if match is None:
            raise _bad()
        found.append((match[1], match[2]))
        name = match[1]
        if "%" in name:
            if name.count("%") > ESCAPES:
                raise too_many("escapes")
            name = canonical_escapes(name)
        names.add(name.lower())
        start = match.end()
    if len(names) != len(found):
        raise ParseError("duplicate-parameter", "Duplicate URI Parameter")
    return tuple(found)


def ipv6(reference: str) -> IPv6Address:
    """The address of an IPv6 reference, with or without brackets; ParseError if it is none.

    The third colon that RFC 3261's grammar puts before an IPv4 part is forgiven (RFC 5118 section 4.10).
    """
    try:
        return IPv6Address(reference.strip("[]").replace(":::", "::"))
    except AddressValueError as error:
        raise ParseError("bad-host", "Bad Host") from error


def canonical_escapes(text: str) -> str:
    """The one spelling of text with escapes: two texts are equivalent by section 19.1.4 iff these are the same.

    Unreserved characters stand for themselves; reserved ones stay as they are, plain or escaped
    (those differ); everything else, NUL and octets above 127 included, is `%` and upper-case hex.
    """
    if _PLAIN_USER.fullmatch(text):
        return text
    return _ODD.sub(_spelled, text.encode("utf-8", "surrogateescape")).decode("ascii")


def _spelled(odd: re.Match[bytes]) -> bytes:
    octets = bytes.fromhex(odd[1].replace(b"%", b"").decode("ascii")) if odd[1] else odd[0]
    return b"".join([_SPELLED[octet] for octet in octets])


def _same_host(a: str, b: str) -> bool:
    if a.lower() == b.lower():
        return True
    # IPv6 addresses compare as numbers (RFC 5954 section 4.2).
    return a[:1] == "[" == b[:1] and ipv6(a) == ipv6(b)


def _same_user(a: str | None, b: str | None) -> bool:
    if a == b:
        return True
    return a is not None and b is not None and canonical_escapes(a) == canonical_escapes(b)


def _comparable(params: UriParams) -> dict[str, str]:
    return {canonical_escapes(name).lower(): canonical_escapes(value or "").lower() for name, value in params}


def _same_params(a: UriParams, b: UriParams) -> bool:
    if a == b:
        return True
    left, right = _comparable(a), _comparable(b)
    if any(left[name] != right[name] for name in left.keys() & right.keys()):
        return False
    return not (left.keys() ^ right.keys()) & NEVER_IGNORED


def _same_headers(a: str, b: str) -> bool:
    if a == b:
        return True

    def fields(text: str) -> list[tuple[str, str]]:
        pairs = (part.partition("=") for part in text.split("&"))
        return sorted((canonical_escapes(name).lower(), canonical_escapes(value)) for name, _, value in pairs)

    return fields(a) == fields(b)


def equal(a: Uri, b: Uri) -> bool:
    """Whether two URIs are equivalent by RFC 3261 section 19.1.4. Symmetric, but not transitive."""
    if a.scheme != b.scheme or a.port != b.port:
        return False
    if a.opaque or b.opaque:
        return canonical_escapes(a.opaque) == canonical_escapes(b.opaque)
    return (
        _same_user(a.user, b.user)
        and _same_user(a.password, b.password)
        and _same_host(a.host, b.host)
        and _same_params(a.params, b.params)
        and _same_headers(a.headers, b.headers)
    )


def aor(uri: Uri) -> str:
    """The canonical address-of-record, `alice@example.org`: no scheme, password, port, parameters or headers.

    The user part by `canonical_escapes` (so ASCII, no white space), the host in lower case; the host alone
    for a URI without a user. ParseError (400) for a URI that is neither sip nor sips.
    """
    if uri.opaque:
        raise ParseError("not-sip-uri", "Not a SIP or SIPS URI")
    host = uri.host.lower()
    return host if uri.user is None else f"{canonical_escapes(uri.user)}@{host}"


def received_uri(transport: str, host: str, port: int) -> str:
    """A source or target as a URI: `sip:192.0.2.4:5062;transport=udp`, IPv6 in brackets."""
    shown = f"[{host}]" if ":" in host and host[0] != "[" else host
    return f"sip:{shown}:{port};transport={transport.lower()}"
