"""A call's ladder as lines of text, for a terminal. PURE."""

from console.story import Ladder

WIDTH = 26
"""Columns of one lane, where there is room."""
NARROW = 9
"""Of one lane, where there is none: an arrow and a code."""
TIMES = 10
"""Columns of the times beside the ladder."""


def drawn(ladder: Ladder, columns: int = 0) -> list[str]:
    """Its lines; times are milliseconds since the call began.

    It fits into so many columns if lanes of NARROW do; 0: as wide as it is.
    """
    count = len(ladder.lanes)
    width = min(WIDTH, max(NARROW, (columns - TIMES) // count)) if columns else WIDTH
    lines = [" " * TIMES + "".join(_fitted(title, width - 1).ljust(width) for title in ladder.lanes).rstrip()]
    for at, start, end, text in ladder.arrows:
        lines.append(f"{str(at).rjust(8)}  {_arrow(count, start, end, text, width)}".rstrip())
    return lines


def _fitted(title: str, room: int) -> str:
    """The title, or as much of it as there is room for: half a port is none."""
    return title if len(title) <= room else f"{title[: room - 1]}…"


def _arrow(count: int, first: int, last: int, text: str, width: int) -> str:
    """One line: the lanes as `|`, and an arrow from one to another with its text."""
    cells = list("|".ljust(width) * count)
    if first == last:
        label = f" {text}"
        position = first * width + 1
    else:
        left, right = sorted((first * width, last * width))
        room = right - left - 1
        if len(text) > room - 4 and text[:3].isdigit():
            text = text[:3]  # of a status line the code says it
        label = f" {text} " if len(text) <= room - 4 else text[: room - 1]
        label = label.center(room, "-") if room - len(label) > 1 else label.ljust(room, "-")
        label = f"{label[:-1]}>" if first < last else f"<{label[1:]}" if label[0] in "- " else f"<{label[:-1]}"
        position = left + 1
    cells[position : position + len(label)] = label
    return "".join(cells)
