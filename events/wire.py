"""Bytes of records: JSON values, CloudEvents 1.0 attributes as headers (Kafka binding, binary mode).

`decode` of anything raises `Poisoned` and nothing else, so that a consumer can dead-letter it and go on.
"""

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar

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


def happened(kind: str, source: str, id_: str, subject: str, at: int) -> tuple[Header, ...]:
    """The CloudEvents headers of what happened to a subject (a Call-ID) at a time in milliseconds since 1970.

    `ce_dataschema` names the version of the kind's schema (docs/events): a change that breaks readers is another one.
    `ce_traceparent` (W3C Trace Context, by CloudEvents' extension of distributed tracing) makes one trace of a subject;
    the span is the event. `id_` begins with 16 hex digits.
    """
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
