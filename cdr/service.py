"""cdr as a service: its settings, its handler, its worker, and the task that closes calls."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence

from cdr.closing import Closing
from cdr.config import Settings
from cdr.handler import CdrHandler
from cdr.view import SOURCES, ViewHandler
from events.topics import VIEW
from runtime.config import Common, Sources
from runtime.database.failover import look_back
from runtime.database.one_database import OneDatabase
from runtime.database.port import Database
from runtime.errors import LogUnavailable
from runtime.http import Route
from runtime.log.port import Log
from runtime.worker import Worker

GATHER = 0.7
"""Seconds from one look at the log to the next: one transaction for many calls costs a fraction of many for few, and a
call that begins and ends within one is written once. With what the edge gathers, a call is shown within a second."""
TOGETHER = 2000
"""Events of one transaction at most."""


class Cdr:
    """`runtime.service.Service` of the calls' projection."""

    name = "cdr"
    routes: Sequence[Route] = ()
    unhurried = True

    def __init__(self, log: Log, database: Database, settings: Settings, served: Collection[str] = ()) -> None:
        """`served`: the domains that stay in the analysts' view."""
        self._handler = handler = CdrHandler(log, database, settings)
        self._log = log
        self._worker = worker = Worker(log, handler, gather=GATHER, most=TOGETHER)
        anew = "ramal rebuild cdrs"
        self._one = OneDatabase(log, handler.topic, handler.group, handler.positions, worker.assigned, anew)
        self._views = [Worker(log, ViewHandler(topic, log, database, served)) for topic in SOURCES]
        self._look_every = settings.close_every
        self._closing = Closing(log, database, handler, settings)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Joins the group `cdr` in the background, once these are its tables."""
        self._tasks = [
            asyncio.create_task(self._run(), name="cdr"),
            asyncio.create_task(self._closing.run(), name="cdr closing"),
            asyncio.create_task(
                look_back(self._handler.positions, self._handler.reached, self._worker.give_up), name="cdr failover"
            ),
        ]

    async def _run(self) -> None:
        await self._one.admitted()
        await asyncio.gather(self._worker.run(), self._one.watch(), self._show())

    async def _show(self) -> None:
        """Keeps the analysts' view, from when somebody has made its topics (`ramal topics --analysts`)."""
        while not await self._has_view():  # noqa: ASYNC110  # topics tell nobody that they were made
            await asyncio.sleep(self._look_every)
        await asyncio.gather(*(worker.run() for worker in self._views))

    async def _has_view(self) -> bool:
        try:
            return all([await self._log.partitions(topic.name) for topic in VIEW])
        except (KeyError, LogUnavailable):
            return False

    async def stop(self, deadline: float) -> None:
        """Finishes the batch in hand and leaves the group, within `deadline` seconds."""
        await asyncio.gather(*(worker.stop(deadline) for worker in (self._worker, *self._views)))
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return self._worker.status() | {"cdrs": self._handler.lacks(), "tables": self._one.reason}

    def not_ready(self) -> list[str]:
        """Why not, one sentence each."""
        return [*self._worker.not_ready(), *([self._one.reason] if self._one.reason else [])]


def build(sources: Sources, log: Log, database: Database) -> Cdr:
    """The service with its settings from these sources."""
    return Cdr(log, database, sources.section(Settings, "cdr"), sources.section(Common).served())
