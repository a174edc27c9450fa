"""The tables of calls, and what a batch changes as SQL statements."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from cdr.decider import Decision, Limits, StoredCall
from cdr.rows import Acc, Cdr, Missed, Open, Rows, rows
from cdr.state import Call, from_text
from events.cdrs import CallRecord
from runtime.database.port import Database, Row, Statement

PROJECTION = "calls"


class Tables(NamedTuple):
    """The tables that change together, and the name of their position."""

    projection: str
    acc: str
    missed: str
    cdrs: str
    open: str


LIVE = Tables(PROJECTION, "acc", "missed_calls", "cdrs", "open_calls")
SHADOW = Tables(*(f"{name}_shadow" for name in LIVE))
PUBLISHED = "published"
NAMES = "(INSTR(LOWER(state), %s) > 0 OR INSTR(LOWER(state), %s) > 0)"
"""Of rows that may name somebody (`naming`)."""
COLUMNS = {"acc": Acc._fields, "missed_calls": Missed._fields, "cdrs": Cdr._fields, "open_calls": Open._fields}
"""Of each live table, what is made of the log."""


class Finished(NamedTuple):
    """A call that has ended and whose record is to be published."""

    id: int
    record: CallRecord
    again: bool = False
    """Whether its record was published before: it is corrected now, or somebody was taken out of it."""


class Change(NamedTuple):
    """What one partition's share of a batch does to the tables."""

    partition: int
    decision: Decision


async def stored_calls(database: Database, tables: Tables, calls: Iterable[Call]) -> dict[Call, StoredCall]:
    """What the tables have of these calls."""
    wanted = set(calls)
    ids = list({call.call_id for call in wanted})
    if not ids:
        return {}
    marks = ", ".join(["%s"] * len(ids))
    selects = [
        f"SELECT id, call_id, from_tag, cseq, last_offset, state FROM {table} WHERE call_id IN ({marks})"  # noqa: S608  # ours
        for table in (tables.open, tables.cdrs)
    ]
    found = await database.query(" UNION ALL ".join(selects), (*ids, *ids))
    calls_found = {}
    for id_, call_id, from_tag, cseq, last, state in found:
        call = Call(call_id, from_tag, int(cseq))
        if call in wanted:
            calls_found[call] = StoredCall(from_text(state), int(id_) >> 10, int(last))
    return calls_found


def naming(person: str) -> tuple[str, str]:
    """The values of NAMES: somebody as he stands in the JSON of a state, as an AOR or in a URI."""
    written = msgspec.json.encode(person)[1:-1].decode().lower()
    return f'"{written}', f":{written}"


async def with_person(
    database: Database, table: str, partition: int, ids: tuple[int, int], person: str
) -> dict[Call, StoredCall]:
    """The calls of a table, by a range of ids (above, up to), whose events may name somebody."""
    found = await database.query(
        f"SELECT id, call_id, from_tag, cseq, last_offset, state FROM {table}"  # noqa: S608  # ours
        f" WHERE id > %s AND id <= %s AND partition_no = %s AND {NAMES}",
        (*ids, partition, *naming(person)),
    )
    return {call: known_ for _, call, known_ in map(_known, found)}


def statements(
    database: Database, tables: Tables, changes: Sequence[Change], limits: Limits
) -> tuple[list[Statement], list[Finished]]:
    """One multi-row upsert a table, deletions of what is no more, and the records that are to be published."""
    acc: list[Row] = []
    missed: list[Row] = []
    cdrs: list[Row] = []
    open_: list[Row] = []
    gone: dict[str, list[int]] = {name: [] for name in tables[1:]}
    finished = []
    for partition, decision in changes:
        for call, now in decision.changed.items():
            after = rows(partition, call, now, limits)
            acc += after.acc
            if after.missed:
                missed.append(after.missed)
            known = decision.before.get(call)
            before = rows(partition, call, known, limits) if known else None
            if after.cdr:
                cdrs.append((*after.cdr, 0))
                again = before is not None and before.cdr is not None
                finished.append(Finished(after.cdr.id, _record(after), again))
            if after.open:
                open_.append(after.open)
            if before:
                _forget(tables, gone, before, after)
    made = [
        Statement(f"DELETE FROM {table} WHERE id IN ({', '.join(['%s'] * len(ids))})", ids)  # noqa: S608  # ours
        for table, ids in gone.items()
        if ids
    ]
    for table, columns, some in (
        (tables.acc, Acc._fields, acc),
        (tables.missed, Missed._fields, missed),
        (tables.cdrs, (*Cdr._fields, PUBLISHED), cdrs),
        (tables.open, Open._fields, open_),
    ):
        if some:
            made.append(database.upsert(table, columns, ("id",), some))
    return made, finished


def _record(after: Rows) -> CallRecord:
    if after.record is None:
        raise ValueError("a call that has ended has a record")
    return after.record


def _forget(tables: Tables, gone: dict[str, list[int]], before: Rows, after: Rows) -> None:
    """The rows that a call had and has no more."""
    stays = {row.id for row in after.acc}
    gone[tables.acc] += [row.id for row in before.acc if row.id not in stays]
    for table, old, new in (
        (tables.missed, before.missed, after.missed),
        (tables.cdrs, before.cdr, after.cdr),
        (tables.open, before.open, after.open),
    ):
        if old and not new:
            gone[table].append(old.id)


def published(ids: Sequence[int]) -> Statement:
    """Notes that the records of these calls are on `cdrs`."""
    marks = ", ".join(["%s"] * len(ids))
    return Statement(f"UPDATE {LIVE.cdrs} SET {PUBLISHED} = 1 WHERE id IN ({marks})", ids)  # noqa: S608  # ours


async def unpublished(database: Database, partition: int, after: int, limit: int) -> list[tuple[int, Call, StoredCall]]:
    """Calls that have ended and whose records may not be on `cdrs`: those behind an id, in order."""
    found = await database.query(
        f"SELECT id, call_id, from_tag, cseq, last_offset, state FROM {LIVE.cdrs}"  # noqa: S608  # ours
        f" WHERE {PUBLISHED} = 0 AND partition_no = %s AND id > %s ORDER BY id LIMIT %s",
        (partition, after, limit),
    )
    return [_known(row) for row in found]


async def overdue(
    database: Database, partitions: Sequence[int], now: int, limit: int
) -> Mapping[int, list[tuple[int, Call, StoredCall]]]:
    """By partition, open calls whose deadline is over."""
    if not partitions:
        return {}
    marks = ", ".join(["%s"] * len(partitions))
    found = await database.query(
        f"SELECT id, call_id, from_tag, cseq, last_offset, state FROM {LIVE.open}"  # noqa: S608  # ours
        f" WHERE deadline_ms <= %s AND partition_no IN ({marks}) ORDER BY deadline_ms LIMIT %s",
        (now, *partitions, limit),
    )
    late: dict[int, list[tuple[int, Call, StoredCall]]] = {}
    for row in found:
        late.setdefault(int(row[0]) & 1023, []).append(_known(row))
    return late


def _known(row: Row) -> tuple[int, Call, StoredCall]:
    id_, call_id, from_tag, cseq, last, state = row
    return int(id_), Call(call_id, from_tag, int(cseq)), StoredCall(from_text(state), int(id_) >> 10, int(last))
