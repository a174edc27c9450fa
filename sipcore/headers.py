"""Names of headers: long, compact, and which of them are lists or may stand once only.

Names compare without case and compact forms equal long ones (RFC 3261 section 7.3.1,
7.3.3, 20); inside of Ramal a name is always the lower-case long form.
"""

from typing import Final

from sipcore.errors import ParseError
from sipcore.grammar import TOKEN

COMPACT: Final = {
    "a": "accept-contact",  # RFC 3841
    "b": "referred-by",  # RFC 3892
    "c": "content-type",
    "d": "request-disposition",  # RFC 3841
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",  # RFC 3841
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",  # RFC 4474
    "o": "event",  # RFC 6665
    "r": "refer-to",  # RFC 3515
    "s": "subject",
    "t": "to",
    "u": "allow-events",  # RFC 6665
    "v": "via",
    "x": "session-expires",  # RFC 4028
    "y": "identity",  # RFC 8224
}

LISTS: Final = frozenset(
    """accept accept-contact accept-encoding accept-language alert-info allow allow-events call-info contact
    content-encoding content-language error-info history-info in-reply-to p-asserted-identity p-associated-uri
    p-preferred-identity path proxy-require reason record-route reject-contact request-disposition require route
    security-client security-server security-verify service-route supported unsupported via warning""".split()  # noqa: SIM905  # words, not a column of 33 quotes
)
"""Headers whose rows equal one comma-separated row. WWW-Authenticate, Authorization, Proxy-Authenticate and
Proxy-Authorization are not among them: a comma there separates parameters (RFC 3261 section 7.3.1)."""

SINGLE: Final = frozenset({"from", "to", "call-id", "cseq", "max-forwards"})
"""Headers that a second row makes ambiguous: 400 (RFC 4475 section 3.3.8). Content-Length may repeat itself."""

_SPELLINGS: Final = """Accept Accept-Encoding Accept-Language Allow Allow-Events Authorization Call-ID Contact
Content-Disposition Content-Encoding Content-Length Content-Type CSeq Date Event Expires From Max-Forwards Min-Expires
MIME-Version Organization P-Access-Network-Info Path Proxy-Authorization Proxy-Require Reason Record-Route Require
Retry-After Route Server Session-Expires Subject Supported Timestamp To Unsupported User-Agent Via Warning
WWW-Authenticate""".split()  # noqa: SIM905  # as above

SPELLED: Final = {spelling.lower(): spelling for spelling in _SPELLINGS}
"""By the lower-case name, the one that the RFCs write."""

# The spellings that phones use: a look-up instead of a check and lower().
CANONICAL: Final[dict[str, str]] = {
    **{spelling: spelling.lower() for spelling in _SPELLINGS},
    **{spelling.lower(): spelling.lower() for spelling in _SPELLINGS},
    **COMPACT,
    **{short.upper(): long for short, long in COMPACT.items()},
}


def canonical_name(name: str) -> str:
    """The lower-case long form of a header name; ParseError if it is no token."""
    known = CANONICAL.get(name)
    if known is not None:
        return known
    if not TOKEN.fullmatch(name):
        raise ParseError("bad-header-name", "Bad Header Name")
    return name.lower()
