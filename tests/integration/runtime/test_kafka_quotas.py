"""Quotas of a real broker: what it holds back waits here, is told as what it is, and goes over the same connection."""

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from random import Random

import pytest

from events.topics import AUDIT
from ramal.backends import KafkaServer
from runtime.config import Kafka
from runtime.errors import LogUnavailable
from runtime.log.kafka.link import Links
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append

pytestmark = pytest.mark.integration

ALTER_CLIENT_QUOTAS = 49
RATE = 10_000
"""Octets a second: the broker reckons over 10 s, so what is more than 100,000 at once is held back for the rest."""
RECORDS = [Append(AUDIT, 0, b"k", random.randbytes(1000)) for random in map(Random, range(135))]


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


async def limit(kafka: KafkaServer, client: str, key: str, *, remove: bool = False) -> None:
    """Gives a client id a quota of RATE; no client here has a call for it."""
    entity = struct.pack(">i", 1) + text("client-id") + text(client)
    body = struct.pack(">i", 1) + entity + struct.pack(">i", 1) + text(key) + struct.pack(">d?", RATE, remove) + b"\0"
    head = struct.pack(">hhi", ALTER_CLIENT_QUOTAS, 0, 7) + text("test")
    host, _, port = kafka.bootstrap.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    _, _, _, code = struct.unpack_from(">iiih", await reader.readexactly(size))
    writer.close()
    assert code == 0


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
async def log(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap, request_timeout=1.0), topic_prefix, 1, topic_prefix)
    await log.start()
    await log.create_topics(1)
    try:
        yield log
    finally:
        await log.stop()
        for key in ("producer_byte_rate", "consumer_byte_rate"):
            with contextlib.suppress(AssertionError):
                await limit(kafka, topic_prefix, key, remove=True)


@pytest.fixture
def dials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The connections to brokers that are made."""
    made: list[int] = []
    connect = Links._connect

    async def counted(links: Links, node: int) -> object:
        made.append(node)
        return await connect(links, node)

    monkeypatch.setattr(Links, "_connect", counted)
    return made


async def test_what_a_quota_holds_back_is_told_so_and_goes_when_the_broker_reads_again(
    kafka: KafkaServer, log: KafkaLog, topic_prefix: str, dials: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    await log.append(RECORDS[:1])
    await limit(kafka, topic_prefix, "producer_byte_rate")
    await log.append(RECORDS)
    appending = asyncio.create_task(log.append(RECORDS[:1]))
    await asyncio.sleep(0.1)  # it is under way, and what comes now waits behind it
    outcomes = await asyncio.gather(appending, log.append(RECORDS[:1]), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LogUnavailable] * 2
    assert ["Kafka holds us back by a quota, for another" in str(outcome) for outcome in outcomes] == [True] * 2
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(LogUnavailable):
                [position] = await log.append(RECORDS[:1])
                break
            await asyncio.sleep(0.1)
    assert position.offset >= len(RECORDS) + 1
    assert len(dials) == 1  # a new connection would go round the quota
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "Kafka holds us back by a quota"
    ]


async def test_a_reader_that_is_held_back_waits_and_misses_nothing(
    kafka: KafkaServer, log: KafkaLog, topic_prefix: str, dials: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for start in range(0, len(RECORDS), 15):  # a batch above what the quota lets through in 10 s would never come
        await log.append(RECORDS[start : start + 15])
    await limit(kafka, topic_prefix, "consumer_byte_rate")
    dials.clear()
    read = 0
    async with asyncio.timeout(40), contextlib.aclosing(log.read(AUDIT, 0, 0)) as reading:
        async for records in reading:
            read += len(records)
            if read == len(RECORDS):
                await log.append(RECORDS[:1])
            elif read > len(RECORDS):
                break
    assert read == len(RECORDS) + 1
    assert len(dials) == 1
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "Kafka holds us back by a quota"
    ]
