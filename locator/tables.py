"""The tables of the projection, and a decision as SQL statements."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from locator.decider import Decision, Ending, Interval, Location, StoredBinding, place
from runtime.database.port import Database, Row, Statement

LOCATION_COLUMNS = Location._fields
HISTORY_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Interval))
_ENDINGS_TOGETHER = 64
"""A CASE is searched from its start for each row: longer ones cost the square."""


class Tables(NamedTuple):
    """The tables that change together, and the name of their position."""

    projection: str
    location: str
    history: str


LIVE = Tables("location", "location", "registration_history")
SHADOW = Tables("location_shadow", "location_shadow", "registration_history_shadow")


async def stored_bindings(database: Database, tables: Tables, ids: Iterable[int]) -> dict[int, StoredBinding]:
    """What the tables know of these bindings."""
    wanted = tuple(ids)
    if not wanted:
        return {}
    rows = await database.query(
        f"SELECT contact_id, contact, received, path, expires_ms FROM {tables.location}"  # noqa: S608  # ours
        f" WHERE contact_id IN ({_marks(wanted)})",
        wanted,
    )
    return {
        int(id_): StoredBinding(place(contact, received, path), expires)
        for id_, contact, received, path, expires in rows
    }


def statements(database: Database, tables: Tables, decisions: Sequence[Decision]) -> list[Statement]:
    """All that these decisions change; a binding is of one partition, so they never touch the same row."""
    kept: list[Row] = []
    gone: list[int] = []
    for decision in decisions:
        for id_, row in decision.rows.items():
            if row is None:
                gone.append(id_)
            else:
                kept.append(row)
    changes = []
    if gone:
        changes.append(Statement(f"DELETE FROM {tables.location} WHERE contact_id IN ({_marks(gone)})", gone))  # noqa: S608  # ours
    if kept:
        changes.append(database.upsert(tables.location, LOCATION_COLUMNS, ("contact_id",), kept))
    for decision in decisions:
        changes += _endings(tables, decision.ended)
    rows: list[Row] = [msgspec.structs.astuple(interval) for decision in decisions for interval in decision.began]
    if rows:
        changes.append(database.upsert(tables.history, HISTORY_COLUMNS, ("contact_id", "began_offset"), rows))
    changes += [
        Statement(
            f"DELETE FROM {tables.history} WHERE username = %s AND domain = %s AND began_offset <= %s",  # noqa: S608  # ours
            (*_user(aor), offset),
        )
        for decision in decisions
        for aor, offset in decision.forgotten.items()
    ]
    return changes


def _user(aor: str) -> tuple[str, str]:
    user, _, domain = aor.rpartition("@")
    return user, domain


def _endings(tables: Tables, ended: dict[int, Ending]) -> Iterator[Statement]:
    items = list(ended.items())
    for start in range(0, len(items), _ENDINGS_TOGETHER):
        some = items[start : start + _ENDINGS_TOGETHER]
        # Each column by its own CASE over the binding ids: one statement instead of one for each.
        values: list[object] = []
        for column in range(len(Ending._fields)):
            for id_, ending in some:
                values += (id_, ending[column])
        cases = " ".join(["WHEN %s THEN %s"] * len(some))
        assignments = ", ".join(f"{column} = CASE contact_id {cases} END" for column in Ending._fields)
        ids = [id_ for id_, _ in some]
        yield Statement(
            f"UPDATE {tables.history} SET {assignments} WHERE contact_id IN ({_marks(ids)}) AND until_ms IS NULL",  # noqa: S608  # ours
            (*values, *ids),
        )


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))
