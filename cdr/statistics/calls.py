"""The calls of one partition and their figures by minute, domain and gateway; pure.

`Calls` folds events as cdr does (`cdr.state`), so that both say the same of a call. What a call has in the windows is
its `Part`; each event replaces it. A minute that is closed keeps its figures for the hour's.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from cdr.decider import REFUSED, is_open, record
from cdr.state import NO_CALLS, Call, State, call_of, evolve, from_text, to_text
from cdr.statistics.delay import bucket
from events.calls import CallEvent
from events.stats import Seconds

MINUTE = 60_000
HOUR = 60
"""Minutes."""
NONE = -1
REACHED = REFUSED | {480}
"""Final responses by which a terminal refused or was not there (ITU-T E.425; the codes of RFC 6076 section 4.7)."""


class Key(NamedTuple):
    """Whose figures they are."""

    domain: str
    gateway: str


class Part(NamedTuple):
    """What one call has in the windows; minutes since 1970."""

    key: Key
    attempted: int = NONE
    counts: tuple[int, ...] = ()
    """As COUNTED."""
    post_dial: str = ""
    """The bucket of its delay; "" for none."""
    begun: int = NONE
    """When it was answered."""
    ended: int = NONE
    talk_ms: int = 0


COUNTED = ("attempts", "answered", "delivered", "failed", "cancelled", "redirected", "to_users", "missed")


class Cell(msgspec.Struct, omit_defaults=True):
    """The figures of a key in a minute or an hour."""

    attempts: int = 0
    answered: int = 0
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    redirected: int = 0
    to_users: int = 0
    missed: int = 0
    begun: int = 0
    """Answered in this window, whenever they were attempted."""
    ended: int = 0
    talk_ms: int = 0
    concurrent: int = 0
    """At the end of a closed minute."""
    post_dial: dict[str, int] = {}
    late: int = 0

    def add(self, other: "Cell") -> None:
        """Takes in the figures of a later minute."""
        for name in (*COUNTED, "begun", "ended", "talk_ms", "late"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.concurrent = other.concurrent
        for name, count in other.post_dial.items():
            self.post_dial[name] = self.post_dial.get(name, 0) + count


def part_of(call: Call, state: State) -> Part | None:
    """What a call has in the windows; None for one whose INVITE nobody told of."""
    if state.begin is None:
        return None
    told = record(call, state)
    pending = is_open(state) and not state.answers
    outcome = "" if pending else told.outcome
    answered = outcome == "answered"
    delivered = answered or (outcome in ("failed", "cancelled") and (bool(told.rang) or told.code in REACHED))
    rang = told.rang or told.answered
    counts = (
        1,
        answered,
        delivered,
        outcome == "failed",
        outcome == "cancelled",
        outcome == "redirected",
        told.ours and bool(outcome),
        told.missed,
    )
    return Part(
        Key(_domain(told.callee, told.ours, state.begin.caller), told.gateway),
        told.attempted // MINUTE,
        tuple(map(int, counts)),
        bucket(rang - told.attempted) if rang else "",
        told.answered // MINUTE if told.answered else NONE,
        told.ended // MINUTE if told.answered and told.ended else NONE,
        told.talk_ms if told.ended else 0,
    )


def _domain(callee: str, ours: bool, caller: str) -> str:
    return (callee if ours else caller).rpartition("@")[2].lower()


class CountedCall(msgspec.Struct):
    """A call that may still change a figure."""

    state: State
    part: Part | None


class Calls:
    """The calls of one partition, by the records up to now. `grace` is in milliseconds."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self.time = 0
        """Of the newest record, milliseconds in the log's time."""
        self.closed = NONE
        """The last closed minute; of a state that was stored by halves it may be ahead of the time."""
        self.known: dict[Call, CountedCall] = {}
        self.cells: dict[int, dict[Key, Cell]] = {}
        """By minute: the open ones, and the closed ones of hours that have an open one."""
        self._alive: dict[Key, int] = defaultdict(int)
        """Calls that are answered and have not ended."""
        self._last: dict[int, set[Call]] = defaultdict(set)
        """By the last minute in which a call has something."""
        self._touched: set[tuple[int, Key]] = set()
        """Figures to be told."""
        self._changed: set[Call] = set()
        """Calls to be stored, or to be forgotten there."""
        self._sealed: set[int] = set()
        """Closed minutes to be stored, or to be forgotten there."""

    # --- what happens ---------------------------------------------------------------------------------------------

    def apply(self, event: CallEvent, timestamp: int) -> None:
        """Takes in a record that was written at `timestamp`."""
        self.advance(timestamp)
        if isinstance(event, NO_CALLS):
            return
        call = call_of(event)
        known = self.known.get(call)
        before = State() if known is None else known.state
        after = evolve(before, event)
        if after is before:
            return
        part = part_of(call, after)
        if event.at // MINUTE <= self._over():
            self._count_late(part)
            if known is None:
                return  # perhaps a copy of what is counted already
        self._replace(call, known, CountedCall(after, part))

    def advance(self, timestamp: int) -> None:
        """The log's time is this at least: closes what is over."""
        if timestamp <= self.time:
            return
        first, self.time = not self.time, timestamp
        over = self._over()
        if first:
            self.closed = max(self.closed, over)
        while self.closed < over:
            self._seal(self.closed + 1)

    def _over(self) -> int:
        """The last minute that is closed by the time."""
        return (self.time - self._grace) // MINUTE - 1

    def _count_late(self, part: Part | None) -> None:
        minute = self.time // MINUTE
        if minute > self.closed:
            self._cell(minute, part.key if part else Key("", "")).late += 1

    def _replace(self, call: Call, before: CountedCall | None, after: CountedCall) -> None:
        if before is not None:
            self._count(before.part, -1)
            self._last[_until(before)].discard(call)
        self.known[call] = after
        self._count(after.part, 1)
        self._last[_until(after)].add(call)
        self._changed.add(call)

    def _count(self, part: Part | None, sign: int) -> None:
        """Adds or takes away what a call has in the minutes that are open."""
        if part is None:
            return
        if part.attempted > self.closed:
            cell = self._cell(part.attempted, part.key)
            for name, count in zip(COUNTED, part.counts, strict=True):
                if count:
                    setattr(cell, name, getattr(cell, name) + sign)
            if part.post_dial:
                adjust(cell.post_dial, part.post_dial, sign)
        if part.begun > self.closed:
            self._cell(part.begun, part.key).begun += sign
        if part.ended > self.closed:
            cell = self._cell(part.ended, part.key)
            cell.ended += sign
            cell.talk_ms += sign * part.talk_ms
        if part.begun != NONE and part.ended == NONE:
            adjust(self._alive, part.key, sign)
            self._touched.add((self.closed + 1, part.key))

    def _cell(self, minute: int, key: Key) -> Cell:
        self._touched.add((minute, key))
        return self.cells.setdefault(minute, {}).setdefault(key, Cell())

    # --- minutes close ----------------------------------------------------------------------------------------------

    def _seal(self, minute: int) -> None:
        """Closes the minute behind the last closed one."""
        keys = {key for each, cells in self.cells.items() if each >= minute for key in cells}
        for key in keys.union(self._alive):
            concurrent = self.concurrent(minute, key)
            if concurrent or key in self.cells.get(minute, ()):
                self._cell(minute, key).concurrent = concurrent
        if minute in self.cells:
            self._sealed.add(minute)
        self.closed = minute
        for call in self._last.pop(minute, ()):
            if not is_open(self.known[call].state):
                del self.known[call]
                self._changed.add(call)

    def concurrent(self, minute: int, key: Key) -> int:
        """Calls in progress at the end of an open minute."""
        after = (cells[key] for m, cells in self.cells.items() if m > minute and key in cells)
        return self._alive.get(key, 0) + sum(cell.ended - cell.begun for cell in after)

    # --- figures ----------------------------------------------------------------------------------------------------

    def figures(self, now: int) -> Iterator[tuple[int, Seconds, Key, Cell]]:
        """What may have changed since this was last asked, as start (milliseconds), seconds, key and figures.

        `now` is the time up to which all records are known, in milliseconds: what goes on is told minute by minute.
        """
        latest = max(now, self.time) // MINUTE
        touched = set(self._touched)
        for minute, key in self._touched:
            touched.update((each, key) for each in range(max(minute, self.closed + 1), latest + 1))
        for minute in range(max(self.closed + 1, latest - HOUR), latest + 1):
            touched.update((minute, key) for key in self._alive)
        self._touched.clear()
        hours = {(minute // HOUR, key) for minute, key in touched}
        for minute, key in sorted(touched):
            yield minute * MINUTE, 60, key, self._minute(minute, key)
        for hour, key in sorted(hours):
            yield hour * HOUR * MINUTE, 3600, key, self._hour(hour, key, latest)
        self._prune()

    def _minute(self, minute: int, key: Key) -> Cell:
        cell = self.cells.get(minute, {}).get(key)
        if minute <= self.closed:
            return cell or Cell()
        return msgspec.structs.replace(cell or Cell(), concurrent=self.concurrent(minute, key))

    def _hour(self, hour: int, key: Key, latest: int) -> Cell:
        whole = Cell(post_dial={})
        for minute in range(hour * HOUR, min(hour * HOUR + HOUR - 1, latest) + 1):
            if minute > self.closed or key in self.cells.get(minute, {}):
                whole.add(self._minute(minute, key))
            else:
                whole.concurrent = 0
        return whole

    def _prune(self) -> None:
        """Forgets the minutes of hours that are closed."""
        for minute in [m for m in self.cells if (m // HOUR + 1) * HOUR - 1 <= self.closed]:
            del self.cells[minute]
            self._sealed.add(minute)

    # --- what is stored ---------------------------------------------------------------------------------------------

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """What to store since the last time, in this order (None: forget): a store that has only the beginning of it
        is good, if it goes on from the position that was stored with what was there before."""
        for minute in sorted(self._sealed):
            cells = self.cells.get(minute)
            yield f"m{minute}", None if cells is None else _encode(list(cells.items()))
        for call in self._changed:
            known = self.known.get(call)
            yield "c" + _encode(call).decode(), None if known is None else to_text(known.state).encode()
        self._sealed.clear()
        self._changed.clear()

    def load(self, stored: Iterable[tuple[str, bytes]], time: int) -> None:
        """Becomes what was stored with a position at this time."""
        self.time = time
        self.closed = self._over() if time else NONE
        for name, value in stored:
            if name.startswith("m"):
                minute = int(name[1:])
                self.cells[minute] = dict(_decode_cells(value))
                self._touched.update((minute, key) for key in self.cells[minute])
        self.closed = max([self.closed, *self.cells])
        for name, value in stored:
            if name.startswith("c"):
                call, state = _decode_call(name[1:].encode()), from_text(value.decode())
                self._replace(call, None, CountedCall(state, part_of(call, state)))
        self._changed.clear()


def _until(known: CountedCall) -> int:
    """The last minute in which a call has something: once it is closed, an ended call may be forgotten."""
    minutes = (known.part.attempted, known.part.begun, known.part.ended) if known.part else ()
    return max(known.state.latest // MINUTE, *minutes, NONE)


def adjust(counts: dict[Any, int], name: Any, sign: int) -> None:
    """Counts up or down; what there is none of has no entry."""
    counts[name] = counts.get(name, 0) + sign
    if not counts[name]:
        del counts[name]


_encode = msgspec.json.Encoder().encode
_decode_cells = msgspec.json.Decoder(list[tuple[Key, Cell]]).decode
_decode_call = msgspec.json.Decoder(Call).decode
