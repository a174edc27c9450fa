"""Our octets of Produce, Fetch and InitProducerId are those of aiokafka's classes for the same versions, both ways."""

from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v4
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v3
from aiokafka.protocol.transaction import InitProducerIdRequest, InitProducerIdResponse_v0
from hypothesis import given
from hypothesis import strategies as st

from runtime.log.kafka.wire import (
    LARGEST,
    FetchedPart,
    Malformed,
    Produced,
    Request,
    ask_producer_id,
    fetch,
    fetched,
    frame,
    frame_size,
    numbered,
    produce,
    produced,
    producer_id,
)

NAMES = st.text("abc.-é", min_size=1, max_size=20)
INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(0, 2**63 - 1)
CODES = st.integers(-1, 120)


def sent(request: Any, number: int, client: str) -> bytes:
    """A request of aiokafka's, prepared, as its connection sends it."""
    content: bytes = request.build_request_header(correlation_id=number, client_id=client).encode() + request.encode()
    return len(content).to_bytes(4, "big") + content


@given(
    st.integers(1, 60_000),
    st.dictionaries(NAMES, st.lists(st.tuples(INT32, st.binary(max_size=50)), max_size=4)),
    INT32,
    NAMES,
)
def test_produce_is_written_as_aiokafka_writes_it(
    timeout: int, topics: dict[str, list[tuple[int, bytes]]], number: int, client: str
) -> None:
    theirs = ProduceRequest(None, -1, timeout, list(topics.items())).prepare({0: (3, 3)})

    assert frame(produce(timeout, topics), number, client.encode()) == sent(theirs, number, client)


@given(NAMES, st.lists(st.tuples(INT32, INT64), max_size=6), st.booleans(), INT32, NAMES)
def test_fetch_is_written_as_aiokafka_writes_it(
    topic: str, positions: list[tuple[int, int]], committed: bool, number: int, client: str
) -> None:
    asked = [(topic, [(partition, offset, 1000) for partition, offset in positions])]
    theirs = FetchRequest(500, 1, 8000, int(committed), asked).prepare({1: (4, 4)})
    ours = fetch(topic, positions, wait_ms=500, most=8000, most_per_partition=1000, committed=committed)

    assert frame(ours, number, client.encode()) == sent(theirs, number, client)


@given(st.lists(st.tuples(NAMES, st.lists(st.tuples(INT32, CODES, INT64, INT64), max_size=4)), max_size=3))
def test_the_answer_to_produce_is_read_as_aiokafka_writes_it(
    topics: list[tuple[str, list[tuple[int, int, int, int]]]],
) -> None:
    octets = ProduceResponse_v3(topics, 7).encode()

    assert produced(octets) == [Produced(topic, *rest) for topic, parts in topics for rest in parts]


ABORTED = st.none() | st.lists(st.tuples(INT64, INT64), max_size=3)


@given(NAMES, st.lists(st.tuples(INT32, CODES, ABORTED, st.binary(max_size=60)), max_size=5))
def test_the_answer_to_fetch_is_read_as_aiokafka_writes_it(
    topic: str, parts: list[tuple[int, int, list[tuple[int, int]] | None, bytes]]
) -> None:
    answer = [(partition, code, 9, 9, aborted, records) for partition, code, aborted, records in parts]
    octets = FetchResponse_v4(0, [(topic, answer)]).encode()

    assert fetched(octets) == [FetchedPart(*part) for part in parts]


@given(INT32, st.binary(max_size=40), st.binary(max_size=20))
def test_an_answer_s_frame_gives_its_number_and_content(number: int, content: bytes, behind: bytes) -> None:
    data = (4 + len(content)).to_bytes(4, "big") + number.to_bytes(4, "big") + content + behind

    size = frame_size(data, 0)

    assert numbered(data, 0, size) == (number, content)


@pytest.mark.parametrize("size", [-1, 0, 3, LARGEST + 1])
def test_a_frame_of_an_impossible_size_is_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        frame_size(size.to_bytes(4, "big", signed=True), 0)


@given(st.binary(max_size=120))
def test_any_octets_are_an_answer_or_malformed(octets: bytes) -> None:
    for read in (produced, fetched, producer_id):
        try:
            read(octets)
        except Malformed:
            continue


def test_what_was_cut_short_is_malformed() -> None:
    octets = ProduceResponse_v3([("topic", [(0, 0, 1, 2)])], 0).encode()
    with pytest.raises(Malformed):
        produced(octets[:20])
    octets = FetchResponse_v4(0, [("topic", [(0, 0, 9, 9, None, b"records")])]).encode()
    with pytest.raises(Malformed):
        fetched(octets[:30])


def test_a_request_names_its_version() -> None:
    assert (produce(1, {}).api, produce(1, {}).version) == (0, 3)
    assert isinstance(produce(1, {}), Request)


def test_the_request_for_a_producer_id_is_written_as_aiokafka_writes_it() -> None:
    theirs = InitProducerIdRequest(None, 0).prepare({22: (0, 0)})

    assert frame(ask_producer_id(), 5, b"me") == sent(theirs, 5, "me")


@given(CODES, INT64, CODES)
def test_a_producer_id_is_read_as_aiokafka_writes_it(code: int, id_: int, epoch: int) -> None:
    assert producer_id(InitProducerIdResponse_v0(0, code, id_, epoch).encode()) == (code, id_, epoch)
