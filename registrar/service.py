"""How the registrar is wired: a worker for its commands, a loop for the timer and one for snapshots."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

from registrar import metrics
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from runtime.config import Common, Sources
from runtime.database.port import Database
from runtime.errors import LogRefused, LogUnavailable
from runtime.http import Route
from runtime.log.port import Log
from runtime.worker import Worker

log = logging.getLogger("ramal.registrar")

TOPICS_SECONDS = 2.0
LOOK_SECONDS = 60.0
"""How often it looks at the topics once it works: what somebody changed there is told before the next start."""
TICK_SECONDS = 1.0


class RegistrarService:
    """The registrar of one process."""

    name = "registrar"
    routes: Sequence[Route] = ()

    def __init__(self, source: Log, policy: Policy, writer: str, partitions: int) -> None:
        self._log, self._partitions = source, partitions
        self._faults = ["the topics were not looked at yet"]
        """Why nothing is decided."""
        self._changed: list[str] = []
        """What has become wrong with the topics since."""
        self.handler = RegistrarHandler(source, policy, writer, partitions)
        self._worker = Worker(source, self.handler)
        self._snapshot_interval = policy.snapshot_interval
        self._tasks: list[asyncio.Task[None]] = []
        metrics.watch(self.handler.partitions)

    async def start(self) -> None:
        """Starts its tasks; the worker waits for the log."""
        self._tasks = [
            asyncio.create_task(self._work(), name="registrar worker"),
            asyncio.create_task(_repeat(TICK_SECONDS, self.handler.tick), name="registrar timer"),
            asyncio.create_task(_repeat(self._snapshot_interval, self._snapshot), name="registrar snapshots"),
        ]

    async def _work(self) -> None:
        """Decides commands, once the topics are as they must be: with other counts, AORs would change their places."""
        said: list[str] = []
        while faults := await self._topic_faults():
            if faults != said:
                log.error("the topics are not as they must be", extra={"faults": faults})
            self._faults = said = faults
            await asyncio.sleep(TOPICS_SECONDS)
        self._faults = []
        looking = asyncio.create_task(self._look_at_topics(), name="registrar topics")
        try:
            await self._worker.run()
        finally:
            looking.cancel()

    async def _look_at_topics(self) -> None:
        """Tells what is changed while it works, for ever: it goes on, since to stop would be worse than most of it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                faults = await self._log.check_topics(self._partitions)
            except LogUnavailable:
                continue
            except Exception:
                log.exception("the topics could not be looked at")
                continue
            if faults and faults != self._changed:
                log.error("the topics are not as they must be any more", extra={"faults": faults})
            self._changed = faults
            metrics.TOPIC_FAULTS.set(len(faults))

    async def _topic_faults(self) -> list[str]:
        try:
            return await self._log.check_topics(self._partitions)
        except LogUnavailable:
            return ["the log is away"]

    async def _snapshot(self) -> None:
        """Writes snapshots; a partition that turns out to be lost is restored without waiting for a command."""
        try:
            await self.handler.snapshot()
        finally:
            self._worker.give_up([number for number, p in self.handler.partitions.items() if p.lost])

    async def stop(self, deadline: float) -> None:
        """Ends timer and snapshots, writes a last snapshot while the partitions are ours, leaves the group."""
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        try:
            async with asyncio.timeout(deadline / 2):
                await self.handler.snapshot()
        except (TimeoutError, LogUnavailable, LogRefused) as error:
            log.warning("no last snapshot; it will be replayed", extra={"cause": str(error)})
        await self._worker.stop(deadline / 2)
        for task in self._tasks[:1]:  # it may still be waiting for the topics; none before `start`
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return self._worker.status() | {"topics": "; ".join(self._faults or self._changed)}

    def not_ready(self) -> list[str]:
        """Why commands are not being decided here, one sentence each."""
        return self._faults or self._worker.not_ready()


async def _repeat(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Does it again and again; what fails is said and tried again at the next turn."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await act()
        except (LogUnavailable, LogRefused) as error:
            log.warning("put off", extra={"what": act.__name__, "cause": str(error)})
        except Exception:
            log.exception("failed; it goes on", extra={"what": act.__name__})


def build(sources: Sources, source: Log, database: Database) -> RegistrarService:
    """The service with the settings of section `registrar`; it needs no tables."""
    del database
    common = sources.section(Common)
    writer = f"{common.name or socket.gethostname()}:{secrets.token_hex(4)}"
    return RegistrarService(source, sources.section(Policy, "registrar"), writer, common.partitions)
