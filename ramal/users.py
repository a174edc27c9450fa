"""`ramal user` and `ramal alias`: users in the users file of an embedded system or in `subscriber`; aliases."""

import getpass
import secrets
import sys
from pathlib import Path

from authsvc.users import file as users_file
from authsvc.users import table as subscriber
from ramal.directory import USERS, first_passwords, keep_first_passwords
from ramal.system import System
from runtime.errors import ConfigError


def password(from_stdin: bool) -> str:
    """The new user's password: one line of standard input, or typed twice without echo. Raises ConfigError."""
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        given = getpass.getpass("Password: ")
        if given != getpass.getpass("Again: "):
            raise ConfigError("the two passwords differ")
    else:
        raise ConfigError("--password-stdin: say where the password comes from")
    if not given:
        raise ConfigError("the password is empty")
    return given


def readable_password() -> str:
    """Four pronounceable words of two syllables, such as `tobu-reka-miso-dalu`: 49 bits, and no doubtful letters."""
    return "-".join(
        "".join(secrets.choice("bdfghkmnprstvz") + secrets.choice("aeiou") for _ in range(2)) for _ in range(4)
    )


async def add(system: System, data: Path | None, name: str, domain: str, secret: str) -> None:
    """Stores the HA1s of a user, new or with a new password. Raises ConfigError."""
    try:
        if data is not None:
            users_file.add_user(data / USERS, name, domain, secret)
            forget_password(data, name)
            return
        async with system.tables() as tables:
            await subscriber.add_user(tables, name, domain, secret)
    except ValueError as error:
        raise ConfigError(f"NAME: {error}") from error


async def remove(system: System, data: Path | None, name: str, domain: str) -> bool:
    """Removes a user; False when there was none. Bindings stay until they end."""
    if data is not None:
        forget_password(data, name)
        return users_file.remove_user(data / USERS, name, domain)
    async with system.tables() as tables:
        return await subscriber.remove_user(tables, name, domain)


async def everyone(system: System, data: Path | None) -> list[tuple[str, str]]:
    """Name and domain of every user."""
    if data is not None:
        return users_file.list_users(data / USERS)
    async with system.tables() as tables:
        return await subscriber.list_users(tables)


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


async def aliases(system: System) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Every alias and whose it is, name and domain each."""
    async with system.tables() as tables:
        return await subscriber.list_aliases(tables)
