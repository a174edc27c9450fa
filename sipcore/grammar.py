"""Productions of RFC 3261 section 25.1 that several headers share.

Every repetition is possessive (`*+`): no input makes a pattern backtrack, so time is linear
in length. White space is SP and HTAB only, digits and letters are ASCII: Python's own
notions (`\\s`, `isdigit`, `strip()`) are wider and let things through that others read otherwise.
"""

import re
from typing import Final

from sipcore.errors import ParseError

MAX_UINT32: Final = 2**32 - 1
VALUES: Final = 100
"""Commas in all rows of a header that is read, those in quotes included: counted before anything is parsed."""
PARAMETERS: Final = 400
"""Semicolons in them."""
DEFAULT_EXPIRES: Final = 3600

# Possessive quantifiers (`++`) stand behind one character or class only; for groups `(?>…)` says the same. Python
# before 3.11.5, Debian 12's too, forgets to go back where a group that is repeated possessively fails in its middle.

# token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")
_TOKEN = r"[A-Za-z0-9\-.!%*_+`'~]++"  # noqa: S105  # a grammar rule, not a password
TOKEN: Final = re.compile(_TOKEN)
# quoted-string = DQUOTE *(qdtext / quoted-pair) DQUOTE
QUOTED_STRING: Final = r'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
LWS: Final = r"[ \t]*+"
# gen-value = token / host / quoted-string; wider here: any text that ends nothing, or nothing at all.
_VALUE = r"[^\x00-\x20\x7f;,\"<>]*+"

# generic-param = token [ EQUAL gen-value ], behind its SEMI
_PARAM = re.compile(rf"{LWS}(;{LWS}({_TOKEN}){LWS}(?>(?:={LWS}({QUOTED_STRING}|{_VALUE}))?)){LWS}", re.DOTALL)
_ONE_PARAM = re.compile(rf";({_TOKEN})=({_VALUE})")
_LIST_ELEMENT = re.compile(rf'(?>(?:[^",<]++|{QUOTED_STRING}|<[^<>]*+>)*)', re.DOTALL)
_DIGITS = re.compile(r"[0-9]++")
# qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

Params = list[tuple[str, str | None]]


def unquote(text: str) -> str:
    """What a quoted-string says; other text as it is."""
    if text[:1] != '"':
        return text
    inner = text[1:-1]
    if "\\" not in inner:
        return inner
    # A run of backslashes is pairs from its start on; what is left behind them escapes the next character. No octets
    # give U+D800, so it can stand for a pair meanwhile.
    pair = chr(0xD800)
    return inner.replace("\\\\", pair).replace("\\", "").replace(pair, "\\")


def too_many(what: str, header: str = "") -> ParseError:
    """More than anybody needs, and than we read; `header` is its lower-case name."""
    if not header:
        return ParseError(f"too-many-{what}", f"Too Many {what.title()}")
    return ParseError(f"too-many-{header}-{what}", f"Too Many {header.title()} {what.title()}")


def parse_params(text: str) -> Params:
    """Header parameters from the first `;` on, in order: lower-case name and unquoted value, None without `=`.

    ParseError for anything else, and for a name that occurs twice (RFC 3261 section 7.3.1).
    """
    if one := _ONE_PARAM.fullmatch(text):
        return [(one[1].lower(), one[2])]
    return [(name, unquote(value) if value else value) for name, value, _ in split_params(text)]


def split_params(text: str) -> list[tuple[str, str | None, str]]:
    """As `parse_params`, but values keep their quotes, and the third member is the parameter as sent with its `;`."""
    if text.count(";") > PARAMETERS:
        raise too_many("parameters")
    found: list[tuple[str, str | None, str]] = []
    at, end = 0, len(text)
    while at < end:
        match = _PARAM.match(text, at)
        if match is None:
            raise ParseError("bad-parameter", "Bad Header Parameter")
        sent, name, value = match.groups()
        found.append((name.lower(), value, sent.rstrip(" \t")))
        at = match.end()
    if len({name for name, _, _ in found}) != len(found):
        raise ParseError("duplicate-parameter", "Duplicate Header Parameter")
    return found


def split_list(text: str) -> list[str]:
    """The elements of a comma-separated value; commas in quotes or `<>` separate nothing.

    Elements may be empty. ParseError if a quote or `<` does not end.
    """
    if "," not in text:
        return [text]
    elements = []
    start, end = 0, len(text)
    while True:
        match = _LIST_ELEMENT.match(text, start)
        stop = match.end() if match else start
        elements.append(text[start:stop].strip(" \t"))
        if stop == end:
            return elements
        if text[stop] != ",":
            raise ParseError("unbalanced-quotes", "Unterminated Quoted String")
        start = stop + 1


def split_first(text: str) -> tuple[str, str]:
    """The first element of a comma-separated value, and what follows its comma as sent; ParseError as `split_list`.

    What follows is not looked at.
    """
    if "," not in text:
        return text, ""
    match = _LIST_ELEMENT.match(text)
    stop = match.end() if match else 0
    if stop < len(text) and text[stop] != ",":
        raise ParseError("unbalanced-quotes", "Unterminated Quoted String")
    return text[:stop].strip(" \t"), text[stop + 1 :].strip(" \t")


def uint(text: str, maximum: int) -> int | None:
    """A decimal number of any number of digits, up to `maximum` (below 10**18); None for any other text."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 18:
        text = text.lstrip("0") or "0"
        # int() refuses more than 4,300 digits, and is quadratic below that.
        if len(text) > 18:
            return None
    number = int(text)
    return number if number <= maximum else None


def delta_seconds(text: str, default: int = DEFAULT_EXPIRES) -> int:
    """Seconds of an `expires` parameter or an Expires header: at most 2**32-1; `default` if malformed.

    RFC 3261 section 10.2.1.1 and 20.19.
    """
    if not _DIGITS.fullmatch(text):
        return default
    number = uint(text, MAX_UINT32)
    return MAX_UINT32 if number is None else number


def qvalue(text: str) -> float:
    """A `q` parameter: 0 to 1 with at most three decimals (RFC 3261 section 25.1); ParseError otherwise."""
    if not _QVALUE.fullmatch(text):
        raise ParseError("bad-q", "Bad q Value")
    return float(text)
