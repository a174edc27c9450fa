"""Bencode, as rtpengine's ng protocol speaks it: dictionaries need no order of keys.

integer     i42e
octets      5:hello
list        l…e
dictionary  d…e      keys are octet strings
"""

Value = int | bytes | list["Value"] | dict[str, "Value"]

DEPTH = 16
"""Lists and dictionaries in each other, at most; rtpengine's statistics have seven."""
DIGITS = 20
"""Of a number, at most: what 64 bits need, with a sign."""


class BadBencode(ValueError):
    """These octets are not one bencoded value."""


def encode(value: object) -> bytes:
    """The octets of int, bytes, str (as UTF-8), list, tuple or dict; raises TypeError for anything else."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: object, parts: list[bytes]) -> None:
    match value:
        case bytes():
            parts += (b"%d:" % len(value), value)
        case str():
            _encode(value.encode("utf-8", "surrogateescape"), parts)
        case int():
            parts.append(b"i%de" % value)
        case list() | tuple():
            parts.append(b"l")
            for each in value:
                _encode(each, parts)
            parts.append(b"e")
        case dict():
            parts.append(b"d")
            for key, each in value.items():
                _encode(str(key), parts)
                _encode(each, parts)
            parts.append(b"e")
        case _:
            raise TypeError(f"bencode has no {type(value).__name__}")


def decode(octets: bytes) -> Value:
    """The one value that these octets are; raises BadBencode. Strings stay bytes, keys of dictionaries are str."""
    value, end = _decode(octets, 0, 0)
    if end != len(octets):
        raise BadBencode("octets follow the value")
    return value


def _decode(octets: bytes, at: int, depth: int) -> tuple[Value, int]:
    first = octets[at : at + 1]
    if first == b"i":
        return _number(octets, at + 1, b"e")
    if first.isdigit():
        return _string(octets, at)
    if first not in (b"l", b"d"):
        raise BadBencode("no value begins like this")
    if depth == DEPTH:
        raise BadBencode("too deep")
    items: list[Value] = []
    at += 1
    while octets[at : at + 1] != b"e":
        item, at = _decode(octets, at, depth + 1)
        items.append(item)
    return (items if first == b"l" else _dictionary(items)), at + 1


def _dictionary(items: list[Value]) -> dict[str, Value]:
    if len(items) % 2:
        raise BadBencode("a key has no value")
    found: dict[str, Value] = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, bytes):
            raise BadBencode("a key is not a string")
        found[key.decode("utf-8", "replace")] = value
    return found


def _string(octets: bytes, at: int) -> tuple[bytes, int]:
    length, start = _number(octets, at, b":")
    if start + length > len(octets):
        raise BadBencode("a string is cut off")
    return octets[start : start + length], start + length


def _number(octets: bytes, at: int, end: bytes) -> tuple[int, int]:
    stop = octets.find(end, at, at + DIGITS + 1)
    digits = octets[at:stop]
    if stop < 0 or not digits.removeprefix(b"-").isdigit():
        raise BadBencode("not a number")
    return int(digits), stop + 1
