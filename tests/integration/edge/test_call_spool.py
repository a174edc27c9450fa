"""Call events on their way to the log: never in a call's way, in order, within a bound."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.topics import call_spool
from edge.topics.call_spool import CallSpool
from events.calls import CallEvent, event_id
from events.topics import CALLS, partition_of
from events.wire import Decoder, header
from runtime.config import Kafka
from runtime.errors import LogRefused, LogUnavailable, PartitionAway
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Log
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from tests.kit.broker import brokers
from tests.kit.call_stories import Story, talk

decode: Decoder[CallEvent] = Decoder(CallEvent)


class Flaky:
    """A log that is away while it is told so."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.away = False
        self.leaderless: set[int] = set()
        """Partitions that are away."""
        self.refuses = ""
        self.twice = False
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, records: Sequence[Append]) -> Any:
        self.sizes.append(len(records))
        if self.refuses and any(self.refuses.encode() in (record.value or b"") for record in records):
            raise LogRefused("no")
        if self.away:
            raise LogUnavailable("away")
        if any(record.partition in self.leaderless for record in records):
            raise PartitionAway("nobody leads it")
        positions = await self._log.append(records)
        if self.twice:
            self.twice = False
            raise LogUnavailable("it was written, but who knows")
        return positions


@pytest.fixture
async def flaky(tmp_path: Path) -> AsyncIterator[Flaky]:
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, 2)
    await log.start()
    yield Flaky(log)
    await log.stop()
    await store.stop()


async def soon(true: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(15):
            while not true():  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


async def written(log: Any) -> list[tuple[CallEvent, str]]:
    found = []
    for partition in range(2):
        end = (await log.bounds(CALLS, partition)).end
        async for records in log.read(CALLS, partition, 0, end):
            for record in records:
                event = decode(record.value)
                assert partition_of(event.call_id, 2) == partition
                assert record.key == event.call_id.encode()
                found.append((event, (header(record.headers, "ce_id") or b"").decode()))
    return found


async def test_c02_whoever_has_something_to_do_waits_for_no_whole_batch_to_be_encoded(flaky: Flaky) -> None:
    spool, turns = CallSpool(flaky), 0
    spool.put([event for _ in range(200) for event in talk().events])

    async def others() -> None:
        nonlocal turns
        while not flaky.sizes:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(spool.stop(5.0), others())
    assert turns >= flaky.sizes[0] / call_spool.TURN


async def test_c02_events_are_written_in_order_under_their_ids(flaky: Flaky) -> None:
    spool, story = CallSpool(flaky), talk()
    for event in story.events:
        spool.put([event])
    await spool.stop(5.0)
    assert await written(flaky) == [(event, event_id(event)) for event in story.events]
    assert len(flaky.sizes) < len(story.events)


async def test_events_wait_a_moment_for_others_but_not_once_there_are_enough(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_spool, "GATHER", 60.0)
    monkeypatch.setattr(call_spool, "BATCH", 2 * len(talk().events))
    spool = CallSpool(flaky)
    spool.put(talk().events)
    await asyncio.sleep(0.05)
    assert flaky.sizes == []
    spool.put(talk().events)
    while len(spool):  # noqa: ASYNC110  # nobody is told
        await asyncio.sleep(0.01)
    assert flaky.sizes == [2 * len(talk().events)]
    spool.put(talk().events)
    await spool.stop(5.0)
    assert len(await written(flaky)) == 3 * len(talk().events)


async def test_while_the_log_is_away_events_wait_and_then_all_are_written(flaky: Flaky) -> None:
    spool, stories = CallSpool(flaky), [talk() for _ in range(100)]
    flaky.away = True
    for story in stories:
        spool.put(story.events)
    await asyncio.sleep(0.3)
    assert spool.away
    flaky.away = False
    await spool.stop(10.0)
    assert len(await written(flaky)) == sum(len(story.events) for story in stories)


async def test_what_finds_no_room_is_dropped_by_name_and_counted(flaky: Flaky) -> None:
    spool, before = CallSpool(flaky, most=10), drops("call-events-overflow")
    flaky.away = True
    for _ in range(3):
        spool.put(talk().events)
    assert len(spool) == 10
    await asyncio.sleep(0.05)
    flaky.away = False
    await spool.stop(5.0)
    assert drops("call-events-overflow") == before + 3 * len(talk().events) - 10
    assert len(await written(flaky)) == 10


async def test_c03_an_append_that_is_repeated_has_the_same_ids(flaky: Flaky) -> None:
    spool, story = CallSpool(flaky), talk()
    flaky.twice = True
    spool.put(story.events)
    await spool.stop(5.0)
    found = await written(flaky)
    assert len(found) == 2 * len(story.events)
    assert len({id_ for _, id_ in found}) == len(story.events)


async def test_an_event_that_the_log_refuses_is_dropped_alone(flaky: Flaky) -> None:
    spool, before = CallSpool(flaky), drops("call-events-refused")
    flaky.refuses = "poison"
    spool.put([*talk(call_id="a").events, *Story(call_id="poison").attempted().events, *talk(call_id="b").events])
    await spool.stop(5.0)
    assert {event.call_id for event, _ in await written(flaky)} == {"a", "b"}
    assert drops("call-events-refused") == before + 1


def calls(partition: int, count: int) -> list[CallEvent]:
    """The events of so many calls of one partition, each call's in order, the calls mixed."""
    ids = [f"call-{n}" for n in range(20 * count + 20) if partition_of(f"call-{n}", 2) == partition][:count]
    return [event for events in zip(*(talk(call_id=id_).events for id_ in ids), strict=True) for event in events]


def once(values: Sequence[bytes]) -> list[CallEvent]:
    """Each event where it stands first: what was in doubt was written again."""
    return list({event_id(event): event for event in map(decode, values)}.values())


async def of_partition(log: Any, partition: int) -> list[CallEvent]:
    return [event for event, _ in await written(log) if partition_of(event.call_id, 2) == partition]


async def test_c02_a_partition_that_is_away_holds_up_no_other_and_has_its_events_in_order_once_it_is_back(
    flaky: Flaky,
) -> None:
    spool, there, away = CallSpool(flaky), calls(0, 30), calls(1, 30)
    flaky.leaderless = {1}
    half = len(away) // 2
    spool.put(away[:half])
    for number, event in enumerate(there):
        spool.put([event])
        if number % 40 == 0:
            spool.put(away[half : half + 7])
            half += 7
            await asyncio.sleep(0.02)
    await soon(lambda: len(spool) == half, "all others are written")
    assert await written(flaky) == [(event, event_id(event)) for event in there]
    flaky.leaderless.clear()
    spool.put(away[half:])
    await spool.stop(5.0)
    assert await of_partition(flaky, 1) == away


async def test_what_is_kept_for_a_partition_that_is_away_leaves_room_for_the_others(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_spool, "GATHER", 0.01)
    spool, before = CallSpool(flaky, most=100), drops("call-events-overflow")
    flaky.leaderless = {1}
    away, there = calls(1, 30), calls(0, 10)
    for start in range(0, len(away), 10):
        spool.put(away[start : start + 10])
        await soon(lambda: not spool._waiting and not spool._batch, "what waits is taken")
    assert len(spool) == 80
    for start in range(0, len(there), 10):
        spool.put(there[start : start + 10])
        await soon(lambda: len(spool) == 80, "the others are written")
    flaky.leaderless.clear()
    await spool.stop(5.0)
    assert await of_partition(flaky, 0) == there
    assert await of_partition(flaky, 1) == away[:80]
    assert drops("call-events-overflow") == before + len(away) - 80


async def test_an_event_that_the_log_refuses_is_dropped_alone_while_a_partition_is_away(flaky: Flaky) -> None:
    spool, before = CallSpool(flaky), drops("call-events-refused")
    there, away = calls(0, 2), calls(1, 2)
    name = next(name for n in range(99) if partition_of(name := f"poison-{n}", 2) == 0)
    poison = Story(call_id=name).attempted().events
    flaky.refuses, flaky.leaderless = "poison", {1}
    spool.put([*away, *poison, *there])
    await soon(lambda: len(spool) == len(away), "the others are written")
    assert await of_partition(flaky, 0) == there
    flaky.leaderless.clear()
    await spool.stop(5.0)
    assert await of_partition(flaky, 1) == away
    assert drops("call-events-refused") == before + 1


async def test_stopping_ends_in_time_though_a_partition_is_away(flaky: Flaky) -> None:
    spool, before = CallSpool(flaky), drops("call-events-overflow")
    flaky.leaderless = {1}
    away = calls(1, 1)
    spool.put(away)
    async with asyncio.timeout(2):
        await spool.stop(0.5)
    assert (len(spool), drops("call-events-overflow")) == (0, before + len(away))


async def test_c02_over_the_wire_a_partition_that_nobody_leads_holds_up_no_other() -> None:
    async with brokers(f"t.{CALLS}", 2, {}) as both:
        both.partitions[1].leader = -1
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=1.0), "t.", 2, "test")
        await log.start()
        spool, there, away = CallSpool(log), calls(0, 5), calls(1, 5)
        try:
            for start in range(0, len(there), 5):
                spool.put(there[start : start + 5])
                spool.put(away[start : start + 5])
                await asyncio.sleep(0.1)
            await soon(lambda: len(spool) == len(away), "all others are written")
            assert once(both.partitions[0].values) == there
            both.partitions[1].leader = 1
            await soon(lambda: not len(spool), "it has all of its own")
            assert once(both.partitions[1].values) == away
        finally:
            await spool.stop(1.0)
            await log.stop()


async def test_stopping_ends_in_time_though_the_log_hangs(flaky: Flaky) -> None:
    spool = CallSpool(flaky)
    flaky.away = True
    spool.put(talk().events)
    async with asyncio.timeout(2):
        await spool.stop(0.3)
    assert len(spool) == 0
