"""The tables made anew from the log, while the locator serves.

    fill      shadows of the tables, from the log: all of `registrations` where it still begins at 0, else the
              snapshots on `bindings` and what came after them; history that is older is taken over as it is
    compare   per partition: the shadow is brought to the very offset that the live tables have (asked for in the
              statement that sums their rows), and the sums are compared
    hold      the positions: every locator conflicts, and waits
    swap      after the last records up to the held positions; then the positions are given back

Nothing is acknowledged to a phone between hold and swap, so no row is lost and none goes back. A rebuild that
dies before the swap leaves the live tables as they were, one that dies after it leaves the new ones; the positions
it held are taken back by any locator after a while, and at worst a little of the log is applied again. One that
fails drops its shadows; those of one that was killed are dropped by the next.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from events.registrations import WATERMARK_KEY, AorState, Watermark
from events.topics import BINDINGS, REGISTRATIONS
from events.truths import check_state
from events.wire import Decoder, Poisoned
from locator.decider import Location, location
from locator.projection import Part, Partition, Projection
from locator.tables import (
    HISTORY_COLUMNS,
    LIVE,
    LOCATION_COLUMNS,
    SHADOW,
    Position,
    begin_at,
    hold,
    let_go,
    position,
    put_at,
)
from locator.truths import read
from runtime.database.port import Advance, Database, Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.log.port import Log, PartitionFault, Record
from runtime.metrics import dropped

T = TypeVar("T")

TOGETHER = 500
"""Records, or rows that are copied, in one transaction."""
REMEMBERED = 100_000
HOLD_SECONDS = 10.0
"""No swap later than this after the hold."""
CLEAR_SECONDS = 5.0
"""What a rebuild that has failed may still take to drop its shadows."""

Progress = Callable[[int, int], None]
"""Called with the records applied so far, and about how many there are."""

_decode_state: Decoder[AorState] = Decoder(AorState)
_decode_watermark: Decoder[Watermark] = Decoder(Watermark)
_KEY = WATERMARK_KEY.encode()


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild made."""

    rows: int
    """Of `location`."""
    intervals: int
    """Of `registration_history`."""
    records: int
    """Read from the log."""
    seconds: float
    checksum: str
    """Over all of `location`, hexadecimal."""
    equal: bool | None
    """Whether the tables had been right, at equal offsets; None: there was nothing to compare with."""


class _Source(msgspec.Struct):
    """One partition of the log, and how far its shadow is."""

    partition: Partition
    kept: int
    """History that began at or before this offset is taken over."""
    equal: bool | None = None


async def rebuild(log: Log, database: Database, progress: Progress = lambda done, total: None) -> Rebuilt:
    """Makes the tables anew and swaps them in; also where they were dropped or emptied.

    `database` should wait for minutes, not seconds, where there are millions of rows: each partition's sum is one
    statement. Raises Unavailable, DatabaseRefused, PartitionFault (a truth or a snapshot that this version cannot
    read) or PositionConflict (two rebuilds at once); then nothing is swapped.
    """
    started = time.monotonic()
    await database.migrate()
    work = _Rebuild(log, database, progress)
    try:
        await work.prepare()
        for source in work.sources:
            await work.fill(source)
            await work.compare(source)
        await work.swap()
    except PositionConflict:
        raise  # the shadows are another rebuild's by now
    except BaseException:
        await work.clear()
        raise
    rows, checksum = (await database.query(f"SELECT COUNT(*), {database.checksum(LOCATION_COLUMNS)} FROM location"))[0]  # noqa: S608  # ours
    intervals = (await database.query("SELECT COUNT(*) FROM registration_history"))[0][0]
    compared = [source.equal for source in work.sources if source.equal is not None]
    return Rebuilt(
        int(rows),
        int(intervals),
        work.done,
        time.monotonic() - started,
        f"{int(checksum):016x}",
        all(compared) if compared else None,
    )


class _Rebuild:
    """The steps, on all partitions of one log."""

    def __init__(self, log: Log, database: Database, progress: Progress) -> None:
        self._log = log
        self._database = database
        self._progress = progress
        self._projection = Projection(database, SHADOW)
        self.sources: list[_Source] = []
        self.done = 0
        self._total = 0

    async def prepare(self) -> None:
        """Empty shadows, and where in the log each partition is to begin."""
        database = self._database
        await database.transact(
            [
                *database.shadow(LIVE.location),
                *database.shadow(LIVE.history),
                Statement("DELETE FROM projection_offset WHERE projection = %s", (SHADOW.projection,)),
            ]
        )
        for number in range(await self._log.partitions(REGISTRATIONS)):
            # A locator that meets its position conflicts; one that has to make it first would not.
            await database.transact([begin_at(database, LIVE, number, Position(0, -1))])
            bounds = await self._log.bounds(REGISTRATIONS, number)
            at = Position(0, -1) if bounds.begin == 0 else await self._load_snapshots(number, bounds.begin)
            await database.transact([put_at(database, SHADOW, {number: at})])
            source = _Source(Partition(number, at), at.next - 1)
            await self._take_over_history(source)
            self.sources.append(source)
            self._total += bounds.end - at.next

    async def clear(self) -> None:
        """Drops the shadows, if the database lets us."""
        statements = [Statement(f"DROP TABLE IF EXISTS {table}") for table in (SHADOW.location, SHADOW.history)]
        gone = Statement("DELETE FROM projection_offset WHERE projection = %s", (SHADOW.projection,))
        with contextlib.suppress(TimeoutError, DatabaseUnavailable, DatabaseRefused):
            async with asyncio.timeout(CLEAR_SECONDS):
                await self._database.transact([*statements, gone])

    async def fill(self, source: _Source) -> None:
        """To where the live tables are, or to the end of the log when they are behind or beyond it."""
        bounds = await self._log.bounds(REGISTRATIONS, source.partition.number)
        live = await self._live(source)
        comparable = source.partition.at.next < live.next <= bounds.end
        await self._replay(source, live.next if comparable else bounds.end)

    async def compare(self, source: _Source) -> None:
        """Sums both sets of tables at one offset; not where the live ones are behind, or beyond the log's end."""
        next_, *live = await self._sums(source, LIVE.location, LIVE.history)
        end = (await self._log.bounds(REGISTRATIONS, source.partition.number)).end
        if not next_ > 0 or not source.partition.at.next <= next_ <= end:
            return
        await self._replay(source, next_)
        _, *shadow = await self._sums(source, SHADOW.location, SHADOW.history)
        source.equal = live == shadow

    async def swap(self) -> None:
        """Holds the positions, applies what is left, swaps the tables and gives the positions back."""
        database = self._database
        for source in self.sources:  # as near as can be while the locator goes on
            await self._replay(source, (await self._log.bounds(REGISTRATIONS, source.partition.number)).end)
        await database.transact([hold(LIVE)])
        held = time.monotonic()
        try:
            for source in self.sources:
                # A live position beyond the log is wrong, and one reason for a rebuild.
                end = (await self._log.bounds(REGISTRATIONS, source.partition.number)).end
                await self._replay(source, min(end, (await self._live(source)).next))
            await self._swap_before(held + HOLD_SECONDS)
        except BaseException:
            # Should this fail too, a locator does it after a while.
            with contextlib.suppress(DatabaseUnavailable):
                await database.transact([let_go(LIVE)])
            raise
        at = {source.partition.number: source.partition.at for source in self.sources}
        gone = Statement("DELETE FROM projection_offset WHERE projection = %s", (SHADOW.projection,))
        await database.transact([put_at(database, LIVE, at), gone])

    async def _swap_before(self, deadline: float) -> None:
        """Swaps if the positions are still held, as the database knows it; somebody may be reading the tables."""
        first = self.sources[0]
        while True:
            at = await self._live(first)
            if not at.held():
                raise PositionConflict("the positions were taken back meanwhile")
            try:
                await self._database.transact(
                    self._database.swap([LIVE.location, LIVE.history]),
                    Advance(LIVE.projection, first.partition.number, at.next, at.next, at.claim),
                )
            except DatabaseUnavailable:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    async def _live(self, source: _Source) -> Position:
        return await position(self._database, LIVE, source.partition.number) or Position(0, -1)

    async def _replay(self, source: _Source, end: int) -> None:
        """Applies the truth up to before this offset."""
        partition = source.partition
        if partition.at.next >= end:
            return
        async for records in self._log.read(REGISTRATIONS, partition.number, partition.at.next, end):
            for some in _chunks(records):
                truths, strangers, _, unknown = read(some, partition.at.claim)
                if unknown:
                    raise PartitionFault(
                        partition.number, f"the truth at offset {unknown[0].offset} is not known: {unknown[1]}"
                    )
                if strangers:
                    dropped("poisoned_registration", len(strangers))
                await self._projection.look_up(partition, truths)
                await self._projection.write([Part(partition, truths, some[-1].offset + 1)])
                partition.forget(REMEMBERED)
                self.done += len(some)
                self._progress(self.done, max(self.done, self._total))

    async def _sums(self, source: _Source, location_table: str, history_table: str) -> tuple[int, int, int, int, int]:
        """The live position, and counts and sums of a set of tables, in one statement: as of one moment."""
        number, database = source.partition.number, self._database
        rows = await database.query(
            "SELECT o.next_offset, l.n, l.c, h.n, h.c FROM projection_offset o,"  # noqa: S608  # ours
            f" (SELECT COUNT(*) AS n, {database.checksum(LOCATION_COLUMNS)} AS c FROM {location_table}"
            " WHERE partition_no = %s) l,"
            f" (SELECT COUNT(*) AS n, {database.checksum(HISTORY_COLUMNS)} AS c FROM {history_table}"
            " WHERE partition_no = %s AND began_offset > %s) h"
            " WHERE o.projection = %s AND o.partition_no = %s",
            (number, number, source.kept, LIVE.projection, number),
        )
        next_, location_count, location_sum, history_count, history_sum = rows[0]
        return int(next_), int(location_count), int(location_sum), int(history_count), int(history_sum)

    # Where the log does not begin at 0

    async def _load_snapshots(self, number: int, begin: int) -> Position:
        """Fills the shadow of `location` with the snapshots; the position after them."""
        mark = Watermark(begin - 1, -1, -1)
        end = (await self._log.bounds(BINDINGS, number)).end
        async for records in self._log.read(BINDINGS, number, 0, end, committed=True):
            states: dict[str, AorState] = {}
            for record in records:
                try:
                    if record.key == _KEY:
                        mark = _decode_watermark(record.value)
                    elif record.key is not None:
                        states[record.key.decode("utf-8", "replace")] = _state(record)
                except Poisoned as error:
                    raise PartitionFault(
                        number, f"the snapshot at offset {record.offset} is not known: {error}"
                    ) from error
            await self._put_states(number, states)
        return Position(max(begin, mark.through + 1), mark.claim)

    async def _put_states(self, number: int, states: Mapping[str, AorState]) -> None:
        """Rows as these states have them, in place of those of earlier states."""
        for aors in _chunks(list(states)):
            users = [aor.rpartition("@")[::2] for aor in aors]
            mine = " OR ".join(["(username = %s AND domain = %s)"] * len(users))
            statements = [
                Statement(f"DELETE FROM {SHADOW.location} WHERE {mine}", [part for user in users for part in user])  # noqa: S608  # ours
            ]
            rows: list[Location] = [location(b, aor, number) for aor in aors for b in states[aor].bindings]
            if rows:
                statements.append(self._database.upsert(SHADOW.location, LOCATION_COLUMNS, ("contact_id",), rows))
            await self._database.transact(statements)

    async def _take_over_history(self, source: _Source) -> None:
        """History from before the position: intervals as they are, those that ended later open again."""
        if source.kept < 0:
            return
        number, kept = source.partition.number, source.kept
        ending = ("until_ms", "ended", "ended_by", "ended_offset")
        columns = ", ".join(
            f"CASE WHEN ended_offset > %s THEN NULL ELSE {column} END" if column in ending else column
            for column in HISTORY_COLUMNS
        )
        async for low, high in self._id_ranges(LIVE.history, number):
            copy = Statement(
                f"INSERT INTO {SHADOW.history} ({', '.join(HISTORY_COLUMNS)}) SELECT {columns} FROM {LIVE.history}"  # noqa: S608  # ours
                " WHERE contact_id > %s AND contact_id <= %s AND partition_no = %s AND began_offset <= %s",
                (*[kept] * len(ending), low, high, number, kept),
            )
            await self._database.transact([copy])
        # A binding of the snapshots without an interval: its history is lost but for when it was made.
        async for low, high in self._id_ranges(SHADOW.location, number):
            begin = Statement(
                f"INSERT INTO {SHADOW.history} ({', '.join(HISTORY_COLUMNS[:13])})"  # noqa: S608  # ours
                " SELECT contact_id, %s, partition_no, username, domain, contact, COALESCE(received, ''),"
                " COALESCE(path, ''), COALESCE(socket, ''), user_agent, created_ms, 'created', ''"
                f" FROM {SHADOW.location} l WHERE contact_id > %s AND contact_id <= %s AND partition_no = %s"
                f" AND NOT EXISTS (SELECT 1 FROM {SHADOW.history} h"
                " WHERE h.contact_id = l.contact_id AND h.until_ms IS NULL)",
                (kept, low, high, number),
            )
            await self._database.transact([begin])

    async def _id_ranges(self, table: str, number: int) -> AsyncIterator[tuple[int, int]]:
        """The ids of a partition's rows as ranges (above, up to) of about TOGETHER rows."""
        low = -1
        while True:
            rows = await self._database.query(
                f"SELECT MAX(contact_id) FROM (SELECT contact_id FROM {table}"  # noqa: S608  # ours
                " WHERE contact_id > %s AND partition_no = %s ORDER BY contact_id LIMIT %s) few",
                (low, number, TOGETHER),
            )
            if rows[0][0] is None:
                return
            yield low, int(rows[0][0])
            low = int(rows[0][0])


def _state(record: Record) -> AorState:
    if not record.value:
        return AorState()
    check_state(record.headers)
    return _decode_state(record.value)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), TOGETHER):
        yield items[start : start + TOGETHER]
