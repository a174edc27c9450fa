"""Keep-alives: the owner pings its registered phones on UDP, so that their NATs stay open (CHECKLIST N02, N03). PURE.

The interval has a fixed number of turns, and flows are dealt out to them one after the other: pings leave
evenly, also after all phones have registered at once, and their rate is flows divided by the interval.
"""

from edge.core.flow import Flow, host_port

LINES = 200_000
"""Lines whose flows are pinged; those beyond are counted by the core as never pinged."""
TURNS = 200
"""In an interval: every 100 ms at the default interval of 20 s."""
STRIDE = 77
"""From one flow's turn to that of the next; without a factor in common with TURNS, so that all get as many."""


MISSED = 2
"""Pings that a phone which answers them has left unanswered, before one more, when its flow is taken for dead."""


class Keepalives:
    """Which flows are pinged, and when next: those by which a line (an AOR) is registered, one or many."""

    def __init__(self, interval: float) -> None:
        """`interval` in seconds; 0: nothing is ever pinged."""
        self._interval = interval
        self._step = interval / TURNS
        self._until: dict[Flow, dict[str, float]] = {}
        """By flow and line, until when the line is registered there."""
        self._flows: dict[str, tuple[Flow, ...]] = {}
        """By line, the flows of `_until` that have it."""
        self._lines = 0
        """How many these are."""
        self._unanswered: dict[Flow, int] = {}
        """Of phones that answer pings, how many they have not answered; a phone that never does may live."""
        self._turns: list[list[Flow]] = [[] for _ in range(TURNS)]
        """Each flow of `_until` has its place in one; one without a line leaves at its next turn."""
        self._turn = 0
        """The one that comes next."""
        self._at = 0.0
        """When it comes; means nothing without flows."""
        self._dealt = 0
        self._next: float | None = None

    def __len__(self) -> int:
        return len(self._until)

    def registered(self, flow: Flow, line: str, until: float, now: float) -> bool:
        """A line is registered by this flow until then; False when there is no room for it."""
        if not self._interval:
            return False
        lines = self._until.get(flow)
        if lines is None or line not in lines:
            if self._lines >= LINES:
                return False
            self._lines += 1
            self._flows[line] = (*self._flows.get(line, ()), flow)
        if lines is None:
            if not self._until:
                self._at = now + self._step
            self._dealt += STRIDE
            place = self._dealt % TURNS
            self._turns[place].append(flow)
            at = self._at + (place - self._turn) % TURNS * self._step
            self._next = at if self._next is None else min(self._next, at)
            lines = self._until[flow] = {}
        lines[line] = until
        if flow in self._unanswered:
            self._unanswered[flow] = 0
        return True

    def answered(self, flow: Flow) -> None:
        """Its phone has answered a ping."""
        if flow in self._until:
            self._unanswered[flow] = 0

    def is_silent(self, flow: Flow) -> bool:
        """Whether its phone, which answered pings before, answers them no more."""
        return self._unanswered.get(flow, 0) > MISSED

    def flows(self, line: str) -> tuple[Flow, ...]:
        """Those by which this line is registered."""
        return self._flows.get(line, ())

    def ended(self, flow: Flow, line: str) -> None:
        """A line is registered by this flow no more; others may be."""
        if self._until.get(flow, {}).pop(line, None) is None:
            return
        self._lines -= 1
        if left := tuple(other for other in self._flows[line] if other != flow):
            self._flows[line] = left
        else:
            del self._flows[line]

    def next_timer(self) -> float | None:
        """When `due` is next of use."""
        return self._next

    def due(self, now: float) -> list[Flow]:
        """The flows to be pinged now; after a long silence of the caller, each once."""
        flows: list[Flow] = []
        if self._next is None or now < self._next:
            return flows
        for _ in range(TURNS):
            if self._at > now:
                break
            flows += self._pass(now)
        if self._at <= now:
            self._at = now + self._step
        self._next = self._when()
        return flows

    def _pass(self, now: float) -> list[Flow]:
        """Takes one turn: the flows in it, without those by which no line is registered any more."""
        flows = self._turns[self._turn]
        if flows:
            flows = self._turns[self._turn] = [flow for flow in flows if self._lives(flow, now)]
            for flow in flows:
                if flow in self._unanswered:
                    self._unanswered[flow] += 1
        self._turn = (self._turn + 1) % TURNS
        self._at += self._step
        return flows

    def _lives(self, flow: Flow, now: float) -> bool:
        """Whether a line is registered by this flow; lines that are over are forgotten, and a flow with none."""
        lines = self._until[flow]
        for line in [line for line, until in lines.items() if until <= now]:
            self.ended(flow, line)
        if not lines:
            del self._until[flow]
            self._unanswered.pop(flow, None)
        return bool(lines)

    def _when(self) -> float | None:
        """When the next turn that has flows comes."""
        if not self._until:
            return None
        return next(
            self._at + ahead * self._step for ahead in range(TURNS) if self._turns[(self._turn + ahead) % TURNS]
        )


def ping(flow: Flow, branch: str, sent_by: str) -> bytes:
    """An OPTIONS request of ours to a phone; what it answers is of no interest."""
    phone = f"sip:{host_port(flow.remote_host, flow.remote_port)}"
    return (
        f"OPTIONS {phone} SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch={branch};rport\r\nMax-Forwards: 0\r\n"
        f"From: <sip:ping@{sent_by}>;tag={branch[-16:]}\r\nTo: <{phone}>\r\nCall-ID: ping-{branch[-32:]}\r\n"
        f"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()
