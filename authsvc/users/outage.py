"""Whether a table that users come from answers: told once in the log, and in `/status` while it does not."""

import asyncio
import logging
from collections.abc import Callable

from runtime.database.port import Database
from runtime.errors import DatabaseUnavailable

log = logging.getLogger("ramal.authsvc")

AWAY_SECONDS = 1.0
"""For how long after a failure the table counts as away; then the next look-up, or a probe, finds out."""


class Outage:
    """Of one table."""

    def __init__(self, database: Database, table: str, clock: Callable[[], float]) -> None:
        """`clock` in monotonic seconds."""
        self._database, self._table = database, table
        self._clock = clock
        self._away_until = 0.0
        self._why = ""
        self._probing: asyncio.Task[None] | None = None

    @property
    def away(self) -> bool:
        """Whether a query failed a moment ago."""
        return self._clock() < self._away_until

    def told(self) -> str:
        """Why nobody is found there, in a sentence; "" while they are."""
        return f"the table {self._table} cannot be asked: {self._why}" if self._why else ""

    def began(self, error: DatabaseUnavailable) -> None:
        """A query failed: it is asked again until one is answered."""
        self._away_until = self._clock() + AWAY_SECONDS
        if not self._why:
            log.warning("users cannot be looked up", extra={"table": self._table, "cause": str(error)})
        self._why = str(error)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name=f"probe {self._table}")

    def ended(self) -> None:
        """A query was answered."""
        if self._why:
            self._why = ""
            log.warning("users can be looked up again", extra={"table": self._table})

    async def stop(self) -> None:
        """Asks no more."""
        if self._probing:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe(self) -> None:
        while self._why:
            await asyncio.sleep(AWAY_SECONDS)
            try:
                await self._database.query(f"SELECT 1 FROM {self._table} WHERE 1 = 0")  # noqa: S608  # a name of ours
            except DatabaseUnavailable as error:
                self._why = str(error)
            else:
                self.ended()
