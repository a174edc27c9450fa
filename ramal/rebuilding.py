"""`ramal rebuild`: a projection anew from the log, with a bar for who waits."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import cdr.rebuild
import locator.rebuild
from cdr.config import Settings
from ramal.system import System
from runtime.database import rebuild as steps


async def rebuild(system: System, console: Console) -> None:
    """Fills shadows of the tables of registrations, swaps them in, and says whether the old ones had been right."""
    async with system.log() as log, system.tables() as tables:
        with _bar(console, "Records of registrations") as progress:
            rebuilt = await locator.rebuild.rebuild(log, tables, progress)
    console.print(
        f"{rebuilt.rows} rows and {rebuilt.intervals} intervals of history in {rebuilt.seconds:.1f} s.\n"
        f"checksum {rebuilt.checksum}",
        soft_wrap=True,
    )
    _say(console, rebuilt.equal)


async def rebuild_calls(system: System, console: Console) -> None:
    """The same of the tables of calls."""
    settings = system.sources.section(Settings, "cdr")
    async with system.log() as log, system.tables() as tables:
        with _bar(console, "Records of calls") as progress:
            rebuilt = await cdr.rebuild.rebuild(log, tables, settings, progress)
    console.print(
        f"{rebuilt.calls} calls that have ended and {rebuilt.open} open ones in {rebuilt.seconds:.1f} s.\n"
        f"checksum {rebuilt.checksum}",
        soft_wrap=True,
    )
    _say(console, rebuilt.equal)


@contextlib.contextmanager
def _bar(console: Console, what: str) -> Iterator[steps.Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        records = bar.add_task(what, total=None)
        last = 0

        def progress(done: int, total: int) -> None:
            nonlocal last
            last = done
            bar.update(records, completed=done, total=total)

        yield progress
        bar.update(records, completed=last, total=last)


def _say(console: Console, equal: bool | None) -> None:
    if equal is None:
        console.print("There was nothing to compare them with.")
    elif equal:
        console.print("The tables had been right: equal checksums at equal offsets.")
    else:
        console.print("[bold red]The tables had been wrong:[/bold red] their checksums differed.")
