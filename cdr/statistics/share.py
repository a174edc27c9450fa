"""What one worker knows of one partition number of `calls`, `registrations` and `audit`, and where it is; pure.

A record is taken in by its offset: one below the position is a copy, one above it tells of a gap, which the caller
fills from the topic before it goes on. So it does not matter who delivers the records, how often, or with what holes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from cdr.statistics.calls import Calls, Cell
from cdr.statistics.logins import Logins
from cdr.statistics.online import Registrations
from events.audit import AuditEvent, AuthenticationFailed
from events.calls import CallEvent
from events.registrations import BindingsRecorded, RegistrationEvent
from events.stats import CallStatistics, LoginStatistics, RegistrationStatistics, Statistics
from events.topics import AUDIT, CALLS, REGISTRATIONS
from events.truths import claim_of
from events.wire import Decoder, Headers, Poisoned, header

SOURCES = (CALLS, REGISTRATIONS, AUDIT)
_KEPT = 3 * 3_600_000
"""How long it is remembered what was told of a window."""

_call: Decoder[CallEvent] = Decoder(CallEvent)
_registration: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)
_audit: Decoder[AuditEvent] = Decoder(AuditEvent)
_CELL = tuple(name for name in Cell.__struct_fields__ if name != "begun")


class Place(msgspec.Struct, array_like=True):
    """Where one topic is."""

    next: int
    """Every record below this offset is in the figures."""
    time: int
    """Of the newest record, milliseconds in the log's time."""
    claim: int = -1
    """Of `registrations`: the highest one seen."""


class Outcome(NamedTuple):
    """What became of records."""

    taken: int = 0
    copies: int = 0
    unreadable: int = 0


class Share:
    """The figures of one partition number. `grace` in milliseconds."""

    def __init__(self, partition: int, grace: int) -> None:
        self.partition = partition
        self.places: dict[str, Place] = {}
        """Of each topic that was begun."""
        self._calls = Calls(grace)
        self._registrations = Registrations()
        self._logins = Logins(grace)
        self._read: dict[str, Callable[[int, Headers, bytes | None, int], None]] = {
            CALLS: self._read_call,
            REGISTRATIONS: self._read_registration,
            AUDIT: self._read_audit,
        }
        self._told: dict[tuple[type[Statistics], int, int, str, str], Statistics] = {}

    def begin(self, topic: str, offset: int) -> None:
        """Its next record is the one at this offset (or the first one behind it)."""
        self.places[topic] = Place(offset, 0)

    def is_next(self, topic: str, offset: int) -> bool:
        """Whether there can be nothing unread before the record at this offset."""
        return offset <= self.places[topic].next

    def take(self, topic: str, offset: int, timestamp: int, headers: Headers, value: bytes | None) -> Outcome:
        """Takes a record in, unless it is a copy; what cannot be read is passed over, and said to be."""
        place = self.places[topic]
        if offset < place.next:
            return Outcome(copies=1)
        place.next = offset + 1
        place.time = max(place.time, timestamp)
        try:
            self._read[topic](offset, headers, value, timestamp)
        except Poisoned:
            return Outcome(unreadable=1)
        return Outcome(taken=1)

    def skip(self, topic: str, offset: int) -> None:
        """There is nothing to be read below this offset."""
        place = self.places[topic]
        place.next = max(place.next, offset)

    def _read_call(self, offset: int, headers: Headers, value: bytes | None, timestamp: int) -> None:
        self._calls.apply(_call(value), timestamp)

    def _read_registration(self, offset: int, headers: Headers, value: bytes | None, timestamp: int) -> None:
        place = self.places[REGISTRATIONS]
        claim = claim_of(offset, headers, value)
        if claim < place.claim:
            return  # void: its writer had lost the partition
        place.claim = claim
        event = _registration(value)
        if isinstance(event, BindingsRecorded):
            self._registrations.apply(event, timestamp)

    def _read_audit(self, offset: int, headers: Headers, value: bytes | None, timestamp: int) -> None:
        event = _audit(value)
        if isinstance(event, AuthenticationFailed):
            id_ = (header(headers, "ce_id") or str(offset).encode()).decode(errors="replace")
            self._logins.apply(event, id_, timestamp)

    # --- what is told -----------------------------------------------------------------------------------------------

    def statistics(self, now: int | None = None) -> list[Statistics]:
        """The records for `stats` of all that has changed. `now` is the log's time in milliseconds, if everything
        written until then is in the figures: without it, time goes on with the records alone."""
        if now is not None and REGISTRATIONS in self.places:
            self._registrations.advance(now)
        told = [each for each in self._figures(now or 0) if self._is_new(each)]
        newest = max((place.time for place in self.places.values()), default=0)
        for each in [key for key in self._told if key[1] < newest - _KEPT]:
            del self._told[each]
        return told

    def _figures(self, now: int) -> Iterator[Statistics]:
        for topic in self.places:
            through = self.places[topic].next
            if topic == CALLS:
                for start, seconds, key, cell in self._calls.figures(now):
                    yield CallStatistics(
                        start=start,
                        seconds=seconds,
                        domain=key.domain,
                        gateway=key.gateway,
                        partition=self.partition,
                        through=through,
                        **{name: getattr(cell, name) for name in _CELL if name != "post_dial"},
                        post_dial=dict(cell.post_dial),
                    )
            elif topic == REGISTRATIONS:
                for start, seconds, domain, online in self._registrations.figures():
                    yield RegistrationStatistics(
                        start=start,
                        seconds=seconds,
                        domain=domain,
                        partition=self.partition,
                        through=through,
                        online=online.online,
                        transports=online.transports,
                        agents=online.agents,
                    )
            else:
                for start, seconds, domain, reasons in self._logins.figures():
                    yield LoginStatistics(
                        start=start,
                        seconds=seconds,
                        domain=domain,
                        partition=self.partition,
                        through=through,
                        failed=sum(reasons.values()),
                        reasons=reasons,
                    )

    def _is_new(self, each: Statistics) -> bool:
        """Whether the figures are others than those told last."""
        gateway = each.gateway if isinstance(each, CallStatistics) else ""
        key = (type(each), each.start, each.seconds, each.domain, gateway)
        plain = msgspec.structs.replace(each, through=0)
        if self._told.get(key) == plain:
            return False
        self._told[key] = plain
        return True

    # --- what is stored ---------------------------------------------------------------------------------------------

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """What to store (None: forget) since the last time, the positions last: a store that has only the beginning
        of it is as good as one that has all."""
        for part in (self._calls, self._registrations, self._logins):
            yield from part.changes()
        yield "p", msgspec.json.encode(self.places)

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Becomes what was stored; without positions, nothing was."""
        self.places = _places(stored.get("p"))
        times = {topic: place.time for topic, place in self.places.items()}
        if not self.places:
            return
        items: Iterable[tuple[str, bytes]] = list(stored.items())
        self._calls.load(items, times.get(CALLS, 0))
        self._registrations.load(items, times.get(REGISTRATIONS, 0))
        self._logins.load(items, times.get(AUDIT, 0))


def _places(value: bytes | None) -> dict[str, Place]:
    return {} if value is None else msgspec.json.decode(value, type=dict[str, Place])
