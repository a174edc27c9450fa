"""Call events on their way to `calls`: in no call's way, in order, and kept within a bound while Kafka is away.

Nobody waits for them, so they are gathered: an append every fifth of a second costs every stage behind it, from here to
the tables, a fraction of what one for each message would. One append is under way at a time, so that the events of a
call, which are all of one partition, stay in order. An append whose outcome is unknown is repeated: an event that is
written twice has one id, and counts once.

A partition that is away keeps its events apart: until they are written, whatever comes for it goes behind them, and
the others go on.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Sequence

from prometheus_client import Gauge

from events.calls import KINDS, CallEvent, event_id
from events.topics import CALLS, partition_of
from events.wire import Happened, encode
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.apart import append_apart
from runtime.log.port import Append, Log
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

MOST = 50_000
"""Events kept while the log is away: about 25 MB, and some minutes of calls. More are dropped by name."""
SHARE = 0.8
"""Of these, what partitions that are away may fill; the rest is room for those that are there."""
BATCH = 2000
TURN = 100
"""Events that are encoded before whatever else there is to do has its turn: a millisecond."""
GATHER = 0.2
"""Seconds that events wait for others, unless there is a whole batch of them."""
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 2.0
SOURCE = "edge"

_new = tuple.__new__
"""Twice as fast as a named tuple's own."""

_SPOOLED = Gauge("ramal_edge_spooled_call_events", "Call events that the log has not taken yet.")


class CallSpool:
    """Appends what happened to calls."""

    def __init__(self, log: Log, most: int = MOST) -> None:
        self._log = log
        self._most = most
        self._waiting: deque[CallEvent] = deque()
        self._batch: list[CallEvent] = []
        """What is being appended: of no partition that is away."""
        self._kept: dict[int, deque[CallEvent]] = {}
        """By partition that is away, its events in order."""
        self._kept_in_all = 0
        self._tasks: dict[int | None, asyncio.Task[None]] = {}
        """By partition that is away, what tries it; of None, what appends the others' events."""
        self._enough = asyncio.Event()
        """Whether nothing more is waited for."""
        self._partitions = 0
        self.away = False
        """Whether the last append failed."""
        self._stopping = False
        _SPOOLED.set_function(lambda: len(self))

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch) + self._kept_in_all

    def put(self, events: Sequence[CallEvent]) -> None:
        """Takes events; those that find no room are dropped. Waits for nothing."""
        room = self._most - len(self)
        if len(events) > room:
            dropped("call-events-overflow", len(events) - max(0, room))
            events = events[: max(0, room)]
        waiting = self._waiting
        waiting.extend(events)
        if len(waiting) >= BATCH:
            self._enough.set()
        if waiting and None not in self._tasks:
            self._tasks[None] = asyncio.get_running_loop().create_task(self._work(), name="call events")

    async def stop(self, deadline: float) -> None:
        """Appends what waits, for so many seconds; what is left then is dropped."""
        self._stopping = True
        self._enough.set()
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while self._tasks and loop.time() < until:  # one may begin another
            await asyncio.wait(set(self._tasks.values()), timeout=until - loop.time())
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if left := len(self):
            dropped("call-events-overflow", left)
            self._waiting.clear()
            self._batch.clear()
            self._kept.clear()
            self._kept_in_all = 0

    async def _work(self) -> None:
        failures = 0
        try:
            while self._waiting or self._batch:
                if not self._batch:
                    await self._gather()
                    await self._take()
                try:
                    away = await self._write(self._batch)
                except LogUnavailable as error:
                    self._log_is_away(error)
                    failures += 1
                    await _back_off(failures)
                    continue
                failures, self.away = 0, False
                self._batch.clear()
                for event in away:
                    self._keep(event)
        finally:
            del self._tasks[None]

    async def _gather(self) -> None:
        """Waits until there is a batch, or what is there has waited long enough."""
        if len(self._waiting) < BATCH and not self._stopping:
            self._enough.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._enough.wait()

    async def _take(self) -> None:
        """Fills the batch with what waits; what is for a partition that is away goes behind what it has."""
        if not self._kept:
            count = min(BATCH, len(self._waiting))
            self._batch += [self._waiting.popleft() for _ in range(count)]
            return
        for number in range(min(BATCH, len(self._waiting))):
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
            event = self._waiting.popleft()
            if self._partition_of(event) in self._kept:
                self._keep(event)
            else:
                self._batch.append(event)

    # --- partitions that are away ---------------------------------------------------------------------------------

    def _keep(self, event: CallEvent) -> None:
        """Puts an event behind what its partition has, which is tried by itself until it has taken all."""
        if self._kept_in_all >= self._most * SHARE:
            dropped("call-events-overflow")
            return
        partition = self._partition_of(event)
        kept = self._kept.get(partition)
        if kept is None:
            log.warning("a partition's call events are kept until it is back", extra={"partition": partition})
            kept = self._kept[partition] = deque()
            name = f"call events of partition {partition}"
            self._tasks[partition] = asyncio.get_running_loop().create_task(self._bring(partition, kept), name=name)
        kept.append(event)
        self._kept_in_all += 1

    async def _bring(self, partition: int, kept: deque[CallEvent]) -> None:
        failures = 1
        try:
            while kept:
                if failures:
                    await _back_off(failures)
                batch = list(itertools.islice(kept, BATCH))
                left = len(batch)
                with contextlib.suppress(LogUnavailable):
                    left = len(await self._write(batch))
                for _ in range(len(batch) - left):
                    kept.popleft()
                self._kept_in_all -= len(batch) - left
                failures = failures + 1 if left else 0
        finally:
            del self._kept[partition], self._tasks[partition]

    # --- appending ------------------------------------------------------------------------------------------------

    async def _write(self, events: Sequence[CallEvent]) -> list[CallEvent]:
        """Appends events; those whose partition is away, which were not. Raises LogUnavailable: then all again."""
        try:
            self._partitions = self._partitions or await self._log.partitions(CALLS)
            records: list[Append] = []
            for start in range(0, len(events), TURN):
                records += self._records(events[start : start + TURN])
                await asyncio.sleep(0)
            away = await self._append(records)
        except LogUnavailable:
            raise
        except Exception:  # a bug: these are lost, the next ones go on
            log.exception("call events could not be appended")
            dropped("call-events-refused", len(events))
            return []
        return [event for event, is_away in zip(events, away, strict=True) if is_away] if any(away) else []

    async def _append(self, records: Sequence[Append]) -> list[bool]:
        """Of each record, whether its partition is away; one that the log refuses is dropped alone."""
        try:
            return [position is None for position in await append_apart(self._log, records)]
        except LogRefused:
            away: set[int] = set()
            return [await self._append_alone(record, away) for record in records]

    async def _append_alone(self, record: Append, away: set[int]) -> bool:
        """Whether its partition is away; nothing goes there any more once one record has not."""
        if record.partition not in away:
            try:
                if await append_apart(self._log, [record]) == [None]:
                    away.add(record.partition)
            except LogRefused as error:
                log.warning("the log refuses a call event", extra={"cause": str(error)})
                dropped("call-events-refused")
        return record.partition in away

    def _records(self, events: Iterable[CallEvent]) -> Iterable[Append]:
        partitions = self._partitions
        for event in events:
            key = event.call_id
            headers = Happened(KINDS[type(event)], SOURCE, event_id(event), key, event.at)
            yield _new(Append, (CALLS, partition_of(key, partitions), key.encode(), encode(event), headers))

    def _partition_of(self, event: CallEvent) -> int:
        return partition_of(event.call_id, self._partitions)

    def _log_is_away(self, error: LogUnavailable) -> None:
        if not self.away:
            log.warning("call events are kept until the log is back", extra={"cause": str(error)})
        self.away = True


async def _back_off(failures: int) -> None:
    await asyncio.sleep(min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 10)))
