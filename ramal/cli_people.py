"""The commands about what is kept of persons."""

import json
from typing import Annotated

import typer

from ramal import forgetting
from ramal.asking import Aor, Data, Domain, aor, console, data, example, run, system

app = typer.Typer()


@app.command("forget", epilog=example("ramal forget alice@example.test --search"))
def forget_command(
    user: Aor,
    only_search: Annotated[
        bool, typer.Option("--search", help="Change nothing; say where the person stands, and until when.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What the search finds, as JSON.")] = False,
    domain: Domain = None,
    data_: Data = None,
) -> None:
    """Erases a person from the tables of registrations and calls, and from the analysts' view. There is no way back.

    The log itself cannot be rewritten: what it still has of the person, and until when, is said at the end.
    """
    where = data(data_)
    # The tables are looked through row by row.
    asked = system(where, {"RAMAL_MYSQL_TIMEOUT": "600"})
    whose = aor(user, asked, domain)
    if not only_search:
        if not yes:
            typer.confirm(f"Erase {whose} for good, registrations and the history of calls?", abort=True, err=True)
        run(forgetting.forget(asked, where, whose))
        told = f"{whose} is forgotten. The account, if there is one, stays (`ramal user remove`)."
        typer.echo(told, err=as_json)
    found = run(forgetting.search(asked, console, whose))
    if as_json:
        print(json.dumps([each._asdict() for each in found if each.records], indent=2))
    else:
        forgetting.show(console, whose, found)
