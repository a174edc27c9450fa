"""The worker (runtime/worker.py) on every implementation of the log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from events.topics import AUTH_COMMANDS, DEAD, REGISTRAR_COMMANDS
from events.wire import header
from runtime.errors import LogUnavailable
from runtime.log.port import Append, Batch, Log, Record
from runtime.metrics import drops
from runtime.worker import Lost, Worker, dead_letter

TOPIC = REGISTRAR_COMMANDS
Logs = Callable[[], Awaitable[Log]]


class Recorder:
    """A handler that notes what happens to it, and does what the test tells it to."""

    topic = TOPIC
    group = "g"

    def __init__(self, *, dead_letters: bool = True, keeps_position: bool = False) -> None:
        self.dead_letters = dead_letters
        self.keeps_position = keeps_position
        self.handled: dict[int, list[int]] = {}
        self.batches: list[list[int]] = []
        self.restored: list[int] = []
        self.held: set[int] = set()
        self.in_hand: set[int] = set()
        self.faults: dict[int, list[Exception]] = {}
        """What to raise for a record of this number, one after the other; the last one for ever."""
        self.gates: dict[int, asyncio.Event] = {}
        """A restore of this partition waits for it."""
        self.hanging: asyncio.Event | None = None
        self._changed = asyncio.Condition()

    async def restore(self, partition: int) -> int | None:
        assert partition not in self.held
        assert partition not in self.in_hand
        self.held.add(partition)
        self.restored.append(partition)
        await self._tell()
        if gate := self.gates.get(partition):
            await gate.wait()
        return len(self.handled.get(partition, [])) if self.keeps_position else None

    def release(self, partition: int) -> None:
        assert partition not in self.in_hand
        self.held.discard(partition)

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        assert batch.keys() <= self.held
        self.in_hand = set(batch)
        try:
            return await self._handle(batch)
        finally:
            self.in_hand = set()
            await self._tell()

    async def _handle(self, batch: Batch) -> Mapping[int, int]:
        if self.hanging:
            await self.hanging.wait()
        for records in batch.values():
            for record in records:
                if faults := self.faults.get(number(record)):
                    raise faults.pop(0) if len(faults) > 1 else faults[0]
        self.batches.append([number(record) for records in batch.values() for record in records])
        for partition, records in batch.items():
            self.handled.setdefault(partition, []).extend(map(number, records))
        return {partition: records[-1].offset + 1 for partition, records in batch.items()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(40), self._changed:
            await self._changed.wait_for(condition)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def number(record: Record) -> int:
    return int(record.value or b"-1")


def numbered(*numbers: int, partition: int = 0) -> list[Append]:
    return [Append(TOPIC, partition, b"key", str(n).encode()) for n in numbers]


@contextlib.asynccontextmanager
async def working(log: Log, handler: Recorder) -> AsyncIterator[Worker]:
    worker = Worker(log, handler, jitter=lambda: 0.0)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop(5)
        await asyncio.wait_for(running, 1)


async def reaches(condition: Callable[[], bool]) -> None:
    """For what the worker tells only when asked."""
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110  # there is no event for it, as there is none for a readiness probe
            await asyncio.sleep(0.02)


async def dead(log: Log) -> list[Record]:
    end = (await log.bounds(DEAD, 0)).end
    return [record async for batch in log.read(DEAD, 0, 0, end) for record in batch]


async def test_every_record_is_handled_in_order_and_in_batches(log: Log) -> None:
    handler = Recorder()
    for partition in range(4):
        await log.append(numbered(*range(50), partition=partition))
    async with working(log, handler) as worker:
        assert worker.not_ready()
        assert not worker.caught_up()
        await handler.until(lambda: sum(map(len, handler.handled.values())) == 200)
        await reaches(worker.caught_up)
        assert worker.not_ready() == []
    assert handler.handled == {partition: list(range(50)) for partition in range(4)}
    assert len(handler.batches) < 50
    assert handler.held == set()


async def test_an_empty_topic_is_caught_up_at_once(log: Log) -> None:
    async with working(log, Recorder()) as worker:
        await reaches(worker.caught_up)
        assert worker.not_ready() == []


async def test_after_a_restart_it_goes_on_where_it_committed(log: Log) -> None:
    await log.append(numbered(1, 2, 3))
    handler = Recorder()
    async with working(log, handler):
        await handler.until(lambda: handler.handled == {0: [1, 2, 3]})
    assert await log.committed(TOPIC, "g") == {0: 3}
    await log.append(numbered(4))
    again = Recorder()
    async with working(log, again):
        await again.until(lambda: again.handled == {0: [4]})


async def test_restore_says_where_to_go_on(log: Log) -> None:
    await log.append(numbered(*range(5)))
    handler = Recorder(keeps_position=True)
    handler.handled[0] = [0, 1, 2]
    async with working(log, handler):
        await handler.until(lambda: handler.handled[0] == [0, 1, 2, 3, 4])


async def test_other_partitions_go_on_while_one_is_restored(log: Log) -> None:
    for partition in range(4):
        await log.append(numbered(1, partition=partition))
    handler = Recorder()
    handler.gates[2] = asyncio.Event()
    async with working(log, handler) as worker:
        await handler.until(lambda: handler.handled == {0: [1], 1: [1], 3: [1]})
        assert not worker.caught_up()
        assert worker.not_ready() == [f"{TOPIC}: partition 2 is being restored"]
        handler.gates[2].set()
        await handler.until(lambda: 2 in handler.handled)
        await reaches(worker.caught_up)


@pytest.mark.parametrize("fault", [Lost([1], cause="the disk is full"), LogUnavailable("the disk is full")])
async def test_why_a_partition_comes_no_further_is_told_until_it_does(log: Log, fault: Exception) -> None:
    for partition in (0, 1):
        await log.append(numbered(partition, partition=partition))
    handler = Recorder(keeps_position=True)
    handler.faults[1] = [fault]
    async with working(log, handler) as worker:
        await handler.until(lambda: handler.restored.count(1) > 2)
        told = [reason for reason in worker.not_ready() if f"{TOPIC}: partition 1 is " in reason]
        assert [reason.partition(": the ")[2] for reason in told] == ["disk is full"]
        assert "partition 1" in worker.status()["partitions"]
        del handler.faults[1]
        await handler.until(lambda: 1 in handler.handled)
        await reaches(lambda: worker.not_ready() == [])


@pytest.mark.parametrize(
    ("fault", "again"), [(Lost([1]), [1]), (LogUnavailable("away"), [1]), (RuntimeError("a bug"), [1])]
)
async def test_a_batch_that_fails_comes_again_after_a_restore(log: Log, fault: Exception, again: list[int]) -> None:
    handler = Recorder(keeps_position=True)
    handler.faults[13] = [fault, LogUnavailable("still away")]
    async with working(log, handler) as worker:
        await reaches(worker.caught_up)
        before = list(handler.restored)
        await log.append(numbered(10, 11, 12, 13, 14, partition=1))
        await handler.until(lambda: len(handler.restored) >= len(before) + 3)
        handler.faults.clear()
        await handler.until(lambda: handler.handled.get(1) == [10, 11, 12, 13, 14])
        await log.append(numbered(20, partition=0))
        await handler.until(lambda: 0 in handler.handled)
        await reaches(lambda: not worker.not_ready())
    assert set(handler.restored[len(before) :]) == set(again)


async def test_a_poisoned_record_is_put_aside_and_the_others_go_on(log: Log) -> None:
    handler = Recorder()
    handler.faults[3] = [ValueError("secret detail")]
    before = drops("dead-letter")
    await log.append([*numbered(1, 2, 3, 4, 5), *numbered(6, 7, partition=1)])
    async with working(log, handler) as worker:
        await handler.until(lambda: handler.handled.get(0, [])[-1:] == [5] and handler.handled.get(1, [])[-1:] == [7])
        assert 3 not in handler.handled[0]
        await reaches(worker.caught_up)
    (letter,) = await dead(log)
    assert (letter.key, letter.value) == (b"key", b"3")
    assert [header(letter.headers, name) for name in ("topic", "partition", "offset")] == [TOPIC.encode(), b"0", b"2"]
    assert b"secret" not in (header(letter.headers, "cause") or b"")
    assert drops("dead-letter") == before + 1
    assert (await log.committed(TOPIC, "g"))[0] == 5


async def test_without_dead_letters_the_partition_stops_with_an_alarm_and_others_go_on(log: Log) -> None:
    handler = Recorder(dead_letters=False)
    handler.faults[2] = [ValueError()]
    await log.append(numbered(1, 2, 3))
    async with working(log, handler) as worker:
        await reaches(lambda: any("stopped" in reason for reason in worker.not_ready()))
        await log.append(numbered(7, partition=1))
        await handler.until(lambda: 1 in handler.handled)
        assert handler.handled[0] == [1]
        assert worker.not_ready() == [f"{TOPIC}: partition 0 is stopped: record 1 cannot be handled"]
    assert await dead(log) == []


async def test_a_position_beyond_the_end_stops_the_partition_with_an_alarm(log: Log) -> None:
    handler = Recorder(keeps_position=True)
    handler.handled[3] = [0, 0]
    async with working(log, handler) as worker:
        await reaches(lambda: any("beyond the log's end" in reason for reason in worker.not_ready()))
        await log.append(numbered(7, partition=1))
        await handler.until(lambda: 1 in handler.handled)
        assert len(worker.not_ready()) == 1


async def test_stop_ends_in_time_while_the_handler_hangs(log: Log) -> None:
    handler = Recorder()
    handler.hanging = asyncio.Event()
    await log.append(numbered(1))
    worker = Worker(log, handler)
    running = asyncio.create_task(worker.run())
    await reaches(lambda: handler.in_hand == {0})
    await asyncio.wait_for(worker.stop(2.0), 3.0)
    await asyncio.wait_for(running, 1.0)
    assert handler.held == set()
    assert await log.committed(TOPIC, "g") == {}


async def test_stop_ends_in_time_while_a_restore_hangs(log: Log) -> None:
    handler = Recorder()
    handler.gates = {partition: asyncio.Event() for partition in range(4)}
    worker = Worker(log, handler)
    running = asyncio.create_task(worker.run())
    await handler.until(lambda: len(handler.restored) == 4)
    await asyncio.wait_for(worker.stop(2.0), 3.0)
    await asyncio.wait_for(running, 1.0)
    assert handler.held == set()


async def test_stop_before_the_first_poll(log: Log) -> None:
    worker = Worker(log, Recorder())
    await worker.stop(1.0)
    await asyncio.wait_for(worker.run(), 1.0)


async def test_two_workers_share_the_partitions_and_take_over_from_each_other(logs: Logs) -> None:
    one, two = Recorder(), Recorder()
    log, other = await logs(), await logs()
    async with working(log, one):
        await one.until(lambda: len(one.held) == 4)
        async with working(other, two):
            await two.until(lambda: len(two.held) == 2)
            await reaches(lambda: len(one.held) == 2)
            assert one.held | two.held == set(range(4))
            for partition in range(4):
                await log.append(numbered(5, partition=partition))
            await reaches(lambda: one.handled.keys() | two.handled.keys() == set(range(4)))
            assert two.handled.keys() == two.held
        await one.until(lambda: len(one.held) == 4)
        await log.append([Append(TOPIC, p, b"k", b"6") for p in range(4)])
        await one.until(lambda: all(6 in one.handled.get(p, []) for p in range(4)))


async def test_a_partition_revoked_while_in_hand_is_released_when_the_hand_is_free(logs: Logs) -> None:
    one, two = Recorder(), Recorder()
    log, other = await logs(), await logs()
    async with working(log, one):
        await one.until(lambda: len(one.held) == 4)
        one.hanging = asyncio.Event()
        await log.append([Append(TOPIC, p, b"k", b"1") for p in range(4)])
        await reaches(lambda: bool(one.in_hand))
        async with working(other, two):
            await two.until(lambda: len(two.held) == 2)
            assert one.in_hand <= one.held
            one.hanging.set()
            one.hanging = None
            await reaches(lambda: len(one.held) == 2)
            assert one.held | two.held == set(range(4))


async def test_a_dead_letter_of_a_topic_with_digests_has_no_value(log: Log) -> None:
    await log.append([Append(AUTH_COMMANDS, 0, b"alice", b'{"response":"secret"}')])
    (record,) = [r async for batch in log.read(AUTH_COMMANDS, 0, 0, 1) for r in batch]
    letter = dead_letter(AUTH_COMMANDS, record, "poisoned")
    assert (letter.topic, letter.key, letter.value) == (DEAD, b"alice", b"")
