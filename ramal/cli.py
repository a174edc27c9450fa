"""The command `ramal`: what can be typed, and how errors are said (one line, exit code 2 for a setting, else 1)."""

import contextlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from edge.config import EdgeConfig
from events.topics import TOPICS, VIEW
from ramal import (
    cli_calls,
    cli_enrol,
    cli_import,
    cli_operators,
    cli_people,
    cli_registrations,
    cli_trace,
    cli_up,
    cli_users,
    operations,
    output,
    top,
)
from ramal.asking import AsJson, Data, Domain, console, moment
from ramal.asking import data as _data
from ramal.asking import example as _example
from ramal.asking import run as _run
from ramal.asking import system as _system
from ramal.directory import is_held, started_with
from ramal.help import Ramal
from ramal.processes import StartFailed
from ramal.system import (
    SERVICES,
    distributed,
    sections,
    system_at,
    with_settings,
)
from ramal.workers import Workers
from runtime import logs
from runtime.config import Sources, masked, toml
from runtime.errors import ConfigError, DatabaseRefused, LogRefused, Unavailable
from runtime.log.port import PartitionFault
from sipcore import message

T = TypeVar("T")

app = typer.Typer(
    cls=Ramal,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_up.app)
app.add_typer(cli_registrations.app)
app.add_typer(cli_calls.app)
app.add_typer(cli_people.app)
app.add_typer(cli_import.app)
app.add_typer(cli_trace.app)
app.add_typer(cli_users.user_app, name="user")
app.add_typer(cli_enrol.app)
app.add_typer(cli_enrol.keys_app, name="keys")
app.add_typer(cli_operators.app, name="operator")
app.add_typer(cli_users.alias_app, name="alias")


def _tell_version(asked: bool) -> None:
    if asked:
        compiled = "compiled" if message.__file__.endswith((".so", ".pyd")) else "not compiled"
        print(f"ramal {version('ramal')} (core {compiled})")
        raise typer.Exit


@app.callback(epilog=_example("ramal up"))
def ramal(
    asked: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Ramal: telephones over SIP; each registration and each call is in a log.

    [bold]ramal up[/bold] starts all of it in this terminal; each command has --help with an example.
    """


# --- services ------------------------------------------------------------------

EdgeWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=100,
        help="Of the edge: processes that share its ports, a core each; as many as cores, less what else runs."
        " [dim](RAMAL_EDGE_WORKERS; 1)[/dim]",
    ),
]


@app.command("run", epilog=_example("ramal run authsvc registrar locator"))
def run_command(
    services: Annotated[list[str], typer.Argument(metavar="SERVICE…", help=f"Some of {', '.join(SERVICES)}.")],
    workers: EdgeWorkers = None,
) -> None:
    """Several services in this process, over Kafka and MySQL."""
    _serve(services, workers)


def _serve(names: list[str], workers: int | None = None) -> None:
    from runtime.service import serve

    for name in names:
        if name not in SERVICES:
            raise ConfigError(f"SERVICE: there is no {name}; there are {', '.join(SERVICES)}")
    if workers is not None and "edge" not in names:
        raise ConfigError("--workers: is of the edge")
    chosen = {"RAMAL_EDGE_WORKERS": None if workers is None else str(workers)}
    sources = with_settings(Sources.read(), {}, chosen)
    system = distributed(sources)
    logs.configure(system.common.log_level)
    sections(sources)
    if "edge" in names and sources.section(EdgeConfig, "edge").workers > 1:
        if names != ["edge"]:
            raise ConfigError("RAMAL_EDGE_WORKERS: several workers are processes of an edge alone: `ramal edge`")
        system.services(names)  # what is wrong with a setting is said once
        _run(Workers(sources).serve())
        return
    services, resources = system.services([name for name in SERVICES if name in names])
    if names == ["analytics"]:
        os.nice(10)  # figures wait for phones
    _run(serve(services, resources, system.common))


@app.command("edge", epilog=_example("RAMAL_KAFKA_BOOTSTRAP=kafka:9092 RAMAL_MYSQL_HOST=mysql ramal edge"))
def edge_command(workers: EdgeWorkers = None) -> None:
    """The edge: phones on one side, topics on the other."""
    _serve(["edge"], workers)


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
    """The console: a telephone in the browser, and pages for operators."""
    _serve(["console"])


@app.command("stack", epilog=_example("ramal stack --edges 3 --users 1000"))
def stack_command(
    edges: Annotated[int, typer.Option(metavar="N", min=1, max=50, envvar="EDGES", help="Edge n is on 127.0.0.n.")] = 1,
    authsvcs: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, envvar="AUTHSVCS", help="Processes that say who is who.")
    ] = 1,
    registrars: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, envvar="REGISTRARS", help="Processes that decide.")
    ] = 1,
    locators: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, envvar="LOCATORS", help="Processes that fill the tables.")
    ] = 1,
    cdrs: Annotated[
        int, typer.Option(metavar="N", min=1, max=20, envvar="CDRS", help="Processes that keep call records.")
    ] = 1,
    analytics: Annotated[
        int, typer.Option(metavar="N", min=0, max=20, envvar="ANALYTICS", help="0: no statistics.")
    ] = 1,
    user_count: Annotated[
        int, typer.Option("--users", metavar="N", min=1, max=100_000, envvar="USERS", help="In OpenLDAP: u00000, …")
    ] = 1000,
    sip_port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65495, envvar="SIP_PORT", help="UDP, TCP; others up to 40 beyond.")
    ] = 5060,
    domain: Domain = None,
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Logs, data and stack.json.")] = Path(".run"),
    warm_up: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Registrations before anything is said to be ready: a cold JVM is slow."),
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


@app.command("top", epilog=_example("ramal top --once --json"))
def top_command(
    once: Annotated[bool, typer.Option("--once", help="Look for a second, say it, and end.")] = False,
    as_json: AsJson = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    url: Annotated[
        list[str] | None,
        typer.Option("--url", metavar="[NAME=]URL", help="A process's HTTP (http://127.0.0.1:8080); for each one."),
    ] = None,
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where `ramal stack` keeps its stack.json.")] = Path(
        ".run"
    ),
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
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help=f"One of {', '.join(topic.name for topic in (*TOPICS, *VIEW))}.")
    ],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All that is kept, then on.")] = False,
    since: Annotated[str, typer.Option(metavar="TIME", help="All written since then, then on.")] = "",
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only of one call (Call-ID) or one AOR.")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after so many records.")] = None,
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
