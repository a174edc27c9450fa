"""The edge's publisher on a log that a test holds up."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from edge.core.actions import Publish
from edge.core.clock import LogClock
from edge.topics.commands import APPENDS, ENOUGH, Publisher
from events.topics import partition_of
from runtime.errors import LogUnavailable
from runtime.log.port import Append, Log, Position

PARTITIONS = 8
STUCK = partition_of("stuck", PARTITIONS)
KEY = next(key for key in map(str, range(100)) if partition_of(key, PARTITIONS) != STUCK)


class StuckLog:
    """Nobody leads one of its partitions."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.most = 0
        self._under_way = 0
        self.led = asyncio.Event()

    async def partitions(self, _: str) -> int:
        return PARTITIONS

    async def append(self, records: Sequence[Append]) -> list[Position]:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await asyncio.sleep(0)
            self.values += [record.value or b"" for record in records if record.partition != STUCK]
            if any(record.partition == STUCK for record in records):
                await self.led.wait()
                raise LogUnavailable("nobody leads it")
            return [Position(record.partition, 0, 1) for record in records]
        finally:
            self._under_way -= 1


@pytest.fixture
async def published() -> tuple[Publisher, StuckLog, list[str]]:
    log, failed = StuckLog(), []
    publisher = Publisher(cast(Log, log), LogClock(0.0, 0.0), lambda _: True, failed.extend)
    await publisher.start()
    return publisher, log, failed


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # a list sends no event
            await asyncio.sleep(0.01)


def command(key: str, number: int) -> Publish:
    return Publish(str(number), key, b"%d" % number)


async def test_a_partition_that_nobody_leads_holds_up_no_other(
    published: tuple[Publisher, StuckLog, list[str]],
) -> None:
    publisher, log, failed = published
    for number in range(3 * APPENDS):
        publisher.publish([command("stuck", number)])
    publisher.publish([command(KEY, 100)])
    await until(lambda: b"100" in log.values)
    assert failed == []
    log.led.set()
    await until(lambda: {str(number) for number in range(3 * APPENDS)} <= set(failed))
    await publisher.stop()


async def test_what_comes_while_appends_are_under_way_goes_together(
    published: tuple[Publisher, StuckLog, list[str]],
) -> None:
    publisher, log, _ = published
    for number in range(100):
        publisher.publish([command(KEY, number)])
    await until(lambda: len(log.values) == 100)
    assert log.most == APPENDS
    await publisher.stop()


class CountingLog(StuckLog):
    """Keeps how many records each append had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def append(self, records: Sequence[Append]) -> list[Position]:
        self.sizes.append(len(records))
        return await super().append(records)


async def gathering(seconds: float) -> tuple[Publisher, CountingLog]:
    log, failed = CountingLog(), list[str]()
    publisher = Publisher(cast(Log, log), LogClock(0.0, 0.0), lambda _: True, failed.extend, seconds)
    await publisher.start()
    return publisher, log


def registration(number: int) -> Publish:
    return command(KEY, number)._replace(patient=True)


async def test_a_registration_goes_at_once_and_those_right_behind_it_go_together() -> None:
    publisher, log = await gathering(0.05)
    for number in range(ENOUGH - 1):
        publisher.publish([registration(number)])
        await asyncio.sleep(0)
    await until(lambda: len(log.values) == ENOUGH - 1)
    assert log.sizes == [1, ENOUGH - 2]
    await publisher.stop()


async def test_registrations_wait_no_longer_once_enough_are_together() -> None:
    publisher, log = await gathering(3600)
    for number in range(1 + ENOUGH):
        publisher.publish([registration(number)])
        await asyncio.sleep(0)
    await until(lambda: len(log.values) == 1 + ENOUGH)
    assert log.sizes == [1, ENOUGH]
    await publisher.stop()


async def test_a_call_goes_at_once_and_takes_along_who_waits() -> None:
    publisher, log = await gathering(3600)
    for number in range(3):
        publisher.publish([registration(number)])
        await asyncio.sleep(0)
    publisher.publish([command(KEY, 3)])
    await until(lambda: len(log.values) == 4)
    assert log.sizes == [1, 3]
    publisher.publish([registration(4)])  # the call's hurry is not its own
    await asyncio.sleep(0.01)
    assert log.sizes == [1, 3]
    await publisher.stop()
