"""How far each partition of the log is in the tables of a projection, and who may write them.

A projection writes rows and its positions in one transaction (`runtime.database.port.Advance`). A rebuild holds the
positions while it swaps tables: it adds HELD to their claims, so that everybody else's is below and conflicts.
"""

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from runtime.database.port import Database, Statement
from runtime.errors import DatabaseUnavailable

log = logging.getLogger("ramal.database")

HELD_SECONDS = 30.0
"""How long a rebuild may hold the positions: it needs well below a second, and gives up by itself after 10."""
COLUMNS = ("projection", "partition_no", "next_offset", "claim")
HELD = 1 << 62
_HELD_FROM = HELD >> 1
"""No offset is as high; the lowest claim of all, -1, makes one below HELD."""


class Position(NamedTuple):
    """How far a partition of the log is in the tables."""

    next: int
    claim: int

    def held(self) -> bool:
        """Whether a rebuild is swapping the tables."""
        return self.claim >= _HELD_FROM


async def position(database: Database, projection: str, partition: int) -> Position | None:
    """Where a partition is; None when its row is missing."""
    rows = await database.query(
        "SELECT next_offset, claim FROM projection_offset WHERE projection = %s AND partition_no = %s",
        (projection, partition),
    )
    return Position(int(rows[0][0]), int(rows[0][1])) if rows else None


def begin_at(database: Database, projection: str, partition: int, at: Position) -> Statement:
    """Makes the row of a position, unless there is one."""
    return database.upsert("projection_offset", COLUMNS, COLUMNS, [(projection, partition, *at)])


def hold(projection: str) -> Statement:
    """Makes everybody conflict who writes these tables, until `let_go` or `put_at`."""
    return Statement(
        "UPDATE projection_offset SET claim = claim + %s WHERE projection = %s AND claim < %s",
        (HELD, projection, _HELD_FROM),
    )


def let_go(projection: str) -> Statement:
    """Takes `hold` back."""
    return Statement(
        "UPDATE projection_offset SET claim = claim - %s WHERE projection = %s AND claim >= %s",
        (HELD, projection, _HELD_FROM),
    )


def put_at(database: Database, projection: str, at: Mapping[int, Position]) -> Statement:
    """Gives the tables these positions, whatever they had."""
    rows = [(projection, partition, *position) for partition, position in at.items()]
    return database.upsert("projection_offset", COLUMNS, COLUMNS[:2], rows)


def forget(projection: str) -> Statement:
    """Removes the positions of a projection."""
    return Statement("DELETE FROM projection_offset WHERE projection = %s", (projection,))


class Positions:
    """The positions of a projection's live tables, for whoever writes these."""

    def __init__(self, database: Database, projection: str) -> None:
        self._database = database
        self._projection = projection
        self._held_since: float | None = None

    async def find(self, partition: int, claim: int) -> Position:
        """Where a partition is, its row made with this claim if there is none.

        Raises DatabaseUnavailable while a rebuild swaps the tables; takes the positions back from a dead one.
        """
        at = await self._free(partition)
        if at is None:
            start = begin_at(self._database, self._projection, partition, Position(0, claim))
            await self._database.transact([start])
            at = await self._free(partition)
            if at is None:
                raise DatabaseUnavailable("the position vanished")
        return at

    async def all(self) -> dict[int, int]:
        """By partition, the offset behind what is in the tables."""
        rows = await self._database.query(
            "SELECT partition_no, next_offset FROM projection_offset WHERE projection = %s", (self._projection,)
        )
        return {int(number): int(next_) for number, next_ in rows}

    async def behind(self, known: Mapping[int, int]) -> set[int]:
        """The partitions whose offset in the table is below this one: it is an older copy of the one we knew."""
        there = await self.all()
        return {number for number, next_ in known.items() if there.get(number, 0) < next_}

    async def _free(self, partition: int) -> Position | None:
        at = await position(self._database, self._projection, partition)
        if at is None or not at.held():
            self._held_since = None
            return at
        now = time.monotonic()
        self._held_since = self._held_since or now
        if now - self._held_since < HELD_SECONDS:
            raise DatabaseUnavailable("a rebuild is swapping the tables")
        log.error("a rebuild died while it swapped the tables; going on with those that are there")
        await self._database.transact([let_go(self._projection)])
        return Position(at.next, at.claim - HELD)
