"""How attempts end without a response: by time, by what cannot be sent, by connections and edges that go. PURE.

Timer C (RFC 3261 section 16.8), transport errors (section 16.9), and what neither knows of: a connection that closes
while a call rings by it. A callee's may come back, as a page does that is loaded anew, so it has some seconds; a caller
who cannot be reached any more has given up (section 16.10).
"""

from edge.core.actions import Send
from edge.core.answers import Answers
from edge.core.flow import Flow, Way
from edge.core.proxy.context import Attempt, Context
from edge.core.proxy.forwarding import Proxy
from sipcore.transactions import Client, Transactions

LOOK_AGAIN = 1.0
"""Seconds between two looks at ringing calls: Timer C, lost connections, late forks."""
GONE_SECONDS = 8.0
"""How long a phone may take to come back whose connection closed while it rang."""
GONE = 430
"""RFC 5626 section 11.5: the connection is gone."""
SILENT = 408
"""The phone at a flow answers pings no more."""
CLOSED_SECONDS = 10.0
"""For how long it is known that a connection has closed: a call by it may begin to ring only now."""
CLOSED = 50_000
"""Closed connections that are remembered; the oldest go first."""
CALLER = "caller-"
"""How the ids begin of what is sent to find out whether a caller can still be reached."""


class Failures:
    """What fails of one edge's requests."""

    def __init__(self, answers: Answers, layer: Transactions, proxy: Proxy) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._edge = answers.edge
        self._layer = layer
        self._proxy = proxy
        self._looked = 0.0
        self._closed: dict[Flow, float] = {}
        """Connections of ours that have closed lately, and when; the oldest first."""
        self._asked: dict[str, Context] = {}
        """Callers that are sent something to see whether they are still there."""
        self._number = 0

    # --- time -----------------------------------------------------------------------------------------------------

    def next_look(self) -> float | None:
        """When `on_time` is next of use; None while nothing rings."""
        return self._looked + LOOK_AGAIN if self._proxy.ringing else None

    def on_time(self, now: float) -> None:
        """Looks at what rings."""
        ringing = self._proxy.ringing
        self._looked = now
        self._asked = {id_: context for id_, context in self._asked.items() if context in ringing}
        self._forget_closed(now)
        if self._closed:
            self._look_for_closed(now)
        late = [a for context in ringing for a in context.live.values() if a.gives_up and a.gives_up <= now]
        for attempt in late:
            self._late(attempt, now)
        for context in [c for c in ringing if c.cancelled and not c.final and c.answer_by <= now]:
            self._proxy.decide(context, now)

    def _late(self, attempt: Attempt, now: float) -> None:
        attempt.gives_up = 0.0
        if attempt.provisional and attempt.client is not None and not attempt.gone:
            self._answers.drop("timer-c")
            self._layer.cancel(attempt.client, now, ())
            return
        if attempt.client is not None:
            self._layer.forget_client(attempt.client)
        if attempt.gone:
            self._answers.drop("flow-gone")
        self._proxy.gone(attempt, GONE if attempt.gone or not attempt.hop.edge else 408, now)

    # --- transactions ---------------------------------------------------------------------------------------------

    def timed_out(self, client: Client, now: float) -> None:
        """No final response came: as if it had been 408 (section 16.7; Timer B or F)."""
        if isinstance(client.user, Attempt):
            self._proxy.gone(client.user, 408, now)

    def unsent(self, client: Client, status: int, now: float) -> None:
        """The request could not be sent: as if this had been answered, 503 or 430 (section 16.9)."""
        attempt = client.user
        if isinstance(attempt, Attempt) and not self._alone(attempt, now):
            self._proxy.gone(attempt, status, now)

    # --- connections ----------------------------------------------------------------------------------------------

    def closed(self, flow: Flow, now: float) -> None:
        """A connection of ours is closed."""
        self._closed[flow] = now
        self._forget_closed(now)

    def _forget_closed(self, now: float) -> None:
        closed = self._closed
        while closed and (len(closed) > CLOSED or next(iter(closed.values())) + CLOSED_SECONDS < now):
            del closed[next(iter(closed))]

    def _look_for_closed(self, now: float) -> None:
        """Whose connections have closed, of all that rings."""
        for context in tuple(self._proxy.ringing):
            caller = context.caller
            if not context.caller_gone and caller.flow in self._closed and caller.edge in ("", self._edge):
                context.caller_gone = True
                self._ask(context)
            for attempt in tuple(context.live.values()):
                if attempt.hop.flow in self._closed and attempt.hop.edge in ("", self._edge):
                    self._lost(attempt, now)

    def _lost(self, attempt: Attempt, now: float) -> None:
        if not attempt.gone and not self._proxy.leave_flow(attempt, now):
            attempt.gone = True
            attempt.gives_up = now + GONE_SECONDS

    def _ask(self, context: Context) -> None:
        """Sends what the caller had last once more, by a new connection if there may be one (section 18.2.2).

        Servers close connections that they do not need; they are reached all the same.
        """
        origin = context.server.origin
        if not isinstance(origin, Way) or self._settings.is_peer(context.caller.flow.remote_host):
            return
        self._number += 1
        id_ = f"{CALLER}{self._number}"
        self._asked[id_] = context
        hop = origin.hop
        edge, boot = ("", "") if hop.edge in ("", self._edge) else (hop.edge, hop.boot)
        self._answers.actions.sends.append(Send(hop.flow, context.server.sent, origin.port, edge, boot, id_))

    def only_lost(self, id_: str, status: int, now: float) -> bool:
        """Whether what could not be sent is no failed request: a caller who is gone, a phone that may come back."""
        context = self._asked.pop(id_, None)
        if context is not None:
            if context in self._proxy.ringing:
                self._answers.drop("caller-gone")
                self._proxy.cancel(context, now)
            return True
        client = self._layer.client(id_)
        if status == SILENT:
            self._silent(client, now)
            return True
        attempt = None if client is None or client.cancelled or status != GONE else client.user
        if not isinstance(attempt, Attempt) or not attempt.provisional or not attempt.context.is_invite:
            return False
        self._lost(attempt, now)
        return True

    def _silent(self, client: Client | None, now: float) -> None:
        """Another edge says that the phone at its flow answers no more: its next flow is called, if it has one."""
        attempt = None if client is None or client.cancelled else client.user
        # What is on its way by a flow of our own by now is not meant.
        if isinstance(attempt, Attempt) and not attempt.provisional and attempt.hop.edge not in ("", self._edge):
            self._proxy.leave_flow(attempt, now)

    # --- edges ----------------------------------------------------------------------------------------------------

    def edge_lost(self, edge: str, now: float) -> None:
        """Another edge is gone: its phones on UDP are reached without it; what its connections had not taken fails.

        What rings at one of those may still be answered: silence is no proof of death (CHECKLIST N12).
        """
        for client in self._layer.open_clients():
            attempt = client.user
            if not isinstance(attempt, Attempt) or attempt.hop.edge != edge:
                continue
            if attempt.provisional and not attempt.hop.flow.reliable:
                client.destination = self._by_us(attempt)  # its CANCEL, if there is to be one
            elif not attempt.provisional and not self._alone(attempt, now):
                self._layer.forget_client(client)
                self._proxy.gone(attempt, GONE, now)

    def edge_began(self, edge: str, boot: str, now: float) -> None:
        """Another life of an edge is there: the connections of the one before are closed."""
        for context in self._proxy.ringing:
            for attempt in context.live.values():
                if attempt.hop.edge == edge and attempt.hop.boot not in ("", boot):
                    self._lost(attempt, now)

    def _by_us(self, attempt: Attempt) -> Way:
        """The way to a phone on UDP from our own address."""
        flow = attempt.target.ways[attempt.index].hop.flow
        caller = attempt.context.caller.flow
        hop = self._proxy.reach.outward("udp", flow.remote_host, flow.remote_port, caller)
        return Way(hop, flow.remote_port)

    def _alone(self, attempt: Attempt, now: float) -> bool:
        """Tries a phone on UDP once more whose owner has died; False if that is of no use."""
        hop = attempt.target.ways[attempt.index].hop
        owned = hop.edge not in ("", self._edge) and not hop.flow.reliable
        neighbours = self._proxy.reach.neighbours
        if not owned or attempt.context.no_more or any(edge == hop.edge for edge, _ in neighbours):
            return False
        return attempt.hop is hop and self._proxy.again(attempt, now)
