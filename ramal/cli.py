"""The command `ramal`: what can be typed, and how errors are said (one line, exit code 2 for a setting, else 1)."""

import contextlib
import json
import os
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from ramal import cli_calls, cli_people, cli_up, operations, output, questions, top, users, wording
from ramal.asking import Aor, AsJson, Data, Domain, OptionalAor, console, moment
from ramal.asking import aor as _aor
from ramal.asking import data as _data
from ramal.asking import example as _example
from ramal.asking import run as _run
from ramal.asking import system as _system
from ramal.directory import is_held, started_with
from ramal.processes import StartFailed
from ramal.system import (
    SERVICES,
    System,
    distributed,
    sections,
    system_at,
)
from runtime import logs
from runtime.config import Sources, masked, toml
from runtime.errors import ConfigError, DatabaseRefused, LogRefused, Unavailable
from runtime.log.port import PartitionFault

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
user_app = typer.Typer(help="Users: who may register.", no_args_is_help=True)
app.add_typer(cli_up.app)
app.add_typer(cli_calls.app)
app.add_typer(cli_people.app)
app.add_typer(user_app, name="user")
alias_app = typer.Typer(help="Aliases: other names by which a user is called.", no_args_is_help=True)
app.add_typer(alias_app, name="alias")

Name = Annotated[str, typer.Argument(metavar="NAME", help="[bold]carol[/bold] or [bold]carol@example.test[/bold]")]


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"ramal {version('ramal')}")
        raise typer.Exit


@app.callback()
def ramal(
    asked: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Ramal: phones register through the log."""


def _named(text: str, domain: str | None, system: System) -> tuple[str, str]:
    """Name and domain of a user of ours."""
    try:
        return wording.name_and_domain(text, domain, list(system.common.served()))
    except ValueError as error:
        raise ConfigError(f"NAME: {error}") from error


# --- services ------------------------------------------------------------------


@app.command("run", epilog=_example("ramal run authsvc registrar locator"))
def run_command(
    services: Annotated[list[str], typer.Argument(metavar="SERVICE…", help=f"Some of {', '.join(SERVICES)}.")],
) -> None:
    """Several services in this process, over Kafka and MySQL."""
    _serve(services)


def _serve(names: list[str]) -> None:
    from runtime.service import serve

    for name in names:
        if name not in SERVICES:
            raise ConfigError(f"SERVICE: there is no {name}; there are {', '.join(SERVICES)}")
    sources = Sources.read()
    system = distributed(sources)
    logs.configure(system.common.log_level)
    sections(sources)
    services, resources = system.services([name for name in SERVICES if name in names])
    if names == ["analytics"]:
        os.nice(10)  # figures wait for phones
    _run(serve(services, resources, system.common))


@app.command("edge", epilog=_example("RAMAL_KAFKA_BOOTSTRAP=kafka:9092 RAMAL_MYSQL_HOST=mysql ramal edge"))
def edge_command() -> None:
    """The edge: phones on one side, topics on the other."""
    _serve(["edge"])


@app.command("authsvc", epilog=_example("RAMAL_LDAP_URL=ldaps://ldap RAMAL_LDAP_BASE=dc=example,dc=test ramal authsvc"))
def authsvc_command() -> None:
    """authsvc: is this user who they say?"""
    _serve(["authsvc"])


@app.command("registrar", epilog=_example("RAMAL_REGISTRAR_MAX_EXPIRES=600 ramal registrar"))
def registrar_command() -> None:
    """The registrar: which contacts does this AOR have?"""
    _serve(["registrar"])


@app.command("locator", epilog=_example("RAMAL_MYSQL_HOST=mysql ramal locator"))
def locator_command() -> None:
    """The locator: the projection into MySQL, and the reply after it."""
    _serve(["locator"])


@app.command("cdr", epilog=_example("RAMAL_CDR_LONGEST_CALL=14400 ramal cdr"))
def cdr_command() -> None:
    """cdr: what calls happened? Their rows, and one record for each."""
    _serve(["cdr"])


@app.command("analytics", epilog=_example("RAMAL_ANALYTICS_DIRECTORY=/var/lib/ramal/analytics ramal analytics"))
def analytics_command() -> None:
    """analytics: figures of calls, registrations and log-ins by minute and hour, by Faust."""
    _serve(["analytics"])


@app.command("console", epilog=_example("RAMAL_CONSOLE_WEBSOCKET=wss://sip.example.test/sip ramal console"))
def console_command() -> None:
    """The console: a telephone in the browser."""
    _serve(["console"])


@app.command("stack", epilog=_example("ramal stack --edges 3 --users 1000"))
def stack_command(
    edges: Annotated[int, typer.Option(min=1, max=50, envvar="EDGES", help="Edge n is on 127.0.0.n.")] = 1,
    authsvcs: Annotated[int, typer.Option(min=1, max=20, envvar="AUTHSVCS")] = 1,
    registrars: Annotated[int, typer.Option(min=1, max=20, envvar="REGISTRARS")] = 1,
    locators: Annotated[int, typer.Option(min=1, max=20, envvar="LOCATORS")] = 1,
    cdrs: Annotated[int, typer.Option(min=1, max=20, envvar="CDRS")] = 1,
    analytics: Annotated[int, typer.Option(min=0, max=20, envvar="ANALYTICS", help="0: no statistics.")] = 1,
    user_count: Annotated[
        int, typer.Option("--users", min=1, max=100_000, envvar="USERS", help="In OpenLDAP: u00000, …")
    ] = 1000,
    sip_port: Annotated[int, typer.Option(min=1, max=65535, envvar="SIP_PORT")] = 5060,
    domain: Domain = None,
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Logs, data and stack.json.")] = Path(".run"),
    warm_up: Annotated[
        int, typer.Option(min=1, help="Registrations before anything is said to be ready: a cold JVM is slow.")
    ] = 3000,
) -> None:
    """The distributed system on loopback: real Kafka, MariaDB and OpenLDAP, one process per service.

    Where RAMAL_MYSQL_HOST or RAMAL_LDAP_URL is set, that server is used in place of one of our own.
    """
    from ramal.stack import Options, run_stack

    counts = {"edge": edges, "authsvc": authsvcs, "registrar": registrars, "locator": locators, "cdr": cdrs}
    counts["analytics"] = analytics
    logs.configure("CRITICAL")
    run_stack(Options(run_dir, counts, user_count, sip_port, domain, warm_up), Sources.read(), console)


# --- the system ----------------------------------------------------------------


@app.command("topics", epilog=_example("ramal topics --analysts"))
def topics_command(
    analysts: Annotated[
        bool, typer.Option("--analysts", help="Those of the analysts' pseudonymised view, too; cdr then keeps it.")
    ] = False,
    data: Data = None,
) -> None:
    """Makes the topics that are missing and checks the others; waits for Kafka; run it as often as you like."""
    system = _system(_data(data))
    made, wrong = _run(operations.when_there(system, lambda: operations.make_topics(system, view=analysts), _tell))
    for name in made:
        console.print(f"made {name}")
    for problem in wrong:
        console.print(f"[red]wrong:[/red] {problem}", soft_wrap=True)
    if wrong:
        raise typer.Exit(1)
    if not made:
        console.print("All topics are there, as they must be.")


@app.command("migrate", epilog=_example("ramal migrate"))
def migrate_command(data: Data = None) -> None:
    """Brings the tables up to date; waits for MySQL; run it as often as you like."""
    system = _system(_data(data))
    applied = _run(operations.when_there(system, lambda: operations.migrate(system), _tell))
    console.print("\n".join(f"applied {name}" for name in applied) or "The tables are up to date.")


@app.command("config", epilog=_example("RAMAL_KAFKA_BOOTSTRAP=kafka:9092 ramal config"))
def config_command(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="What the embedded system there runs with, or last ran with."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prints the settings in force, as ramal.toml would say them; secrets are masked."""
    if data is None:
        logs.configure("WARNING")
        shown = {name: masked(settings) for name, settings in sections(Sources.read()).items()}
    else:
        system_at(data, Sources.read())
        shown = started_with(data)
        if not shown:
            raise ConfigError(f"--data {data}: `ramal up` has not run there yet")
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    if data is not None:
        print(f"# {data}: {'runs with' if is_held(data) else 'last ran with'}")
    for name, settings in shown.items():
        if name:
            print(f"\n[{name}]")
        for key, value in settings.items():
            print(f"{key} = {toml(value)}")


@app.command("rebuild", epilog=_example("ramal rebuild cdrs"))
def rebuild_command(
    what: Annotated[
        Literal["location", "cdrs"],
        typer.Argument(metavar="WHAT", help="[bold]location[/bold], if you say nothing, or [bold]cdrs[/bold]."),
    ] = "location",
    data: Data = None,
) -> None:
    """Builds tables anew from the log, while everything goes on serving.

    [bold]location[/bold] (who is registered, and the history) or [bold]cdrs[/bold] (calls): new tables are filled
    beside the old ones, compared with them, and put in their place at once. It says whether the old ones had been
    right. Use it after tables were lost or changed by hand; run it as often as you like.
    """
    from ramal.rebuilding import rebuild, rebuild_calls

    # One statement sums a partition's rows: minutes where there are millions.
    system = _system(_data(data), {"RAMAL_MYSQL_TIMEOUT": "600"})
    _run((rebuild if what == "location" else rebuild_calls)(system, console))


# --- questions -----------------------------------------------------------------


@app.command("show", epilog=_example("ramal show alice@example.test --json"))
def show_command(
    aor: OptionalAor = None,
    domain: Domain = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Who is registered now."""
    system = _system(_data(data))
    whose = None if aor is None else _aor(aor, system, domain)
    _run(questions.show(system, console, whose, as_json=as_json))


@app.command("top", epilog=_example("ramal top --once --json"))
def top_command(
    once: Annotated[bool, typer.Option("--once", help="Look for a second, say it, and end.")] = False,
    as_json: AsJson = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 2.0,
    url: Annotated[
        list[str] | None,
        typer.Option("--url", metavar="[NAME=]URL", help="A process's HTTP (http://127.0.0.1:8080); for each one."),
    ] = None,
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Of `ramal stack`.")] = Path(".run"),
    data: Data = None,
) -> None:
    """What the system does now: registrations, calls, rates and lag, by process; Ctrl-C ends it."""
    named = _data(data) if not url and not (run_dir / "stack.json").exists() else data
    if not _run(
        output.while_read(
            top.top(top.where(url or [], named, run_dir), console, once=once, as_json=as_json, every=every)
        )
    ):
        raise Unavailable("no process answers")


@app.command("history", epilog=_example("ramal history alice@example.test"))
def history_command(aor: Aor, domain: Domain = None, as_json: AsJson = False, data: Data = None) -> None:
    """When and where a user was registered, and how it ended."""
    system = _system(_data(data))
    _run(questions.show_history(system, console, _aor(aor, system, domain), as_json=as_json))


@app.command("at", epilog=_example("ramal at 'yesterday 14:05' alice@example.test"))
def at_command(
    moment: Annotated[
        str, typer.Argument(metavar="TIME", help="14:05, 'yesterday 14:05', '2026-03-01 14:05', or ISO with a zone.")
    ],
    aor: OptionalAor = None,
    domain: Domain = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Who was registered then."""
    try:
        now = datetime.now().astimezone()
        when = wording.point_in_time(moment, now)
        if when > now:
            raise ValueError(f"{wording.local_time(int(when.timestamp() * 1000))} is in the future")
    except ValueError as error:
        raise ConfigError(f"TIME: {error}") from error
    system = _system(_data(data))
    whose = None if aor is None else _aor(aor, system, domain)
    _run(questions.show_at(system, console, when, whose, as_json=as_json))


@app.command("remove", epilog=_example("ramal remove alice@example.test sip:alice@192.0.2.4:5062"))
def remove_command(
    aor: Aor,
    contact: Annotated[str | None, typer.Argument(metavar="CONTACT", help="One contact's URI; all without it.")] = None,
    domain: Domain = None,
    data: Data = None,
) -> None:
    """Ends a user's registrations, through the log; it is on record who did it."""
    data = _data(data)
    system = _system(data)
    whose = _aor(aor, system, domain)
    recorded = _run(operations.remove(system, data, whose, contact))
    for change in recorded.changes:
        console.print(f"{change.kind} {change.contact}", soft_wrap=True)
    left = len(recorded.state.bindings)
    if not recorded.changes:
        console.print("Nothing was removed.")
    console.print(f"{whose} has {left} contact{'s' * (left != 1)} now.", soft_wrap=True)


@app.command("leave", epilog=_example("ramal leave registrar-2"))
def leave_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its RAMAL_NAME.")],
    data: Data = None,
) -> None:
    """Has a process that died and will not come back leave, so that others have its partitions at once."""
    services = _run(operations.leave(_system(data), name))
    console.print(f"{name} has left: {', '.join(services)}." if services else f"Nobody is a member as {name}.")


@app.command("tail", epilog=_example("ramal tail calls --since 14:05 --count 10"))
def tail_command(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All that is kept, then on.")] = False,
    since: Annotated[str, typer.Option(metavar="TIME", help="All written since then, then on.")] = "",
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only of one call (Call-ID) or one AOR.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    data: Data = None,
) -> None:
    """Follows a topic: each record is one line of JSON; Ctrl-C ends it."""
    system = _system(_data(data))
    begin = 0 if from_beginning else moment("--since", since, -1) if since else None

    async def follow() -> None:
        lines = operations.tail(system, topic, since=begin, count=count, key=key)
        async with contextlib.aclosing(lines):
            async for line in lines:
                print(line, flush=True)

    _run(output.while_read(follow()))


# --- users ---------------------------------------------------------------------


@user_app.command("add", epilog=_example("echo secret | ramal user add carol@example.test --password-stdin"))
def user_add_command(
    name: Name,
    domain: Domain = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
    data: Data = None,
) -> None:
    """A new user, or a new password for one; only digests (HA1) of the password are stored."""
    data = _data(data)
    system = _system(data)
    name, realm = _named(name, domain, system)
    _run(users.add(system, data, name, realm, users.password(password_stdin)))
    console.print(f"{name}@{realm} may register.", soft_wrap=True)


@user_app.command("list", epilog=_example("ramal user list --data ./ramal-data"))
def user_list_command(domain: Domain = None, as_json: AsJson = False, data: Data = None) -> None:
    """All users, one a line (not those in LDAP)."""
    data = _data(data)
    system = _system(data)
    if domain is not None:
        _named("anybody", domain, system)
    found = [(name, realm) for name, realm in _run(users.everyone(system, data)) if realm == (domain or realm).lower()]
    if as_json:
        print(json.dumps([{"name": name, "domain": realm} for name, realm in found], indent=2, ensure_ascii=False))
        return
    for name, realm in found:
        print(f"{name}@{realm}")


@user_app.command("reset", epilog=_example("ramal user reset carol@example.test"))
def user_reset_command(name: Name, domain: Domain = None, data: Data = None) -> None:
    """A new password of our making for a user of ours (not in LDAP), shown once."""
    data = _data(data)
    system = _system(data)
    name, realm = _named(name, domain, system)
    if (name, realm) not in _run(users.everyone(system, data)):
        raise ConfigError(f"NAME: there is no user {name}@{realm}")
    secret = users.readable_password()
    _run(users.add(system, data, name, realm, secret))
    console.print(f"User {name}@{realm}   password {secret}", soft_wrap=True, markup=False)


@user_app.command("remove", epilog=_example("ramal user remove carol@example.test"))
def user_remove_command(name: Name, domain: Domain = None, data: Data = None) -> None:
    """Takes a user away; `ramal remove` ends what is registered."""
    data = _data(data)
    system = _system(data)
    name, realm = _named(name, domain, system)
    if not _run(users.remove(system, data, name, realm)):
        raise ConfigError(f"NAME: there is no user {name}@{realm}")
    console.print(f"{name}@{realm} may not register any more.", soft_wrap=True)


@alias_app.command("add", epilog=_example("ramal alias add reception@example.test alice@example.test"))
def alias_add_command(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="[bold]reception[/bold], or 4833812800")],
    name: Name,
    domain: Domain = None,
    data: Data = None,
) -> None:
    """Lets calls to an alias ring at a user, and the user call as it; an alias has one user."""
    system = _system(_data(data))
    called, user = _named(alias, domain, system), _named(name, domain, system)
    if called == user:
        raise ConfigError("ALIAS: is the user's own name")
    _run(users.add_alias(system, called, user))
    console.print(f"{'@'.join(called)} is {'@'.join(user)}.", soft_wrap=True)


@alias_app.command("list", epilog=_example("ramal alias list"))
def alias_list_command(as_json: AsJson = False, data: Data = None) -> None:
    """All aliases and whose they are (not telephone numbers in LDAP)."""
    found = [("@".join(alias), "@".join(user)) for alias, user in _run(users.aliases(_system(_data(data))))]
    if as_json:
        print(json.dumps([{"alias": alias, "user": user} for alias, user in found], indent=2, ensure_ascii=False))
    elif found:
        wording.listing(console, ("Alias", "User"), found)
    else:
        console.print("There are no aliases.")


@alias_app.command("remove", epilog=_example("ramal alias remove reception@example.test"))
def alias_remove_command(
    alias: Annotated[str, typer.Argument(metavar="ALIAS")], domain: Domain = None, data: Data = None
) -> None:
    """Takes an alias away."""
    system = _system(_data(data))
    called = _named(alias, domain, system)
    if not _run(users.remove_alias(system, called)):
        raise ConfigError(f"ALIAS: there is no alias {'@'.join(called)}")
    console.print(f"{'@'.join(called)} is nobody's any more.", soft_wrap=True)


def main() -> None:
    """The entry point of `ramal`."""
    try:
        try:
            app()
        finally:
            if not output.flush():
                sys.exit(1)
    except ConfigError as error:
        sys.exit(_complain(error, 2))
    except (Unavailable, StartFailed, LogRefused, DatabaseRefused, PartitionFault, OSError) as error:
        sys.exit(_complain(error, 1))
    except KeyboardInterrupt:
        sys.exit(130)


def _tell(text: str) -> None:
    print(f"ramal: {text}", file=sys.stderr, flush=True)


def _complain(error: Exception, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"ramal: {str(error) or type(error).__name__}", file=sys.stderr)
    return code
