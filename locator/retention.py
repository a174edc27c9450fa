"""History that is older than `history_days` is deleted, a few rows at a time, by whoever has partition 0.

By the index of `until_ms`, so it finds what it looks for, and holds the locks of its few rows for some milliseconds.
With the first row that goes, `history_kept` says from when on the history is whole (`locator.history.known_since`).
Registrations that last stay, however long they have lasted. (Partitions by day, one dropped each day, were measured:
docs/benchmark.md.)
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from locator.config import Settings
from locator.history import kept_since
from locator.tables import LIVE
from runtime.database.port import Database, Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable

log = logging.getLogger("ramal.locator")

DAY_MS = 86_400_000
EVERY_SECONDS = 600.0
TOGETHER = 200
"""Rows of one transaction."""
PAUSE_SECONDS = 0.1
"""Between two of them: registrations go first."""


async def delete_old(database: Database, until: int) -> int:
    """Deletes some of what had ended before this time (milliseconds); how many rows, about. 0: nothing is left.

    Raises DatabaseUnavailable, DatabaseRefused.
    """
    rows = await database.query(
        f"SELECT COUNT(*), MAX(until_ms) FROM (SELECT until_ms FROM {LIVE.history}"  # noqa: S608  # ours
        " WHERE until_ms < %s ORDER BY until_ms LIMIT %s) few",
        (until, TOGETHER),
    )
    count, last = rows[0]
    if not count:
        return 0
    kept = max(until, await kept_since(database))
    await database.transact(
        [
            database.upsert("history_kept", ("id", "since_ms"), ("id",), [(1, kept)]),
            Statement(f"DELETE FROM {LIVE.history} WHERE until_ms <= %s", (last,)),  # noqa: S608  # ours
        ]
    )
    return int(count)


async def time_of(database: Database) -> float:
    """Unix seconds by the database's clock: what a locator with a wrong clock deleted would not come back."""
    rows = await database.query("SELECT CURRENT_TIMESTAMP")
    return datetime.fromisoformat(str(rows[0][0])).replace(tzinfo=UTC).timestamp()


class Retention:
    """Looks for old history for as long as the service runs."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        mine: Callable[[], bool],
        now: Callable[[Database], Awaitable[float]] = time_of,
    ) -> None:
        """`mine`: whether this process is the one that does it now; `now` in Unix seconds."""
        self._database = database
        self._days = settings.history_days
        self._mine = mine
        self._now = now

    async def run(self) -> None:
        """Looks for ever; returns at once where history is kept for ever."""
        while self._days:
            try:
                await self.look()
            except (DatabaseUnavailable, DatabaseRefused) as error:
                log.warning("old history is not deleted now", extra={"cause": str(error)})
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> int:
        """Deletes all that is too old; about how many rows."""
        until, deleted = int(await self._now(self._database) * 1000) - self._days * DAY_MS, 0
        while self._mine() and (count := await delete_old(self._database, until)):
            deleted += count
            await asyncio.sleep(PAUSE_SECONDS)
        if deleted:
            log.info("old history was deleted", extra={"rows": deleted, "days": self._days})
        return deleted
