"""Ends calls of which nothing is heard any more, through the log: a `CallTimedOut` on `calls`.

So the fold alone decides what the tables have, and a replay gives the same. The event is void if something was heard
meanwhile; that several members of the group, or one twice, write the same changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable

from cdr.config import Settings
from cdr.decider import timed_out
from cdr.events import timed_out as timed_out_record
from cdr.handler import CdrHandler, limits
from cdr.tables import overdue
from events.topics import CALLS
from runtime.database.port import Database
from runtime.errors import Unavailable
from runtime.log.apart import append_apart
from runtime.log.clock import newest
from runtime.log.port import Log

log = logging.getLogger("ramal.cdr")

TOGETHER = 2000
"""Calls closed at one look; those that were just closed have to pass the log first."""


class Closing:
    """Looks for overdue calls of the partitions that a handler has."""

    def __init__(
        self,
        log: Log,
        database: Database,
        handler: CdrHandler,
        settings: Settings,
        now: Callable[[], int | None] | None = None,
    ) -> None:
        """`now`: the log's time in milliseconds, as the handler knows it; None while it does not."""
        self._log = log
        self._database = database
        self._handler = handler
        self._every = settings.close_every
        self._limits = limits(settings)
        self._now = now or handler.time.now

    async def run(self) -> None:
        """Looks for ever."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
                await self._handler.publish_rest()
            except Unavailable as error:
                log.warning("calls without an end are not closed now", extra={"cause": str(error)})
            except Exception:
                log.exception("calls without an end could not be closed; trying again")

    async def look(self) -> int:
        """Closes what is overdue; how many calls that were."""
        now = self._now()
        if now is None:  # nothing has happened since we began
            await self._hear()
            now = self._now()
        if now is None:
            return 0
        late = await overdue(self._database, self._handler.partitions(), now, TOGETHER)
        records = [
            timed_out_record(event, partition)
            for partition, calls in late.items()
            for _, call, known in calls
            if (event := timed_out(call, known.state, self._limits, now)) is not None
        ]
        if records:
            # What a partition is away for is overdue at the next look, too.
            self._handler.time.acknowledged(await append_apart(self._log, records))
        return sum(map(len, late.values()))

    async def _hear(self) -> None:
        """Learns of the log's newest records how late it is at least; raises LogUnavailable."""
        for number in self._handler.partitions():
            if (written := await newest(self._log, CALLS, number)) is not None:
                self._handler.time.heard(written)
