"""The tables of calls made anew from the log, while cdr serves (`runtime.database.rebuild`).

Where `calls` does not begin at 0 any more, calls that began before are taken over as they are, with all that their
events said: what is replayed of them changes nothing.
"""

import time
from collections.abc import Iterator, Sequence

import msgspec

from cdr.config import Settings
from cdr.decider import Decision, decide, is_open
from cdr.events import read
from cdr.handler import CLAIM, limits
from cdr.projection import Part, Partition, Projection
from cdr.rows import number
from cdr.state import NO_CALLS, Call
from cdr.tables import COLUMNS, LIVE, PUBLISHED, SHADOW
from events.calls import CallEvent
from events.people import PersonForgotten
from events.topics import CALLS
from events.wire import Poisoned
from runtime.database.port import Database, Statement
from runtime.database.positions import Position
from runtime.database.rebuild import Progress, Rebuild, chunks, id_ranges
from runtime.log.port import Bounds, Log, Record
from runtime.metrics import dropped

TOGETHER = 4000
"""Events that are folded at one time."""
WRITTEN = 1500
"""Calls written in one transaction, about 5 MB; those that last are kept in memory until they have ended, so that
each is written once."""
REMEMBERED = 100_000
"""Calls of a partition in memory; if more last at one time, their rows are written as they are."""
_THE_SAME = (
    f"EXISTS (SELECT 1 FROM {LIVE.cdrs} WHERE {LIVE.cdrs}.{PUBLISHED} = 1"  # noqa: S608  # ours
    + "".join(f" AND {LIVE.cdrs}.{column} = {SHADOW.cdrs}.{column}" for column in ("id", "call_id", "last_offset"))
    + ")"
)
NAMES = ("acc", "missed", "cdrs", "open")


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild made."""

    calls: int
    """Rows of `cdrs`."""
    open: int
    """Rows of `open_calls`."""
    records: int
    """Read from the log."""
    seconds: float
    checksum: str
    """Over all of `cdrs`, hexadecimal."""
    equal: bool | None
    """Whether the tables had been right, at equal offsets; None: there was nothing to compare with."""


async def rebuild(
    log: Log, database: Database, settings: Settings, progress: Progress = lambda done, total: None
) -> Rebuilt:
    """Makes the tables anew and swaps them in; also where they were dropped or emptied.

    `database` should wait for minutes, not seconds, where there are millions of rows: each partition's sum is one
    statement. Raises Unavailable, DatabaseRefused or PositionConflict; then nothing is swapped.
    """
    started = time.monotonic()
    work = Rebuild(log, database, _Shadows(database, settings), progress)
    equal = await work.run()
    [(calls, checksum)] = await database.query(f"SELECT COUNT(*), {database.checksum(COLUMNS['cdrs'])} FROM cdrs")  # noqa: S608  # ours
    [(open_,)] = await database.query("SELECT COUNT(*) FROM open_calls")
    return Rebuilt(int(calls), int(open_), work.done, time.monotonic() - started, f"{int(checksum):016x}", equal)


class _Shadows:
    """The shadows of the four tables."""

    topic = CALLS
    projection = LIVE.projection
    tables = LIVE[1:]
    together = TOGETHER

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._limits = limits(settings)
        # The tables begin empty, so it is known what they have: a look-up for each call that begins would be the
        # larger part of all work.
        self._seen: set[int] = set()
        self._projection = Projection(database, SHADOW, self._limits, self._seen)
        self._partitions: dict[int, Partition] = {}
        self._waiting: dict[int, Decision] = {}
        """By partition, what is folded and not written."""
        self._reached: dict[int, int] = {}
        """How far that is."""

    async def begin(self, number_: int, bounds: Bounds) -> Position:
        """Takes over the calls whose first event is not in the log any more."""
        at = Position(bounds.begin, CLAIM)
        self._partitions[number_] = Partition(number_, at)
        self._waiting[number_] = Decision()
        self._reached[number_] = at.next
        if bounds.begin:
            first = number(number_, bounds.begin)
            for name in NAMES:
                await self._take_over(number_, getattr(LIVE, name), first << 1 if name == "acc" else first)
        return at

    async def _take_over(self, number_: int, table: str, first: int) -> None:
        columns = ", ".join((*COLUMNS[table], PUBLISHED) if table == LIVE.cdrs else COLUMNS[table])
        async for low, high in id_ranges(self._database, table, "id", number_):
            copy = Statement(
                f"INSERT INTO {table}_shadow ({columns}) SELECT {columns} FROM {table}"  # noqa: S608  # ours
                " WHERE id > %s AND id <= %s AND id < %s AND partition_no = %s",
                (low, high, first, number_),
            )
            await self._database.transact([copy])
            if table in (LIVE.cdrs, LIVE.open):
                found = await self._database.query(
                    f"SELECT call_id, from_tag, cseq FROM {table}_shadow WHERE id > %s AND id <= %s",  # noqa: S608  # ours
                    (low, high),
                )
                self._seen.update(hash(Call(call_id, tag, int(cseq))) for call_id, tag, cseq in found)

    async def apply(self, number_: int, records: Sequence[Record], at: Position) -> Position:
        """Folds events; what is enough is written."""
        partition, waiting = self._partitions[number_], self._waiting[number_]
        events, end = list(_readable(records)), records[-1].offset + 1
        if any(isinstance(event, PersonForgotten) for _, event in events):
            await self._write(number_, lasting=True)
            await self._projection.write([Part(partition, events, end)])
            self._reached[number_] = end
            return Position(end, at.claim)
        some = [(offset, event) for offset, event in events if not isinstance(event, PersonForgotten)]
        await self._projection.look_up([partition], [some])
        decision = decide(some, partition.known)
        for call, before in decision.before.items():
            if call not in waiting.changed:  # else it is not in the tables as it was before, or not at all
                waiting.before[call] = before
        waiting.changed |= decision.changed
        partition.learn(decision.changed)
        self._reached[number_] = end
        if len(waiting.changed) >= WRITTEN:
            await self._write(number_, lasting=len(partition.known) >= REMEMBERED)
        return Position(end, at.claim)

    async def _write(self, number_: int, *, lasting: bool) -> None:
        """Writes what has ended, and what lasts if that is wanted, too."""
        partition, waiting, end = self._partitions[number_], self._waiting[number_], self._reached[number_]
        ready = [call for call, known in waiting.changed.items() if lasting or not is_open(known.state)]
        if not ready and partition.at.next == end:
            return
        for some in chunks(ready, WRITTEN) or [()]:
            changed = {call: waiting.changed.pop(call) for call in some}
            before = {call: waiting.before.pop(call) for call in some if call in waiting.before}
            await self._projection.put(partition, Decision(changed, before), end)
            for call, known in changed.items():
                # What has ended is seldom heard of again: it is looked up when it is.
                if len(partition.known) > REMEMBERED or not is_open(known.state):
                    partition.known.pop(call, None)

    async def finish(self, live: Sequence[Position]) -> None:
        """Notes which records are on `cdrs`: of what the live tables have, all that these do not deny.

        What others have written into `acc` about their own CDRs stays. Where the live tables are beyond the end of the
        log, which has lost it, offsets stand for other events than theirs: there a call's own row says so.
        """
        for number_ in self._partitions:
            await self._write(number_, lasting=True)
        changes = []
        for number_, at in enumerate(live):
            lost = at.next > self._reached[number_]
            known, values = (_THE_SAME, (number_,)) if lost else ("last_offset < %s", (number_, at.next))
            sql = f"UPDATE {SHADOW.cdrs} SET {PUBLISHED} = 1 WHERE partition_no = %s AND {known}"  # noqa: S608  # ours
            changes.append(Statement(sql, values))
        denied = f"SELECT id FROM {LIVE.cdrs} WHERE {PUBLISHED} = 0"  # noqa: S608  # ours
        changes.append(Statement(f"UPDATE {SHADOW.cdrs} SET {PUBLISHED} = 0 WHERE id IN ({denied})"))  # noqa: S608  # ours
        theirs = f"(SELECT cdr_id FROM {LIVE.acc} WHERE {LIVE.acc}.id = {SHADOW.acc}.id)"  # noqa: S608  # ours
        changes.append(
            Statement(
                f"UPDATE {SHADOW.acc} SET cdr_id = {theirs}"  # noqa: S608  # ours
                f" WHERE id IN (SELECT id FROM {LIVE.acc} WHERE cdr_id <> 0)"
            )
        )
        await self._database.transact(changes)

    async def sums(self, number_: int, *, live: bool) -> tuple[int, ...]:
        """Of all four tables."""
        if not live:
            await self._write(number_, lasting=True)
        tables = LIVE if live else SHADOW
        parts = []
        for name in NAMES:
            columns = COLUMNS[getattr(LIVE, name)]
            parts.append(
                f" (SELECT COUNT(*) AS n, {self._database.checksum(columns)} AS c FROM {getattr(tables, name)}"  # noqa: S608  # ours
                f" WHERE partition_no = %s) {name}_sum"
            )
        wanted = ", ".join(f"{name}_sum.n, {name}_sum.c" for name in NAMES)
        rows = await self._database.query(
            f"SELECT o.next_offset, {wanted} FROM projection_offset o,{','.join(parts)}"  # noqa: S608  # ours
            " WHERE o.projection = %s AND o.partition_no = %s",
            (*[number_] * len(NAMES), LIVE.projection, number_),
        )
        return tuple(int(value) for value in rows[0])


def _readable(records: Sequence[Record]) -> Iterator[tuple[int, CallEvent | PersonForgotten]]:
    for record in records:
        try:
            event = read(record.value)
        except Poisoned:
            dropped("poisoned-call-event")
        else:
            if not isinstance(event, NO_CALLS):
                yield record.offset, event
