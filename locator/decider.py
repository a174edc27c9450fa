"""Which rows a batch of the truth changes, and whom to tell; pure.

Of several records about one binding the last one decides its row. A row of history is an interval of a binding
at one place (contact, received, path): a refresh from the same place leaves it alone, one from elsewhere or
after the binding's time was over ends it and begins another. An interval ends when its binding does, at the
latest when its granted time is over, so that history says what `location` showed (CHECKLIST C17).
"""

import datetime
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from events.registrations import Binding, BindingsRecorded, Claimed, Kind, RegistrationEvent

_ENDS = frozenset({Kind.UNREGISTERED, Kind.EXPIRED, Kind.DEACTIVATED})
LAPSED = "lapsed"
"""How an interval ended whose binding was refreshed after its time, before the registrar let it expire."""
_BY_CHARACTERS = 255
_LAST_SECOND = 253_402_300_799
"""Of the year 9999: DATETIME ends there."""


class Truth(NamedTuple):
    """A record of `registrations`, decoded."""

    offset: int
    claim: int
    """Its header `c`; of a Claimed, its own offset."""
    event: RegistrationEvent


class ChangeKey(NamedTuple):
    """By what a truth is known again: a command changes an AOR once, at one time."""

    command: str
    aor: str
    at: int


class StoredBinding(NamedTuple):
    """What must be known of a binding before a record about it is applied."""

    place: int
    """`place` of its row; means nothing outside this process."""
    expires: int
    """Milliseconds in the log's time."""


class Location(NamedTuple):
    """One row of `location`, in the order of its fields as named here."""

    contact_id: int
    username: str
    domain: str
    contact: str
    received: str | None
    path: str | None
    """With commas, as in the header."""
    expires: int
    """Seconds, rounded up; a proxy that knows seconds alone routes until the last one is over."""
    q: float
    callid: str
    cseq: int
    last_modified: str
    user_agent: str
    socket: str | None
    methods: int | None
    sip_instance: str | None
    reg_id: int | None
    params: str
    granted: int
    expires_ms: int
    created_ms: int
    updated_ms: int
    partition_no: int
    attr: str | None = None
    """OpenSIPS' column for what scripts note of a Contact: `gruus_since=…`, milliseconds, of a phone with GRUUs."""


class Interval(msgspec.Struct):
    """One row of `registration_history`, in the order of its fields."""

    contact_id: int
    began_offset: int
    partition_no: int
    username: str
    domain: str
    contact: str
    received: str
    path: str
    socket: str
    user_agent: str
    since_ms: int
    began: str
    began_by: str
    until_ms: int | None = None
    ended: str | None = None
    ended_by: str | None = None
    ended_offset: int | None = None


class Ending(NamedTuple):
    """How an interval that is in the table ends."""

    until_ms: int
    ended: str
    ended_by: str
    ended_offset: int


class Decision(msgspec.Struct):
    """What a batch changes; written in one transaction with the position."""

    claim: int
    """The highest seen, the batch included."""
    rows: dict[int, Location | None] = {}
    """By binding id; None: it is to be deleted."""
    known: dict[int, StoredBinding | None] = {}
    """Of the same bindings, afterwards."""
    began: list[Interval] = []
    ended: dict[int, Ending] = {}
    """By binding id: of the interval that was open before the batch."""
    answered: list[BindingsRecorded] = []
    """In order; those whose commands want a reply, or by which edges close connections."""
    told: dict[ChangeKey, None] = {}
    """What was applied and changed something, in order."""
    forgotten: dict[str, int] = {}
    """By AOR whose history goes: the offset of the truth that says so."""
    void: int = 0
    """Records of an older claim."""
    repeated: int = 0
    """Records that stand on the log a second time."""


def place(contact: str, received: str | None, path: str | None) -> int:
    """Where a binding is, as one number; an absent value and an empty one are the same."""
    return hash((contact, received or "", path or ""))


def _key(event: BindingsRecorded) -> ChangeKey:
    return ChangeKey(event.id, event.aor, event.state.at)


def unsure(truths: Sequence[Truth], claim: int = -1, told: Container[ChangeKey] = ()) -> set[int]:
    """The bindings whose state before these records matters: all but those that begin here.

    With the highest claim before them and the truths applied lately: a record that does not count makes nothing.
    """
    wanted: set[int] = set()
    made: set[int] = set()
    for truth in truths:
        void, claim = truth.claim < claim, max(claim, truth.claim)
        if isinstance(truth.event, BindingsRecorded):
            counts = not void and _key(truth.event) not in told
            for change in truth.event.changes:
                if change.kind is Kind.CREATED and counts:
                    made.add(change.id)
                elif change.id not in made:
                    wanted.add(change.id)
    return wanted


def decide(
    partition: int,
    truths: Sequence[Truth],
    claim: int,
    known: Mapping[int, StoredBinding],
    told: Container[ChangeKey] = (),
) -> Decision:
    """What the records change, given the highest claim before them and what is known of `unsure` bindings.

    `told` are truths applied lately: one that stands on the log twice is applied once.
    """
    batch = _Batch(partition, claim, known, told)
    for truth in truths:
        batch.apply(truth)
    return batch.decision


class _Batch:
    """Applies records one after the other to a Decision."""

    def __init__(
        self, partition: int, claim: int, known: Mapping[int, StoredBinding], told: Container[ChangeKey]
    ) -> None:
        self.decision = Decision(claim)
        self._told = told
        self._partition = partition
        self._before = known
        self._open: dict[int, Interval] = {}

    def apply(self, truth: Truth) -> None:
        decision = self.decision
        if truth.claim < decision.claim:
            decision.void += 1
            return
        decision.claim = truth.claim
        event = truth.event
        if isinstance(event, Claimed):
            return
        if event.changes:
            told = _key(event)
            if told in decision.told or told in self._told:
                decision.repeated += 1
                return
            decision.told[told] = None
        for change in event.changes:
            binding = None
            if change.kind not in _ENDS:
                # What the state does not hold any more has ended, whatever the change is called.
                binding = next((b for b in event.state.bindings if b.id == change.id), None)
            if binding is None:
                self._end(change.id, truth.offset, event, change.kind)
                decision.rows[change.id] = decision.known[change.id] = None
            else:
                self._keep(binding, truth.offset, event, change.kind)
        if event.reply is not None or event.closes:
            decision.answered.append(event)
        if event.forgotten:
            decision.forgotten[event.aor] = truth.offset

    def _keep(self, binding: Binding, offset: int, event: BindingsRecorded, kind: Kind) -> None:
        row = location(binding, event.aor, self._partition)
        here = StoredBinding(place(row.contact, row.received, row.path), binding.expires)
        before = self._known(binding.id)
        if before is None or before.place != here.place or before.expires <= event.state.at:
            if before is not None or kind is not Kind.CREATED:
                self._end(binding.id, offset, event, kind)
            self._begin(row, offset, event, kind)
        self.decision.rows[binding.id] = row
        self.decision.known[binding.id] = here

    def _known(self, id_: int) -> StoredBinding | None:
        known = self.decision.known
        return known[id_] if id_ in known else self._before.get(id_)

    def _begin(self, row: Location, offset: int, event: BindingsRecorded, kind: Kind) -> None:
        interval = Interval(
            row.contact_id,
            offset,
            self._partition,
            row.username,
            row.domain,
            row.contact,
            row.received or "",
            row.path or "",
            row.socket or "",
            row.user_agent,
            event.state.at,
            kind.value,
            event.by[:_BY_CHARACTERS],
        )
        self._open[row.contact_id] = interval
        self.decision.began.append(interval)

    def _end(self, id_: int, offset: int, event: BindingsRecorded, kind: Kind) -> None:
        before, until, ended = self._known(id_), event.state.at, kind.value
        if before is not None and before.expires <= until:
            until = before.expires
            if kind not in _ENDS:
                ended = LAPSED
        ending = Ending(until, ended, event.by[:_BY_CHARACTERS], offset)
        interval = self._open.pop(id_, None)
        if interval is None:
            self.decision.ended.setdefault(id_, ending)
        else:
            interval.until_ms, interval.ended, interval.ended_by, interval.ended_offset = ending


def location(binding: Binding, aor: str, partition: int) -> Location:
    """The row of a binding."""
    username, _, domain = aor.rpartition("@")
    return Location(
        binding.id,
        username,
        domain,
        binding.contact,
        binding.received or None,
        ",".join(binding.path) or None,
        -(-binding.expires // 1000),
        # OpenSIPS' default, and what RFC 3261 section 10.2.1.2 leads to when no contact has one.
        1.0 if binding.q is None else binding.q,
        binding.call_id,
        binding.cseq,
        _date(binding.updated // 1000),
        binding.user_agent,
        binding.socket or None,
        binding.methods,
        binding.instance,
        binding.reg_id,
        binding.params,
        binding.granted,
        binding.expires,
        binding.created,
        binding.updated,
        partition,
        f"gruus_since={binding.gruus_since}" if binding.gruus_since else None,
    )


@lru_cache(maxsize=4096)
def _date(seconds: int) -> str:
    """UTC as DATETIME text; most rows of a second share it."""
    within = min(max(seconds, 0), _LAST_SECOND)
    return datetime.datetime.fromtimestamp(within, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
