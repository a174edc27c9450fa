"""The commands about operators: who may log in to the console."""

import json
from pathlib import Path
from typing import Annotated

import typer

from console import accounts
from console.config import ROLES, ConsoleConfig
from ramal.asking import AsJson, Data, console, data, example
from ramal.directory import DATABASE, OPERATORS
from ramal.users import password
from runtime import logs
from runtime.config import Common, Sources
from runtime.errors import ConfigError

app = typer.Typer(
    help="Operators: who may log in to the console.", no_args_is_help=True, epilog=example("ramal operator add maria")
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="[bold]maria[/bold]")]


def _file(where: Path | None) -> Path:
    """The operators' file of a directory, or the one that the settings name. Raises ConfigError."""
    sources = Sources.read()
    logs.configure(sources.section(Common).log_level if "RAMAL_LOG_LEVEL" in sources.environ else "CRITICAL")
    if where is not None:
        if not (where / DATABASE).exists():
            raise ConfigError(f"--data {where}: there is no Ramal there (`ramal up --data {where}` makes one)")
        return where / OPERATORS
    named = sources.section(ConsoleConfig, "console").operators_file
    if not named:
        raise ConfigError("RAMAL_CONSOLE_OPERATORS_FILE: is not set, and no --data DIR is given")
    return Path(named)


@app.command("add", epilog=example("echo correct-horse | ramal operator add maria --role operator --password-stdin"))
def add_command(
    name: Name,
    role: Annotated[
        str,
        typer.Option(metavar="ROLE", help="[bold]read-only[/bold], or [bold]operator[/bold], who ends registrations."),
    ] = "read-only",
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
    data_: Data = None,
) -> None:
    """A new operator, or a new role and password for one; only a hash of the password (argon2id) is stored.

    Whoever was logged in with the old password is logged out.
    """
    where = _file(data(data_))
    known = next((known for known in ROLES if known == role), None)
    if known is None:
        raise ConfigError(f"--role: {role!r} is none of {', '.join(ROLES)}")
    try:
        accounts.add(where, name, known, password(password_stdin))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    console.print(f"{name} may log in to the console as {known}.", soft_wrap=True)


@app.command("list", epilog=example("ramal operator list --data ./ramal-data"))
def list_command(as_json: AsJson = False, data_: Data = None) -> None:
    """All operators and what they may, one a line."""
    found = accounts.listed(_file(data(data_)))
    if as_json:
        print(json.dumps([{"name": each.name, "role": each.role} for each in found], indent=2))
        return
    for each in found:
        print(f"{each.name} {each.role}")


@app.command("log-out", epilog=example("ramal operator log-out maria"))
def log_out_command(name: Name, data_: Data = None) -> None:
    """Ends all sessions of an operator, in every console that reads this file; the password stays."""
    if not accounts.log_out(_file(data(data_)), name):
        raise ConfigError(f"NAME: there is no operator {name} in the file (one of a directory leaves by his group)")
    console.print(f"{name} is logged out everywhere.", soft_wrap=True)


@app.command("remove", epilog=example("ramal operator remove maria"))
def remove_command(name: Name, data_: Data = None) -> None:
    """Takes an operator away; where he is logged in, he is not any more."""
    if not accounts.remove(_file(data(data_)), name):
        raise ConfigError(f"NAME: there is no operator {name}")
    console.print(f"{name} may not log in any more.", soft_wrap=True)
