"""Calls that last and calls that were: from the tables, a page at a time; one of them told from its events."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from cdr.events import decode
from console.phrases import LANGUAGES
from console.searching import all_of, anywhere, number, place, text, token
from console.story import CallStory, ladder, stories, words
from events.calls import CallEvent
from events.topics import CALLS
from events.wire import Poisoned
from runtime.database.keyset import following
from runtime.database.port import Database, Statement
from runtime.errors import LogUnavailable
from runtime.log.port import Log, PartitionFault
from sipcore.reasons import REASONS

PAGE = 200
"""Rows of one answer at most."""
MOMENTS = {"en": "%Y-%m-%d %H:%M:%S", "pt": "%d/%m/%Y %H:%M:%S"}
"""As the page writes them, too."""
EVENTS_SECONDS = 4.0
"""How long a call's events are looked for among all that was written while it lasted."""
_PAST = (
    "id", "call_id", "caller", "callee", "dialled", "outcome", "code", "phrase",
    "attempted_ms", "answered_ms", "ended_ms", "talk_ms", "edges", "gateway",
)  # fmt: skip
_LIVE = ("id", "call_id", "caller", "callee", "dialled", "progress", "attempted_ms", "answered_ms", "edges")
_ONE = (
    *_PAST, "from_tag", "cseq", "last_offset", "answered_by", "rang_ms", "setup_ms", "reason", "cause", "hung_up",
    "missed", "source", "caller_transport", "callee_transport", "caller_agent", "callee_agent", "codecs", "branches",
    "transferred_to", "session_expires", "incomplete", "estimated",
)  # fmt: skip
_ONE_LIVE = (*_LIVE, "from_tag", "cseq", "last_offset")
_ORDER = ("attempted_ms", "id")
_behind = msgspec.json.Decoder(tuple[int, int])


async def page(tables: Database, query: Mapping[str, str]) -> dict[str, Any]:
    """The latest first: `live` or past ones, by `user`, `number`, `code`, `since` and `until` (milliseconds), `after`.

    Raises ValueError that names what is wrong.
    """
    live = query.get("live") == "1"
    table, columns = ("open_calls", _LIVE) if live else ("cdrs", _PAST)
    conditions = [Statement("attempted_ms >= %s", [_moment(query, "since", 0)])]
    if query.get("until"):
        conditions.append(Statement("attempted_ms < %s", [_moment(query, "until", 0)]))
    if user := text("user", query.get("user", "")):
        conditions.append(anywhere(user, ("caller", "callee")))
    if dialled := text("number", query.get("number", "")):
        conditions.append(anywhere(dialled, ("dialled",)))
    if query.get("code") and not live:
        conditions.append(Statement("code = %s", [number("code", query["code"], 0, 699)]))
    if after := place(query.get("after", ""), _behind):
        conditions.append(following(_ORDER, after, descending=True))
    which = all_of(conditions)
    rows = await tables.query(
        f"SELECT {', '.join(columns)} FROM {table} WHERE {which.sql}"  # noqa: S608  # ours
        f" ORDER BY attempted_ms DESC, id DESC LIMIT {PAGE}",
        which.values,
    )
    found = [_shown(dict(zip(columns, row, strict=True))) for row in rows]
    last = token((found[-1]["attempted_ms"], int(found[-1]["id"]))) if len(found) == PAGE else None
    return {"rows": found, "after": last, "at": int(time.time() * 1000)}


async def one(tables: Database, log_: Log, query: Mapping[str, str]) -> dict[str, Any] | None:
    """The call with this `id`, its story in `language` and its ladder; None if there is none. Raises ValueError.

    `offset`: minutes of the reader's clock ahead of UTC. `events`: "" or why there is no story, `gone` or `late`.
    """
    id_ = number("id", query.get("id", ""), 0, 2**63 - 1)
    language = query.get("language", "en")
    phrases, moment = LANGUAGES.get(language, LANGUAGES["en"]), MOMENTS.get(language, MOMENTS["en"])
    zone = timezone(timedelta(minutes=_offset(query.get("offset", "0"))))
    for table, columns in (("cdrs", _ONE), ("open_calls", _ONE_LIVE)):
        rows = await tables.query(f"SELECT {', '.join(columns)} FROM {table} WHERE id = %s", (id_,))  # noqa: S608  # ours
        if rows:
            break
    else:
        return None
    call = _shown(dict(zip(columns, rows[0], strict=True)))
    found: dict[str, Any] = {"call": call, "words": [], "ladder": None, "events": ""}
    try:
        async with asyncio.timeout(EVENTS_SECONDS):
            told = await _story(log_, id_, int(call.pop("last_offset")), call)
    except TimeoutError:
        found["events"] = "late"
        return found
    if told is None:
        found["events"] = "gone"
        return found

    def when(at: int) -> str:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).strftime(moment)

    return found | {"words": words(told, when, phrases), "ladder": ladder(told, phrases)._asdict()}


async def _story(log_: Log, id_: int, last: int, call: Mapping[str, Any]) -> CallStory | None:
    """The call from its events; None where the log has them no more. Its id says where they begin."""
    partition, begin = id_ & 1023, id_ >> 10
    bounds = await log_.bounds(CALLS, partition)
    if begin < bounds.begin or begin >= bounds.end:
        return None
    key, events = call["call_id"].encode("utf-8", "surrogateescape"), list[CallEvent]()
    try:
        async with contextlib.aclosing(log_.read(CALLS, partition, begin, min(last + 1, bounds.end))) as batches:
            async for records in batches:
                for record in records:
                    if record.key == key:
                        with contextlib.suppress(Poisoned):  # in the dead letters
                            events.append(decode(record.value))
    except PartitionFault as error:
        raise LogUnavailable(str(error)) from error
    same = [
        told for told in stories(events) if (told.call.from_tag, told.call.cseq) == (call["from_tag"], call["cseq"])
    ]
    return same[0] if same else None


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Ids as text: they are longer than a browser's numbers; the RFC's phrase where none came with a response."""
    return {**row, "id": str(row["id"])} | _phrase(row)


def _phrase(row: Mapping[str, Any]) -> dict[str, str]:
    return {"phrase": row["phrase"] or REASONS.get(row["code"], "")} if "phrase" in row else {}


def _moment(query: Mapping[str, str], name: str, default: int) -> int:
    return number(name, query[name], 0, 10**15 - 1) if query.get(name) else default


def _offset(given: str) -> int:
    """Minutes, at most 14 hours. Raises ValueError."""
    sign = -1 if given.startswith("-") else 1
    return sign * number("offset", given.removeprefix("-"), 0, 14 * 60)
