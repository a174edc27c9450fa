"""What a message says, as records have it: cut, cleaned, and of SDP the codecs' names. PURE."""

import re

from events.limits import URI, USER_AGENT
from sipcore.address import uri_of
from sipcore.causes import cause_of
from sipcore.errors import ParseError
from sipcore.message import Message, Response
from sipcore.sdp import codecs

LINE = 8192
"""Characters that a Call-ID or tag may have: no header row is longer."""
TARGETS = 16
"""URIs of an attempt, or of a redirection, that a record names."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def clean(text: str, width: int) -> str:
    """Text for a record: Unicode, without control characters, at most so long."""
    if len(text) <= width and text.isascii() and text.isprintable():
        return text  # as nearly all is
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROL.sub("?", text[:width])


def why(message: Message) -> tuple[str, int]:
    """Its Reason (RFC 3326) and the Q.850 cause in it; "" and 0 where there is none."""
    if message.first("reason") is None:
        return "", 0
    text, cause = cause_of(message)
    return clean(text, URI), cause


def uris(message: Message) -> tuple[str, str]:
    """The URIs of From and To; a proxy need not be able to read the latter (RFC 3261 section 16.3)."""
    try:
        to = message.to.uri
    except ParseError:
        to = ""
    return clean(message.from_.uri, URI), clean(to, URI)


def to_tag_of(message: Message) -> str:
    """Nothing where there is none."""
    try:
        return clean(message.to.tag or "", LINE)
    except ParseError:
        return ""  # a proxy need not read it (RFC 3261 section 16.3)


def agent(message: Message) -> str:
    """What sent it, as it calls itself."""
    return clean(message.first("user-agent") or message.first("server") or "", USER_AGENT)


def codecs_of(message: Message) -> tuple[str, ...]:
    """Those of its SDP, by name."""
    kind = message.first("content-type")
    return codecs(message.body) if message.body and kind and "sdp" in kind.lower() else ()


def contacts(response: Response) -> tuple[str, ...]:
    """The URIs to which a 3xx sends."""
    try:
        return tuple(clean(each.uri, URI) for each in response.contacts[:TARGETS])
    except ParseError:
        return ()


def uri(value: str) -> str:
    """The URI of a header's value; one that cannot be read as it came."""
    return clean(uri_of(value) or value, URI)
