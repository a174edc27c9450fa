"""A partition that takes nothing, over the wire: it is waited for once, and holds up no other."""

import asyncio

import pytest

from events.topics import AUDIT
from runtime.config import Kafka
from runtime.errors import LogUnavailable, PartitionAway
from runtime.log.apart import append_apart
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from tests.kit.broker import PRODUCE, Error, brokers

SOON = 0.4
NOT_ENOUGH_REPLICAS = 19


def record(value: bytes, partition: int = 0) -> Append:
    return Append(AUDIT, partition, b"k", value)


async def test_a_partition_that_takes_nothing_is_waited_for_once_and_then_holds_up_no_other() -> None:
    async with brokers(f"t.{AUDIT}", 2, {}) as both:
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=1.0), "t.", 2, "test")
        await log.start()
        there, away = both.partitions[0], both.partitions[1]
        try:
            away.staged[PRODUCE] = [Error(NOT_ENOUGH_REPLICAS)] * 10_000
            with pytest.raises(LogUnavailable):
                await log.append([record(b"waited for", 1)])
            with pytest.raises(PartitionAway):
                await log.append([record(b"tried for a moment", 1)])
            for _ in range(3):
                async with asyncio.timeout(SOON):
                    written = await append_apart(log, [record(b"other"), record(b"away", 1), record(b"other")])
                assert [position is None for position in written] == [False, True, False]
                with pytest.raises(PartitionAway):
                    async with asyncio.timeout(SOON):
                        await log.append([record(b"whole"), record(b"whole", 1)])
            assert there.values == [b"other"] * 6
            away.staged[PRODUCE] = []
            async with asyncio.timeout(10):
                while None in await append_apart(log, [record(b"back", 1)]):  # noqa: ASYNC110  # the log tells nobody
                    await asyncio.sleep(0.05)
            assert away.values == [b"back"]
            await log.append([record(b"whole"), record(b"whole", 1)])
        finally:
            await log.stop()
