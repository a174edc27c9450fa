"""Brokers that answer over the wire as a test says: a log with Kafka's rule of sequence numbers, and staged errors."""

import asyncio
import contextlib
import dataclasses
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.fetch import FetchRequest_v4, FetchResponse_v4
from aiokafka.protocol.metadata import MetadataResponse_v1
from aiokafka.protocol.offset import OffsetRequest_v2, OffsetResponse_v2
from aiokafka.protocol.produce import ProduceRequest_v3, ProduceResponse_v3
from aiokafka.protocol.transaction import InitProducerIdResponse_v0
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

HOST = "127.0.0.1"
PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS, PRODUCER_ID = 0, 1, 2, 3, 18, 22
SPOKEN = {PRODUCE: 3, FETCH: 4, LIST_OFFSETS: 2, METADATA: 1, API_VERSIONS: 0, PRODUCER_ID: 0}
NONE, OFFSET_OUT_OF_RANGE, NOT_LEADER, OUT_OF_ORDER, INVALID_EPOCH = 0, 1, 6, 45, 47
STAMP = 1_700_000_000_000
LOOK = 0.005
"""Seconds between two looks for records that a Fetch waits for."""


@dataclasses.dataclass(frozen=True)
class Error:
    """What one request hears about a partition."""

    code: int
    written: bool = False
    """Whether its records are appended all the same."""
    offset: int = -1
    after: float = 0.0
    """Seconds until it is told."""


class Partition:
    """A partition's log, the same on all brokers, and what is staged for it."""

    def __init__(self) -> None:
        self.leader = 1
        self.values: list[bytes] = []
        self.octets: list[bytes] = []
        """One batch for each record."""
        self.staged: dict[int, list[Error]] = {}
        """By request."""
        self.asked: Counter[int] = Counter()
        self.fetches: list[int] = []
        """The offsets that were asked for."""
        self.producers: dict[int, tuple[int, int, int, int]] = {}
        """By id: epoch, first and last sequence number of the last batch, and its offset."""
        self.batches: list[tuple[int, int, int, int]] = []
        """All that were sent: producer id, epoch, first sequence number, count."""

    def append(self, octets: bytes) -> tuple[int, int]:
        """Error code and offset; a batch that stands there already is not appended."""
        batch = MemoryRecords(octets).next_batch()
        assert batch is not None
        assert batch.validate_crc()
        id_, epoch, first = batch.producer_id, batch.producer_epoch, batch.base_sequence
        values = [record.value for record in batch]
        before = self.producers.get(id_)
        last = (first + len(values) - 1) % 2**31
        if before is not None:
            if epoch < before[0]:
                return INVALID_EPOCH, -1
            if before[:3] == (epoch, first, last):
                return NONE, before[3]
            if first != (0 if epoch > before[0] else (before[2] + 1) % 2**31):
                return OUT_OF_ORDER, -1
        offset = len(self.values)
        self.producers[id_] = epoch, first, last, offset
        for value in values:
            self.octets.append(one_record(len(self.values), value))
            self.values.append(value)
        return NONE, offset

    def next_error(self, request: int) -> Error | None:
        self.asked[request] += 1
        staged = self.staged.get(request)
        return staged.pop(0) if staged else None


def one_record(offset: int, value: bytes) -> bytes:
    """A batch of one record, as a broker has it."""

    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    builder.append(0, STAMP, b"k", value, [])
    return struct.pack(">q", offset) + bytes(builder.build())[8:]


class Brokers:
    """Two brokers with one log. A request to the one that does not lead hears NOT_LEADER_OR_FOLLOWER."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = topic
        self.partitions = {number: Partition() for number in range(partitions)}
        self.ports: dict[int, int] = {}
        self.asked: Counter[int] = Counter()
        """How often each kind of request came."""
        self.told: dict[int, int] = {}
        """Leaders that metadata tells, where it is behind."""
        self.producer_ids = [Error(NONE)]
        """What is answered to InitProducerId, the last one for ever."""
        self._ids = 100
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.ports[1]}"

    async def start(self) -> None:
        for node in (1, 2):
            server = await asyncio.start_server(lambda r, w, node=node: self._serve(node, r, w), HOST, 0)
            self._servers.append(server)
            self.ports[node] = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(server.wait_closed() for server in self._servers))

    async def _serve(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                octets = await reader.readexactly(size)
                api, version, number, name = struct.unpack_from(">hhih", octets)
                assert SPOKEN[api] == version
                self.asked[api] += 1
                content = await self._answer(node, api, octets[10 + max(name, 0) :])
                writer.write(struct.pack(">ii", 4 + len(content), number) + content)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, node: int, api: int, body: bytes) -> bytes:
        if api == PRODUCE:
            return await self._produce(node, ProduceRequest_v3.decode(body))
        if api == FETCH:
            return await self._fetch(node, FetchRequest_v4.decode(body))
        if api == LIST_OFFSETS:
            return self._list_offsets(node, OffsetRequest_v2.decode(body))
        if api == METADATA:
            return self._metadata()
        if api == PRODUCER_ID:
            error = self.producer_ids[0] if len(self.producer_ids) == 1 else self.producer_ids.pop(0)
            self._ids += 1
            encoded: bytes = InitProducerIdResponse_v0(0, error.code, -1 if error.code else self._ids, 0).encode()
            return encoded
        spoken: bytes = ApiVersionResponse_v0(0, [(key, version, version) for key, version in SPOKEN.items()]).encode()
        return spoken

    def _metadata(self) -> bytes:
        brokers = [(node, HOST, port, None) for node, port in self.ports.items()]
        parts = [
            (0, number, self.told.get(number, part.leader), [1, 2], [1, 2]) for number, part in self.partitions.items()
        ]
        encoded: bytes = MetadataResponse_v1(brokers, 1, [(0, self.topic, False, parts)]).encode()
        return encoded

    async def _produce(self, node: int, request: ProduceRequest_v3) -> bytes:
        answers = []
        for topic, partitions in request.topics:
            parts = []
            for number, octets in partitions:
                part = self.partitions[number]
                batch = MemoryRecords(octets).next_batch()
                assert batch is not None
                count = len(list(batch))
                part.batches.append((batch.producer_id, batch.producer_epoch, batch.base_sequence, count))
                code, offset = NOT_LEADER, -1
                if part.leader == node:
                    error = part.next_error(PRODUCE)
                    if error is None or error.written:
                        code, offset = part.append(octets)
                    if error is not None:
                        code, offset = error.code, error.offset
                        await asyncio.sleep(error.after)
                parts.append((number, code, offset, STAMP))
            answers.append((topic, parts))
        encoded: bytes = ProduceResponse_v3(answers, 0).encode()
        return encoded

    async def _fetch(self, node: int, request: FetchRequest_v4) -> bytes:
        wanted = [(self.partitions[n], offset) for _, partitions in request.topics for n, offset, _ in partitions]
        for part, offset in wanted:
            part.fetches.append(offset)
        errors = {part: part.next_error(FETCH) for part, _ in wanted if part.leader == node}
        until = time.monotonic() + request.max_wait_time / 1000
        while not any(errors.values()) and time.monotonic() < until:
            if any(part.leader != node or offset != len(part.values) for part, offset in wanted):
                break
            await asyncio.sleep(LOOK)
        answers = []
        for topic, partitions in request.topics:
            parts = []
            for number, offset, _ in partitions:
                part = self.partitions[number]
                error = errors[part] if part.leader == node else Error(NOT_LEADER)
                code = error.code if error else NONE if 0 <= offset <= len(part.values) else OFFSET_OUT_OF_RANGE
                octets = b"" if code else b"".join(part.octets[offset:])
                parts.append((number, code, len(part.values), len(part.values), None, octets))
            answers.append((topic, parts))
        encoded: bytes = FetchResponse_v4(0, answers).encode()
        return encoded

    def _list_offsets(self, node: int, request: OffsetRequest_v2) -> bytes:
        [(topic, [(number, timestamp)])] = request.topics
        part = self.partitions[number]
        error = part.next_error(LIST_OFFSETS) if part.leader == node else Error(NOT_LEADER)
        offset = -1 if error else 0 if timestamp == -2 else len(part.values)
        encoded: bytes = OffsetResponse_v2(0, [(topic, [(number, error.code if error else 0, STAMP, offset)])]).encode()
        return encoded


@contextlib.asynccontextmanager
async def brokers(
    topic: str, partitions: int, staged: Mapping[int, Mapping[int, list[Error]]]
) -> AsyncIterator[Brokers]:
    """Running brokers; `staged` errors by request and partition."""
    both = Brokers(topic, partitions)
    for request, by_partition in staged.items():
        for number, errors in by_partition.items():
            both.partitions[number].staged[request] = list(errors)
    await both.start()
    try:
        yield both
    finally:
        await both.stop()
