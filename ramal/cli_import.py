"""`ramal import`: from Kamailio or OpenSIPS."""

import sys
from typing import Annotated

import msgspec
import typer

from ramal import importing
from ramal.asking import AsJson, Data, Domain, console, data, example, run, system
from ramal.importing.source import TABLES, Kind, settings
from runtime.errors import ConfigError

app = typer.Typer()


@app.command(
    "import",
    epilog=example("ramal import kamailio --mysql mysql://kamailio@10.0.0.5/kamailio --password-stdin --dry-run"),
)
def import_command(
    kind: Annotated[Kind, typer.Argument(metavar="PROGRAM", help="Whose tables they are: kamailio or opensips.")],
    mysql: Annotated[
        str,
        typer.Option(metavar="URL", help="mysql://USER@HOST[:PORT]/DATABASE, with ?tls=true&ca_file=FILE for TLS."),
    ],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read that user's password from standard input.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be done.")] = False,
    table: Annotated[
        list[str] | None, typer.Option(metavar="TABLE", help=f"Of {', '.join(TABLES)}: only this one; for each one.")
    ] = None,
    domain: Domain = None,
    zone: Annotated[
        str, typer.Option(metavar="ZONE", help="That their times are in, like -03:00; their server's own without it.")
    ] = "",
    as_json: AsJson = False,
    data_: Data = None,
) -> None:
    """Takes users, aliases, groups, registrations and calls over from Kamailio or OpenSIPS; as often as you like.

    It only reads there. Registrations and calls come in through the log. --domain is that of rows without one.
    """
    for name in table or ():
        if name not in TABLES:
            raise ConfigError(f"--table: there is no {name}; there are {', '.join(TABLES)}")
    given = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    theirs = settings(mysql, given)
    where = data(data_)
    ours = system(where)
    wanted = [name for name in TABLES if name in (table or TABLES)]
    bar = console if not as_json else None
    counted = run(
        importing.run(ours, where, kind, theirs, zone, domain or ours.common.domain, wanted, bar, dry_run=dry_run)
    )
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(counted)).decode())
        return
    importing.show(console, counted, dry_run=dry_run)
