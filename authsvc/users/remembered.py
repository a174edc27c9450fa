"""What look-ups found, by name and domain: bounded, for a while, and for much longer while its source is away."""

from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from authsvc.decider import Unknown

K = TypeVar("K")
V = TypeVar("V")

Key = tuple[str, str]
"""A name (a digest user, an alias, a telephone number) and its domain."""

AWAY_SECONDS = 0.5
"""For how long nobody is asked again about a key that could not be looked up."""
UNKNOWN_NAMES = 50_000
"""The most names remembered as unknown, or as not to be had now; apart, so that they push out nobody else."""


class Times(msgspec.Struct, frozen=True):
    """For how many seconds an answer serves."""

    found: float
    absent: float
    stale: float
    """After `found`, while the source is away."""


class _Found(msgspec.Struct, Generic[V], frozen=True, gc=False):
    value: V
    fresh: float
    """Until when, in monotonic seconds."""


class _Missing(msgspec.Struct, frozen=True, gc=False):
    why: Unknown | None
    """None: there is none."""
    until: float


class Remembered(Generic[V]):
    """The answers of one kind of look-up; all times are monotonic seconds."""

    def __init__(self, capacity: int, times: Times, away: Callable[[], bool]) -> None:
        """`away`: whether a source that could have answered is away now."""
        self._capacity = capacity
        self._times = times
        self._away = away
        self._found: dict[Key, _Found[V]] = {}
        self._missing: dict[Key, _Missing] = {}

    def get(self, key: Key, now: float) -> V | Unknown | None:
        """What was found, None if there is none, or why that is not known.

        An old answer serves while the source is away, so that a request does not wait for what cannot come.
        """
        found = self._found.get(key)
        if found is not None and now < found.fresh:
            return found.value
        missing = self._missing.get(key)
        if missing is not None and now >= missing.until:
            missing = None
        if found is not None and now < found.fresh + self._times.stale:
            failed = missing is not None and missing.why is Unknown.AWAY
            if failed or self._away():
                return found.value
        return missing.why if missing is not None else Unknown.UNASKED

    def found(self, key: Key, value: V, now: float) -> None:
        """The look-up found this."""
        self._missing.pop(key, None)
        self._keep(key, _Found(value, now + self._times.found))

    def absent(self, key: Key, now: float) -> None:
        """The look-up found that there is none."""
        self._found.pop(key, None)
        self._miss(key, _Missing(None, now + self._times.absent))

    def unsure(self, key: Key, now: float, partly: V | None = None) -> None:
        """The look-up failed; `partly` is what may serve until the next one, if nothing better is remembered."""
        if partly is not None and key not in self._found:
            self._keep(key, _Found(partly, now + AWAY_SECONDS))
        else:
            self._miss(key, _Missing(Unknown.AWAY, now + AWAY_SECONDS))

    def forget(self, key: Key) -> None:
        """Nothing is known of it any more."""
        self._found.pop(key, None)
        self._missing.pop(key, None)

    def _keep(self, key: Key, found: _Found[V]) -> None:
        """Entries are in the order in which they were looked up: who is not asked for any more goes first."""
        self._found.pop(key, None)
        make_room(self._found, self._capacity)
        self._found[key] = found

    def _miss(self, key: Key, missing: _Missing) -> None:
        self._missing.pop(key, None)
        make_room(self._missing, UNKNOWN_NAMES)
        self._missing[key] = missing


def make_room(entries: dict[K, V], capacity: int) -> None:
    """Drops the oldest entries where there is no room for one more."""
    if len(entries) >= capacity:
        # Several at a time: finding the first of a dictionary whose first ones went is slow.
        for key in list(islice(entries, 1 + capacity // 64)):
            del entries[key]
