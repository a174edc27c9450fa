"""The operators' questions about calls: which are open, what became of one and why, who missed what."""

import contextlib
import json
import sys
import time
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cdr.audit import Audit, audit
from cdr.config import Settings
from cdr.events import decode
from cdr.rows import Cdr
from cdr.state import fitted
from console.story import duration, ladder, stories, words
from events.calls import CallEvent
from events.limits import CALL_ID
from events.topics import CALLS, partition_of
from events.wire import Poisoned
from ramal.ladder import drawn
from ramal.system import System
from ramal.wording import counted, listing, local_time
from runtime.errors import ConfigError
from runtime.log.port import Log
from sipcore.reasons import in_words

_OPEN = ("caller", "callee", "dialled", "progress", "attempted_ms", "answered_ms", "edges", "call_id")
_ENDED = (
    *("attempted_ms", "caller", "callee", "dialled", "outcome", "code", "phrase"),
    *("answered_ms", "talk_ms", "missed", "call_id"),
)
MOST = 1000
"""Rows that are shown of what has ended; whoever wants more wants a file."""
_MISSED = ("time_ms", "src_user", "src_domain", "sip_code", "sip_reason", "callid")
_SHOWN = tuple(name for name in Cdr._fields if name not in ("id", "state", "last_offset", "partition_no"))


async def show_open(system: System, console: Console, *, as_json: bool) -> None:
    """Calls that have no end yet."""
    async with system.tables() as tables:
        rows = await tables.query(f"SELECT {', '.join(_OPEN)} FROM open_calls ORDER BY attempted_ms")  # noqa: S608  # ours
    found = [dict(zip(_OPEN, row, strict=True)) for row in rows]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        console.print("There are no open calls. Those that were: ramal calls --since 14:05", soft_wrap=True)
        return
    now = time.time() * 1000
    lines = [
        (
            row["caller"],
            row["callee"] or row["dialled"],
            row["progress"],
            duration((now - (row["answered_ms"] or row["attempted_ms"])) / 1000),
            row["edges"],
            row["call_id"],
        )
        for row in found
    ]
    listing(console, ("Caller", "Callee", "Progress", "For", "Edges", "Call-ID"), lines)
    console.print(counted(len(found), "open call"))


async def show_ended(system: System, console: Console, since: int, *, as_json: bool) -> None:
    """Calls that have ended, of those that began since then (milliseconds), the latest first."""
    async with system.tables() as tables:
        rows = await tables.query(
            f"SELECT {', '.join(_ENDED)} FROM cdrs WHERE attempted_ms >= %s"  # noqa: S608  # ours
            " ORDER BY attempted_ms DESC, id DESC LIMIT %s",
            (since, MOST + 1),
        )
    found: list[dict[str, Any]] = [dict(zip(_ENDED, row, strict=True)) for row in rows[:MOST]]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        console.print(f"No call that began since {local_time(since)} has ended.", soft_wrap=True)
    else:
        lines = [
            (
                local_time(row["attempted_ms"]),
                row["caller"],
                row["callee"] or row["dialled"],
                row["outcome"] if row["answered_ms"] else _outcome(row),
                duration(row["talk_ms"] / 1000) if row["answered_ms"] else "",
                row["call_id"],
            )
            for row in found
        ]
        listing(console, ("When", "Caller", "Callee", "Outcome", "Talked", "Call-ID"), lines)
        console.print(f"{counted(len(found), 'call')} since {local_time(since)}", soft_wrap=True)
    if len(rows) > MOST:
        print(f"ramal: only the latest {MOST}; `ramal export cdrs --since …` has all", file=sys.stderr)


def _outcome(row: dict[str, Any]) -> str:
    """`answered`, or how it failed: `failed: 480 Temporarily Unavailable`."""
    if row["answered_ms"] or not row["code"]:
        return str(row["outcome"])
    return f"{row['outcome']}: {in_words(row['code'], row['phrase'])}"


async def show_call(system: System, console: Console, call_id: str, *, as_json: bool) -> None:
    """What became of the calls of a Call-ID. Raises ConfigError when there are none."""
    name = fitted(call_id, CALL_ID)
    async with system.tables() as tables:
        rows = await tables.query(
            f"SELECT {', '.join(_SHOWN)} FROM cdrs WHERE call_id = %s ORDER BY attempted_ms",  # noqa: S608  # ours
            (name,),
        )
        open_ = await tables.query(
            f"SELECT {', '.join(_OPEN)} FROM open_calls WHERE call_id = %s ORDER BY attempted_ms",  # noqa: S608  # ours
            (name,),
        )
    found: list[dict[str, Any]] = [dict(zip(_SHOWN, row, strict=True)) for row in rows]
    found += [dict(zip(_OPEN, row, strict=True)) for row in open_]
    if not found:
        raise ConfigError(f"CALL-ID: no call {call_id} is known")
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for number, call in enumerate(found):
        if number:
            console.print()
        for key, value in call.items():
            if value not in (None, "", 0):
                console.print(f"{key.removesuffix('_ms').ljust(18)}{_told(key, value)}", soft_wrap=True, markup=False)


def _told(key: str, value: Any) -> Any:
    """A column of a call for people: times, durations, and yes for what is so."""
    if key in ("setup_ms", "talk_ms"):
        return f"{value / 1000:.1f} s" if value < 60_000 else duration(value / 1000)
    if key in ("ours", "missed", "incomplete", "estimated"):
        return "yes"
    return local_time(value) if key.endswith("_ms") else value


async def explain(system: System, console: Console, call_id: str, *, as_json: bool = False) -> None:
    """A call from its events alone, in words and as a ladder. Raises ConfigError when there are none."""
    async with system.log() as log:
        told = stories(await _events(log, call_id, console))
    if not told:
        raise ConfigError(f"CALL-ID: no event of {call_id} is in the log")
    if as_json:
        found = [{"words": words(each, local_time), "events": msgspec.to_builtins(each.events)} for each in told]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for number, story in enumerate(told):
        if number:
            console.print()
        for line in (*words(story, local_time), "", *drawn(ladder(story), console.width)):
            console.print(line, soft_wrap=True, markup=False)


async def _events(log: Log, call_id: str, console: Console) -> list[CallEvent]:
    """All events of a Call-ID that the log has; a bar on a terminal, for that is a whole partition."""
    key, found = call_id.encode("utf-8", "surrogateescape"), []
    number = partition_of(call_id, await log.partitions(CALLS))
    bounds = await log.bounds(CALLS, number)
    if bounds.begin == bounds.end:
        return []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Events looked through", total=bounds.end - bounds.begin)
        async for records in log.read(CALLS, number, bounds.begin, bounds.end):
            for record in records:
                if record.key == key:
                    with contextlib.suppress(Poisoned):  # in the dead letters
                        found.append(decode(record.value))
            bar.update(task, completed=records[-1].offset + 1 - bounds.begin)
    return found


async def show_missed(system: System, console: Console, aor: str, *, as_json: bool) -> None:
    """The calls that a user missed, the latest first."""
    user, _, domain = aor.rpartition("@")
    async with system.tables() as tables:
        rows = await tables.query(
            f"SELECT {', '.join(_MISSED)} FROM missed_calls WHERE dst_user = %s AND dst_domain = %s"  # noqa: S608  # ours
            " ORDER BY time_ms DESC",
            (user, domain),
        )
    found = [dict(zip(_MISSED, row, strict=True)) for row in rows]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        console.print(f"{aor} has missed no call.", soft_wrap=True)
        return
    lines = [
        (
            local_time(row["time_ms"]),
            f"{row['src_user']}@{row['src_domain']}".strip("@"),
            f"{row['sip_code']} {row['sip_reason']}".strip(),
            row["callid"],
        )
        for row in found
    ]
    listing(console, ("When", "Caller", "Ended by", "Call-ID"), lines)
    console.print(counted(len(found), "missed call"))


async def _known_since(log: Log) -> int:
    """From when on all call events are in the log, milliseconds; 0: since ever."""
    since = 0
    for number in range(await log.partitions(CALLS)):
        bounds = await log.bounds(CALLS, number)
        if bounds.begin == 0:
            continue  # nothing has left it yet
        async with contextlib.aclosing(log.read(CALLS, number, bounds.begin, bounds.end)) as batches:
            async for records in batches:
                since = max(since, records[0].timestamp)
                break
    return since


async def audit_day(system: System, console: Console, begin: datetime, end: datetime, *, as_json: bool = False) -> bool:
    """Compares a day's events with the tables; whether they agree."""
    day = f"{begin.date()} {begin.strftime('%Z')}".strip()
    settings = system.sources.section(Settings, "cdr")
    async with system.log() as log, system.tables() as tables:
        if (since := await _known_since(log)) > begin.timestamp() * 1000:
            raise ConfigError(
                f"--day: the log begins at {local_time(since)}: of calls before that, it knows too little"
            )
        found: Audit = await audit(log, tables, settings, *(int(at.timestamp() * 1000) for at in (begin, end)))
    if as_json:
        print(json.dumps({"day": str(begin.date()), **msgspec.to_builtins(found)}, indent=2, ensure_ascii=False))
        return not found.differences
    for line in found.told:
        console.print(line, soft_wrap=True, markup=False)
    if found.differences > len(found.told):
        console.print(f"… and {found.differences - len(found.told)} more")
    console.print(
        f"{day}: {counted(found.calls, 'call')} of {counted(found.events, 'event')}, {counted(found.rows, 'row')},"
        f" {counted(found.differences, 'difference')}",
        soft_wrap=True,
    )
    return not found.differences
