"""Commands on their way to `auth.commands`: what one wake-up brings goes out in one append.

While appends are under way, further commands gather and go together when one has ended: so batches grow
with the load, and at low load nobody waits (KAFKA.md, section 1: wake-ups cost, not records).
"""

import asyncio
import logging
import time
from collections.abc import Callable

from edge.actions import Publish
from edge.clock import LogClock
from events.topics import AUTH_COMMANDS, partition_of
from events.wire import cloud_event
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.port import Append, Log

log = logging.getLogger("ramal.edge")

APPENDS = 4
"""Appends under way at one time."""
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
        self._tasks: set[asyncio.Task[None]] = set()
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go_on(self) -> None:
        if self._waiting and len(self._tasks) < APPENDS:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            task = asyncio.get_running_loop().create_task(self._append(batch), name="append")
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
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
