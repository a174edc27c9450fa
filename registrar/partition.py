"""What the registrar remembers of one partition, and when something of it falls due.

States are kept as they stand in the log (encoded), which is small and quick to restore; a decision
decodes the one it needs. Only what the log has acknowledged is in here.
"""

import heapq

from events.registrations import AorState, Watermark
from events.wire import Poisoned
from registrar.decider import memory_ends
from registrar.truths import decode_state
from registrar.unknown import has_unknown
from runtime.log.port import PartitionFault


class Agenda:
    """AORs by the second at which something of them falls due.

    Each AOR that is remembered stands at or before its time; one found too early is put back at its
    time by the timer. So a refresh, which only moves the time on, costs nothing here, and an AOR stands in
    as many seconds as there were shorter times in between, at most.
    """

    def __init__(self) -> None:
        self._seconds: list[int] = []
        self._aors: dict[int, set[str]] = {}

    def put(self, aor: str, at: int) -> None:
        """Notes the AOR for `at` milliseconds, not before."""
        second = at // 1000 + 1
        aors = self._aors.get(second)
        if aors is None:
            aors = self._aors[second] = set()
            heapq.heappush(self._seconds, second)
        aors.add(aor)

    def take(self, now: int, most: int) -> list[str]:
        """Up to `most` AORs whose time has come, taken off the agenda."""
        taken: list[str] = []
        while self._seconds and self._seconds[0] * 1000 <= now:
            aors = self._aors[self._seconds[0]]
            while aors:
                if len(taken) == most:
                    return taken
                taken.append(aors.pop())
            del self._aors[heapq.heappop(self._seconds)]
        return taken


class Partition:
    """The states of one partition's AORs, and the place in the log that they stand for."""

    def __init__(self, number: int, claim: int, grace_ms: int) -> None:
        self.number = number
        self.claim = claim
        """Offset of our own `Claimed`, the claim of all we write."""
        self.next = claim + 1
        """Offset of the next truth, if nobody else writes."""
        self.handled = -1
        """Offset of the last command that was decided, dropped or refused."""
        self.time = 0
        """Its timestamp, milliseconds; 0 before the first since the restore."""
        self.lost = False
        """Another took over: no more may be written before a new claim."""
        self.fenced = False
        """Nobody who owned the partition before us can write snapshots any more, and no higher claim was there after
        that was so."""
        self.bindings = 0
        self.states: dict[str, bytes] = {}
        self.newer: set[str] = set()
        """AORs whose states have fields that this version does not know: they keep them, and are never dropped."""
        self.changed: set[str] = set()
        """AORs whose last state is not in the snapshots; those without a state get a tombstone."""
        self.marked = Watermark(-1, -1, -1)
        """The watermark that stands in `bindings`."""
        self.agenda = Agenda()
        self._grace_ms = grace_ms

    def falls_due(self, state: AorState) -> int:
        """When a binding ends, grace included, or without bindings, when nothing of the AOR matters any more."""
        if state.bindings:
            return min([binding.expires for binding in state.bindings]) + self._grace_ms
        return memory_ends(state)

    def keep(self, aor: str, encoded: bytes, new: AorState, old: AorState) -> None:
        """The AOR's state is now this; `old` is the one before, an empty one where there was none."""
        self.bindings += len(new.bindings) - len(old.bindings)
        known = aor in self.states
        if not (new.bindings or new.seen or new.gone) and aor not in self.newer:
            if known:
                self.drop(aor)
            return
        due = self.falls_due(new)
        if not known or due < self.falls_due(old):
            self.agenda.put(aor, due)
        self.states[aor] = encoded
        self.changed.add(aor)

    def drop(self, aor: str) -> None:
        """Forgets an AOR of which nothing matters any more; its snapshot becomes a tombstone.

        Not where fields say more than this version knows.
        """
        if aor in self.newer:
            return
        del self.states[aor]
        self.changed.add(aor)

    def adopt(self, states: dict[str, bytes]) -> None:
        """Takes the states of a restore: counts their bindings and notes when they fall due.

        Raises PartitionFault for one that this version cannot read: it keeps its bytes.
        """
        for aor, encoded in states.items():
            try:
                state = decode_state(encoded)
                if has_unknown(encoded, state):
                    self.newer.add(aor)
            except Poisoned as error:
                raise PartitionFault(self.number, f"the state of {aor} is not known: {error}") from error
            self.states[aor] = encoded
            self.bindings += len(state.bindings)
            self.agenda.put(aor, self.falls_due(state))

    def mark(self) -> Watermark:
        """The watermark of a snapshot taken now."""
        return Watermark(self.next - 1, self.handled, self.claim)
