"""What Faust leaves out, fails at or stands still before is in the figures all the same; over real Kafka."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from cdr import analytics
from cdr.analytics import Analytics, Run
from cdr.figures import Page
from cdr.statistics.calls import MINUTE
from events.topics import CALLS as CALLS_TOPIC
from ramal.backends import KafkaServer
from runtime.config import Kafka, Sources
from runtime.log.kafka.log import KafkaLog
from tests.kit.call_stories import append, talk

pytestmark = pytest.mark.integration
PARTITIONS = 2
CALLS = 40


@pytest.fixture
async def site(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[tuple[KafkaLog, Analytics]]:
    """A log, and analytics in this process that look often; not started."""
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "test", "")
    await log.start()
    await log.create_topics(PARTITIONS)
    environ = {
        "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "RAMAL_TOPIC_PREFIX": topic_prefix,
        "RAMAL_PARTITIONS": str(PARTITIONS),
        "RAMAL_ANALYTICS_PUBLISH_EVERY": "0.3",
    }
    service = Analytics(log, Sources(environ, {}))
    yield log, service
    await service.stop(20)
    await log.stop()


async def until(wanted: Callable[[], Any]) -> Any:
    async with asyncio.timeout(90):
        while True:
            if found := wanted():
                return found
            await asyncio.sleep(0.1)


def attempts(page: Page) -> int:
    now = int(time.time() * 1000)
    return sum(each.attempts for each in page._board.calls(60, now - 30 * MINUTE, now + MINUTE))


async def feed(log: KafkaLog) -> None:
    for number in range(CALLS):
        story = talk(now=int(time.time() * 1000) - 5000, ring=1000, last=2000, call_id=f"call-{number}")
        await log.append([append(event, PARTITIONS) for event in story.events])


async def test_what_faust_leaves_out_or_fails_at_is_counted(
    site: tuple[KafkaLog, Analytics], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, service = site
    take, numbers = Run._take, itertools.count()

    async def faulty(self: Run, event: Any) -> None:
        match next(numbers) % 3:
            case 0:
                return  # never delivered
            case 1:
                raise RuntimeError("an agent fails")  # Faust would count it as done
        await take(self, event)
        await take(self, event)  # delivered twice

    monkeypatch.setattr(Run, "_take", faulty)
    await service.start()
    await until(lambda: not service.not_ready())
    await feed(log)
    await until(lambda: attempts(service._page) >= CALLS)

    await asyncio.sleep(1)
    assert attempts(service._page) == CALLS
    assert next(numbers) > CALLS
    assert service.status() == {"kafka": ""}


async def test_an_application_that_stands_still_is_built_anew_and_nothing_is_missing(
    site: tuple[KafkaLog, Analytics], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, service = site
    read, lives = Run._read, itertools.count()

    async def still(self: Run, stream: Any) -> None:
        if next(lives) == 0:
            await asyncio.Event().wait()
        await read(self, stream)

    monkeypatch.setattr(Run, "_read", still)
    monkeypatch.setattr(analytics, "STANDSTILL", 2)
    before = REGISTRY.get_sample_value("ramal_analytics_restarts_total") or 0
    await service.start()
    await until(lambda: not service.not_ready())
    feeding = asyncio.create_task(_feed_on(log))
    try:
        await until(lambda: (REGISTRY.get_sample_value("ramal_analytics_restarts_total") or 0) > before)
        await until(lambda: next(lives) and not service.not_ready())
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding
    await until(lambda: attempts(service._page) >= CALLS)

    await asyncio.sleep(1)
    assert attempts(service._page) == CALLS


async def test_it_waits_for_topics_and_makes_none(kafka: KafkaServer, topic_prefix: str) -> None:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "test", "")
    await log.start()
    environ = {
        "RAMAL_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "RAMAL_TOPIC_PREFIX": topic_prefix,
        "RAMAL_PARTITIONS": str(PARTITIONS),
    }
    service = Analytics(log, Sources(environ, {}))
    try:
        await service.start()
        await until(lambda: any("run `ramal topics`" in reason for reason in service.not_ready()))
        assert CALLS_TOPIC in await log.create_topics(PARTITIONS)
        await until(lambda: not service.not_ready())
        assert await log.check_topics(PARTITIONS) == []
    finally:
        await service.stop(20)
        await log.stop()


async def _feed_on(log: KafkaLog) -> None:
    """The calls, and then copies of them, so that there is always something to deliver."""
    while True:
        await feed(log)
        await asyncio.sleep(0.2)
