"""A histogram of delays that can be added up; its quantiles are within 2 % (or 1 ms) of the exact ones.

The bounds of its buckets are fixed: whole milliseconds, each at most 4 % above the one before. That is DDSketch
(Masson, Rim, Lee; VLDB 2019) with a relative error of 2 %, on bounds that every machine computes alike.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping

LONGEST = 600_000
"""Milliseconds; a longer delay is in the last bucket."""


def _bounds() -> list[int]:
    bounds = [0, 1]
    while bounds[-1] < LONGEST:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 104 // 100))
    return bounds


BOUNDS = _bounds()
"""The upper bound of each bucket, inclusive."""
_NAMES = [str(bound) for bound in BOUNDS]
_PLACE = {name: index for index, name in enumerate(_NAMES)}


def bucket(delay: int) -> str:
    """The bucket of a delay in milliseconds, by its upper bound."""
    return _NAMES[min(bisect_left(BOUNDS, max(delay, 0)), len(BOUNDS) - 1)]


def quantile(counts: Mapping[str, int], q: float) -> int | None:
    """The delay below which a share `q` of all are, milliseconds; None where there are none. Unknown buckets (of
    another version) count for nothing."""
    known = sorted((_PLACE[name], count) for name, count in counts.items() if name in _PLACE and count > 0)
    rank = max(1, math.ceil(q * sum(count for _, count in known)))
    for place, count in known:
        rank -= count
        if rank <= 0:
            below = BOUNDS[place - 1] + 1 if place else 0
            return (below + BOUNDS[place] + 1) // 2
    return None
