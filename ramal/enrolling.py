"""`ramal enroll` and `ramal keys`: enrolment from a terminal, and the keys that seal what enrolment stores."""

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from authsvc.config import EnrolmentSettings, LdapSettings
from authsvc.enrolment import Enroller
from authsvc.users.enrolled import page, resealing, used_keys
from authsvc.users.sealing import KEY_BYTES, Keyring, Keys, Unopened
from ramal.system import System
from runtime.config import FILE, Sources
from runtime.database.port import Database, Statement
from runtime.errors import ConfigError
from runtime.rewriting import rewriting

VARIABLE = "RAMAL_ENROLMENT_KEYS"
_MADE = re.compile(r"e(\d+)")
"""Ids of our making."""
NOT_FIRST = "key_id <> %s AND retired_at = 0"


def keys_of(sources: Sources) -> Keys:
    """The keys in force; raises ConfigError where there is none."""
    keys = Keys(lambda: str(sources.section(EnrolmentSettings, "enrolment").keys))
    keys.ring.sealing  # noqa: B018  # raises
    return keys


def file_of(sources: Sources) -> Path:
    """The file that keeps them; raises ConfigError where they are in a variable."""
    named = sources.environ.get(VARIABLE + FILE)
    if not named:
        raise ConfigError(
            f"{VARIABLE}: the keys are in no file ({VARIABLE}{FILE}): put a new one (ID:HEX) behind the old ones,"
            " restart authsvc and the console, put it first, restart them again, then `ramal keys rotate --use ID`"
        )
    return Path(named)


@asynccontextmanager
async def enroller(system: System) -> AsyncIterator[Enroller]:
    """Takes attempts, with the log and the tables open. Raises ConfigError."""
    settings = system.sources.section(EnrolmentSettings, "enrolment")
    directory = system.sources.section(LdapSettings, "ldap")
    directory.check()
    if not directory.url:
        raise ConfigError("RAMAL_LDAP_URL: is not set; enrolment is for users of LDAP (others: `ramal user add`)")
    keys = keys_of(system.sources)
    async with system.tables() as tables, system.log() as log:
        made = Enroller(settings, directory, system.common.served(), keys, tables, log)
        try:
            yield made
        finally:
            made.stop()


def new_key(ring: Keyring, used: Mapping[str, int], random: Callable[[int], bytes] = os.urandom) -> tuple[str, bytes]:
    """An id that was never used as far as can be seen, and a key."""
    numbers = [int(found[1]) for id_ in (*ring.keys, *used) if (found := _MADE.fullmatch(id_))]
    return f"e{max(numbers, default=0) + 1}", random(KEY_BYTES)


def write(path: Path, ring: Keyring) -> None:
    """Puts these keys into the file, one a line; a new file's mode is 0600. Raises OSError."""
    with rewriting(path) as lines:
        lines[:] = ring.text().split(",")


def used_first(ring: Keyring, id_: str) -> Keyring:
    """The same keys, with this one sealing from now on; raises ConfigError."""
    if id_ not in ring.keys:
        raise ConfigError(f"ID: there is no key {id_}; there are {', '.join(ring.keys)}")
    return Keyring({id_: ring.keys[id_], **ring.keys})


async def to_reseal(tables: Database, ring: Keyring) -> int:
    """How many rows another key than the first has sealed."""
    return sum(count for id_, count in (await used_keys(tables)).items() if id_ != ring.sealing)


async def reseal(tables: Database, ring: Keyring, done: Callable[[int], None]) -> list[str]:
    """Seals every row by the first key; `done` is told how many were. Returns why some cannot be opened.

    What a console seals by the old key meanwhile is found by the next look, until one finds nothing.
    """
    unopened: dict[tuple[str, str], str] = {}
    while True:
        found = 0
        after = None
        while rows := await page(tables, after, NOT_FIRST, (ring.sealing,)):
            after = rows[-1].key
            statements: list[Statement] = []
            for row in rows:
                if row.key in unopened:
                    continue
                try:
                    statements.append(resealing(row, ring))
                except Unopened as error:
                    unopened[row.key] = f"{'@'.join(row.key)}: {error}"
            if statements:
                await tables.transact(statements)
            found += len(statements)
            done(len(statements))
        if not found:
            return list(unopened.values())
