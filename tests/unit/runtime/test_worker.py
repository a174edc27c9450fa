"""The worker's own rules (runtime/worker.py), on a log that does as it is told."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from events.topics import REGISTRATIONS
from runtime import lag
from runtime.errors import LogUnavailable, Rebalancing
from runtime.log.embedded.sql import StoredRecord
from runtime.log.port import Batch, Bounds, Log, OutOfRange, Unreadable
from runtime.worker import FIRST_BACKOFF, LAST_BACKOFF, Lost, Worker

REAL_SLEEP = asyncio.sleep


class ScriptedLog:
    """A log and its one subscription, which gives what was put into `script`, and then waits."""

    def __init__(self, *script: Batch | Exception, partitions: int = 1) -> None:
        self.script = list(script)
        self.done = asyncio.Event()
        self.more = asyncio.Event()
        self.commits: list[dict[int, int]] = []
        self.commit_faults: list[Exception] = []
        self.begun: list[tuple[int, int | None]] = []
        self.stopped = False
        self.begin_ = 0
        self._partitions = partitions
        self._joined = False

    def subscribe(
        self, topic: str, group: str, on_assigned: Callable[[int], None], on_revoked: Callable[[int], None]
    ) -> "ScriptedLog":
        self.on_assigned, self.on_revoked = on_assigned, on_revoked
        return self

    async def poll(self, timeout: float, max_records: int = 500) -> Batch:
        if not self._joined:
            self._joined = True
            for partition in range(self._partitions):
                self.on_assigned(partition)
        await REAL_SLEEP(0.001)
        if len(self.begun) < self._partitions:
            return {}
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            return step
        self.done.set()
        await self.more.wait()
        return {}

    def begin(self, partition: int, offset: int | None) -> None:
        self.begun.append((partition, offset))

    def seek(self, partition: int, offset: int) -> None:
        raise AssertionError

    def pause(self, partition: int) -> None: ...

    async def confirm(self, partition: int) -> None: ...

    def assigned(self) -> frozenset[int]:
        return frozenset(range(self._partitions))

    def joined(self) -> bool:
        return self._joined

    async def commit(self, offsets: Mapping[int, int]) -> None:
        if self.commit_faults:
            raise self.commit_faults.pop(0)
        self.commits.append(dict(offsets))

    async def stop(self, deadline: float = 3.0) -> None:
        self.stopped = True

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        return {0: 7}

    async def bounds(self, topic: str, partition: int) -> Bounds:
        return Bounds(self.begin_, 10)


class Counting:
    """A handler that takes everything."""

    topic = REGISTRATIONS
    group = "g"
    dead_letters = False

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.released = 0

    async def restore(self, partition: int) -> int | None:
        if self.faults:
            raise self.faults.pop(0)
        return None

    def release(self, partition: int) -> None:
        self.released += 1

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        return {partition: records[-1].offset + 1 for partition, records in batch.items()}


def batch(offset: int, partition: int = 0) -> Batch:
    return {partition: [StoredRecord(partition, offset, 0, b"k", b"v", ())]}


async def work(log: ScriptedLog, handler: Counting, jitter: float = 1.0) -> tuple[Worker, "asyncio.Task[None]"]:
    """A worker that has gone through the log's script."""
    worker = Worker(cast(Log, log), handler, jitter=lambda: jitter)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(log.done.wait(), 20)
    return worker, running


async def test_none_from_restore_goes_on_at_the_committed_offset_and_catches_up_to_the_end() -> None:
    log = ScriptedLog(batch(7), batch(8))
    worker, running = await work(log, Counting())
    assert log.begun == [(0, 7)]
    assert not worker.caught_up()
    assert worker.not_ready() == [f"{REGISTRATIONS}: partition 0 is catching up"]
    log.script.append(batch(9))
    log.more.set()
    while not worker.caught_up():
        await REAL_SLEEP(0.001)
    assert worker.not_ready() == []
    await worker.stop(1.0)
    await running


async def test_commits_are_rare_and_the_last_one_comes_at_stop() -> None:
    log = ScriptedLog(*(batch(offset) for offset in range(7, 107)))
    worker, running = await work(log, Counting())
    assert len(log.commits) <= 2
    await worker.stop(1.0)
    await running
    assert log.commits[-1] == {0: 107}
    assert log.stopped


async def test_who_gathers_is_given_the_next_batch_after_a_while_and_at_once_behind_a_full_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await REAL_SLEEP(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    full = {0: [*batch(8)[0], *batch(9)[0]]}
    log = ScriptedLog(batch(7), full, batch(10))
    worker = Worker(cast(Log, log), Counting(), gather=60.0, most=2)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(log.done.wait(), 20)
    assert [seconds for seconds in slept if seconds > 50] == pytest.approx([60.0, 60.0], abs=5)
    await worker.stop(1.0)
    await running


async def test_a_commit_that_failed_is_made_up_for() -> None:
    log = ScriptedLog(batch(7))
    log.commit_faults.append(LogUnavailable("away"))
    worker, running = await work(log, Counting())
    assert log.commits == []
    await worker.stop(1.0)
    await running
    assert log.commits == [{0: 8}]


async def test_what_could_not_be_committed_while_the_group_rebalanced_is_committed_later() -> None:
    log = ScriptedLog(batch(7))
    log.commit_faults = [Rebalancing("the group is being rebalanced")]
    worker, running = await work(log, Counting())
    assert log.commits == []
    assert not any("away" in reason for reason in worker.not_ready())
    await worker.stop(1.0)
    await running
    assert log.commits == [{0: 8}]


async def test_a_partition_that_cannot_be_read_is_stopped_and_named_and_the_others_go_on() -> None:
    log = ScriptedLog(Unreadable(0, 8, "its checksum is wrong"), batch(9, 1), partitions=2)
    worker, running = await work(log, Counting())
    assert worker.not_ready() == [
        f"{REGISTRATIONS}: partition 0 is stopped: what is at offset 8 cannot be read: its checksum is wrong"
    ]
    await worker.stop(1.0)
    await running
    assert log.commits == [{1: 10}]


async def test_e19_a_partition_whose_handler_cannot_go_on_is_stopped_and_named_and_the_others_go_on() -> None:
    class Stopping(Counting):
        async def handle(self, batch: Batch) -> Mapping[int, int]:
            if 0 in batch:
                raise Lost((), {1: 3}, {0: "the truth at offset 2 is not known"})
            return await super().handle(batch)

    handler = Stopping()
    log = ScriptedLog({**batch(2, 0), **batch(2, 1)}, batch(3, 0), batch(9, 1), partitions=2)
    worker, running = await work(log, handler)
    assert worker.not_ready() == [f"{REGISTRATIONS}: partition 0 is stopped: the truth at offset 2 is not known"]
    assert handler.released == 1
    await worker.stop(1.0)
    await running
    assert log.commits[-1] == {1: 10}


async def test_a_restore_that_cannot_read_its_partition_waits_for_a_person() -> None:
    log = ScriptedLog()
    worker = Worker(cast(Log, log), Counting(OutOfRange(0, 12, 10)))
    running = asyncio.create_task(worker.run())
    while not (reasons := worker.not_ready()) or "stopped" not in reasons[0]:
        await REAL_SLEEP(0.001)
    assert reasons == [
        f"{REGISTRATIONS}: partition 0 is stopped: restoring: partition 0: position 12 is beyond the log's end 10"
    ]
    await worker.stop(1.0)
    await running


async def test_offsets_of_a_revoked_partition_are_not_committed() -> None:
    log = ScriptedLog({**batch(7), **batch(3, 1)}, partitions=2)
    log.commit_faults.append(LogUnavailable("away"))
    worker, running = await work(log, Counting())
    log.on_revoked(0)
    await worker.stop(1.0)
    await running
    assert log.commits == [{1: 4}]


async def test_records_that_were_deleted_before_they_were_handled_are_told(caplog: pytest.LogCaptureFixture) -> None:
    log = ScriptedLog(batch(9))
    log.begin_ = 9
    worker, running = await work(log, Counting())
    [told] = [each for each in caplog.records if each.msg == "records were deleted before they were handled here"]
    assert (told.levelname, told.__dict__["offset"], told.__dict__["begin"]) == ("ERROR", 7, 9)
    await worker.stop(1)
    await running


async def test_while_the_log_is_away_it_is_not_ready_and_then_again() -> None:
    log = ScriptedLog(batch(9), LogUnavailable("away"))
    worker, running = await work(log, Counting())
    assert worker.not_ready() == [f"{REGISTRATIONS}: the log is away"]
    log.more.set()
    while worker.not_ready():
        await REAL_SLEEP(0.001)
    await worker.stop(1.0)
    await running


async def test_a_restore_is_tried_again_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds == lag.EVERY_SECONDS:
            await asyncio.Event().wait()  # that is not ours
        slept.append(seconds)
        await REAL_SLEEP(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    handler = Counting(*[LogUnavailable("away")] * 4, ValueError("a bug"), LogUnavailable("away"))
    worker, running = await work(ScriptedLog(batch(7)), handler)
    assert slept == [FIRST_BACKOFF, 0.2, 0.4, 0.8, 1.6, LAST_BACKOFF]
    assert handler.released == 6
    await worker.stop(1.0)
    await running


async def test_jitter_takes_up_to_half_of_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds == lag.EVERY_SECONDS:
            await asyncio.Event().wait()  # that is not ours
        slept.append(seconds)
        await REAL_SLEEP(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    worker, running = await work(ScriptedLog(batch(7)), Counting(LogUnavailable("away")), jitter=0.0)
    assert slept == [FIRST_BACKOFF / 2]
    await worker.stop(1.0)
    await running
