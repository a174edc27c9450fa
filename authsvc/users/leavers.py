"""Who has left: those who are registered though no source knows them any more, or though they are disabled. PURE.

A directory that answers may still be wrong: restored in part, filled anew, or with the base set to another place. So
nobody's bindings end before two looks in a row have missed him, and none end by a look that misses many at once.
"""

from collections.abc import Set
from typing import NamedTuple

from authsvc.users.remembered import Key

FEW = 2
"""So many may leave at once however few are registered."""


class Look(NamedTuple):
    """What one look at everybody who is registered found."""

    registered: int
    gone: Set[Key]


class Judgement(NamedTuple):
    """What follows from a look."""

    leavers: Set[Key]
    """Whose bindings end."""
    suspects: Set[Key]
    """Whose bindings end if the next look misses them again."""
    refused: bool
    """Whether so many are gone that it is believed of nobody."""


def judge(look: Look, suspects: Set[Key], percent: int) -> Judgement:
    """`suspects` of the look before, which was a whole one; `percent` of those who are registered may go at once."""
    if len(look.gone) > max(FEW, look.registered * percent // 100):
        return Judgement(frozenset(), frozenset(), refused=True)
    leavers = look.gone & suspects
    return Judgement(leavers, look.gone - leavers, refused=False)
