"""What was found, done and left out, table by table; for people and for programs."""

import msgspec
from rich.console import Console

from ramal.importing.rows import Left
from ramal.wording import listing

EXAMPLES = 3
"""Of each reason, so many rows are named."""


class Reason(msgspec.Struct):
    """Why rows were left out, or are doubtful."""

    count: int = 0
    examples: list[str] = []


class Counted(msgspec.Struct):
    """One table."""

    table: str
    read: int = 0
    new: int = 0
    changed: int = 0
    same: int = 0
    """Was there already, as it is."""
    left_out: int = 0
    reasons: dict[str, Reason] = {}
    """By the reason."""
    doubts: dict[str, Reason] = {}
    """Taken over, with something that an operator should know."""
    notes: list[str] = []

    def leave(self, left: Left) -> None:
        """Counts a row that is not taken over."""
        self.left_out += 1
        _count(self.reasons, left.why, left.what)

    def doubt(self, why: str, what: str) -> None:
        """Counts a row that was taken over with a doubt."""
        _count(self.doubts, why, what)


def _count(reasons: dict[str, Reason], why: str, what: str) -> None:
    reason = reasons.setdefault(why, Reason())
    reason.count += 1
    if len(reason.examples) < EXAMPLES:
        # Names and addresses are of strangers' phones: nothing of them may move a terminal's cursor.
        reason.examples.append(what if what.isprintable() else repr(what))


def show(console: Console, counted: list[Counted], *, dry_run: bool) -> None:
    """A row a table, then what there is to say of each."""
    columns = ("Table", "Read", "To be new" if dry_run else "New", "Changed", "As it was", "Left out")
    rows = [
        (each.table, *(f"{number:,}" for number in (each.read, each.new, each.changed, each.same, each.left_out)))
        for each in counted
    ]
    listing(console, columns, rows)
    for each in counted:
        for reasons, verb in ((each.reasons, "left out"), (each.doubts, "taken over, but")):
            for why, reason in sorted(reasons.items(), key=lambda item: -item[1].count):
                more = ", …" if reason.count > len(reason.examples) else ""
                console.print(
                    f"{each.table}: {reason.count:,} {verb}: {why} ({', '.join(reason.examples)}{more})",
                    soft_wrap=True, markup=False,
                )  # fmt: skip
        for note in each.notes:
            console.print(f"{each.table}: {note}", soft_wrap=True, markup=False)
    if dry_run:
        console.print("Nothing was written: this was a dry run.")
