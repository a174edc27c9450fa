"""`ramal forget`: takes a person out of the tables and of the analysts' view, and says what the log still has of him.

The log cannot be rewritten: what stands in a topic stays until its retention is over, and the search says until when.
So the erasure is in the log as well, behind what it erases: whoever replays it comes to the same tables.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from cdr.keys import deleted
from cdr.tables import LIVE, NAMES, naming
from console.removal import removed
from events.people import PersonForgotten
from events.pseudonyms import person_of
from events.topics import AUDIT, CALLS, CDRS, TOPICS, VIEW, Topic, partition_of
from events.wire import Happened, encode
from ramal.operations import operator, running
from ramal.system import System
from ramal.wording import listing, local_time
from runtime.database.port import Database, Row
from runtime.database.positions import position
from runtime.errors import LogUnavailable
from runtime.log.port import Append, Log

CDR_SECONDS = 120.0
"""cdr looks through all rows of its tables."""
_TABLES: dict[str, tuple[str, ...]] = {
    "location": ("username", "domain"),
    "registration_history": ("username", "domain"),
    "cdrs": ("state",),
    "open_calls": ("state",),
    "acc": ("src_user", "src_domain", "dst_user", "dst_domain", "dst_ouser"),
    "missed_calls": ("src_user", "src_domain", "dst_user", "dst_domain", "dst_ouser"),
    "person_keys": ("person",),
}
"""Where a person may stand; those with user and domain are asked by these."""


class Found(NamedTuple):
    """What the search found in one place."""

    where: str
    records: int
    last: int = 0
    """When the newest was written; milliseconds."""
    gone: int | None = 0
    """When that will have left the log; None: never. 0: it is no log."""


async def forget(system: System, data: Path | None, aor: str) -> None:
    """Takes a person out of tables and view. Raises Unavailable; what was begun goes on by itself, or once more."""
    asked = running(system, data, ("registrar", "locator", "cdr"))
    async with system.log() as log, system.tables() as tables, asked:
        await removed(log, tables, aor, None, operator(), forget=True)
        told = PersonForgotten(aor, operator(), int(time.time() * 1000))
        await tables.transact(deleted([*await _aliases(tables, aor), person_of(aor)]))
        await _written(tables, await _tell(log, CALLS, told))
        # Behind the last record that named him: cdr has published those of all calls before that.
        await _tell(log, CDRS, told)
        key = aor.encode()
        number = partition_of(aor, await log.partitions(AUDIT))
        await log.append([Append(AUDIT, number, key, encode(told), _headers(told, "audit"))])


async def _tell(log: Log, topic: str, told: PersonForgotten) -> dict[int, int]:
    """Writes it to every partition of a topic; the offsets."""
    numbers = range(await log.partitions(topic))
    value, headers = encode(told), _headers(told, topic)
    at = await log.append([Append(topic, number, told.person.encode(), value, headers) for number in numbers])
    return {place.partition: place.offset for place in at}


def _headers(told: PersonForgotten, topic: str) -> Sequence[tuple[str, bytes]]:
    id_ = hashlib.blake2b(f"{topic} {told.at}".encode() + encode(told), digest_size=16).hexdigest()
    return Happened("ramal.PersonForgotten", "ramal", id_, told.person, told.at)


async def _aliases(tables: Database, aor: str) -> list[str]:
    """Other names by which the person is called."""
    user, _, domain = aor.rpartition("@")
    rows = await tables.query(
        "SELECT alias_username, alias_domain FROM dbaliases WHERE username = %s AND domain = %s", (user, domain)
    )
    return [f"{name}@{domain}" for name, domain in rows]


async def _written(tables: Database, offsets: dict[int, int]) -> None:
    """Waits until cdr has done it in every partition."""
    try:
        async with asyncio.timeout(CDR_SECONDS):
            for number, offset in offsets.items():
                while (at := await position(tables, LIVE.projection, number)) is None or at.next <= offset:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise LogUnavailable(
            f"cdr has not done its part within {CDR_SECONDS:.0f} s; it stands in the log and will be done:"
            " then say `ramal forget` once more"
        ) from None


# --- the search ------------------------------------------------------------------------------------------------------


async def search(system: System, console: Console, aor: str) -> list[Found]:
    """Where a person stands, in every table and every topic that is kept. Raises Unavailable."""
    names = re.compile(_pattern(aor), re.IGNORECASE)
    async with system.log() as log, system.tables() as tables:
        found = [await _rows(tables, table, columns, aor) for table, columns in _TABLES.items()]
        topics = [topic for topic in (*TOPICS, *VIEW) if await _exists(log, topic)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            for topic in topics:
                task = bar.add_task(f"Records of {topic.name}", total=None)
                found.append(await _records(log, topic, names, partial(_told, bar, task)))
    return found


def _told(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


def _pattern(aor: str) -> bytes:
    """The person's AOR or a contact of the same name at an address; nothing of whom the name only ends alike."""
    user, _, domain = aor.encode("utf-8", "surrogateescape").rpartition(b"@")
    return rb"(?<![\w.+~-])" + re.escape(user) + rb"@(?:" + re.escape(domain) + rb"(?![\w.-])|[\d.]+\b|\[)"


async def _exists(log: Log, topic: Topic) -> bool:
    try:
        return bool(await log.partitions(topic.name))
    except KeyError:
        return False


async def _records(log: Log, topic: Topic, names: re.Pattern[bytes], progress: Callable[[int], None]) -> Found:
    count, last, done = 0, 0, 0
    for number in range(await log.partitions(topic.name)):
        bounds = await log.bounds(topic.name, number)
        if bounds.begin == bounds.end:
            continue
        async for records in log.read(topic.name, number, bounds.begin, bounds.end, committed=True):
            for record in records:
                if names.search(record.value or b"") or names.search(record.key or b""):
                    count, last = count + 1, max(last, record.timestamp)
            done += len(records)
            progress(done)
    kept = await log.kept(topic) if count else 0
    return Found(f"topic {topic.name}", count, last, None if kept is None else last + kept)


async def _rows(tables: Database, table: str, columns: Sequence[str], aor: str) -> Found:
    user, _, domain = aor.rpartition("@")
    values: Row
    if columns == ("state",):
        where, values = NAMES, naming(aor)
    elif columns == ("person",):
        where, values = "person = %s", (person_of(aor),)
    else:
        pairs = list(zip(columns[::2], columns[1::2], strict=False))
        where, values = " OR ".join(f"({a} = %s AND {b} = %s)" for a, b in pairs), (user, domain) * len(pairs)
    [(count,)] = await tables.query(f"SELECT COUNT(*) FROM {table} WHERE {where}", values)  # noqa: S608  # ours
    return Found(f"table {table}", int(count))


def show(console: Console, aor: str, found: Sequence[Found]) -> None:
    """The search's answer for people."""
    there = [each for each in found if each.records]
    if not there:
        console.print(f"Nothing names {aor}.", soft_wrap=True)
        return
    lines = [(each.where, str(each.records), _until(each)) for each in there]
    listing(console, ("Where", "Records that name them", "Gone by"), lines)


def _until(found: Found) -> str:
    if found.gone is None:
        return "never: the topic keeps everything"
    return local_time(found.gone) if found.gone else ""
