"""Commands on their way to `auth.commands`: what one wake-up brings goes out in one append.

While appends are under way, further commands gather and go together when one has ended: so batches grow
with the load (docs/kafka.md, section 1: wake-ups cost, not records). Registrations gather at low load, too: one goes
at once when none has gone for `gather_seconds`, the next ones when that time is over or many wait. A batch stays whole
through authsvc, registrar and locator, so what is gathered here is saved four times. A call goes at once and takes
along who waits.
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
from runtime.log.apart import append_apart
from runtime.log.port import Append, Log

log = logging.getLogger("ramal.edge")

APPENDS = 4
"""Appends under way at one time."""
SLOW_SECONDS = 0.1
"""An append under way for longer waits for a partition that nobody leads just now: it holds up no other any more."""
BATCH = 500
"""Commands in one append."""
ENOUGH = 40
"""Registrations that wait for no more."""
GATHERED = 20_000
"""From so many waiting on, those that nobody awaits any more are cleared away at once."""


class Publisher:
    """Appends commands; those that the log does not take are handed back at once.

    What waits here is bounded by what the core awaits (`max_pending`) and `GATHERED`; what nobody awaits
    any more is not sent.
    """

    def __init__(
        self,
        log: Log,
        clock: LogClock,
        awaits: Callable[[str], bool],
        failed: Callable[[list[str]], None],
        gather_seconds: float = 0.0,
    ) -> None:
        """`awaits(id)`: whether the answer is still of use; `failed(ids)` is told what was not appended."""
        self._log = log
        self._clock = clock
        self._awaits, self._failed = awaits, failed
        self._gather_seconds = gather_seconds
        self._waiting: list[Publish] = []
        self._urgent = False
        """Whether something among them does not wait."""
        self._gone_at = float("-inf")
        """When the last append was begun."""
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
        self._urgent = self._urgent or not all(command.patient for command in commands)
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
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._urgent and len(self._waiting) < ENOUGH and now < self._gone_at + self._gather_seconds:
            self._look_at(self._gone_at + self._gather_seconds)
            return
        if sum(now - begun < SLOW_SECONDS for begun in self._tasks.values()) >= APPENDS:
            self._look_at(now + SLOW_SECONDS)
            return
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._urgent = self._urgent and bool(self._waiting)
        self._gone_at = now
        task = loop.create_task(self._append(batch), name="append")
        self._tasks[task] = now
        task.add_done_callback(self._ended)

    def _look_at(self, when: float) -> None:
        """Goes on at that time of the loop, if nothing does before."""
        if self._look_again is not None:
            if self._look_again.when() <= when:
                return
            self._look_again.cancel()
        self._look_again = asyncio.get_running_loop().call_at(when, self._looked_again)

    def _looked_again(self) -> None:
        self._look_again = None
        self._go_on()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._go_on()

    async def _append(self, commands: list[Publish]) -> None:
        commands = [command for command in commands if self._awaits(command.id)]
        records = [
            Append(
                AUTH_COMMANDS,
                partition_of(command.key, self._partitions),
                command.key.encode(),
                command.value,
                cloud_event(command.kind, "edge", command.id),
            )
            for command in commands
        ]
        if not records:
            return
        sent = time.monotonic()
        try:
            positions = await append_apart(self._log, records)
        except (LogUnavailable, LogRefused) as error:
            if not self.away:
                log.warning("commands are not appended", extra={"cause": str(error)})
            self.away = True
            self._failed([command.id for command in commands])
        except Exception:  # a bug: its phones hear 503, the next ones are served
            log.exception("an append broke")
            self._failed([command.id for command in commands])
        else:
            written = [position for position in positions if position is not None]
            self.away = not written
            if written:
                self._clock.learn(sent, time.monotonic(), written[-1].timestamp)
            if len(written) < len(commands):  # of a partition that is away
                self._failed([command.id for command, at in zip(commands, positions, strict=True) if at is None])
