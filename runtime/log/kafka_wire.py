"""The two requests of the hot path as octets: Produce v3 and Fetch v4, and what is answered.

aiokafka describes each protocol version as a schema and walks it field by field in Python: 0.2 ms
for one Fetch and its answer, which at low rates is a fifth of a service's CPU. These are the oldest
versions that Kafka 4 still speaks (KIP-896) and every broker since 0.11 knows; a test compares
the octets with aiokafka's own.

They stand in for aiokafka's request classes: `AIOKafkaConnection.send` asks for `prepare`,
`build_request_header`, `encode`, `parse_response_header` and `RESPONSE_TYPE.decode`.
"""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from struct import Struct
from typing import Any, NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion

_SHORT = Struct(">h")
_LONG = Struct(">i")
_CORRELATION = Struct(">i")
_HEADER = Struct(">hhi")
_PRODUCE = Struct(">hhii")  # transactional id (null: length -1), acks, timeout, number of topics
_PARTITION_RECORDS = Struct(">ii")
_PRODUCED = Struct(">ihqq")
_FETCH = Struct(">iiiibi")  # replica -1, wait, least octets, most octets, isolation, number of topics
_FETCH_PARTITION = Struct(">iqi")
_FETCHED = Struct(">ihqqi")
_ABORTED = Struct(">qq")

ALL_REPLICAS = -1
CONSUMER = -1


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


class _Header(NamedTuple):
    correlation_id: int
    octets: bytes = b""

    def encode(self) -> bytes:
        return self.octets


class _Exact:
    """A request of one version whose octets are already made."""

    API_KEY: int
    API_VERSION: int
    RESPONSE_TYPE: Any

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> "_Exact":
        """Itself, where the broker speaks this version. Raises IncompatibleBrokerVersion."""
        least, most = versions.get(self.API_KEY, (-1, -1))
        if not least <= self.API_VERSION <= most:
            raise IncompatibleBrokerVersion(
                f"the broker speaks versions {least} to {most} of API {self.API_KEY}, not {self.API_VERSION}"
            )
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Header:
        name = client_id.encode()
        octets = _HEADER.pack(self.API_KEY, self.API_VERSION, correlation_id) + _SHORT.pack(len(name)) + name
        return _Header(correlation_id, octets)

    def encode(self) -> bytes:
        return self._octets

    def parse_response_header(self, octets: BytesIO) -> _Header:
        return _Header(_CORRELATION.unpack(octets.read(4))[0])


class _ProduceAnswer:
    @staticmethod
    def decode(octets: BytesIO) -> list[Produced]:
        data = octets.read()
        produced: list[Produced] = []
        (topics,) = _LONG.unpack_from(data, 0)
        at = 4
        for _ in range(topics):
            topic, at = _string(data, at)
            (partitions,) = _LONG.unpack_from(data, at)
            at += 4
            for _ in range(partitions):
                produced.append(Produced(topic, *_PRODUCED.unpack_from(data, at)))
                at += _PRODUCED.size
        return produced


class Produce(_Exact):
    """Writes batches of records; answered once all in-sync replicas have them."""

    API_KEY, API_VERSION = 0, 3
    RESPONSE_TYPE = _ProduceAnswer

    def __init__(self, timeout_ms: int, topics: Mapping[str, Sequence[tuple[int, bytes]]]) -> None:
        parts = [_PRODUCE.pack(-1, ALL_REPLICAS, timeout_ms, len(topics))]
        for topic, partitions in topics.items():
            name = topic.encode()
            parts += (_SHORT.pack(len(name)), name, _LONG.pack(len(partitions)))
            for partition, records in partitions:
                parts += (_PARTITION_RECORDS.pack(partition, len(records)), records)
        super().__init__(b"".join(parts))


class _FetchAnswer:
    @staticmethod
    def decode(octets: BytesIO) -> list[FetchedPart]:
        data = octets.read()
        fetched: list[FetchedPart] = []
        (topics,) = _LONG.unpack_from(data, 4)  # behind the throttle time
        at = 8
        for _ in range(topics):
            _, at = _string(data, at)
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
                fetched.append(FetchedPart(partition, code, aborted, data[at : at + size]))
                at += size
        return fetched


class Fetch(_Exact):
    """Reads partitions of one topic from offsets; answered as soon as there is anything, empty after `wait_ms`."""

    API_KEY, API_VERSION = 1, 4
    RESPONSE_TYPE = _FetchAnswer

    def __init__(
        self,
        topic: str,
        positions: Iterable[tuple[int, int]],
        *,
        wait_ms: int,
        most: int,
        most_per_partition: int,
        committed: bool,
    ) -> None:
        partitions = b"".join(_FETCH_PARTITION.pack(p, offset, most_per_partition) for p, offset in positions)
        name = topic.encode()
        super().__init__(
            _FETCH.pack(CONSUMER, wait_ms, 1, most, int(committed), 1)
            + _SHORT.pack(len(name))
            + name
            + _LONG.pack(len(partitions) // _FETCH_PARTITION.size)
            + partitions
        )


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _SHORT.unpack_from(data, at)
    at += 2
    return data[at : at + length].decode(), at + length
