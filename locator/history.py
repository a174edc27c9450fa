"""Who was registered when, from `registration_history`: the questions behind `ramal at` and `ramal history`.

Times are milliseconds in the log's time. An interval that lasts counts until its binding's granted time is over.
"""

from collections.abc import Sequence

import msgspec

from runtime.database.port import Database, Row


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


_SELECT = """\
SELECT h.username, h.domain, h.contact, h.received, h.path, h.socket, h.user_agent,
 h.since_ms, h.until_ms, h.began, h.began_by, h.ended, h.ended_by, l.expires_ms
FROM registration_history h LEFT JOIN location l ON l.contact_id = h.contact_id
WHERE """
_LASTING = "h.since_ms <= %s AND h.until_ms IS NULL AND l.expires_ms > %s"
_ENDED = "h.since_ms <= %s AND h.until_ms > %s"


async def registered_at(database: Database, at: int, aor: str | None = None) -> list[Registration]:
    """Who was registered then, as `location` showed it; all users without an AOR."""
    condition, values = _of(aor)
    # An OR would have no index; two queries might see an interval twice or never, should it end between them.
    both = " UNION ALL ".join(f"{_SELECT}{which}{condition}" for which in (_LASTING, _ENDED))
    rows = await database.query(both, (at, at, *values) * 2)
    return sorted(map(_registration, rows), key=_order)


async def history(database: Database, aor: str) -> list[Registration]:
    """All intervals of an AOR, the oldest first."""
    condition, values = _of(aor)
    rows = await database.query(f"{_SELECT}1 = 1{condition}", values)
    return sorted(map(_registration, rows), key=_order)


async def known_since(database: Database) -> int | None:
    """The beginning of the oldest interval: before it we know nothing; None when there is none."""
    rows = await database.query("SELECT MIN(since_ms) FROM registration_history")
    return None if rows[0][0] is None else int(rows[0][0])


def _of(aor: str | None) -> tuple[str, Sequence[str]]:
    if aor is None:
        return "", ()
    username, _, domain = aor.rpartition("@")
    return " AND h.username = %s AND h.domain = %s", (username, domain)


def _registration(row: Row) -> Registration:
    username, domain, *rest = row
    return Registration(f"{username}@{domain}" if username else domain, *rest)


def _order(found: Registration) -> tuple[str, int, str]:
    return found.aor, found.since, found.contact
