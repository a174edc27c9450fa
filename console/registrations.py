"""Who is registered, who was at any moment, and the history of one: from the tables, a page at a time."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from console.searching import all_of, anywhere, beginning, number, place, text, token
from locator.history import Place, Registration, history, page_at
from runtime.database.keyset import following
from runtime.database.port import Database, Row, Statement
from sipcore.errors import ParseError
from sipcore.uri import aor as canonical
from sipcore.uri import parse_uri

PAGE = 200
"""Rows of one answer at most."""
HISTORY = 500
"""Intervals of one AOR that are shown: the newest."""
_COLUMNS = (
    "username",
    "domain",
    "contact_id",
    "contact",
    "created_ms",
    "updated_ms",
    "expires_ms",
    "received",
    "socket",
    "user_agent",
    "path",
)
_behind = msgspec.json.Decoder(tuple[str, str, int])
_then: msgspec.json.Decoder[Place] = msgspec.json.Decoder(Place)
_ORDER = ("username", "domain", "contact_id")
_SEARCHED = ("username", "contact", "received", "socket", "user_agent")


async def page(tables: Database, query: Mapping[str, str]) -> dict[str, Any]:
    """`search` of users that begin so, or `in=all` columns; `at`: milliseconds, now without it; `after`: see `token`.

    Raises ValueError.
    """
    now = int(time.time() * 1000)
    if query.get("at"):
        at = number("at", query["at"], 0, now + 60_000)
        return await _page_then(tables, at, _searched(query, "h."), place(query.get("after", ""), _then))
    after = place(query.get("after", ""), _behind)
    which = all_of([_lasting(now), *_searched(query), *([following(_ORDER, after)] if after else [])])
    rows = await tables.query(
        f"SELECT {', '.join(_COLUMNS)} FROM location WHERE {which.sql}"  # noqa: S608  # ours
        f" ORDER BY {', '.join(_ORDER)} LIMIT {PAGE}",
        which.values,
    )
    last = token(rows[-1][:3]) if len(rows) == PAGE else None
    return {"rows": [_now(row) for row in rows], "after": last, "at": now}


async def count(tables: Database, query: Mapping[str, str]) -> dict[str, Any]:
    """How many those are, now. Raises ValueError."""
    which = all_of([_lasting(int(time.time() * 1000)), *_searched(query)])
    rows = await tables.query(f"SELECT COUNT(*) FROM location WHERE {which.sql}", which.values)  # noqa: S608  # ours
    return {"total": int(rows[0][0])}


async def _page_then(tables: Database, at: int, searched: list[Statement], after: Place | None) -> dict[str, Any]:
    found = await page_at(tables, at, PAGE, after, all_of(searched) if searched else None)
    return {
        "rows": [_interval(each) | {"key": f"{at_[3]}.{at_[4]}"} for at_, each in found],
        "after": token(found[-1][0]) if len(found) == PAGE else None,
        "at": at,
    }


def _lasting(now: int) -> Statement:
    return Statement("expires_ms > %s", [now])


def _searched(query: Mapping[str, str], prefix: str = "") -> list[Statement]:
    asked = text("search", query.get("search", ""))
    if not asked:
        return []
    if query.get("in") == "all":
        return [anywhere(asked, [f"{prefix}{name}" for name in _SEARCHED])]
    return [beginning(asked, f"{prefix}username", f"{prefix}domain")]


async def of_aor(tables: Database, aor: str) -> dict[str, Any]:
    """One AOR: its bindings now, and its intervals, the newest first."""
    user, _, domain = aor.rpartition("@")
    now = int(time.time() * 1000)
    rows = await tables.query(
        f"SELECT {', '.join(_COLUMNS)} FROM location WHERE username = %s AND domain = %s AND expires_ms > %s"  # noqa: S608  # ours
        " ORDER BY contact_id",
        (user, domain, now),
    )
    intervals = await history(tables, aor, HISTORY)
    return {
        "aor": aor,
        "at": now,
        "bindings": [_now(row) for row in rows],
        "history": [_interval(each) for each in reversed(intervals)],
        "more": len(intervals) == HISTORY,
    }


def aor_of(given: str, domain: str) -> str:
    """The canonical AOR of what was asked for: `alice`, `alice@example.test`. Raises ValueError."""
    asked = text("aor", given)
    try:
        parsed = parse_uri(f"sip:{asked}" if "@" in asked else f"sip:{asked}@{domain}")
        if parsed.user is None:
            raise ValueError("aor")
        return canonical(parsed)
    except ParseError:
        raise ValueError("aor") from None


def _now(row: Row) -> dict[str, Any]:
    of = dict(zip(_COLUMNS, row, strict=True))
    return {
        "key": str(of["contact_id"]),
        "aor": _aor(of["username"], of["domain"]),
        "contact": of["contact"],
        "since": int(of["created_ms"]),
        "refreshed": int(of["updated_ms"]),
        "expires": int(of["expires_ms"]),
        "from": where(of["received"]),
        "edge": of["socket"] or "",
        "agent": of["user_agent"] or "",
        "path": of["path"] or "",
    }


def _interval(one: Registration) -> dict[str, Any]:
    return {
        "aor": one.aor,
        "contact": one.contact,
        "since": one.since,
        "until": one.until,
        "expires": one.expires,
        "from": where(one.received),
        "edge": one.socket,
        "agent": one.user_agent,
        "path": one.path,
        "began": one.began,
        "began_by": one.began_by,
        "ended": one.ended,
        "ended_by": one.ended_by,
    }


def where(received: str | None) -> str:
    """`udp 192.0.2.4:5062` of `sip:192.0.2.4:5062;transport=udp`: columns are narrow."""
    address, _, transport = (received or "").removeprefix("sip:").partition(";transport=")
    return f"{transport} {address}".strip()


def _aor(user: str, domain: str) -> str:
    return f"{user}@{domain}" if user else domain
