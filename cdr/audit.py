"""Whether the tables have what the edges told: a day's calls folded anew, and compared row by row.

Only events that the tables should have count: those below their positions. 0 differences are expected, always.
"""

from collections.abc import AsyncIterator, Sequence

import msgspec

from cdr.config import Settings
from cdr.decider import StoredCall, decide, forget
from cdr.events import read
from cdr.handler import limits
from cdr.rows import Rows, rows
from cdr.state import NO_CALLS, Call
from cdr.tables import COLUMNS, LIVE, stored_calls
from events.calls import CallEvent
from events.people import PersonForgotten
from events.pseudonyms import person_of
from events.topics import CALLS
from events.wire import Poisoned
from runtime.database.port import Database, Row
from runtime.database.positions import position
from runtime.database.rebuild import chunks
from runtime.log.port import Log, Record

SOME = 20
"""Differences that are told one by one."""
SKEW = 60_000
TABLES = (LIVE.acc, LIVE.missed, LIVE.cdrs)


class Audit(msgspec.Struct):
    """What was compared, and what differed."""

    calls: int = 0
    """Calls of that day whose events were read."""
    events: int = 0
    rows: int = 0
    differences: int = 0
    told: list[str] = []
    """Some of them, one sentence each."""

    def differ(self, text: str) -> None:
        """Counts a difference."""
        self.differences += 1
        if len(self.told) < SOME:
            self.told.append(text)


async def audit(log: Log, database: Database, settings: Settings, begin: int, end: int) -> Audit:
    """Compares the calls that began in [begin, end), in milliseconds. Raises Unavailable."""
    found = Audit()
    for number in range(await log.partitions(CALLS)):
        at = await position(database, LIVE.projection, number)
        upto = 0 if at is None else at.next
        known: dict[Call, StoredCall] = {}
        # A call's events follow its INVITE: nothing of that day was written before it, but for what clocks differ by.
        start = await log.offset_at(CALLS, number, begin - SKEW)
        if start < upto:
            async for records in _reading(log, number, start, upto):
                _fold(records, known, found)
        earlier = await _earlier(database, known, start)
        wanted = {
            call: shown
            for call, each in known.items()
            if call not in earlier
            and (shown := rows(number, call, each, limits(settings))).record is not None
            and begin <= shown.record.attempted < end
        }
        found.calls += len(wanted)
        await _compare(database, number, wanted, begin, end, found)
    return found


async def _earlier(database: Database, known: dict[Call, StoredCall], start: int) -> set[Call]:
    """Calls of which only the end was read: they were under way when the day began, and are another day's."""
    parts = [call for call, each in known.items() if each.state.begin is None]
    found: set[Call] = set()
    for some in chunks(parts):
        there = await stored_calls(database, LIVE, some)
        found.update(call for call, stored in there.items() if stored.began < start)
    return found


async def _reading(log: Log, number: int, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
    async for records in log.read(CALLS, number, start, end):
        yield records


def _fold(records: Sequence[Record], known: dict[Call, StoredCall], found: Audit) -> None:
    """Adds what these records say to what is known."""
    events: list[tuple[int, CallEvent]] = []
    for record in records:
        try:
            event = read(record.value)
        except Poisoned:
            continue  # in the dead letters
        if isinstance(event, PersonForgotten):
            known.update(decide(events, known).changed)
            events.clear()
            known.update(forget(person_of(event.person), record.offset, known).changed)
        elif not isinstance(event, NO_CALLS):
            found.events += 1
            events.append((record.offset, event))
    known.update(decide(events, known).changed)


async def _compare(
    database: Database, number: int, wanted: dict[Call, Rows], begin: int, end: int, found: Audit
) -> None:
    expected: dict[str, dict[int, Row]] = {table: {} for table in TABLES}
    names: dict[int, str] = {}
    for call, shown in wanted.items():
        for row in shown.acc:
            expected[LIVE.acc][row.id] = row
            names[row.id] = call.call_id
        for table, one in ((LIVE.missed, shown.missed), (LIVE.cdrs, shown.cdr)):
            if one is not None:
                expected[table][one.id] = one
                names[one.id] = call.call_id
    calls = await database.query(
        f"SELECT id FROM {LIVE.cdrs} WHERE partition_no = %s AND attempted_ms >= %s AND attempted_ms < %s",  # noqa: S608  # ours
        (number, begin, end),
    )
    ids = {int(row[0]) for row in calls} | set(expected[LIVE.cdrs])
    for table in TABLES:
        columns = COLUMNS[table]
        wanted_ids = sorted({id_ << 1 | bye for id_ in ids for bye in (0, 1)} if table == LIVE.acc else ids)
        there: dict[int, Row] = {}
        for start in range(0, len(wanted_ids), 500):
            some = wanted_ids[start : start + 500]
            marks = ", ".join(["%s"] * len(some))
            sql = f"SELECT {', '.join(columns)} FROM {table} WHERE id IN ({marks})"  # noqa: S608  # ours
            there.update({int(row[0]): row for row in await database.query(sql, some)})
        found.rows += len(there)
        _differences(table, columns, expected[table], there, names, found)


def _differences(
    table: str,
    columns: Sequence[str],
    expected: dict[int, Row],
    there: dict[int, Row],
    names: dict[int, str],
    found: Audit,
) -> None:
    for id_ in sorted(expected.keys() | there.keys()):
        name = f"{table} {id_} ({names.get(id_, 'a call of which no event says so')})"
        if id_ not in there:
            found.differ(f"{name}: the row is missing")
        elif id_ not in expected:
            found.differ(f"{name}: there should be no such row")
        else:
            pairs = zip(columns, expected[id_], there[id_], strict=True)
            if wrong := [column for column, a, b in pairs if str(a) != str(b)]:
                found.differ(f"{name}: {', '.join(wrong)}")
