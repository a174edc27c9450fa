"""Which flows are phones': pinged on UDP, told to the log when a connection ends (CHECKLIST N02, N11, W08). PURE.

A phone that moves (another port of its NAT, another transport) leaves the flow behind that it came by before: each
answer has all bindings of its line, and a flow that none of them names any more is not pinged for it.
"""

from edge.core.actions import Publish, Send
from edge.core.answers import Answers
from edge.core.flow import Flow
from edge.core.reach import Reach
from edge.core.registration.keepalive import Keepalives, ping
from edge.core.tokens.branch import Branches
from edge.core.tokens.path import FlowTokens
from events.commands import FlowLost
from events.replies import Registered
from events.wire import encode
from sipcore.address import parse_address
from sipcore.errors import ParseError

REGISTERED = 100_000
"""Connections remembered as a phone's flow, so that their end can be told."""
PER_FLOW = 16
"""AORs remembered of one connection."""
PING = "ping"
"""What the branches of pings have for a loop digest."""
LOST = "lost-"
"""How the ids of commands begin that nobody waits for."""


class Flows:
    """The flows by which phones have registered at one edge."""

    def __init__(self, answers: Answers, tokens: FlowTokens, branches: Branches, reach: Reach) -> None:
        self._answers = answers
        self._tokens = tokens
        self._branches = branches
        self._reach = reach
        self._connections: dict[Flow, dict[str, str]] = {}
        """The AORs that registered by each, with who did."""
        self._keepalives = Keepalives(answers.settings.keepalive_seconds)

    def registered(self, flow: Flow, aor: str, user: str, path: str, reply: Registered, now: float) -> None:
        """Somebody has registered by a flow, or ended what he had there."""
        answers = self._answers
        until = max([b.expires for b in reply.bindings if b.path and b.path[0] == path], default=0)
        left = (until - answers.clock.at(now)) / 1000
        self._leave(flow, aor, reply)
        if not flow.reliable:
            if left <= 0:
                self._keepalives.ended(flow, aor)
            elif not self._keepalives.registered(flow, aor, now + left, now) and answers.settings.keepalive_seconds:
                answers.drop("too-many-keepalives")
        elif left <= 0:
            self._connections.get(flow, {}).pop(aor, None)
        elif flow in self._connections or len(self._connections) < REGISTERED:
            aors = self._connections.setdefault(flow, {})
            if len(aors) < PER_FLOW:
                aors[aor] = user

    def _leave(self, flow: Flow, aor: str, reply: Registered) -> None:
        """Ends pings by the flows, but for this one, that no binding of a line names any more."""
        others = [other for other in self._keepalives.flows(aor) if other != flow]
        if others:
            named = {binding.path[0] for binding in reply.bindings if binding.path}
            for other in others:
                if self._tokens.names(other).path not in named:
                    self._keepalives.ended(other, aor)

    def answered(self, flow: Flow) -> None:
        """A phone has answered a ping."""
        self._keepalives.answered(flow)

    def is_silent(self, flow: Flow) -> bool:
        """Whether a phone that answered pings by this flow answers no more: then its next flow is called (RFC 5626)."""
        return self._keepalives.is_silent(flow)

    def closed(self, flow: Flow, now: float) -> None:
        """A connection is closed: if a phone had registered by it, the log is told."""
        answers = self._answers
        for aor, user in self._connections.pop(flow, {}).items():
            answers.drop("flow-lost")
            id_ = f"{LOST}{answers.command_id()}"
            lost = FlowLost(id_, answers.reply_to(now), user, aor, self._tokens.names(flow).path)
            answers.actions.publishes.append(Publish(id_, user, encode(lost), "ramal.FlowLost", patient=True))

    def kicked(self, path: str, aor: str) -> None:
        """An AOR has no binding by a flow any more: an operator's doing, or on UDP a phone's that has moved away.

        A connection is closed, a flow on UDP is not pinged for that line.

        With the connection go its other lines: a phone hears of a kick by that alone, and registers all of them again.
        Not a listed peer's: the connection of a proxy before us is that of all phones behind it.
        """
        answers = self._answers
        try:
            hop = self._tokens.verify(parse_address(path).parsed_uri.user or "")
        except ParseError:
            hop = None
        if hop is None or hop.edge != answers.edge or hop.boot not in ("", answers.boot):
            answers.drop("closing-of-no-flow")
            return
        if not hop.flow.reliable:
            answers.drop("flow-left")
            self._keepalives.ended(hop.flow, aor)
        elif answers.settings.is_peer(hop.flow.remote_host):
            answers.drop("closing-of-a-peer")
        else:
            answers.drop("flow-kicked")
            answers.actions.closes.append(hop.flow)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return self._keepalives.next_timer()

    def on_time(self, now: float) -> None:
        """Pings those whose turn it is."""
        for flow in self._keepalives.due(now):
            data = ping(flow, self._branches.make(PING), self._reach.sent_by(flow))
            self._answers.actions.sends.append(Send(flow, data, flow.remote_port))
