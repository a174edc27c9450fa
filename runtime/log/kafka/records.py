"""Record batches (KIP-98, magic 2) whose records have prepared headers, as octets.

aiokafka's builder, which is C, takes headers one by one: of a record of `calls` with its nine that is most of the work.
A test compares the octets with aiokafka's own.
"""

from collections.abc import Sequence
from struct import Struct

from aiokafka.codec import snappy_encode
from aiokafka.record.util import calc_crc32c

from events.wire import VARINTS, Happened, varint
from runtime.log.port import Append

_HEAD = Struct(">qiib")
"""First offset (the broker sets it), octets behind these two, the leader's epoch (-1: unknown), magic."""
_CRC = Struct(">I")
_BODY = Struct(">hiqqqhii")
"""Attributes, the last record's number, first and last timestamp, producer id, epoch, sequence number, count."""
_AFTER_LENGTH = _HEAD.size - 12 + _CRC.size
_SNAPPY = 2
_FIRST = b"\0\0"
"""Of each record: no attributes, and no time, for the log's is the one that counts."""
_NONE = b"\x01"
"""The length -1: no key, or no value."""


def prepared(records: Sequence[Append]) -> bool:
    """Whether all of them can be written here."""
    return {type(record.headers) for record in records} == {Happened}


def batch(records: Sequence[Append], producer: int, epoch: int, sequence: int, *, dense: bool) -> bytes:
    """A batch of records with prepared headers; `dense`: compressed by snappy, where that saves anything."""
    parts: list[bytes] = []
    number, usual, join = 0, VARINTS, b"".join
    for _, _, key, value, headers in records:
        written = headers.octets  # type: ignore[attr-defined]  # see `prepared`
        try:
            octets = join((_FIRST, usual[number], usual[len(key)], key, usual[len(value)], value, written))  # type: ignore[arg-type]
        except (IndexError, TypeError):  # something is long, or not there
            octets = join((_FIRST, varint(number), _sized(key), _sized(value), written))
        parts += (varint(len(octets)), octets)
        number += 1
    octets, attributes = b"".join(parts), 0
    if dense and len(packed := snappy_encode(octets)) < len(octets):
        octets, attributes = packed, _SNAPPY
    body = _BODY.pack(attributes, number - 1, 0, 0, producer, epoch, sequence, number) + octets
    return _HEAD.pack(0, _AFTER_LENGTH + len(body), -1, 2) + _CRC.pack(calc_crc32c(body)) + body


def _sized(octets: bytes | None) -> bytes:
    return _NONE if octets is None else varint(len(octets)) + octets
