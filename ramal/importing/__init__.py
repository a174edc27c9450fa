"""`ramal import`: what a Kamailio or an OpenSIPS has in its database, taken over into Ramal.

`rows` says what each row means here, or why it cannot be taken; `source` reads their database; accounts, aliases and
groups go into `tables`, registrations and calls `through_log`; `report` says what was done.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from authsvc.users.file import list_users
from ramal.directory import USERS
from ramal.importing.report import Counted, show
from ramal.importing.source import Kind, Source
from ramal.importing.tables import STEPS, Ours
from ramal.importing.through_log import records, registrations
from ramal.operations import running
from ramal.system import System
from ramal.users import in_ldap
from registrar.config import Policy
from runtime.config import MySQL
from runtime.database.mysql import MySQLDatabase

__all__ = ["run", "show"]
SERVICES = ("registrar", "locator", "cdr")
"""Through which registrations and calls go."""


async def run(
    system: System, where: Path | None, kind: Kind, theirs: MySQL, zone: str, domain: str, wanted: Sequence[str],
    console: Console | None,
    *, dry_run: bool,
) -> list[Counted]:  # fmt: skip
    """Takes these tables over, with a bar on the console; what was done. Raises Unavailable or ConfigError.

    `where`: the directory of an embedded system; one that is not running runs in this process meanwhile.
    """
    policy = system.sources.section(Policy, "registrar")
    there = MySQLDatabase(theirs)
    counted = []
    try:
        source = Source(kind, there, zone)
        await source.open()
        async with system.tables() as tables, system.log() as log, running(system, where, SERVICES):
            known = set(list_users(where / USERS)) if where else set()
            directory = in_ldap(system.sources)
            ours = Ours(tables, domain.lower(), frozenset(system.common.served()), not dry_run, known, directory)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console, disable=console is None, transient=True) as bar:
                for name in wanted:
                    if not source.has(name):
                        counted.append(Counted(name, notes=["there is no such table there, or not as we know it"]))
                        continue
                    task = bar.add_task(name, total=await source.count(name))

                    def progress(rows: int, task: TaskID = task) -> None:
                        bar.advance(task, rows)

                    if name == "location":
                        counted.append(await registrations(source, ours, log, policy, progress))
                    elif name == "acc":
                        counted.append(await records(source, ours, log, progress))
                    else:
                        counted.append(await STEPS[name](source, ours, progress))
    finally:
        await there.stop(2.0)
    return counted
