"""CANCEL, and ACK of failures, wherever they fall (RFC 3261 section 9.2, 16.10; DESIGN section 8). PURE.

Nothing in a CANCEL of a phone names the edge that has its INVITE. So what matches nothing here is sought at all live
edges, waits half a second for its INVITE, and then is answered by what is known of edges that died. So does an ACK of
a failure. What is sought costs every edge: of strangers a bounded rate is, ACKs and CANCELs apart.
"""

from collections import deque
from collections.abc import Callable, Iterable

from edge.core.actions import Seek, Send
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.flow import Flow
from edge.core.pending import Pending
from edge.core.proxy.context import Context
from edge.core.proxy.forwarding import Proxy
from edge.core.rate import SharedRate
from sipcore import hop_by_hop
from sipcore.errors import ParseError
from sipcore.message import Request, Row
from sipcore.parser import parse_datagram
from sipcore.proxy import has_to_tag
from sipcore.transactions import RequestMatch, Server, Transactions

HELD = 0.5
"""Seconds that a CANCEL waits for its INVITE (CHECKLIST E06)."""
SOUGHT = 10_000
"""CANCELs that wait at one time."""
SOUGHT_PER_SOURCE, SOUGHT_PER_SECOND = 200.0, 2_000.0
"""ACKs, and CANCELs, that are sought at other edges, of one address that is no listed peer's and of all: a failure that
is not acknowledged is repeated (RFC 3261 section 17.2.1), and so is its ACK."""
TRACKED = 20_000
TRACKED_BYTES = 64 * 1024 * 1024
"""INVITEs of other edges that are remembered, and their octets."""
TRACKED_SECONDS = 200.0
"""A little more than Timer C: by then none of them rings any more."""
DEAD_EDGES = 1_000
TRUSTED = 1 << 20
"""As the size of what is answered: who cancels had his INVITE accepted, or gets two short lines."""


class Cancels:
    """All CANCELs of one edge."""

    def __init__(
        self, answers: Answers, layer: Transactions, proxy: Proxy, cancelled: Callable[[Context], None]
    ) -> None:
        """`cancelled` is told of a context before its attempts are cancelled."""
        self._answers = answers
        self._layer = layer
        self._proxy = proxy
        self._told = cancelled
        self._held = Pending[str, Arrival](HELD)
        """CANCELs whose INVITE may still come, or be another edge's."""
        self._rates = {method: SharedRate(SOUGHT_PER_SOURCE, SOUGHT_PER_SECOND) for method in ("ACK", "CANCEL")}
        self._tracked: deque[tuple[float, tuple[str, str], Flow, bytes, str]] = deque()
        self._tracked_bytes = 0
        self._by_connection: dict[Flow, dict[str, None]] = {}
        """The ids of those that went by a connection."""
        self._dead: dict[tuple[str, str], float] = {}
        """Edges that died, and when: their INVITEs are nobody's."""

    # --- here -----------------------------------------------------------------------------------------------------

    def cancel(self, arrival: Arrival, known: RequestMatch, invite: Server | None) -> None:
        """A CANCEL, and what the transaction layer knows of it."""
        if known is RequestMatch.INVITE and invite is not None:
            self._cancelled(invite, arrival)
            return
        if len(self._held) >= SOUGHT:
            self._answer(arrival, 481)
            return
        id_ = self._answers.command_id()
        self._held.wait(id_, arrival, arrival.now)
        self._seek(id_, arrival)

    def ack(self, arrival: Arrival) -> None:
        """An ACK of a failure, whose INVITE is not here: to whoever has it."""
        self._answers.drop("unexpected-ack")
        self.ack_again(arrival)

    def ack_again(self, arrival: Arrival) -> None:
        """An ACK within a dialog that has gone its way before: perhaps of a failure that another edge passed on (E05).

        Nothing in it says whether it is to a 2xx. The edge that waits for it asks for it by repeating the failure.
        """
        if not arrival.caller.edge:
            self._seek("", arrival)

    def _seek(self, id_: str, arrival: Arrival) -> None:
        """At all other edges, within the rate of who sent it."""
        if not self._proxy.reach.neighbours:
            return
        answers, request, source = self._answers, arrival.request, arrival.flow.remote_host
        if answers.settings.is_peer(source) or self._rates[request.method].passes(source, arrival.now):
            answers.actions.seeks.append(Seek(id_, arrival.flow, request.encode()))
        else:
            answers.drop("not-sought")

    def _cancelled(self, invite: Server, arrival: Arrival) -> None:
        """200 to the CANCEL, with the To tag of its INVITE's answer (section 9.2); then what rings is cancelled."""
        context, request = invite.user, arrival.request
        if isinstance(context, Context):
            self._answer(arrival.of(_tagged(request, self._proxy.to_tag(context))), 200)
            self._told(context)
            if context.telling is not None:
                context.telling.cancelled(request)
            self._proxy.cancel(context, arrival.now, [row for row in request.rows if row.name == "reason"])
        else:
            self._answer(arrival, 200)

    def _answer(self, arrival: Arrival, status: int) -> None:
        self._answers.stateless(Arrival(arrival.request, arrival.caller, arrival.now, TRUSTED), status)

    # --- at other edges -------------------------------------------------------------------------------------------

    def claims(self, arrival: Arrival) -> bool:
        """A CANCEL or ACK that fell on another edge: whether its INVITE is ours, and then it is done with."""
        request, now = arrival.request, arrival.now
        known, server = self._layer.find(request, now)
        if request.method == "CANCEL":
            if known is RequestMatch.INVITE and server is not None:
                self._cancelled(server, arrival)
            else:
                self._cancel_tracked(request, now)
        return known is not RequestMatch.NEW

    def found_elsewhere(self, id_: str) -> None:
        """Another edge has taken what was sought."""
        self._held.take(id_)

    def track(self, data: bytes, flow: Flow, edge: tuple[str, str], id_: str, now: float) -> None:
        """We send an INVITE to a phone of ours for another edge: if that dies, we alone can cancel it.

        And if the connection that it went by closes, we alone know.
        """
        self._tracked.append((now, edge, flow, data, id_))
        self._tracked_bytes += len(data)
        if flow.connection and id_:
            self._by_connection.setdefault(flow, {})[id_] = None
        while self._tracked and (
            self._tracked[0][0] + TRACKED_SECONDS < now
            or len(self._tracked) > TRACKED
            or self._tracked_bytes > TRACKED_BYTES
        ):
            _, _, old, octets, old_id = self._tracked.popleft()
            self._tracked_bytes -= len(octets)
            if old_id and (ids := self._by_connection.get(old)) is not None:
                ids.pop(old_id, None)
                if not ids:
                    del self._by_connection[old]

    def closed(self, flow: Flow) -> Iterable[str]:
        """A connection of ours is closed: the ids of what other edges have sent by it."""
        return self._by_connection.pop(flow, ())

    def _cancel_tracked(self, request: Request, now: float) -> None:
        """Cancels what we sent for an edge that died, if it is this CANCEL's call (Y38)."""
        if not self._has_dead(now):
            return
        call_id, number, tag = request.call_id, request.cseq.number, request.from_.tag
        for _, edge, flow, data, _ in self._tracked:
            if edge not in self._dead or call_id.encode("utf-8", "surrogateescape") not in data:
                continue
            try:
                invite = parse_datagram(data)
            except ParseError:
                continue  # not even ours to cancel
            same = (invite.call_id, invite.cseq.number, invite.from_.tag) == (call_id, number, tag)
            if isinstance(invite, Request) and same:
                port = 0 if flow.reliable else flow.remote_port
                self._answers.drop("orphaned-branch-cancelled")
                self._answers.actions.sends.append(Send(flow, hop_by_hop.cancel(invite).encode(), port))

    # --- nowhere --------------------------------------------------------------------------------------------------

    def edge_died(self, edge: tuple[str, str], now: float) -> None:
        """An edge is gone with all its transactions."""
        self._dead.pop(edge, None)  # the order is that of death
        self._dead[edge] = now
        if len(self._dead) > DEAD_EDGES:
            del self._dead[next(iter(self._dead))]

    def _has_dead(self, now: float) -> bool:
        """Whether an edge has died whose calls may still ring."""
        while self._dead and next(iter(self._dead.values())) + TRACKED_SECONDS <= now:
            del self._dead[next(iter(self._dead))]
        return bool(self._dead)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return self._held.next_timer()

    def on_time(self, now: float) -> None:
        """Answers the CANCELs whose INVITE has not come."""
        for arrival in self._held.overdue(now):
            self._unfound(Arrival(arrival.request, arrival.caller, now, arrival.size))

    def _unfound(self, arrival: Arrival) -> None:
        """Nobody knows the INVITE of this CANCEL (X14, Y38)."""
        request, now = arrival.request, arrival.now
        known, server = self._layer.find(request, now)
        if known is RequestMatch.INVITE and server is not None:  # it came after its CANCEL
            self._cancelled(server, arrival)
            return
        if not self._has_dead(now):
            self._answer(arrival, 481)
            return
        # An edge has died, perhaps with this INVITE: the caller hears that its call has ended.
        self._answers.drop("orphaned-cancel")
        self._cancel_tracked(request, now)
        self._answer(arrival, 200)
        number = f"{request.cseq.number} INVITE"
        rows = [Row(row.name, row.original, number) if row.name == "cseq" else row for row in request.rows]
        self._answer(arrival.of(Request("INVITE", request.uri, rows)), 487)


def _tagged(request: Request, tag: str) -> Request:
    """The request as it would be answered with this To tag; one that has a tag keeps it."""
    if has_to_tag(request):
        return request
    rows = [Row(row.name, row.original, f"{row.value};tag={tag}") if row.name == "to" else row for row in request.rows]
    return Request(request.method, request.uri, rows)
