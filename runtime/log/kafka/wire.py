"""The requests of the hot path as octets: Produce v3 and Fetch v4, and what is answered; and what they need.

aiokafka describes each protocol version as a schema and walks it field by field in Python: 0.2 ms
for one Fetch and its answer, which at low rates is a fifth of a service's CPU. These are the oldest
versions that Kafka 4 still speaks (KIP-896) and every broker since 0.11 knows; a test compares
the octets with aiokafka's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812  # it is a class
from typing import NamedTuple

_SHORT = Struct(">h")
_LONG = Struct(">i")
_HEADER = Struct(">ihhih")  # size, API, version, number, length of the client's name
_ANSWER = Struct(">ii")  # size, number
_PRODUCE = Struct(">hhii")  # transactional id (null: length -1), acks, timeout, number of topics
_PARTITION_RECORDS = Struct(">ii")
_PRODUCED = Struct(">ihqq")
_FETCH = Struct(">iiiibi")  # replica -1, wait, least octets, most octets, isolation, number of topics
_FETCH_PARTITION = Struct(">iqi")
_FETCHED = Struct(">ihqqi")
_ABORTED = Struct(">qq")
_PRODUCER = Struct(">hi")  # transactional id (null: length -1), timeout of a transaction
_PRODUCER_ID = Struct(">ihqh")  # throttle time, error code, producer id, epoch

ALL_REPLICAS = -1
CONSUMER = -1
LARGEST = 64 * 1024 * 1024
"""Octets of an answer. A Fetch asks for 8 MiB at most, or one batch if that is larger."""


class Malformed(Exception):
    """These octets are not what a broker answers."""


class Request(NamedTuple):
    """A request of one version."""

    api: int
    version: int
    octets: bytes


class Produced(NamedTuple):
    """What became of one partition's batch."""

    topic: str
    partition: int
    code: int
    """Kafka's error code; 0: written."""
    offset: int
    """Of the batch's first record."""
    timestamp: int
    """The log's (LogAppendTime), milliseconds."""


class FetchedPart(NamedTuple):
    """What one partition has from the offset asked for."""

    partition: int
    code: int
    aborted: list[tuple[int, int]] | None
    """Producer id and first offset of transactions that were aborted."""
    octets: bytes
    """Record batches; the first may begin below the offset asked for, the last may be cut short."""


def frame(request: Request, number: int, client: bytes) -> bytes:
    """A request as it is sent, with the number by which its answer is known and the client's name."""
    api, version, octets = request
    return b"".join((_HEADER.pack(10 + len(client) + len(octets), api, version, number, len(client)), client, octets))


def frame_size(data: bytes, at: int) -> int:
    """How many octets the answer that begins here has in all; raises Malformed."""
    (size,) = _LONG.unpack_from(data, at)
    if not 4 <= size <= LARGEST:
        raise Malformed(f"an answer of {size} octets")
    return int(size) + 4


def numbered(data: bytes, at: int, size: int) -> tuple[int, bytes]:
    """The number and the content of an answer of that many octets in all."""
    return int(_ANSWER.unpack_from(data, at)[1]), data[at + _ANSWER.size : at + size]


def produce(timeout_ms: int, topics: Mapping[str, Sequence[tuple[int, bytes]]]) -> Request:
    """Writes batches of records, by topic; answered once all in-sync replicas have them."""
    parts = [_PRODUCE.pack(-1, ALL_REPLICAS, timeout_ms, len(topics))]
    for topic, partitions in topics.items():
        name = topic.encode()
        parts += (_SHORT.pack(len(name)), name, _LONG.pack(len(partitions)))
        for partition, records in partitions:
            parts += (_PARTITION_RECORDS.pack(partition, len(records)), records)
    return Request(0, 3, b"".join(parts))


def produced(data: bytes) -> list[Produced]:
    """The answer to `produce`; raises Malformed."""
    found: list[Produced] = []
    try:
        (topics,) = _LONG.unpack_from(data, 0)
        at = 4
        for _ in range(topics):
            topic, at = _string(data, at)
            (partitions,) = _LONG.unpack_from(data, at)
            at += 4
            for _ in range(partitions):
                found.append(Produced(topic, *_PRODUCED.unpack_from(data, at)))
                at += _PRODUCED.size
    except (StructError, UnicodeDecodeError) as error:
        raise Malformed("no answer to Produce") from error
    return found


def produce_throttle(data: bytes) -> float:
    """By the answer to `produce`, for how many seconds the broker reads nothing more of this connection: a quota."""
    return int(_LONG.unpack_from(data, len(data) - 4)[0]) / 1000 if len(data) >= 8 else 0.0


def fetch_throttle(data: bytes) -> float:
    """The same by the answer to `fetch`."""
    return int(_LONG.unpack_from(data, 0)[0]) / 1000 if len(data) >= 8 else 0.0


def fetch(
    topic: str,
    positions: Iterable[tuple[int, int]],
    *,
    wait_ms: int,
    most: int,
    most_per_partition: int,
    committed: bool,
) -> Request:
    """Reads partitions of one topic from offsets; answered as soon as there is anything, empty after `wait_ms`."""
    partitions = [_FETCH_PARTITION.pack(p, offset, most_per_partition) for p, offset in positions]
    name = topic.encode()
    head = (
        _FETCH.pack(CONSUMER, wait_ms, 1, most, int(committed), 1),
        _SHORT.pack(len(name)),
        name,
        _LONG.pack(len(partitions)),
    )
    return Request(1, 4, b"".join((*head, *partitions)))


def fetched(data: bytes) -> list[FetchedPart]:
    """The answer to `fetch`; raises Malformed."""
    found: list[FetchedPart] = []
    try:
        (topics,) = _LONG.unpack_from(data, 4)  # behind the throttle time
        at = 8
        for _ in range(topics):
            (length,) = _SHORT.unpack_from(data, at)
            at += 2 + max(length, 0)
            (partitions,) = _LONG.unpack_from(data, at)
            at += 4
            for _ in range(partitions):
                partition, code, _, _, count = _FETCHED.unpack_from(data, at)
                at += _FETCHED.size
                aborted = None if count < 0 else [_ABORTED.unpack_from(data, at + 16 * n) for n in range(count)]
                at += 16 * max(count, 0)
                (size,) = _LONG.unpack_from(data, at)
                at += 4
                size = max(size, 0)
                found.append(FetchedPart(partition, code, aborted, data[at : at + size]))
                at += size
    except StructError as error:
        raise Malformed("no answer to Fetch") from error
    return found


def ask_producer_id() -> Request:
    """Who we shall be to the brokers: InitProducerId v0, without a transactional id; any broker answers it."""
    return Request(22, 0, _PRODUCER.pack(-1, 0))


def producer_id(data: bytes) -> tuple[int, int, int]:
    """The answer to `ask_producer_id`: error code, producer id, epoch; raises Malformed."""
    try:
        _, code, id_, epoch = _PRODUCER_ID.unpack(data)
    except StructError as error:
        raise Malformed("no answer to InitProducerId") from error
    return code, id_, epoch


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _SHORT.unpack_from(data, at)
    at, length = at + 2, max(length, 0)
    return data[at : at + length].decode(), at + length
