"""Commands as records carry them: credentials in, octets out; what no record can hold is refused."""

from events.commands import Authenticate, Digest, FindUser
from events.wire import encode
from sipcore.digest import Credentials
from sipcore.errors import ParseError


def digest_of(credentials: Credentials) -> Digest:
    """The credentials as a record carries them: the response and its inputs."""
    return Digest(
        credentials.username,
        credentials.realm,
        credentials.nonce,
        credentials.uri,
        credentials.response,
        credentials.algorithm,
        credentials.qop,
        credentials.nc,
        credentials.cnonce,
    )


def encoded(command: Authenticate | FindUser) -> bytes:
    """The record's value; ParseError for octets that are no UTF-8 in what must be text: nobody could read it."""
    try:
        return encode(command)
    except UnicodeEncodeError:
        raise _not_utf8() from None


def check_utf8(text: str) -> None:
    """ParseError for a text with octets that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _not_utf8() from None


def _not_utf8() -> ParseError:
    return ParseError("not-utf-8", "Not UTF-8")
