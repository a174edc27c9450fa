"""Commands on their way to `auth.commands`: what one wake-up brings goes out in one append.

While appends are under way, further commands gather and go together when one has ended: so batches grow
with the load, and at low load nobody waits (docs/kafka.md, section 1: wake-ups cost, not records).
"""

import asyncio
import logging
import time
from collections.abc import Callable

from edge.core.actions import Publish
from edge.core.clock import LogClock
from events.topics import AUTH_COMMANDS, partition_of
from events.wire import cloud_event
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.port import Append, Log

log = logging.getLogger("ramal.edge")

APPENDS = 4
"""Appends under way at one time."""
SLOW_SECONDS = 0.1
"""An append under way for longer waits for a partition that nobody leads just now: it holds up no other any more."""
BATCH = 500
"""Commands in one append."""
GATHERED = 20_000
"""From so many waiting on, those that nobody awaits any more are cleared away at once."""
KIND = "ramal.Authenticate"


class Publisher:
    """Appends commands; those that the log does not take are handed back at once.

    What waits here is bounded by what the core awaits (`max_pending`) and `GATHERED`; what nobody awaits
    any more is not sent.
    """

    def __init__(
        self, log: Log, clock: LogClock, awaits: Callable[[str], bool], failed: Callable[[list[str]], None]
    ) -> None:
        """`awaits(id)`: whether the answer is still of use; `failed(ids)` is told what was not appended."""
        self._log = log
        self._clock = clock
        self._awaits, self._failed = awaits, failed
        self._waiting: list[Publish] = []
        self._tasks: dict[asyncio.Task[None], float] = {}
        """Appends under way, and when each was begun."""
        self._look_again: asyncio.TimerHandle | None = None
        self._partitions = 0
        self.away = False
        """Whether the last append failed."""

    async def start(self) -> None:
        """Learns how many partitions there are; raises LogUnavailable or KeyError (no such topic)."""
        self._partitions = await self._log.partitions(AUTH_COMMANDS)

    @property
    def ready(self) -> bool:
        """Whether `start` has succeeded."""
        return self._partitions > 0

    def publish(self, commands: list[Publish]) -> None:
        """Sends these commands, now or with the next ones."""
        self._waiting.extend(commands)
        if len(self._waiting) > GATHERED:
            self._waiting = [command for command in self._waiting if self._awaits(command.id)]
        self._go_on()

    async def stop(self) -> None:
        """Drops what waits and ends what is under way."""
        self._waiting.clear()
        if self._look_again is not None:
            self._look_again.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go_on(self) -> None:
        if not self._waiting:
            return
        if len(self._tasks) >= APPENDS and not self._all_but_few_are_slow():
            return
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._append(batch), name="append")
        self._tasks[task] = loop.time()
        task.add_done_callback(self._ended)

    def _all_but_few_are_slow(self) -> bool:
        """Whether fewer than APPENDS are under way that are not slow; if not, it is looked at again."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if sum(now - begun < SLOW_SECONDS for begun in self._tasks.values()) < APPENDS:
            return True
        if self._look_again is None:
            self._look_again = loop.call_later(SLOW_SECONDS, self._looked_again)
        return False

    def _looked_again(self) -> None:
        self._look_again = None
        self._go_on()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._go_on()

    async def _append(self, commands: list[Publish]) -> None:
        records = [
            Append(
                AUTH_COMMANDS,
                partition_of(command.key, self._partitions),
                command.key.encode(),
                command.value,
                cloud_event(KIND, "edge", command.id),
            )
            for command in commands
            if self._awaits(command.id)
        ]
        if not records:
            return
        sent = time.monotonic()
        try:
            positions = await self._log.append(records)
        except (LogUnavailable, LogRefused) as error:
            if not self.away:
                log.warning("commands are not appended", extra={"cause": str(error)})
            self.away = True
            self._failed([command.id for command in commands])
        except Exception:  # a bug: its phones hear 503, the next ones are served
            log.exception("an append broke")
            self._failed([command.id for command in commands])
        else:
            self.away = False
            self._clock.learn(sent, time.monotonic(), positions[-1].timestamp)
