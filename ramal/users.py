"""`ramal user` and `ramal alias`: users in the users file of an embedded system and in `subscriber`; aliases.

An embedded system has both: the file, which `ramal user` writes, and the table, into which `ramal import` writes. Its
authsvc asks both, so what is said of a user here is said of both.
"""

import contextlib
import getpass
import secrets
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Literal, NamedTuple

from authsvc.config import AuthSettings, LdapSettings
from authsvc.users import enrolled
from authsvc.users import file as users_file
from authsvc.users import table as subscriber
from authsvc.users.accounts import Account
from authsvc.users.ldap import LdapUsers
from authsvc.users.ldap_connection import LdapUnavailable
from authsvc.users.remembered import Key
from ramal.directory import first_passwords, keep_first_passwords
from ramal.system import System
from runtime.config import Sources
from runtime.database.port import Database
from runtime.errors import ConfigError


def password(from_stdin: bool) -> str:
    """The new user's password: one line of standard input, or typed twice without echo. Raises ConfigError."""
    try:
        given = _typed(from_stdin)
        given.encode()  # in some locales, what is not UTF-8 is read all the same
    except UnicodeError:
        raise ConfigError("the password is not UTF-8") from None  # whose text has a piece of it
    if not given:
        raise ConfigError("the password is empty")
    return given


def _typed(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("--password-stdin: say where the password comes from")
    given = getpass.getpass("Password: ")
    if given != getpass.getpass("Again: "):
        raise ConfigError("the two passwords differ")
    return given


def readable_password() -> str:
    """Four pronounceable words of two syllables, such as `tobu-reka-miso-dalu`: 49 bits, and no doubtful letters."""
    return "-".join(
        "".join(secrets.choice("bdfghkmnprstvz") + secrets.choice("aeiou") for _ in range(2)) for _ in range(4)
    )


async def add(system: System, data: Path | None, name: str, domain: str, secret: str) -> None:
    """Stores the HA1s of a user, new or with a new password. Raises ConfigError."""
    file = _file(system, data)
    try:
        async with _table(system, data) as table:
            # Where there is a file a new user goes into it alone; an imported one's old HA1s must not stay.
            if table and (file is None or (name, domain) in await subscriber.list_users(table)):
                await subscriber.add_user(table, name, domain, secret)
        if file is not None:
            users_file.add_user(file, name, domain, secret)
        if data is not None:
            forget_password(data, name)
    except ValueError as error:
        raise ConfigError(f"NAME: {error}") from error


async def remove(system: System, data: Path | None, name: str, domain: str) -> bool:
    """Removes a user; False when there was none. authsvc ends the bindings when it next looks."""
    async with _table(system, data) as table:
        removed = table is not None and await subscriber.remove_user(table, name, domain)
        removed |= table is not None and await enrolled.remove(table, (name, domain))
    if data is not None:
        forget_password(data, name)
    if file := _file(system, data):
        removed |= users_file.remove_user(file, name, domain)
    return removed


class Directory(NamedTuple):
    """What LDAP says of a user."""

    account: Account | None
    """None: it has no such user, or says nothing."""
    away: str = ""
    """Why it says nothing."""

    @property
    def state(self) -> Literal["in use", "disabled", "absent", "unknown"]:
        """Whether phones may log in, as far as the directory is asked."""
        if self.away:
            return "unknown"
        if self.account is None:
            return "absent"
        return "disabled" if self.account.disabled else "in use"


class Known(NamedTuple):
    """What is known of a user."""

    in_file: bool
    in_table: bool
    enrolled: enrolled.Enrolled | None
    directory: Directory | None
    """None: users of this domain are in no directory that is known here."""


async def known(system: System, data: Path | None, name: str, domain: str) -> Known:
    """Where a user comes from, and whether he has enrolled."""
    async with _table(system, data) as table:
        rows = await enrolled.rows_of(table, [(name, domain)]) if table else []
        in_table = table is not None and (name, domain) in await subscriber.list_users(table)
    file = _file(system, data)
    in_file = file is not None and (name, domain) in users_file.list_users(file)
    said = await directory_says(system, [(name, domain)])
    return Known(in_file, in_table, rows[0] if rows else None, said.get((name, domain)))


async def directory_says(system: System, keys: Collection[Key]) -> dict[Key, Directory]:
    """What LDAP says of these users, as authsvc asks it; of domains whose users are not in it, nothing."""
    settings = system.sources.section(LdapSettings, "ldap")
    here = [key for key in keys if settings.url and settings.has(key[1])]
    if not here:
        return {}
    try:
        settings.check()  # a command may not know the password that a service was begun with
        directory = LdapUsers(settings, system.common.served())
    except ConfigError as error:
        return dict.fromkeys(here, Directory(None, str(error)))
    try:
        accounts = await directory.accounts(here)
    except LdapUnavailable as error:
        return dict.fromkeys(here, Directory(None, str(error)))
    finally:
        await directory.stop()
    return {key: Directory(accounts.get(key)) for key in here}


async def everyone(system: System, data: Path | None) -> list[tuple[str, str]]:
    """Name and domain of every user, in order of domains and names."""
    async with _table(system, data) as table:
        found = await subscriber.list_users(table) if table else []
    if (file := _file(system, data)) is None:
        return found
    return sorted({*found, *users_file.list_users(file)}, key=lambda key: (key[1], key[0]))


class Listed(NamedTuple):
    """A user who can be named here: one of our own, or one of LDAP who has enrolled."""

    name: str
    domain: str
    ours: bool
    """Whether he stands in the users file or in `subscriber`."""
    enrolled: enrolled.Enrolled | None
    directory: Directory | None
    """What LDAP says of him, if he has enrolled."""


async def listed(system: System, data: Path | None) -> list[Listed]:
    """All of them, in order of domains and names."""
    ours = set(await everyone(system, data))
    rows: dict[tuple[str, str], enrolled.Enrolled] = {}
    async with _table(system, data) as table:
        after = None
        while table and (page := await enrolled.page(table, after, "1 = 1")):
            after = page[-1].key
            rows.update((row.key, row) for row in page)
    keys = sorted({*ours, *rows}, key=lambda key: (key[1], key[0]))
    said = await directory_says(system, rows)
    return [Listed(*key, key in ours, rows.get(key), said.get(key)) for key in keys]


def in_ldap(sources: Sources) -> bool:
    """Whether users may be in a directory, all of whom nobody lists here."""
    return bool(sources.section(LdapSettings, "ldap").url)


def _file(system: System, data: Path | None) -> Path | None:
    """The users file that authsvc of an embedded system asks; None where it asks none."""
    named = system.sources.section(AuthSettings, "authsvc").users_file if data is not None else ""
    return Path(named) if named else None


@contextlib.asynccontextmanager
async def _table(system: System, data: Path | None) -> AsyncIterator[Database | None]:
    """The tables, open; None in a directory that has none yet."""
    async with system.tables() as tables:
        made = data is None or await tables.query("SELECT 1 FROM sqlite_master WHERE name = 'subscriber'")
        yield tables if made else None


def forget_password(directory: Path, name: str) -> None:
    """Shows a first password no more: somebody has it, or it is another one now."""
    passwords = first_passwords(directory)
    if passwords.pop(name, None) is not None:
        keep_first_passwords(directory, passwords)


async def add_alias(system: System, alias: tuple[str, str], user: tuple[str, str]) -> None:
    """Lets calls to the alias reach the user, and the user call as it; an alias of somebody else is taken over."""
    async with system.tables() as tables:
        await subscriber.add_alias(tables, alias, user)


async def remove_alias(system: System, alias: tuple[str, str]) -> bool:
    """Removes an alias; False when there was none."""
    async with system.tables() as tables:
        return await subscriber.remove_alias(tables, alias)


async def aliases(system: System, data: Path | None) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Every alias and whose it is, name and domain each."""
    async with _table(system, data) as table:
        return await subscriber.list_aliases(table) if table else []
