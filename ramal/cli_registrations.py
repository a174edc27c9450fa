"""The commands about registrations: who is registered, who was, and an end to it."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ramal import operations, questions, wording
from ramal.asking import Aor, AsJson, Data, Domain, OptionalAor, aor, console, data, example, run, system
from runtime.errors import ConfigError

app = typer.Typer()


@app.command("show", epilog=example("ramal show alice@example.test --json"))
def show_command(
    user: OptionalAor = None,
    domain: Domain = None,
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Who is registered now."""
    asked = system(data(data_))
    whose = None if user is None else aor(user, asked, domain, served=True)
    run(questions.show(asked, console, whose, as_json=as_json))


@app.command("history", epilog=example("ramal history alice@example.test"))
def history_command(user: Aor, domain: Domain = None, as_json: AsJson = False, data_: Data = None) -> None:
    """When and where a user was registered, and how it ended."""
    asked = system(data(data_))
    run(questions.show_history(asked, console, aor(user, asked, domain), as_json=as_json))


@app.command("at", epilog=example("ramal at 'yesterday 14:05' alice@example.test"))
def at_command(
    moment: Annotated[
        str, typer.Argument(metavar="TIME", help="14:05, 'yesterday 14:05', '2026-03-01 14:05', or ISO with a zone.")
    ],
    user: OptionalAor = None,
    domain: Domain = None,
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Who was registered then."""
    try:
        now = datetime.now().astimezone()
        when = wording.point_in_time(moment, now)
        if when > now:
            raise ValueError(f"{wording.local_time(int(when.timestamp() * 1000))} is in the future")
    except ValueError as error:
        raise ConfigError(f"TIME: {error}") from error
    asked = system(data(data_))
    whose = None if user is None else aor(user, asked, domain)
    run(questions.show_at(asked, console, when, whose, as_json=as_json))


@app.command("remove", epilog=example("ramal remove alice@example.test sip:alice@192.0.2.4:5062"))
def remove_command(
    user: Aor,
    contact: Annotated[str | None, typer.Argument(metavar="CONTACT", help="One contact's URI; all without it.")] = None,
    domain: Domain = None,
    data_: Data = None,
) -> None:
    """Ends a user's registrations, through the log; it is on record who did it."""
    _remove(user, contact, domain, data_, kick=False)


@app.command("kick", epilog=example("ramal kick alice@example.test"))
def kick_command(
    user: Aor,
    contact: Annotated[str | None, typer.Argument(metavar="CONTACT", help="One contact's URI; all without it.")] = None,
    domain: Domain = None,
    data_: Data = None,
) -> None:
    """Ends a user's registrations and closes their connections: the phones connect and register again.

    With a connection go all lines that are registered by it: the command names the others, and they come again, too.
    A phone on UDP has no connection and does so when it next refreshes. A call that stands goes on.
    """
    _remove(user, contact, domain, data_, kick=True)


def _remove(user: str, contact: str | None, domain: str | None, data_: Path | None, *, kick: bool) -> None:
    where = data(data_)
    asked = system(where)
    whose = aor(user, asked, domain, served=True)
    recorded, beside = run(operations.remove(asked, where, whose, contact, kick=kick))
    for change in recorded.changes:
        console.print(f"{change.kind} {change.contact}", soft_wrap=True)
    if beside:
        more = " and others" if len(beside) == operations.LINES else ""
        console.print(
            f"Registered by the same connection, and again when it is closed: {', '.join(beside)}{more}", soft_wrap=True
        )
    left = len(recorded.state.bindings)
    if not recorded.changes:
        console.print("Nothing was removed.")
    console.print(f"{whose} has {left} contact{'s' * (left != 1)} now.", soft_wrap=True)
