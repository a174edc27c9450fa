"""The one search that authsvc makes, as bytes: RFC 4511 sections 4.1.1, 4.5.1 and 4.5.2, in BER. Pure.

ldap3 opens the connection, does TLS and binds, but its own search costs 130 microseconds of CPU per user found
(pyasn1 objects for the filter, then a dictionary for every entry, copied), which is more than all else that is
done for a registration. The two messages are small; encoding and decoding them here costs a twentieth.

Names go into the filter as octet strings, not as text: there is nothing to escape, and `*)(uid=*` matches the
user of that very name only (CHECKLIST A19).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN, _SEQUENCE = 0x02, 0x04, 0x0A, 0x01, 0x30
_SEARCH_REQUEST, _ENTRY, _DONE, _REFERENCE, _INTERMEDIATE = 0x63, 0x64, 0x65, 0x73, 0x79
_AND, _OR, _EQUALITY, _PRESENT = 0xA0, 0xA1, 0xA3, 0x87
_SUBTREE, _NEVER_DEREFERENCE = b"\x02", b"\x00"

MAX_MESSAGE = 1 << 20
"""An entry larger than this is not a user's."""

SUCCESS, SIZE_LIMIT_EXCEEDED = 0, 4


class Malformed(ValueError):
    """The server sent what is not an answer to a search."""


class Ended(Exception):
    """The server ended a search before it was whole, or refused it."""

    def __init__(self, code: int) -> None:
        """`code`: the result's (RFC 4511 appendix A)."""
        super().__init__(f"the search ended with LDAP result code {code}")
        self.code = code


class Entry(NamedTuple):
    """A SearchResultEntry: values by attribute name in lower case, options such as `;binary` kept."""

    attributes: dict[str, list[bytes]]


class Done(NamedTuple):
    """A SearchResultDone."""

    code: int


class Reference(NamedTuple):
    """A SearchResultReference: part of what was asked for is on another server (RFC 4511 section 4.5.3)."""


def one_of(attribute: str, values: Iterable[bytes], also: bytes = b"") -> bytes:
    """A filter for entries that have one of the values, and that the filter `also` matches, if there is one."""
    name = _tlv(_OCTETS, attribute.encode())
    values_ = _tlv(_OR, b"".join([_tlv(_EQUALITY, name + _tlv(_OCTETS, value)) for value in values]))
    return _tlv(_AND, values_ + also) if also else values_


def any_of(attribute: str, also: bytes = b"") -> bytes:
    """A filter for entries that have the attribute at all, and that the filter `also` matches, if there is one."""
    present = _tlv(_PRESENT, attribute.encode())
    return _tlv(_AND, present + also) if also else present


def search(message_id: int, base: str, filter_: bytes, wanted: Sequence[str], seconds: int, most: int = 0) -> bytes:
    """A SearchRequest of the subtree below `base`; of `most` entries at most, 0 for all."""
    request = b"".join(
        (
            _tlv(_OCTETS, base.encode()),
            _tlv(_ENUMERATED, _SUBTREE),
            _tlv(_ENUMERATED, _NEVER_DEREFERENCE),
            _tlv(_INTEGER, _number(most)),
            _tlv(_INTEGER, _number(seconds)),
            _tlv(_BOOLEAN, b"\x00"),  # values too, not types only
            filter_,
            _tlv(_SEQUENCE, b"".join([_tlv(_OCTETS, each.encode()) for each in wanted])),
        )
    )
    return _tlv(_SEQUENCE, _tlv(_INTEGER, _number(message_id)) + _tlv(_SEARCH_REQUEST, request))


def take(data: bytes, message_id: int) -> tuple[list[Entry | Done | Reference], int]:
    """The answers to this search at the start of `data`, and how many bytes of it are used up.

    A message that is not all there yet is left. Raises Malformed.
    """
    answers: list[Entry | Done | Reference] = []
    begin = 0
    while True:
        if (header := _header(data, begin)) is None:
            return answers, begin
        tag, start, stop = header
        if tag != _SEQUENCE or stop - begin > MAX_MESSAGE:
            raise Malformed("not an LDAP message")
        if stop > len(data):
            return answers, begin
        _, start, id_stop = _inner(data, start, stop)
        if int.from_bytes(data[start:id_stop], "big") != message_id:
            raise Malformed("an answer to something else, or the server's notice of disconnection")
        tag, start, op_stop = _inner(data, id_stop, stop)
        if tag == _ENTRY:
            answers.append(Entry(_attributes(data, start, op_stop)))
        elif tag == _DONE:
            _, start, code_stop = _inner(data, start, op_stop)
            answers.append(Done(int.from_bytes(data[start:code_stop], "big")))
        elif tag == _REFERENCE:
            answers.append(Reference())
        elif tag != _INTERMEDIATE:
            raise Malformed("not an answer to a search")
        begin = stop


def _attributes(data: bytes, start: int, stop: int) -> dict[str, list[bytes]]:
    """PartialAttributeList: name and set of values of each attribute, after the entry's DN."""
    _, _, start = _inner(data, start, stop)
    _, start, stop = _inner(data, start, stop)
    found: dict[str, list[bytes]] = {}
    while start < stop:
        _, start, after = _inner(data, start, stop)
        _, name, name_stop = _inner(data, start, after)
        _, value, set_stop = _inner(data, name_stop, after)
        values = found.setdefault(_name(data[name:name_stop]), [])
        while value < set_stop:
            _, value, value_stop = _inner(data, value, set_stop)
            values.append(data[value:value_stop])
            value = value_stop
        start = after
    return found


@lru_cache(maxsize=64)
def _name(octets: bytes) -> str:
    """An attribute's name in lower case; those that we ask for are few."""
    return octets.decode("utf-8", "replace").lower()


def _inner(data: bytes, begin: int, limit: int) -> tuple[int, int, int]:
    """Tag, start and stop of the value of the element at `begin`, which must end within `limit`."""
    if begin + 2 <= limit and (length := data[begin + 1]) < 0x80:  # as nearly all are
        start, stop = begin + 2, begin + 2 + length
        if stop <= limit:
            return data[begin], start, stop
    header = _header(data, begin)
    if header is None or header[2] > limit:
        raise Malformed("an element is longer than what it is in")
    return header


def _header(data: bytes, begin: int) -> tuple[int, int, int] | None:
    """Tag, start and stop of the element at `begin`; None when its header is not all there.

    Only definite lengths are LDAP's (RFC 4511 section 5.1).
    """
    if begin + 2 > len(data):
        return None
    length = data[begin + 1]
    start = begin + 2
    if length >= 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 4:
            raise Malformed("no definite length")
        if start + octets > len(data):
            return None
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    return data[begin], start, start + length


def _tlv(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + value


def _number(value: int) -> bytes:
    """A non-negative INTEGER's content: a leading zero keeps the sign bit clear."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big")
