"""Batches of records with prepared headers: octet for octet what aiokafka's builder makes of their pairs."""

from collections.abc import Sequence

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from events.topics import CALLS
from events.wire import Happened
from runtime.log.kafka.records import batch, prepared
from runtime.log.port import Append

LATEST = 253_402_300_799_999
KINDS = st.sampled_from(["ramal.CallEnded", "ramal.CallAttempted", "100%"])
HEADERS = st.builds(
    Happened, KINDS, st.sampled_from(["edge", "cdr"]), st.text("0123456789abcdef", min_size=16, max_size=40),
    st.text(max_size=80) | st.just("c" * 9000), st.integers(0, LATEST),
)  # fmt: skip
OCTETS = st.none() | st.binary(max_size=200) | st.sampled_from([b"v" * 8191, b"v" * 8192, b"v" * 70_000])
RECORDS = st.lists(st.builds(Append, st.just(CALLS), st.just(0), OCTETS, OCTETS, HEADERS), min_size=1, max_size=8)


def built(records: Sequence[Append], codec: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, 7, 3, 41, 1 << 30)
    for number, record in enumerate(records):
        builder.append(number, 0, record.key, record.value, [*record.headers])
    return bytes(builder.build())


def read(octets: bytes) -> list[tuple[object, ...]]:
    there = MemoryRecords(octets).next_batch()
    assert there is not None
    assert there.validate_crc()
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in there]


@given(RECORDS)
def test_a_batch_of_prepared_records_is_that_of_aiokafka(records: list[Append]) -> None:
    assert batch(records, 7, 3, 41, dense=False) == built(records, 0)


@given(RECORDS)
def test_a_compressed_batch_is_read_as_that_of_aiokafka_and_is_no_larger(records: list[Append]) -> None:
    octets, theirs = batch(records, 7, 3, 41, dense=True), built(records, 2)

    assert len(octets) <= len(theirs)
    assert read(octets) == read(theirs)


def test_a_batch_of_more_records_than_short_lengths_is_that_of_aiokafka() -> None:
    headers = Happened("ramal.CallEnded", "edge", "ab" * 16, "c@x", 1)
    records = [Append(CALLS, 0, b"k", b"%d" % n, headers) for n in range(8300)]

    octets = batch(records, 7, 3, 41, dense=True)

    assert octets == built(records, 2)
    assert [value for _, _, _, value, _ in read(octets)] == [r.value for r in records]


@given(HEADERS)
def test_prepared_headers_are_a_sequence_of_pairs(headers: Happened) -> None:
    pairs = list(headers)

    assert len(headers) == len(pairs) == 9
    assert (headers[0], headers[-1], headers[2:4]) == (pairs[0], pairs[-1], tuple(pairs[2:4]))


def test_records_with_other_headers_are_not_prepared() -> None:
    headers = Happened("ramal.CallEnded", "edge", "ab" * 16, "c@x", 1)

    assert prepared([Append(CALLS, 0, b"k", b"v", headers)])
    assert not prepared([Append(CALLS, 0, b"k", b"v", headers), Append(CALLS, 0, b"k", b"v")])


def test_what_is_no_octets_is_its_callers_error() -> None:
    headers = Happened("ramal.CallEnded", "edge", "ab" * 16, "c@x", 1)
    with pytest.raises(TypeError):
        batch([Append(CALLS, 0, b"k", "no octets", headers)], 7, 3, 41, dense=False)  # type: ignore[arg-type]
