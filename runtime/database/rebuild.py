"""A projection's tables made anew from the log, while its service goes on.

    fill      shadows of the tables, from the log; what is older than the log is taken over as the projection says
    compare   per partition: the shadow is brought to the very offset that the live tables have (asked for in the
              statement that sums their rows), and the sums are compared
    hold      the positions: whoever writes the live tables conflicts, and waits
    swap      after the last records up to the held positions; then the positions are given back

One at a time: another would empty the shadows that the first is about to swap in.

Nothing is committed to the live tables between hold and swap, so no row is lost and none goes back. A rebuild that
dies before the swap leaves the live tables as they were, one that dies after it leaves the new ones; the positions
it held are taken back after a while, and at worst a little of the log is applied again. One that fails drops its
shadows; those of one that was killed are dropped by the next.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from runtime.database.port import Advance, Database, Statement
from runtime.database.positions import Position, begin_at, forget, hold, let_go, position, put_at
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.log.port import Bounds, Log, Record
from runtime.tasks import all_of

T = TypeVar("T")

TOGETHER = 500
"""Rows that are copied in one transaction."""
HOLD_SECONDS = 10.0
"""No swap later than this after the hold."""
CLEAR_SECONDS = 5.0
"""What a rebuild that has failed may still take to drop its shadows."""
START = Position(0, -1)
"""Of a partition of which nothing is in the tables."""

Progress = Callable[[int, int], None]
"""Called with the records applied so far, and about how many there are."""


class Shadows(Protocol):
    """What a projection does with its shadow tables, whose position is under the name `{projection}_shadow`."""

    @property
    def topic(self) -> str: ...
    @property
    def projection(self) -> str: ...
    @property
    def tables(self) -> Sequence[str]: ...
    @property
    def together(self) -> int:
        """How many records are applied in one transaction."""
        ...

    async def begin(self, number: int, bounds: Bounds) -> Position:
        """Fills the shadows, which are empty, with what is older than the log; the position after it."""
        ...

    async def apply(self, number: int, records: Sequence[Record], at: Position) -> Position:
        """Commits records from the position on, with the position behind them."""
        ...

    async def sums(self, number: int, *, live: bool) -> tuple[int, ...]:
        """The live position, then counts and sums of a partition's rows, in one statement: as of one moment."""
        ...

    async def finish(self, live: Sequence[Position]) -> None:
        """The last changes to the shadows, just before the swap; the positions of the live tables are held."""
        ...


class Source(msgspec.Struct):
    """One partition of the log, and how far its shadow is."""

    number: int
    at: Position
    equal: bool | None = None


class Rebuild:
    """The steps, on all partitions of one log. `done` counts the records applied."""

    def __init__(self, log: Log, database: Database, shadows: Shadows, progress: Progress) -> None:
        self._log = log
        self._database = database
        self._shadows = shadows
        self._progress = progress
        self._shadow = f"{shadows.projection}_shadow"
        self.sources: list[Source] = []
        self.done = 0
        self._total = 0

    async def run(self) -> bool | None:
        """Makes the tables anew and swaps them in; whether the old ones were right, None: nothing to compare with.

        Raises Unavailable (another rebuild runs, too), DatabaseRefused, or PositionConflict (it began meanwhile); then
        nothing is swapped.
        """
        await self._database.migrate()
        async with self._database.alone(f"rebuild of {self._shadows.projection}") as confirm:
            with _seldom_collecting():
                return await self._run(confirm)

    async def _run(self, confirm: Callable[[], Awaitable[None]]) -> bool | None:
        try:
            await self._prepare()
            # While the database works for one partition, another one's records are read.
            await all_of(self._fill(source) for source in self.sources)
            for source in self.sources:
                await self._compare(source)
            await self._swap(confirm)
        except PositionConflict:
            raise  # the shadows are another rebuild's by now
        except BaseException:
            await self._clear()
            raise
        compared = [source.equal for source in self.sources if source.equal is not None]
        return all(compared) if compared else None

    async def _clear(self) -> None:
        """Drops the shadows, if the database lets us."""
        drops = [Statement(f"DROP TABLE IF EXISTS {table}_shadow") for table in self._shadows.tables]
        with contextlib.suppress(TimeoutError, DatabaseUnavailable, DatabaseRefused):
            async with asyncio.timeout(CLEAR_SECONDS):
                await self._database.transact([*drops, forget(self._shadow)])

    async def _prepare(self) -> None:
        """Empty shadows, and where in the log each partition is to begin."""
        database, shadows = self._database, self._shadows
        made = [statement for table in shadows.tables for statement in database.shadow(table)]
        await database.transact([*made, forget(self._shadow)])
        for number in range(await self._log.partitions(shadows.topic)):
            # Whoever meets this position conflicts; one that has to make it first would not.
            await database.transact([begin_at(database, shadows.projection, number, START)])
            bounds = await self._log.bounds(shadows.topic, number)
            at = await shadows.begin(number, bounds)
            await database.transact([put_at(database, self._shadow, {number: at})])
            self.sources.append(Source(number, at))
            self._total += bounds.end - at.next

    async def _fill(self, source: Source) -> None:
        """To where the live tables are, or to the end of the log when they are behind or beyond it."""
        bounds = await self._log.bounds(self._shadows.topic, source.number)
        live = await self._live(source)
        comparable = source.at.next < live.next <= bounds.end
        await self._replay(source, live.next if comparable else bounds.end)

    async def _compare(self, source: Source) -> None:
        """Sums both sets of tables at one offset; not where the live ones are behind, or beyond the log's end."""
        next_, *live = await self._shadows.sums(source.number, live=True)
        end = (await self._log.bounds(self._shadows.topic, source.number)).end
        if not next_ > 0 or not source.at.next <= next_ <= end:
            return
        await self._replay(source, next_)
        _, *shadow = await self._shadows.sums(source.number, live=False)
        source.equal = live == shadow

    async def _swap(self, confirm: Callable[[], Awaitable[None]]) -> None:
        """Holds the positions, applies what is left, swaps the tables and gives the positions back."""
        database, projection = self._database, self._shadows.projection
        for source in self.sources:  # as near as can be while the service goes on
            await self._replay(source, (await self._log.bounds(self._shadows.topic, source.number)).end)
        await database.transact([hold(projection)])
        held = time.monotonic()
        try:
            live = [await self._live(source) for source in self.sources]
            for source, at in zip(self.sources, live, strict=True):
                # A live position beyond the log is wrong, and one reason for a rebuild.
                end = (await self._log.bounds(self._shadows.topic, source.number)).end
                await self._replay(source, min(end, at.next))
            await self._shadows.finish(live)
            await confirm()
            await self._swap_before(held + HOLD_SECONDS)
        except BaseException:
            # Should this fail too, whoever writes the live tables does it after a while.
            with contextlib.suppress(DatabaseUnavailable):
                await database.transact([let_go(projection)])
            raise
        reached = {source.number: source.at for source in self.sources}
        await database.transact([put_at(database, projection, reached), forget(self._shadow)])

    async def _swap_before(self, deadline: float) -> None:
        """Swaps if the positions are still held, as the database knows it; somebody may be reading the tables."""
        first = self.sources[0]
        while True:
            at = await self._live(first)
            if not at.held():
                raise PositionConflict("the positions were taken back meanwhile")
            try:
                await self._database.transact(
                    self._database.swap(self._shadows.tables),
                    Advance(self._shadows.projection, first.number, at.next, at.next, at.claim),
                )
            except DatabaseUnavailable:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    async def _live(self, source: Source) -> Position:
        return await position(self._database, self._shadows.projection, source.number) or START

    async def _replay(self, source: Source, end: int) -> None:
        """Applies the log up to before this offset."""
        if source.at.next >= end:
            return
        async for records in self._log.read(self._shadows.topic, source.number, source.at.next, end):
            for some in chunks(records, self._shadows.together):
                source.at = await self._shadows.apply(source.number, some, source.at)
                self.done += len(some)
                self._progress(self.done, max(self.done, self._total))


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Millions of records come and go, and none is in a cycle: to look for such was a quarter of all work."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def id_ranges(
    database: Database, table: str, column: str, number: int, together: int = TOGETHER
) -> AsyncIterator[tuple[int, int]]:
    """The ids of a partition's rows as ranges (above, up to) of about so many rows."""
    low = -1
    while True:
        rows = await database.query(
            f"SELECT MAX({column}) FROM (SELECT {column} FROM {table}"  # noqa: S608  # ours
            f" WHERE {column} > %s AND partition_no = %s ORDER BY {column} LIMIT %s) few",
            (low, number, together),
        )
        if rows[0][0] is None:
            return
        yield low, int(rows[0][0])
        low = int(rows[0][0])


def chunks(items: Sequence[T], together: int = TOGETHER) -> "list[Sequence[T]]":
    """The items in order, some together."""
    return [items[start : start + together] for start in range(0, len(items), together)]
