"""What an operator typed, as conditions of SQL; and places in lists, as a browser carries them. PURE."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from runtime.database.port import Statement

T = TypeVar("T")
LONGEST = 256
"""Characters of what is searched for."""
LAST = "\U0010ffff"
"""Behind every text that goes on: the highest code point."""
ESCAPED = "!"
"""In a LIKE: a backslash means more to MySQL than to SQLite."""


def anywhere(text: str, columns: Sequence[str]) -> Statement:
    """Rows that have this text in one of these columns, whatever its case."""
    value = f"%{_literal(text)}%"
    return Statement(_either(columns), [value] * len(columns))


def beginning(text: str, user: str, domain: str) -> Statement:
    """Rows whose user begins with this, as it is written: what an index can find. `al@exam`: that user, and domain."""
    name, at, host = text.rpartition("@")
    if not at:
        return Statement(f"({user} >= %s AND {user} < %s)", [text, text + LAST])
    host = host.lower()
    return Statement(f"({user} = %s AND {domain} >= %s AND {domain} < %s)", [name, host, host + LAST])


def all_of(conditions: Sequence[Statement]) -> Statement:
    """What fulfils every condition; there is one at least."""
    return Statement(" AND ".join(c.sql for c in conditions), [value for c in conditions for value in c.values])


def place(text: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Where a list goes on, as the answer before said it; None for an empty text. Raises ValueError."""
    if not text:
        return None
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise ValueError("after") from None


def token(place: Sequence[object]) -> str:
    """A place as a browser gives it back, octet by octet: ids are longer than its numbers."""
    return msgspec.json.encode(place).decode()


def number(name: str, text: str, lowest: int, highest: int) -> int:
    """A number that was typed. Raises ValueError that names the parameter."""
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not lowest <= int(text) <= highest:
        raise ValueError(name)
    return int(text)


def text(name: str, given: str) -> str:
    """A text to be searched for. Raises ValueError that names the parameter."""
    stripped = given.strip()
    if len(stripped) > LONGEST or not stripped.isprintable():
        raise ValueError(name)
    return stripped


def _either(columns: Sequence[str]) -> str:
    return "(" + " OR ".join(f"LOWER({column}) LIKE %s ESCAPE '{ESCAPED}'" for column in columns) + ")"


def _literal(text: str) -> str:
    """A text that stands for itself in a LIKE."""
    lower = text.lower()
    for character in (ESCAPED, "%", "_"):
        lower = lower.replace(character, ESCAPED + character)
    return lower
