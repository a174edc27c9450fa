"""When each edge was up, and how long it then could not run: what the times of its answers are measured by.

An edge promises an answer within its deadline of a request that it *received*: nothing of one that was sent while
it was dead, stopped or starting, and no more than the machine lets it. Times are wall-clock seconds.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(slots=True)
class Away:
    """A time in which an edge did not run, or had not opened its sockets yet."""

    begin: float
    end: float = math.inf


class Uptime:
    """What is known of every edge, by name; one that was never named was up all the time, and waited for nothing."""

    def __init__(self) -> None:
        self._away: dict[str, list[Away]] = {}
        self._waited: dict[str, list[tuple[float, float]]] = {}
        self._stalled: list[tuple[float, float]] = []

    def away(self, edge: str, begin: float, end: float = math.inf) -> Away:
        """The edge is away from now on; whoever brings it back sets the end."""
        away = Away(begin, end)
        self._away.setdefault(edge, []).append(away)
        return away

    def received(self, edge: str, sendings: Sequence[float], end: float) -> float | None:
        """The first sending of a request since which the edge was up until `end`; None if there is none."""
        back = max((a.end for a in self._away.get(edge, ()) if a.begin <= end and a.end >= sendings[0]), default=0.0)
        return next((at for at in sendings if at >= back), None)

    def note(self, edge: str, at: float, waited: float) -> None:
        """By this time the edge (in this life) has waited for a CPU for `waited` seconds in all."""
        self._waited.setdefault(edge, []).append((at, waited))

    def note_stalled(self, at: float, stalled: float) -> None:
        """By this time the machine has stood still for `stalled` seconds in all, as far as we felt it ourselves."""
        self._stalled.append((at, stalled))

    def waited(self, edge: str, begin: float, end: float) -> float:
        """Seconds for which the edge or all waited, from the last note before `begin` to the first after `end`."""
        return sum(self._between(notes, begin, end) for notes in (self._waited.get(edge, []), self._stalled))

    @staticmethod
    def _between(notes: list[tuple[float, float]], begin: float, end: float) -> float:
        first = max(0, bisect.bisect_right(notes, (begin, math.inf)) - 1)
        span = notes[first : bisect.bisect_left(notes, (end, 0.0)) + 1]
        # Less than before: it is another life, whose count began at 0.
        return sum(late - soon if late >= soon else late for (_, soon), (_, late) in itertools.pairwise(span))


def waited_for_cpu(pid: int) -> float:
    """Seconds that a process has been ready to run and did not (Linux' schedstat); 0 where nobody counts them."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
