"""Notices that the tables have become an older copy of themselves: after a failover to a replica that was behind.

Whoever writes finds that by its next record. Where none comes for a while, what was acknowledged would be missing from
the tables for as long.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from runtime.database.positions import Positions
from runtime.errors import DatabaseRefused, DatabaseUnavailable

LOOK_SECONDS = 2.0

log = logging.getLogger("ramal.database")


async def look_back(
    positions: Positions, known: Callable[[], Mapping[int, int]], give_up: Callable[[Iterable[int]], None]
) -> None:
    """Gives up partitions whose position in the tables is below the one that we have committed; for ever."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            behind = await positions.behind(known())
        except (DatabaseUnavailable, DatabaseRefused):
            continue  # whoever writes says so
        if behind:
            log.warning("the tables are an older copy; applying the rest again", extra={"partitions": sorted(behind)})
            give_up(behind)
