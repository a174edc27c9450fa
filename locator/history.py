"""Who was registered when, from `registration_history`: the questions behind `ramal at` and `ramal history`.

Times are milliseconds in the log's time. An interval that lasts counts until its binding's granted time is over.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from runtime.database.keyset import following
from runtime.database.port import Database, Statement


class Registration(msgspec.Struct, frozen=True):
    """A binding at one place, from when to when."""

    aor: str
    contact: str
    received: str
    path: str
    socket: str
    user_agent: str
    since: int
    until: int | None
    """None while it lasts."""
    began: str
    """The kind of change: `created`, or `refreshed` from another place."""
    began_by: str
    ended: str | None
    ended_by: str | None
    expires: int | None
    """The end of its granted time, when it is still in `location`."""


_SHOWN = """\
h.username, h.domain, h.contact, h.received, h.path, h.socket, h.user_agent,
 h.since_ms, h.until_ms, h.began, h.began_by, h.ended, h.ended_by, l.expires_ms
FROM registration_history h LEFT JOIN location l ON l.contact_id = h.contact_id
WHERE """
_SELECT = f"SELECT {_SHOWN}"
_LASTING = "h.since_ms <= %s AND h.until_ms IS NULL AND l.expires_ms > %s"
_ENDED = "h.since_ms <= %s AND h.until_ms > %s"


async def registered_at(database: Database, at: int, aor: str | None = None) -> list[Registration]:
    """Who was registered then, as `location` showed it; all users without an AOR."""
    condition, values = _of(aor)
    # An OR would have no index; two queries might see an interval twice or never, should it end between them.
    both = " UNION ALL ".join(f"{_SELECT}{which}{condition}" for which in (_LASTING, _ENDED))
    rows = await database.query(both, (at, at, *values) * 2)
    return sorted(map(_registration, rows), key=_order)


Place = tuple[str, str, int, int, int]
"""Where an interval stands in the order of pages: username, domain, since, contact_id, began_offset."""


async def page_at(
    database: Database, at: int, limit: int, after: Place | None = None, matching: Statement | None = None
) -> list[tuple[Place, Registration]]:
    """So many of those who were registered then, behind a place; in the order of the index `account_idx`.

    `matching`: a condition on the history, `h`.
    """
    # Of one column only: by `until_ms` alone a database would take its index, and sort all that it finds.
    conditions, values = ["h.since_ms <= %s AND COALESCE(h.until_ms, l.expires_ms) > %s"], [at, at]
    if matching:
        conditions.append(matching.sql)
        values += matching.values
    if after:
        behind = following(_PLACE, after)
        conditions.append(behind.sql)
        values += behind.values
    rows = await database.query(
        f"SELECT h.contact_id, h.began_offset, {_SHOWN}{' AND '.join(conditions)}"
        f" ORDER BY {', '.join(_PLACE)} LIMIT {int(limit)}",
        values,
    )
    found = [(int(id_), int(offset), _registration(rest)) for id_, offset, *rest in rows]
    return [((*_account(one), one.since, id_, offset), one) for id_, offset, one in found]


_PLACE = ("h.username", "h.domain", "h.since_ms", "h.contact_id", "h.began_offset")


async def history(database: Database, aor: str, newest: int | None = None) -> list[Registration]:
    """All intervals of an AOR (or so many of the newest), the oldest first."""
    condition, values = _of(aor)
    last = "" if newest is None else f" ORDER BY h.since_ms DESC LIMIT {int(newest)}"
    rows = await database.query(f"{_SELECT}1 = 1{condition}{last}", values)
    return sorted(map(_registration, rows), key=_order)


async def kept_since(database: Database) -> int:
    """From when on the history is whole, in milliseconds; 0: nothing was deleted by its age."""
    rows = await database.query("SELECT since_ms FROM history_kept")
    return int(rows[0][0]) if rows else 0


async def known_since(database: Database) -> int | None:
    """From when on all is known: where old history was deleted, from there, else from the oldest interval's beginning.

    None when there is none.
    """
    # Not both: the oldest beginning has no index.
    if kept := await kept_since(database):
        return kept
    rows = await database.query("SELECT MIN(since_ms) FROM registration_history")
    return None if rows[0][0] is None else int(rows[0][0])


def _of(aor: str | None) -> tuple[str, Sequence[str]]:
    if aor is None:
        return "", ()
    username, _, domain = aor.rpartition("@")
    return " AND h.username = %s AND h.domain = %s", (username, domain)


def _account(one: Registration) -> tuple[str, str]:
    username, _, domain = one.aor.rpartition("@")
    return username, domain


def _registration(row: Sequence[Any]) -> Registration:
    username, domain, *rest = row
    return Registration(f"{username}@{domain}" if username else domain, *rest)


def _order(found: Registration) -> tuple[str, int, str]:
    return found.aor, found.since, found.contact
