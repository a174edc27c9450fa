"""Values and rows as SQL text of MySQL and MariaDB, for a session without NO_BACKSLASH_ESCAPES. PURE."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import DatabaseRefused

_ESCAPES = {"\\": "\\\\", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z", "'": "\\'"}
"""In this order: the backslash first. A double quote is itself between single ones, and JSON is full of them."""
TEMPLATES = 1000
"""Of rows, by the types of their values: a few for each table."""
_special = re.compile("[\0\n\r\x1a'\\\\]").search


def literal(value: object) -> str:
    """A value as SQL text, for a session without NO_BACKSLASH_ESCAPES; raises DatabaseRefused for other types."""
    render = _LITERALS.get(type(value))
    if render is not None:
        return render(value)
    for kind in (str, int):  # of enumerations
        if isinstance(value, kind):
            return _LITERALS[kind](kind(value))
    raise DatabaseRefused(f"a {type(value).__name__} is no value for a column")


def listed(values: Sequence[Any]) -> str:
    """Literals with commas between them. Most of what a projection costs is here, so nearly every row is one `%`.

    What has to be escaped is seen by what comes out: it is in no template, but for the quotes, whose number is known.
    """
    kinds = tuple(map(type, values))
    known = _TEMPLATES.get(kinds)
    if known is None:
        known = _template(kinds)
        if len(_TEMPLATES) < TEMPLATES:
            _TEMPLATES[kinds] = known
    template, quotes = known
    if template:
        text = template % tuple(values)
        if text.count("'") == quotes and not _control(text):
            return text
    return ",".join(map(literal, values))


_TEMPLATES: dict[tuple[type, ...], tuple[str, int]] = {}
_PLACES: dict[type, str] = {str: "'%s'", int: "%d", bool: "%d", type(None): "NULL%.0s"}


def _template(kinds: Sequence[type]) -> tuple[str, int]:
    """A row of such values as a format, and how many quotes it has; "" if there is none."""
    if any(kind not in _PLACES for kind in kinds):
        return "", 0
    return ",".join(_PLACES[kind] for kind in kinds), 2 * kinds.count(str)


def _control(text: str) -> bool:
    return "\\" in text or "\n" in text or "\0" in text or "\r" in text or "\x1a" in text


def _text(value: str) -> str:
    # Most values have nothing to escape; a few replacements are several times cheaper than a translation.
    if _special(value):
        for plain, escaped in _ESCAPES.items():
            value = value.replace(plain, escaped)
    return f"'{value}'"


def _real(value: float) -> str:
    if not math.isfinite(value):
        raise DatabaseRefused(f"{value} is no value for a column")
    return repr(value)


_LITERALS: dict[type, Callable[[Any], str]] = {
    str: _text,
    int: str,
    float: _real,
    type(None): lambda _: "NULL",
    bool: lambda value: "1" if value else "0",
    bytes: lambda value: f"X'{value.hex()}'",
}


def render(sql: str, values: Sequence[Any]) -> str:
    """The statement with its `%s` filled in; without values the text is taken as it is."""
    return sql % tuple(map(literal, values)) if values else sql
