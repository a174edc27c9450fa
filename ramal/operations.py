"""What an operator does through the log: topics, the schema, a removal; and reading a topic."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cdr.view import SOURCES, group_of
from console.removal import removed
from events.limits import CONTACT
from events.registrations import BindingsRecorded
from events.topics import TOPICS, VIEW, partition_of
from events.wire import header
from ramal.directory import only_one
from ramal.processes import StartFailed
from ramal.system import System
from runtime.database.port import Database
from runtime.errors import ConfigError, Unavailable
from runtime.log.port import Log, Record

T = TypeVar("T")

SETTLING_SECONDS = 5.0
"""A topic that was just made may be unknown to a broker for a moment."""
GROUPS = ("authsvc", "registrar", "locator", "cdr", *map(group_of, SOURCES))
"""Of which services are members."""
AGAIN_SECONDS = 1.0
"""Between two looks for a backend that is not there yet."""
LINES = 10
"""AORs that are named beside one that was kicked."""
_SECRET = frozenset({"response", "nonce", "cnonce"})
"""Fields of a digest: with a user's response and nonce, a password can be guessed at leisure."""


async def make_topics(system: System, *, view: bool = False) -> tuple[list[str], list[str]]:
    """Makes the topics that are missing; returns their names, and what is wrong with those that were there.

    `view`: those of the analysts' view, too.
    """
    topics = (*TOPICS, *VIEW) if view else TOPICS
    async with system.log() as log:
        made = await log.create_topics(system.common.partitions, topics)
        until = asyncio.get_running_loop().time() + SETTLING_SECONDS
        while True:
            wrong = await log.check_topics(system.common.partitions, topics)
            if not (made and wrong) or asyncio.get_running_loop().time() > until:
                return made, wrong
            await asyncio.sleep(0.1)


async def when_there(system: System, attempt: Callable[[], Awaitable[T]], tell: Callable[[str], None]) -> T:
    """What the attempt returns, again and again until its backend is there: at most `RAMAL_SETUP_SECONDS`.

    Whoever starts everything at once starts this before Kafka and MySQL answer. Each reason is told once. Any of them
    may pass: an account is made after the server that it is for. Raises Unavailable, the last one.
    """
    now = asyncio.get_running_loop().time
    seconds = 0.0 if system.store else system.common.setup_seconds
    until, said = now() + seconds, ""
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            if now() + AGAIN_SECONDS > until:
                raise
            if (reason := str(error)) != said:
                said = reason
                tell(f"waiting for up to {until - now():.0f} s (RAMAL_SETUP_SECONDS): {reason}")
            await asyncio.sleep(AGAIN_SECONDS)


async def migrate(system: System) -> list[str]:
    """Brings the tables up to date; returns what was applied."""
    async with system.tables() as tables:
        return await tables.migrate()


def operator() -> str:
    """Who is at the keyboard."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid{os.getuid()}"


async def remove(
    system: System, data: Path | None, aor: str, contact: str | None, *, kick: bool = False
) -> tuple[BindingsRecorded, list[str]]:
    """Removes an AOR's bindings (or the one with this contact) through the log; what the registrar recorded.

    `kick`: and has their connections closed; then other AORs that are registered by these come along, `LINES` at most.

    In an embedded system that is not running, registrar and locator run in this process meanwhile.
    """
    if contact is not None and len(contact) > CONTACT:
        raise ConfigError(f"CONTACT: longer than {CONTACT} characters")
    async with system.log() as log, system.tables() as tables, running(system, data, ("registrar", "locator")):
        beside = await _beside(tables, aor) if kick else []
        recorded = await removed(log, tables, aor, contact, operator(), kick=kick)
    return recorded, sorted({other for path, other in beside if path in recorded.closes})[:LINES]


async def _beside(tables: Database, aor: str) -> list[tuple[str, str]]:
    """Which other AORs are registered by the connections of an AOR: each with the Path value that names one."""
    user, _, domain = aor.rpartition("@")
    own = "SELECT path FROM location WHERE username = %s AND domain = %s AND socket NOT LIKE 'udp:%%'"
    paths = sorted({str(path) for (path,) in await tables.query(own, (user, domain)) if path})
    if not paths:
        return []
    places = ", ".join(["%s"] * len(paths))
    sql = f"SELECT path, username, domain FROM location WHERE path IN ({places})"  # noqa: S608  # only places
    rows = await tables.query(sql, tuple(paths))
    return [(str(path), other) for path, name, at in rows if (other := f"{name}@{at}") != aor]


async def leave(system: System, name: str) -> list[str]:
    """Has a dead process leave its groups, so that others need not wait for its session's end; which those were."""
    from runtime.log.kafka.log import KafkaLog

    async with system.log() as log:
        if not isinstance(log, KafkaLog):
            return []  # the services of an embedded system are one process
        return [service for service in GROUPS if await log.expel(service, name)]


@contextlib.asynccontextmanager
async def running(system: System, data: Path | None, names: Sequence[str]) -> AsyncIterator[None]:
    """Runs these services here if this is an embedded system that nobody runs."""
    with contextlib.ExitStack() as held:
        if data is None:
            yield
            return
        try:
            held.enter_context(only_one(data))
        except StartFailed:
            yield
            return
        services, resources = system.services(names)
        # Store and tables are open already.
        logs = [resource for resource in resources if resource not in (system.store, system.database)]
        for log in logs:
            await log.start()
        for service in services:
            await service.start()
        try:
            yield
        finally:
            for service in reversed(services):
                await service.stop(5.0)
            for log in logs:
                await log.stop(2.0)


async def tail(
    system: System, topic: str, *, since: int | None, count: int | None, key: str | None = None
) -> AsyncGenerator[str, None]:
    """Records of a topic as lines of JSON, from now on or written since a time, in milliseconds. Raises ConfigError.

    `key`: only those with this key.
    """
    name = topic.removeprefix(system.common.topic_prefix)
    if name not in {known.name for known in (*TOPICS, *VIEW)}:
        raise ConfigError(
            f"TOPIC: there is no {topic}; there are {', '.join(known.name for known in (*TOPICS, *VIEW))}"
        )
    lines: asyncio.Queue[str] = asyncio.Queue(1000)
    async with system.log() as log:
        begins: dict[int, int] = {}
        partitions = await log.partitions(name)
        for partition in range(partitions) if key is None else [partition_of(key, partitions)]:
            bounds = await log.bounds(name, partition)
            begins[partition] = bounds.end if since is None else await log.offset_at(name, partition, since)
        octets = None if key is None else key.encode("utf-8", "surrogateescape")
        # No TaskGroup: whoever ends the generator early would get a group of exceptions for it.
        readers = [
            asyncio.create_task(_read(log, name, number, begin, lines, octets)) for number, begin in begins.items()
        ]
        try:
            seen = 0
            while count is None or seen < count:
                yield await _next(lines, readers)
                seen += 1
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _next(lines: "asyncio.Queue[str]", readers: Sequence["asyncio.Task[None]"]) -> str:
    """The next line; raises what ended a reader."""
    if lines.empty():
        line = asyncio.ensure_future(lines.get())
        try:
            done, _ = await asyncio.wait({line, *readers}, return_when=asyncio.FIRST_COMPLETED)
            if line in done:
                return line.result()
        finally:
            line.cancel()
        for reader in readers:
            if reader.done():
                reader.result()
    return await lines.get()


async def _read(
    log: Log, topic: str, partition: int, begin: int, lines: "asyncio.Queue[str]", key: bytes | None
) -> None:
    async with contextlib.aclosing(log.read(topic, partition, begin)) as batches:
        async for batch in batches:
            for record in batch:
                if key is None or record.key == key:
                    await lines.put(line_of(record))


def line_of(record: Record) -> str:
    """A record as one line of JSON; of credentials nothing that a password could be guessed with."""
    kind = header(record.headers, "ce_type")
    line = {
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "type": None if kind is None else kind.decode(errors="replace"),
        "partition": record.partition,
        "offset": record.offset,
        "time": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
        "value": _readable(record.value),
    }
    if cause := header(record.headers, "cause"):  # of a dead letter
        line["cause"] = cause.decode(errors="replace")
    return json.dumps(line, ensure_ascii=False)


def _readable(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        decoded = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value.decode(errors="replace")
    if isinstance(decoded, dict) and isinstance(digest := decoded.get("digest"), dict):
        decoded["digest"] = {key: "***" if key in _SECRET else text for key, text in digest.items()}
    return decoded
