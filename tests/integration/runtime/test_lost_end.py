"""Topics that have lost their end under running services, as after an unclean election or made anew: all go on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from events.topics import AUTH_COMMANDS, REGISTRAR_COMMANDS
from ramal.backends import KafkaServer
from registrar.config import Policy
from registrar.service import RegistrarService
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Batch
from runtime.worker import Worker
from tests.integration.registrar.test_registrar_service import read_truths, register

pytestmark = pytest.mark.integration
PARTITIONS = 4
Lose = Callable[[str], Awaitable[None]]


@pytest.fixture
async def log(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "test")
    await log.start()
    await log.create_topics(PARTITIONS)
    yield log
    await log.stop()


@pytest.fixture
async def lose(kafka: KafkaServer, topic_prefix: str, log: KafkaLog) -> AsyncIterator[Lose]:
    """Makes a topic anew, which loses all of its end."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()

    async def lose(topic: str) -> None:
        await admin.delete_topics([topic_prefix + topic])
        async with asyncio.timeout(20):
            while topic not in await log.create_topics(PARTITIONS):  # noqa: ASYNC110  # it goes when the broker likes
                await asyncio.sleep(0.1)

    yield lose
    await admin.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not (await found if isinstance(found := condition(), Awaitable) else found):  # noqa: ASYNC110  # a broker's
            await asyncio.sleep(0.05)


class Noting:
    """A handler whose position is the group's alone."""

    topic = AUTH_COMMANDS
    group = "noting"
    dead_letters = True

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    async def restore(self, partition: int) -> None:
        del partition

    def release(self, partition: int) -> None:
        del partition

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        self.values += [record.value for records in batch.values() for record in records]
        return {partition: records[-1].offset + 1 for partition, records in batch.items()}


async def test_where_nothing_rests_on_the_position_it_goes_on_at_the_end(log: KafkaLog, lose: Lose) -> None:
    handler = Noting()
    worker = Worker(log, handler)
    running = asyncio.create_task(worker.run())
    try:
        await log.append([Append(AUTH_COMMANDS, 0, b"k", b"%d" % n) for n in range(50)])
        await until(lambda: len(handler.values) == 50)

        async def committed() -> bool:
            return (await log.committed(AUTH_COMMANDS, "noting")).get(0) == 50

        await until(committed)
        await lose(AUTH_COMMANDS)
        await until(lambda: worker.not_ready() == [] and worker.caught_up())
        for number in range(3):
            await log.append([Append(AUTH_COMMANDS, 0, b"k", b"new %d" % number)])
            await until(lambda last=b"new %d" % number: handler.values[-1] == last)
        assert worker.not_ready() == []
    finally:
        await worker.stop(5)
        await running


async def test_a_registrar_decides_on_and_gives_no_binding_id_twice(log: KafkaLog, lose: Lose) -> None:
    service = RegistrarService(log, Policy(), "r", PARTITIONS)
    await service.start()
    try:
        await log.append([register(number, 1) for number in range(40)])

        async def decided(count: int) -> bool:
            return len(await read_truths(log)) == count

        await until(lambda: decided(40))
        await lose(REGISTRAR_COMMANDS)

        async def filled() -> bool:
            ends = [(await log.bounds(REGISTRAR_COMMANDS, n)).end for n in range(PARTITIONS)]
            return sum(ends) == 40 and not service.not_ready()

        await until(filled)
        await log.append([register(number, 1) for number in range(40, 80)])
        await until(lambda: decided(80))
        ids = [binding.id for truth in await read_truths(log) for binding in truth.state.bindings]
        assert len(ids) == len(set(ids)) == 80
        assert service.status()["partitions"] == ""
    finally:
        await service.stop(5)
