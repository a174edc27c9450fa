"""Accounts, aliases and groups: rows of theirs compared with ours, and what is new or otherwise written."""

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

from ramal.importing.report import Counted
from ramal.importing.rows import Account, Alias, Group, Key, Left, account, alias, group
from ramal.importing.source import Source
from runtime.database.port import Database

T = TypeVar("T", Account, Alias, Group)
Progress = Callable[[int], None]
"""Is told of rows that were looked at."""


NOBODYS = "its user is none here: calls to it reach nobody"
NOBODYS_IN_TABLES = "its user is in no table here: calls to it reach him if LDAP has him"


class Into(NamedTuple):
    """A table of ours: its columns, of which the first `key` name a row."""

    name: str
    columns: tuple[str, ...]
    key: int


SUBSCRIBER = Into("subscriber", ("username", "domain", "password", "ha1", "ha1_sha256", "ha1_sha512t256"), 2)
DBALIASES = Into("dbaliases", ("alias_username", "alias_domain", "username", "domain"), 2)
GRP = Into("grp", ("username", "domain", "grp"), 3)


class Ours(NamedTuple):
    """Where rows go, or would go."""

    tables: Database
    domain: str
    """Of rows that name none."""
    served: Collection[str]
    write: bool
    """False: a dry run."""
    users: set[Key]
    """Who is a user without a row of ours: of the users file, and those whom this run takes, or would take, over."""
    directory: bool = False
    """Whether users may be in LDAP, too."""


async def domains(source: Source, ours: Ours, progress: Progress) -> Counted:
    """Domains are settings of ours, not rows: which are missing, and what to write."""
    counted = Counted("domain")
    missing = []
    async for rows in source.chunks("domain"):
        for row in rows:
            name = str(row["domain"]).lower()
            counted.read += 1
            if name in ours.served:
                counted.same += 1
            else:
                counted.leave(Left("it is not served", name))
                missing.append(name)
        progress(len(rows))
    if missing:
        setting = json.dumps({name: {} for name in [*sorted(set(ours.served) - {ours.domain}), *missing]})
        counted.notes.append(f"to serve them: RAMAL_DOMAINS='{setting}' for every process, then import again")
    return counted


async def accounts(source: Source, ours: Ours, progress: Progress) -> Counted:
    """`subscriber`: the HA1s, never a password."""

    def values(found: Account) -> tuple[str, ...]:
        user = found.user
        ours.users.add(found.key)
        return (*found.key, "", user.md5 or "", user.sha256 or "", user.sha512_256 or "")

    return await _take_over(source, ours, progress, SUBSCRIBER, account, values)


async def aliases(source: Source, ours: Ours, progress: Progress) -> Counted:
    """`dbaliases`: an alias has one user here; of several the first counts."""
    return await _take_over(source, ours, progress, DBALIASES, alias, lambda found: (*found.key, *found.user))


async def groups(source: Source, ours: Ours, progress: Progress) -> Counted:
    """`grp`, for a proxy beside us that asks it."""
    counted = await _take_over(source, ours, progress, GRP, group, lambda found: (*found.key, found.group))
    if counted.new or counted.same:
        counted.notes.append("Ramal itself asks no groups: who may call whom is said in its settings")
    return counted


async def _take_over(
    source: Source, ours: Ours, progress: Progress, into: Into,
    meant: Callable[[dict[str, Any], str, Collection[str]], T | Left], values: Callable[[T], tuple[str, ...]],
) -> Counted:  # fmt: skip
    counted = Counted(into.name)
    taken: dict[tuple[str, ...], tuple[str, ...]] = {}
    """Of all chunks, for two of their rows may be one of ours."""
    async for rows in source.chunks(into.name):
        wanted: list[tuple[str, ...]] = []
        for row in rows:
            counted.read += 1
            found = meant(row, ours.domain, ours.served)
            if isinstance(found, Left):
                counted.leave(found)
                continue
            here = values(found)
            key = here[: into.key]
            if key in taken:
                counted.leave(Left("another row of theirs has the same name; the first one counts", "@".join(key[:2])))
                continue
            taken[key] = here[into.key :]
            if doubt := getattr(found, "doubt", ""):
                counted.doubt(doubt, "@".join(key))
            wanted.append(here)
        if into is DBALIASES:
            wanted = await _that_ring(ours, wanted, counted)
        there = await _there(ours.tables, into, [row[0] for row in wanted])
        due = [row for row in wanted if there.get(row[: into.key]) != row[into.key :]]
        changed = sum(row[: into.key] in there for row in due)
        counted.changed += changed
        counted.new += len(due) - changed
        counted.same += len(wanted) - len(due)
        for name in await _of_nobody(ours, wanted) if into is DBALIASES else ():
            counted.doubt(NOBODYS_IN_TABLES if ours.directory else NOBODYS, name)
        if due and ours.write:
            await ours.tables.transact([ours.tables.upsert(into.name, into.columns, into.columns[: into.key], due)])
        progress(len(rows))
    return counted


async def _that_ring(ours: Ours, rows: Sequence[tuple[str, ...]], counted: Counted) -> list[tuple[str, ...]]:
    """Of these rows of `dbaliases`, those that are no user's own name, which counts before any alias."""
    known = await _there(ours.tables, SUBSCRIBER, [row[0] for row in rows])
    rings = []
    for row in rows:
        if row[:2] in known or row[:2] in ours.users:
            counted.leave(Left("a user has that name: calls to it ring there", "@".join(row[:2])))
        else:
            rings.append(row)
    return rings


async def _of_nobody(ours: Ours, rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Of these rows of `dbaliases`, the aliases whose user is none of ours."""
    known = await _there(ours.tables, SUBSCRIBER, [row[2] for row in rows])
    return ["@".join(row[:2]) for row in rows if row[2:] not in known and row[2:] not in ours.users]


async def _there(tables: Database, into: Into, names: Sequence[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Our rows with these names."""
    if not names:
        return {}
    marks = ", ".join(["%s"] * len(names))
    found = await tables.query(
        f"SELECT {', '.join(into.columns)} FROM {into.name} WHERE {into.columns[0]} IN ({marks})",  # noqa: S608  # names are ours
        names,
    )
    rows = [tuple(str(value or "") for value in row) for row in found]
    return {row[: into.key]: row[into.key :] for row in rows}


Step = Callable[[Source, Ours, Progress], Awaitable[Counted]]
STEPS: dict[str, Step] = {"domain": domains, "subscriber": accounts, "dbaliases": aliases, "grp": groups}
