"""Call events on their way to `calls`: in no call's way, in order, and kept within a bound while Kafka is away.

Nobody waits for them, so they are gathered: an append every fifth of a second costs every stage behind it, from here to
the tables, a fraction of what one for each message would. One append is under way at a time, so that the events of a
call stay in order. An append whose outcome is unknown is repeated: an event that is written twice has one id, and
counts once.
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
from runtime.log.port import Append, Log
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

MOST = 50_000
"""Events kept while the log is away: about 25 MB, and some minutes of calls. More are dropped by name."""
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
        self._task: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()
        """Whether nothing more is waited for."""
        self._partitions = 0
        self.away = False
        """Whether the last append failed."""
        self._stopping = False
        _SPOOLED.set_function(lambda: len(self._waiting))

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, events: Sequence[CallEvent]) -> None:
        """Takes events; those that find no room are dropped. Waits for nothing."""
        room = self._most - len(self._waiting)
        if len(events) > room:
            dropped("call-events-overflow", len(events) - max(0, room))
            events = events[: max(0, room)]
        waiting = self._waiting
        waiting.extend(events)
        if len(waiting) >= BATCH:
            self._enough.set()
        if waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work(), name="call events")

    async def stop(self, deadline: float) -> None:
        """Appends what waits, for so many seconds; what is left then is dropped."""
        self._stopping = True
        self._enough.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=deadline)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            dropped("call-events-overflow", len(self._waiting))
            self._waiting.clear()

    async def _work(self) -> None:
        failures = 0
        while self._waiting:
            await self._gather()
            batch = list(itertools.islice(self._waiting, BATCH))
            try:
                await self._append(batch)
            except LogUnavailable as error:
                self._log_is_away(error)
                failures += 1
                await asyncio.sleep(min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 10)))
                continue
            except Exception:  # a bug: these are lost, the next ones go on
                log.exception("call events could not be appended")
                dropped("call-events-refused", len(batch))
            failures, self.away = 0, False
            for _ in batch:
                self._waiting.popleft()

    async def _gather(self) -> None:
        """Waits until there is a batch, or what is there has waited long enough."""
        if len(self._waiting) < BATCH and not self._stopping:
            self._enough.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._enough.wait()

    async def _append(self, events: Sequence[CallEvent]) -> None:
        self._partitions = self._partitions or await self._log.partitions(CALLS)
        records: list[Append] = []
        try:
            for start in range(0, len(events), TURN):
                records += self._records(events[start : start + TURN])
                await asyncio.sleep(0)
            await self._log.append(records)
        except LogRefused:
            for record in records:
                try:
                    await self._log.append([record])
                except LogRefused as error:
                    log.warning("the log refuses a call event", extra={"cause": str(error)})
                    dropped("call-events-refused")

    def _records(self, events: Iterable[CallEvent]) -> Iterable[Append]:
        partitions = self._partitions
        for event in events:
            key = event.call_id
            headers = Happened(KINDS[type(event)], SOURCE, event_id(event), key, event.at)
            yield _new(Append, (CALLS, partition_of(key, partitions), key.encode(), encode(event), headers))

    def _log_is_away(self, error: LogUnavailable) -> None:
        if not self.away:
            log.warning("call events are kept until the log is back", extra={"cause": str(error)})
        self.away = True
