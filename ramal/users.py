"""`ramal user`: users of an embedded system in its users file, those of the distributed one in `subscriber`."""

import getpass
import sys
from pathlib import Path

from authsvc import subscriber, users_file
from ramal.system import System
from ramal.up import USERS_FILE
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


async def add(system: System, data: Path | None, name: str, domain: str, secret: str) -> None:
    """Stores the HA1s of a user, new or with a new password. Raises ConfigError."""
    try:
        if data is not None:
            users_file.add_user(data / USERS_FILE, name, domain, secret)
            return
        async with system.tables() as tables:
            await subscriber.add_user(tables, name, domain, secret)
    except ValueError as error:
        raise ConfigError(f"NAME: {error}") from error


async def remove(system: System, data: Path | None, name: str, domain: str) -> bool:
    """Removes a user; False when there was none. Bindings stay until they end."""
    if data is not None:
        return users_file.remove_user(data / USERS_FILE, name, domain)
    async with system.tables() as tables:
        return await subscriber.remove_user(tables, name, domain)


async def everyone(system: System, data: Path | None) -> list[tuple[str, str]]:
    """Name and domain of every user."""
    if data is not None:
        return users_file.list_users(data / USERS_FILE)
    async with system.tables() as tables:
        return await subscriber.list_users(tables)
