"""The commands about calls, for operators and analysts."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ramal import calls
from ramal.asking import Aor, AsJson, Data, Domain, aor, console, data, example, moment, run, system
from ramal.export import Format, What, export
from ramal.parts import is_stream
from ramal.wording import counted, one_day
from runtime.errors import ConfigError

app = typer.Typer()
TIMES = "yesterday 14:05, 2026-03-01: local time; with UTC behind it, that"
END = 253_402_300_799_999
"""Milliseconds until the year 9999."""

CallId = Annotated[str, typer.Argument(metavar="CALL-ID", help="As the phone or `ramal calls` shows it.")]


@app.command("calls", epilog=example("ramal calls --since 'yesterday 14:05'"))
def calls_command(
    since: Annotated[str, typer.Option(metavar="TIME", help=f"Those that have ended, from then on: {TIMES}.")] = "",
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Calls that have no end yet, or with --since those that have ended."""
    asked, begin = system(data(data_)), moment("--since", since, -1)
    if begin < 0:
        run(calls.show_open(asked, console, as_json=as_json))
    else:
        run(calls.show_ended(asked, console, begin, as_json=as_json))


@app.command("call", epilog=example("ramal call 3848276298220188511@192.0.2.4"))
def call_command(call_id: CallId, as_json: AsJson = False, data_: Data = None) -> None:
    """What became of a call: times, parties, who hung up."""
    run(calls.show_call(system(data(data_)), console, call_id, as_json=as_json))


@app.command("explain", epilog=example("ramal explain 3848276298220188511@192.0.2.4"))
def explain_command(call_id: CallId, as_json: AsJson = False, data_: Data = None) -> None:
    """Why a call ended as it did, from its events alone: in words, and as a ladder."""
    run(calls.explain(system(data(data_)), console, call_id, as_json=as_json))


@app.command("missed", epilog=example("ramal missed bob@example.test"))
def missed_command(user: Aor, domain: Domain = None, as_json: AsJson = False, data_: Data = None) -> None:
    """The calls that a user has missed, the latest first."""
    asked = system(data(data_))
    run(calls.show_missed(asked, console, aor(user, asked, domain), as_json=as_json))


@app.command("audit-cdrs", epilog=example("ramal audit-cdrs --day 2026-03-01"))
def audit_cdrs_command(
    day: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="2026-03-01 in local time, '2026-03-01 UTC'; today without it."),
    ] = None,
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Compares what edges told of a day's calls with the tables; 0 differences are expected."""
    try:
        if day is not None and not day.strip():
            raise ValueError("it has no date")
        begin, end = one_day(day or "", datetime.now().astimezone())
    except ValueError as error:
        raise ConfigError(f"--day: {error}") from error
    if not run(calls.audit_day(system(data(data_)), console, begin, end, as_json=as_json)):
        raise typer.Exit(1)


@app.command("export", epilog=example("ramal export cdrs --since '2026-03-01 00:00' --format csv --output march.csv"))
def export_command(
    what: Annotated[What, typer.Argument(metavar="WHAT", help="cdrs, calls (their events) or registrations.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="WHAT.FORMAT here without it; - is standard output.")
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help=f"{TIMES}; all that is kept without it.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Until now without it.")] = "",
    format_: Annotated[Format, typer.Option("--format", help="parquet needs pyarrow.")] = "jsonl",
    data_: Data = None,
) -> None:
    """Calls, their events or registrations as a file; an export that was interrupted goes on when started again."""
    begin, end = moment("--since", since, 0), moment("--until", until, END)
    if end <= begin:
        raise ConfigError("--until: it is not after --since")
    path = output or Path(f"{what}.{format_}")
    if not path.parent.is_dir():
        raise ConfigError(f"--output: there is no directory {path.parent}")
    told = Console(highlight=False, stderr=True) if is_stream(path) else console
    rows = run(export(system(data(data_)), told, what, format_, path, begin, end))
    told.print(f"{counted(rows, 'row')} in {'standard output' if str(path) == '-' else path}", soft_wrap=True)
