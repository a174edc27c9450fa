"""Callers that append numbered records all the time, and what must be true of the log whatever happened to it."""

import asyncio
import contextlib
import random
import time
from collections import Counter, defaultdict

from runtime.errors import LogUnavailable
from runtime.log.port import Append, Log, Position, Record
from tests.chaos.rig import NotInTime

CALLERS = 8
PAUSE = 0.01
"""Seconds a caller rests, on average."""


class Appends:
    """Callers of `Log.append` on one topic, and a reader that follows each of its partitions."""

    def __init__(self, log: Log, topic: str, partitions: int, seed: int = 7) -> None:
        self._log, self._topic, self._partitions = log, topic, partitions
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._appending = False
        self.acknowledged: dict[str, Position] = {}
        self.failed: list[tuple[float, str]] = []
        """When an append was begun that was not acknowledged, and what its caller heard."""
        self.good: dict[int, float] = {}
        """By partition, when the append was begun that was acknowledged last."""
        self.followed: dict[int, list[tuple[int, str]]] = defaultdict(list)
        """What a reader that goes on for ever has got: offsets and values."""

    def start(self) -> None:
        """Begins."""
        self._appending = True
        self._tasks = [asyncio.create_task(self._call(f"c{number}")) for number in range(CALLERS)]
        self._tasks += [asyncio.create_task(self._follow(number)) for number in range(self._partitions)]

    async def stop(self) -> None:
        """Ends the callers, once they have heard; the readers when they have all of the log."""
        self._appending = False
        await asyncio.gather(*self._tasks[:CALLERS])
        for partition in range(self._partitions):
            end = (await self._log.bounds(self._topic, partition)).end
            async with asyncio.timeout(30):
                while not self._has(partition, end):  # noqa: ASYNC110  # a reader sends no event
                    await asyncio.sleep(0.02)
        await self.close()

    async def close(self) -> None:
        """Ends everything at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, name: str) -> None:
        number = 0
        while self._appending:
            records = []
            for partition in self._random.sample(range(self._partitions), self._random.randint(1, 3)):
                for _ in range(self._random.randint(1, 3)):
                    records.append(Append(self._topic, partition, name.encode(), f"{name}-{number}".encode()))
                    number += 1
            began = time.monotonic()
            try:
                positions = await self._log.append(records)
            except LogUnavailable as error:
                self.failed.append((began, str(error)))
            else:
                for record, position in zip(records, positions, strict=True):
                    self.acknowledged[(record.value or b"").decode()] = position
                    self.good[position.partition] = began
            await asyncio.sleep(self._random.uniform(0, 2 * PAUSE))

    async def _follow(self, partition: int) -> None:
        async for records in self._log.read(self._topic, partition, 0):
            self.followed[partition] += [(r.offset, (r.value or b"").decode()) for r in records]

    def _has(self, partition: int, end: int) -> bool:
        followed = self.followed[partition]
        return not end or (bool(followed) and followed[-1][0] >= end - 1)

    async def right_again(self, seconds: float) -> float:
        """Waits until an append begun from now on was acknowledged in each partition; how long it took."""
        began = time.monotonic()
        while not all(self.good.get(number, 0) >= began for number in range(self._partitions)):
            if time.monotonic() - began > seconds:
                raise NotInTime(f"partitions without an acknowledgement for {seconds} s: {self.failed[-3:]}")
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def failures_after(self, at: float) -> list[str]:
        """Appends begun later than this that were not acknowledged."""
        return [f"{began - at:+.2f} s: {error}" for began, error in self.failed if began > at]

    async def broken(self) -> list[str]:
        """What is not as promised: nothing acknowledged is missing or elsewhere, nothing stands twice, in order."""
        found: list[str] = []
        stand: dict[str, Position] = {}
        times: Counter[str] = Counter()
        for partition in range(self._partitions):
            records = await self._all(partition)
            for record in records:
                value = (record.value or b"").decode()
                times[value] += 1
                stand[value] = Position(partition, record.offset, record.timestamp)
            if self.followed[partition] != [(r.offset, (r.value or b"").decode()) for r in records]:
                found.append(f"who followed partition {partition} got something else than stands there")
            by_caller: dict[str, int] = {}
            for record in records:
                caller, _, number = (record.value or b"").decode().partition("-")
                if int(number) <= by_caller.get(caller, -1):
                    found.append(f"{partition}/{record.offset}: {caller}-{number} after {by_caller[caller]}")
                by_caller[caller] = int(number)
        found += [f"lost: {value}" for value in self.acknowledged if value not in stand]
        found += [f"doubled: {value} stands {count} times" for value, count in times.items() if count > 1]
        found += [
            f"told elsewhere: {value} at {told}, not {stand[value]}"
            for value, told in self.acknowledged.items()
            if value in stand and stand[value] != told
        ]
        return found

    async def _all(self, partition: int) -> list[Record]:
        """All that stands in a partition."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(LogUnavailable):
                    end = (await self._log.bounds(self._topic, partition)).end
                    return [r async for batch in self._log.read(self._topic, partition, 0, end) for r in batch]
