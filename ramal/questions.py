"""The operators' questions to the tables: who is registered, who was, and what happened to an AOR."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console

from console.story import duration
from locator.history import Registration, history, known_since, registered_at
from ramal.system import System
from ramal.wording import listing, local_time
from runtime.database.port import Database

_SHOWN = (
    "contact_id",
    "username",
    "domain",
    "contact",
    "received",
    "path",
    "socket",
    "q",
    "sip_instance",
    "reg_id",
    "callid",
    "cseq",
    "user_agent",
    "granted",
    "expires_ms",
    "created_ms",
    "updated_ms",
)


async def show(system: System, console: Console, aor: str | None, *, as_json: bool) -> None:
    """Who is registered now, as every edge sees it."""
    async with system.tables() as tables:
        found = await _bindings(tables, aor)
    if as_json:
        _print_json([_plain(binding) for binding in found])
        return
    if not found:
        console.print("Nobody is registered." if aor is None else f"{aor} is not registered.", soft_wrap=True)
        return
    now = time.time() * 1000
    rows = [
        (
            _aor(row),
            row["contact"],
            duration((row["expires_ms"] - now) / 1000),
            _place(row["received"]),
            row["socket"] or "",
            row["user_agent"] or "",
        )
        for row in found
    ]
    listing(console, ("AOR", "Contact", "Ends in", "Reached from", "At edge", "User agent"), rows)
    users = len({_aor(row) for row in found})
    console.print(f"{len(found)} contact{'s' * (len(found) != 1)} of {users} user{'s' * (users != 1)}")


async def _bindings(tables: Database, aor: str | None) -> list[dict[str, Any]]:
    """Rows of `location` whose time is not over."""
    whose, whom = "", tuple[str, ...]()
    if aor is not None:
        whose = " AND username = %s AND domain = %s"
        user, _, domain = aor.rpartition("@")
        whom = (user, domain)
    sql = f"SELECT {', '.join(_SHOWN)} FROM location WHERE expires_ms > %s{whose} ORDER BY domain, username, contact_id"  # noqa: S608  # ours
    return [dict(zip(_SHOWN, row, strict=True)) for row in await tables.query(sql, (int(time.time() * 1000), *whom))]


def _place(received: str | None) -> str:
    """`udp 192.0.2.4:5062` of `sip:192.0.2.4:5062;transport=udp`: tables are narrow."""
    address, _, transport = (received or "").removeprefix("sip:").partition(";transport=")
    return f"{transport} {address}".strip()


def _aor(row: dict[str, Any]) -> str:
    return f"{row['username']}@{row['domain']}"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A binding as JSON: names of the event schema, times in ISO 8601."""
    return {
        "aor": _aor(row),
        "contact": row["contact"],
        "id": int(row["contact_id"]),
        "expires": _iso(row["expires_ms"]),
        "granted": int(row["granted"]),
        "created": _iso(row["created_ms"]),
        "updated": _iso(row["updated_ms"]),
        "q": float(row["q"]),
        "received": row["received"],
        "path": row["path"],
        "socket": row["socket"],
        "instance": row["sip_instance"],
        "reg_id": row["reg_id"],
        "call_id": row["callid"],
        "cseq": int(row["cseq"]),
        "user_agent": row["user_agent"],
    }


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


async def show_history(system: System, console: Console, aor: str, *, as_json: bool) -> None:
    """Every interval in which the AOR was registered, and how it ended."""
    async with system.tables() as tables:
        intervals = await history(tables, aor)
    if as_json:
        _print_json([_registration(one) for one in intervals])
        return
    if not intervals:
        console.print(f"{aor} was never registered, as far as the history goes.", soft_wrap=True)
        return
    rows = [
        (
            local_time(one.since),
            "now" if one.until is None else local_time(one.until),
            one.contact,
            _place(one.received),
            f"{one.began} by {one.began_by}",
            "" if one.ended is None else f"{one.ended} by {one.ended_by}",
        )
        for one in intervals
    ]
    listing(console, ("From", "Until", "Contact", "Reached from", "Began", "Ended"), rows)


async def show_at(system: System, console: Console, moment: datetime, aor: str | None, *, as_json: bool) -> None:
    """Who was registered at a moment."""
    at = int(moment.timestamp() * 1000)
    async with system.tables() as tables:
        found: Sequence[Registration] = await registered_at(tables, at, aor)
        since = await known_since(tables)
    if as_json:
        begins = None if since is None else _iso(since)
        _print_json({"at": _iso(at), "known_since": begins, "registrations": [_registration(one) for one in found]})
        return
    if since is None or at < since:
        beginning = "nothing is known yet" if since is None else f"the history begins at {local_time(since)}"
        console.print(f"Nothing is known of {local_time(at)}: {beginning}.", soft_wrap=True)
        return
    who = "nobody" if aor is None else aor
    if not found:
        console.print(f"At {local_time(at)} {who} was {'' if aor is None else 'not '}registered.", soft_wrap=True)
        return
    rows = [(one.aor, one.contact, local_time(one.since), _place(one.received), one.user_agent) for one in found]
    listing(console, ("AOR", "Contact", "Since", "Reached from", "User agent"), rows, f"At {local_time(at)}")


def _registration(one: Registration) -> dict[str, Any]:
    """An interval as JSON, times in ISO 8601."""
    plain: dict[str, Any] = msgspec.to_builtins(one)
    plain["since"] = _iso(one.since)
    plain["until"] = None if one.until is None else _iso(one.until)
    plain["expires"] = None if one.expires is None else _iso(one.expires)
    return plain


def _print_json(found: object) -> None:
    print(json.dumps(found, indent=2, ensure_ascii=False))
