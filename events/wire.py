"""Bytes of records: JSON values, CloudEvents 1.0 attributes as headers (Kafka binding, binary mode).

`decode` of anything raises `Poisoned` and nothing else, so that a consumer can dead-letter it and go on.
"""

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar, overload

import msgspec

Header = tuple[str, bytes]
Headers = Sequence[Header]
T = TypeVar("T")

COMMAND_OFFSET = "s"
"""Header of `registrations`: the offset of the command that this record answers."""
CLAIM = "c"
"""Header of `registrations`: the claim of the record's writer."""

VERSION = 1
"""Of all schemas of what happened."""

_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class Poisoned(ValueError):
    """A record that no reader can make sense of; the cause is for the dead letter, not for a phone."""


class Decoder(Generic[T]):
    """Decodes and validates values of one type or tagged union."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, value: bytes | None) -> T:
        """The typed value; raises Poisoned."""
        if value is None:
            raise Poisoned("the record has no value")
        try:
            return self._decode(value)  # type: ignore[no-any-return]  # msgspec cannot type a runtime union
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Poisoned(str(error)) from error


def cloud_event(kind: str, source: str, id_: str) -> tuple[Header, ...]:
    """The CloudEvents headers of a record: `kind` is the value's tag, `source` the service that wrote it.

    There is no ce_time: the record's timestamp is the log's (LogAppendTime), the one clock.
    """
    before, after = _attributes(kind, source)
    return (*before, ("ce_id", id_.encode("utf-8", "surrogateescape")), *after)


class Happened(Sequence[Header]):
    """The CloudEvents headers of what happened to a subject (a Call-ID) at a time in milliseconds since 1970.

    `ce_dataschema` names the version of the kind's schema (docs/events): a change that breaks readers is another one.
    `ce_traceparent` (W3C Trace Context, by CloudEvents' extension of distributed tracing) makes one trace of a subject;
    the span is the event. `id_` begins with 16 hex digits.

    They are pairs, and at once the octets that Kafka has in a record: nearly all are the same for all records of a
    kind, and written one by one they cost more than all else of a record (docs/benchmark.md).
    """

    __slots__ = ("_facts", "octets")

    def __init__(self, kind: str, source: str, id_: str, subject: str, at: int) -> None:
        self._facts = kind, source, id_, subject, at
        id_octets, name = id_.encode(), subject.encode("utf-8", "replace")
        self.octets = _template(kind, source) % (
            varint(len(id_octets)), id_octets, varint(len(name)), name, _second(at // 1000), at % 1000,
            _trace(subject), id_octets[:16],
        )  # fmt: skip
        """Their number, then of each the lengths and octets of name and value."""

    def _pairs(self) -> tuple[Header, ...]:
        kind, source, id_, subject, at = self._facts
        version, type_, source_, content, schema = _fixed(kind, source)
        return (
            version,
            ("ce_id", id_.encode()),
            type_,
            source_,
            content,
            ("ce_subject", subject.encode("utf-8", "replace")),
            ("ce_time", b"%b.%03dZ" % (_second(at // 1000), at % 1000)),
            schema,
            ("ce_traceparent", b"00-%b-%b-00" % (_trace(subject), id_[:16].encode())),
        )

    def __len__(self) -> int:
        return _HEADERS

    def __iter__(self) -> Iterator[Header]:
        return iter(self._pairs())

    @overload
    def __getitem__(self, index: int) -> Header: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Header]: ...
    def __getitem__(self, index: int | slice) -> Header | Sequence[Header]:
        return self._pairs()[index]


_HEADERS = 9


@cache
def _template(kind: str, source: str) -> bytes:
    """All headers of a kind as octets, for what is different: id and subject with their lengths, time, trace."""
    version, type_, source_, content, schema = _fixed(kind, source)
    parts = (
        _fill(varint(_HEADERS) + _header(*version) + _name("ce_id")), b"%b%b",
        _fill(_header(*type_) + _header(*source_) + _header(*content) + _name("ce_subject")), b"%b%b",
        _fill(_name("ce_time") + varint(len("2026-01-01T00:00:00.000Z"))), b"%b.%03dZ",
        _fill(_header(*schema) + _name("ce_traceparent") + varint(2 + 1 + 32 + 1 + 16 + 1 + 2)), b"00-%b-%b-00",
    )  # fmt: skip
    return b"".join(parts)


def _fill(octets: bytes) -> bytes:
    """As they stand in a format."""
    return octets.replace(b"%", b"%%")


def _name(name: str) -> bytes:
    return varint(len(name)) + name.encode()


def _header(name: str, value: bytes) -> bytes:
    return _name(name) + varint(len(value)) + value


def varint(number: int) -> bytes:
    """A length as a record of Kafka has it: signed, seven bits an octet, the lowest first."""
    return VARINTS[number] if number < _SHORT else _varint(number)


def _varint(number: int) -> bytes:
    number, octets = number << 1, bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


_SHORT = 8192
VARINTS = tuple(map(_varint, range(_SHORT)))
"""Those of all lengths that are usual."""


def dated(kind: str, source: str, id_: str, subject: str, at: int) -> tuple[Header, ...]:
    """The CloudEvents headers of what is of a time, and of no call's trace; without a subject where it is ""."""
    headers = (
        *_fixed(kind, source),
        ("ce_id", id_.encode()),
        ("ce_time", b"%b.%03dZ" % (_second(at // 1000), at % 1000)),
    )
    return (*headers, ("ce_subject", subject.encode("utf-8", "replace"))) if subject else headers


@lru_cache(maxsize=4096)
def _trace(subject: str) -> bytes:
    """The id of a subject's trace: whoever tells of one call makes the same."""
    return hashlib.blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()


@lru_cache(maxsize=64)
def _second(seconds: int) -> bytes:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


@cache
def _fixed(kind: str, source: str) -> tuple[Header, ...]:
    """What is the same for all that happened of a kind."""
    before, after = _attributes(kind, source)
    schema = f"urn:ramal:{kind.removeprefix('ramal.')}:{VERSION}"
    return (*before, *after, ("ce_dataschema", schema.encode()))


@cache
def _attributes(kind: str, source: str) -> tuple[tuple[Header, ...], tuple[Header, ...]]:
    """What is the same for every record of a kind; kinds and sources are names of ours, so few."""
    return (("ce_specversion", b"1.0"),), (
        ("ce_type", kind.encode()),
        ("ce_source", source.encode()),
        ("content-type", b"application/json"),
    )


def header(headers: Iterable[Header], name: str) -> bytes | None:
    """The value of the first header of that name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def int_header(headers: Iterable[Header], name: str) -> int:
    """A header that is a decimal number; raises Poisoned when absent or not one."""
    value = header(headers, name)
    if value is None or not value.isdigit():
        raise Poisoned(f"header {name} is not a number")
    return int(value)
