"""`ramal rebuild`: the projection anew from the log, with a bar for who waits."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import locator.rebuild
from ramal.system import System


async def rebuild(system: System, console: Console) -> None:
    """Fills shadow tables, swaps them in, and says whether the old ones had been right."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with system.log() as log, system.tables() as tables:
        with Progress(*columns, console=console) as bar:
            records = bar.add_task("Records of registrations", total=None)
            rebuilt = await locator.rebuild.rebuild(
                log, tables, lambda done, total: bar.update(records, completed=done, total=total)
            )
            bar.update(records, completed=rebuilt.records, total=rebuilt.records)
    console.print(
        f"{rebuilt.rows} rows and {rebuilt.intervals} intervals of history in {rebuilt.seconds:.1f} s.\n"
        f"checksum {rebuilt.checksum}",
        soft_wrap=True,
    )
    if rebuilt.equal is None:
        console.print("There was nothing to compare them with.")
    elif rebuilt.equal:
        console.print("The tables had been right: equal checksums at equal offsets.")
    else:
        console.print("[bold red]The tables had been wrong:[/bold red] their checksums differed.")
