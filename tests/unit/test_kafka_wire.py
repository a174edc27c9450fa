"""Our octets of Produce and Fetch are those of aiokafka's own classes for the same versions, both ways."""

from io import BytesIO

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v4
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v3
from hypothesis import given
from hypothesis import strategies as st

from runtime.log.kafka_wire import Fetch, FetchedPart, Produce, Produced

NAMES = st.text("abc.-é", min_size=1, max_size=20)
INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(0, 2**63 - 1)
CODES = st.integers(-1, 120)


@given(st.integers(1, 60_000), st.dictionaries(NAMES, st.lists(st.tuples(INT32, st.binary(max_size=50)), max_size=4)))
def test_produce_is_written_as_aiokafka_writes_it(timeout: int, topics: dict[str, list[tuple[int, bytes]]]) -> None:
    theirs = ProduceRequest(None, -1, timeout, list(topics.items())).prepare({0: (3, 3)})

    ours = Produce(timeout, topics).prepare({0: (3, 12)})

    assert ours.encode() == theirs.encode()
    assert (
        ours.build_request_header(7, "ramal-edge").encode()
        == theirs.build_request_header(correlation_id=7, client_id="ramal-edge").encode()
    )


@given(NAMES, st.lists(st.tuples(INT32, INT64), max_size=6), INT32, st.booleans())
def test_fetch_is_written_as_aiokafka_writes_it(
    topic: str, positions: list[tuple[int, int]], most: int, committed: bool
) -> None:
    asked = [(partition, offset, 1000) for partition, offset in positions]
    theirs = FetchRequest(500, 1, most, int(committed), [(topic, asked)]).prepare({1: (4, 4)})

    ours = Fetch(topic, positions, wait_ms=500, most=most, most_per_partition=1000, committed=committed)

    assert ours.encode() == theirs.encode()


@given(st.lists(st.tuples(NAMES, st.lists(st.tuples(INT32, CODES, INT64, INT64), max_size=4)), max_size=3))
def test_what_became_of_a_produce_is_read(topics: list[tuple[str, list[tuple[int, int, int, int]]]]) -> None:
    octets = ProduceResponse_v3(topics, 0).encode()

    assert Produce.RESPONSE_TYPE.decode(BytesIO(octets)) == [
        Produced(topic, *partition) for topic, partitions in topics for partition in partitions
    ]


@given(
    st.lists(
        st.tuples(INT32, CODES, INT64, INT64, st.lists(st.tuples(INT64, INT64), max_size=3), st.binary(max_size=60)),
        max_size=5,
    )
)
def test_what_was_fetched_is_read(
    partitions: list[tuple[int, int, int, int, list[tuple[int, int]], bytes]],
) -> None:
    octets = FetchResponse_v4(0, [("topic", partitions)]).encode()

    assert Fetch.RESPONSE_TYPE.decode(BytesIO(octets)) == [
        FetchedPart(partition, code, aborted, records) for partition, code, _, _, aborted, records in partitions
    ]


def test_an_absent_batch_is_an_empty_one() -> None:
    octets = FetchResponse_v4(0, [("t", [(1, 3, -1, -1, [], None)])]).encode()

    assert Fetch.RESPONSE_TYPE.decode(BytesIO(octets)) == [FetchedPart(1, 3, [], b"")]


def test_a_broker_that_does_not_speak_our_version_is_named() -> None:
    with pytest.raises(IncompatibleBrokerVersion, match="versions 5 to 17"):
        Fetch("t", [], wait_ms=1, most=1, most_per_partition=1, committed=False).prepare({1: (5, 17)})
