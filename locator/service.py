"""The locator as a service: its settings, its handler, its worker."""

import asyncio
import contextlib
from collections.abc import Sequence

from locator.config import Settings
from locator.handler import LocatorHandler
from locator.retention import Retention
from runtime.config import Sources
from runtime.database.failover import look_back
from runtime.database.one_database import OneDatabase
from runtime.database.port import Database
from runtime.http import Route
from runtime.log.port import Log
from runtime.worker import Worker


class Locator:
    """`runtime.service.Service` of the projection."""

    name = "locator"
    routes: Sequence[Route] = ()

    def __init__(self, log: Log, database: Database, settings: Settings) -> None:
        self._handler = handler = LocatorHandler(log, database, settings)
        self._worker = worker = Worker(log, handler)
        self._one = OneDatabase(log, handler.topic, handler.group, handler.positions, worker.assigned, "ramal rebuild")
        self._retention = Retention(database, settings, lambda: self._handler.owns(0))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Joins the group `locator` in the background, once these are its tables."""
        self._tasks = [
            asyncio.create_task(self._run(), name="locator"),
            asyncio.create_task(self._retention.run(), name="locator retention"),
            asyncio.create_task(
                look_back(self._handler.positions, self._handler.reached, self._worker.give_up), name="locator failover"
            ),
        ]

    async def _run(self) -> None:
        await self._one.admitted()
        await asyncio.gather(self._worker.run(), self._one.watch())

    async def stop(self, deadline: float) -> None:
        """Finishes the batch in hand and leaves the group, within `deadline` seconds."""
        await self._worker.stop(deadline)
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return self._worker.status() | {"tables": "; ".join(self._tables()), "replies": self._handler.replies_refused}

    def not_ready(self) -> list[str]:
        """Why not, one sentence each; an AOR that the tables refuse holds up its partition."""
        refused = self._handler.replies_refused
        return [*self._worker.not_ready(), *self._tables(), *([f"replies are refused: {refused}"] if refused else [])]

    def _tables(self) -> list[str]:
        """What is wrong with the tables."""
        stopped = [f"stands still at {aor or 'a record without AOR'}" for aor in self._handler.stopped()]
        return [*stopped, *([self._one.reason] if self._one.reason else [])]


def build(sources: Sources, log: Log, database: Database) -> Locator:
    """The service with its settings from these sources."""
    return Locator(log, database, sources.section(Settings, "locator"))
