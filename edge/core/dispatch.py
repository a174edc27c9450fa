"""The edge without its sockets: messages and the time in; responses, commands and named drops out. PURE.

    REGISTER --> `edge.core.registration.register`
    response --> the transaction that its branch names, here or at another edge --> `edge.core.proxy.forwarding`
    all else --> `edge.core.proxy.requests`

What is sent, published, asked and dropped gathers in `Actions`, which the shell takes after each wake-up.
Times are local monotonic seconds; `LogClock` makes the log's time of them. Nothing raises, whatever came in.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from edge.core.actions import Actions, Forward, Location, NextHop, Send
from edge.core.addresses import parsed
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.clock import LogClock
from edge.core.drain import Draining
from edge.core.flow import Flow, Hop, Way
from edge.core.gateways.probes import Probes
from edge.core.gateways.routes import Gateways, GatewaysConfig
from edge.core.pending import earliest
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.outgoing import Outgoing
from edge.core.proxy.requests import Calls
from edge.core.reach import Reach
from edge.core.registration import stun
from edge.core.registration.flows import LOST, PING, Flows
from edge.core.registration.register import Registers
from edge.core.settings import CoreSettings
from edge.core.tokens.branch import Branches
from edge.core.tokens.path import FlowTokens
from edge.core.tokens.record_route import DialogTokens
from edge.core.us import Us
from events.replies import Authenticated, CloseFlow, Found, Refused, Registered, Reply
from sipcore import proxy
from sipcore.address import Via
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import Keepalive, parse_datagram
from sipcore.transactions import ResponseMatch, Transactions

BRANCH = re.compile(rb";branch=([^;\s]+)")
TOP = 2048
"""Octets in which the top Via of a request of ours ends."""
ANSWERED = re.compile(
    rb"SIP/2\.0 [1-6][0-9]{2} [^\r\n]*+\r\n[Vv](?:ia)? ?: ?SIP/2\.0/[A-Z]++ [^\r\n,\"]*?;branch=([^\s;,]++)[;\r]"
)
"""A response whose first row is a Via like ours, its parameters in any order."""


class EdgeCore:
    """All SIP of one edge."""

    def __init__(
        self,
        settings: CoreSettings,
        keys: Mapping[str, bytes],
        edge: str,
        boot: str,
        tokens: FlowTokens,
        clock: LogClock,
        entropy: Callable[[int], bytes],
        gateways: Gateways | None = None,
    ) -> None:
        """`keys` sign nonces, tags, branches and tokens, the first; `entropy(n)` gives n random bytes."""
        self._edge, self._boot = edge, boot
        self._answers = answers = Answers(settings, keys, edge, boot, clock, entropy)
        self._branches = branches = Branches(keys, edge, boot)
        self._layer = layer = Transactions()
        self.reach = Reach(settings, edge, boot)
        gateways = gateways or Gateways(GatewaysConfig())
        dialogs = DialogTokens(keys)
        self._flows = flows = Flows(answers, tokens, branches, self.reach)
        outgoing = Outgoing(answers, dialogs, self.reach)
        self.proxy = Proxy(answers, branches, outgoing, self.reach, layer, flows.is_silent)
        self.probes = Probes(answers, branches, layer, self.reach, gateways)
        self.drain = Draining(answers, self.reach)
        self.calls = Calls(answers, branches, dialogs, tokens, layer, self.proxy, gateways, self.drain.hands_over)
        self.registers = Registers(answers, tokens, self._flows, self.calls.destinations.elsewhere.refusal)
        self.serving = False
        """Whether REGISTERs can be answered: the log's time is known and replies are read. Else they get 503."""
        self.log_away = False
        """Whether the log did not take the last record: calls are then believed by their binding."""

    @property
    def us(self) -> Us:
        """Who we are, which the shell tells: where it hears, and where other edges do."""
        return self._answers.us

    # --- what the shell calls -------------------------------------------------------------------------------------

    def take(self) -> Actions:
        """What has gathered since the last time."""
        answers = self._answers
        for way, data, branch in self.registers.take_sends() + self._layer.take_sends():
            if not isinstance(way, Way):
                continue  # all ours are
            hop = way.hop
            if hop.edge and not branch:
                hop = self.reach.upward(hop)
            edge, boot = ("", "") if hop.edge in ("", self._edge) else (hop.edge, hop.boot)
            answers.actions.sends.append(Send(hop.flow, data, way.port, edge, boot, branch, way.name))
        taken, answers.actions = answers.actions, Actions()
        return taken

    @property
    def busy(self) -> int:
        """How many requests wait for their final response, by us or by a flow of ours."""
        return self._layer.pending + len(self.registers.pending) + len(self.drain)

    def datagram(self, data: bytes, flow: Flow, now: float) -> None:
        """A UDP datagram."""
        if stun.is_stun(data):
            self._stun(data, flow)
        elif not (self.reach.neighbours and self._is_anothers(data, flow)):
            self._whole(data, Hop(flow), now, handed=False)

    def _is_anothers(self, data: bytes, flow: Flow) -> bool:
        """Whether it is a response to another edge's request: that edge gets it as it came, and reads it."""
        top = ANSWERED.match(data, 0, TOP)
        ours = None if top is None else self._branches.anothers(top[1].decode("ascii", "replace"))
        if ours is None or ours.loop == PING or (ours.edge, ours.boot) not in self.reach.neighbours:
            return False
        self._answers.actions.forwards.append(Forward(ours.edge, ours.boot, flow, data))
        return True

    def _whole(self, data: bytes, caller: Hop, now: float, *, handed: bool) -> None:
        try:
            message = parse_datagram(data)
        except ParseError as error:
            self._unreadable(error, caller, now, len(data), handed=handed)
            return
        self._message(message, caller, now, len(data), handed=handed)

    def stream(self, items: Iterable[Request | Response | ParseError | Keepalive], flow: Flow, now: float) -> None:
        """What a stream's parser made of the octets that came."""
        for item in items:
            if isinstance(item, Request | Response):
                self._message(item, Hop(flow), now, 0, handed=False)
            elif isinstance(item, ParseError):
                self._unreadable(item, Hop(flow), now, 0, handed=False)
            else:
                self._answers.actions.sends.append(Send(flow, b"\r\n", 0))

    def forward(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> None:
        """A message that came by another edge's flow and is ours: a response to our branch, a copy of our request."""
        self._whole(data, Hop(flow, edge, boot), now, handed=True)

    def claims(self, data: bytes, edge: str, boot: str, flow: Flow, now: float) -> bool:
        """A CANCEL or ACK that came by another edge's flow: whether its INVITE is ours."""
        message = self._parsed(data)
        if not isinstance(message, Request):
            return False
        return self.calls.cancels.claims(Arrival(message, Hop(flow, edge, boot), now, len(data)))

    def found_elsewhere(self, id_: str) -> None:
        """Another edge has taken what was sought."""
        self.calls.cancels.found_elsewhere(id_)

    def track_invite(self, data: bytes, flow: Flow, now: float, id_: str = "") -> bool:
        """An INVITE that another edge sends by a flow of ours; its branch tells whose it is.

        It is told by `id_` if the flow is a connection that closes later. Returns whether the phone at the flow is
        silent, which is told at once.
        """
        branch = BRANCH.search(data, 0, TOP)
        ours = None if branch is None else self._branches.verify(branch[1].decode("ascii", "replace"))
        if ours is not None:
            self.calls.cancels.track(data, flow, (ours.edge, ours.boot), id_, now)
        return self._flows.is_silent(flow)

    def media_reply(self, number: int, reply: dict[str, object] | None, now: float) -> None:
        """rtpengine's answer to a `Media`; None: there was none."""
        self.proxy.relaying.media_reply(number, reply, now)

    def _parsed(self, data: bytes) -> Request | Response | None:
        try:
            return parse_datagram(data)
        except ParseError as error:
            self._answers.drop(f"handed-{error.name}")
            return None

    def replied(self, replies: Iterable[Reply], now: float) -> None:
        """Answers to commands of this boot, in any order; each may come twice or too late."""
        for reply in replies:
            if isinstance(reply, CloseFlow):
                self._flows.kicked(reply.path, reply.aor)
                continue
            registration = self.registers.pending.take(reply.id)
            if registration is not None and isinstance(reply, Registered | Refused):
                self.registers.replied(registration, reply, now)
            elif isinstance(reply, Authenticated | Found | Refused):
                self.calls.replied(reply, now)
            else:
                self._answers.drop("late-reply")

    def awaits(self, id_: str) -> bool:
        """Whether the answer to a command is still of use."""
        return id_ in self.registers.pending or id_ in self.calls.asked or id_.startswith(LOST)

    def unpublished(self, ids: Iterable[str], now: float) -> None:
        """The log did not take these commands."""
        ids = list(ids)
        self.registers.unpublished(ids, now)
        self.calls.unpublished(ids, now)

    def unsent(self, failures: Iterable[tuple[str, int]], now: float) -> None:
        """What was sent with these ids (branches) did not leave: 430, its connection is gone; 503, anything else.

        408: it left, by another edge's flow whose phone is silent.
        """
        for id_, status in failures:
            if self.calls.failures.only_lost(id_, status, now):
                continue
            client = self._layer.failed(id_, now)
            if client is None:
                self.calls.acks.unsent(id_, now)
            else:
                self._answers.drop(f"unsent-{status}")
                if not self.probes.lost(client.user, now):
                    self.calls.failures.unsent(client, status, now)

    def located(self, number: int, found: Location, now: float) -> None:
        """The answer to a `LookUp`."""
        self.calls.destinations.located(number, found, now)

    def resolved(self, number: int, hops: list[NextHop], now: float) -> None:
        """The answer to a `Resolve`."""
        if not self.probes.resolved(number, hops, now):
            self.calls.destinations.resolved(number, hops, now)

    def closed(self, flow: Flow, now: float) -> None:
        """A connection is closed: if a phone had registered by it, the log is told (CHECKLIST N11, W08)."""
        answers = self._answers
        self.calls.failures.closed(flow, now)
        answers.actions.gone += self.calls.cancels.closed(flow)
        self._flows.closed(flow, now)

    def edges(self, live: Iterable[tuple[str, str]], now: float) -> None:
        """Which other edges live, each with its life."""
        self.calls.edges(frozenset(live), now)

    def edge_lost(self, edge: str, boot: str, now: float) -> None:
        """The connection to another edge is gone: it is taken for dead."""
        self.calls.edges(self.reach.neighbours - {(edge, boot)}, now)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use; None while nothing waits."""
        return earliest(
            self.registers.next_timer(),
            self._layer.next_timer(),
            self.calls.next_timer(),
            self.probes.next_timer(),
            self._flows.next_timer(),
        )

    def on_time(self, now: float) -> None:
        """Does what is due."""
        self.registers.on_time(now)
        for client in self._layer.on_time(now):
            if not self.probes.lost(client.user, now):
                self.calls.failures.timed_out(client, now)
        self.calls.on_time(now)
        self.probes.on_time(now)
        self._flows.on_time(now)

    # --- messages -------------------------------------------------------------------------------------------------

    def _message(self, message: Request | Response, caller: Hop, now: float, size: int, *, handed: bool) -> None:
        if isinstance(message, Response):
            self._response(message, caller, now, handed=handed)
            return
        arrival = Arrival(message, caller, now, size)
        try:
            if message.method == "REGISTER":
                self.registers.request(arrival, serving=self.serving)
            else:
                self.calls.request(arrival, serving=self.serving and not self.log_away)
        except ParseError as error:
            error.message = message
            self._answers.unreadable(error, caller, now, size)

    def _unreadable(self, error: ParseError, caller: Hop, now: float, size: int, *, handed: bool) -> None:
        """What breaks the protocol: a request is answered, a response ends what it was for."""
        if isinstance(error.message, Response):
            self._answers.drop(error.name)
            self._response(proxy.unfit(error.message), caller, now, handed=handed)
        else:
            self._answers.unreadable(error, caller, now, size)

    def _response(self, response: Response, caller: Hop, now: float, *, handed: bool) -> None:
        """To the transaction that the branch names, wherever it is (CHECKLIST T08, E05, E11, X10)."""
        answers = self._answers
        try:
            via = response.via
        except ParseError:
            answers.drop("response-without-via")
            return
        heard, client = self._layer.response(via.branch, response, now)
        if client is None:
            self._unmatched(response, via, caller, handed=handed)
        elif heard is ResponseMatch.PASS and not self.probes.heard(client.user, response, now):
            self.proxy.response(client, response, now)

    def _unmatched(self, response: Response, via: Via, caller: Hop, *, handed: bool) -> None:
        """A response of no transaction here. (What has one needs no other proof: nobody can guess a branch of ours.)"""
        answers = self._answers
        ours = self._branches.verify(via.branch)
        if ours is None:
            foreign = not answers.us.has(via.host, caller.flow, via.port)
            answers.drop("foreign-response" if foreign else "unexpected-response")
        elif ours.loop == PING:
            self._flows.answered(caller.flow)
        elif (ours.edge, ours.boot) == (self._edge, self._boot):
            answers.drop("unmatched-response")
        elif not handed and (ours.edge, ours.boot) in self.reach.neighbours:
            answers.actions.forwards.append(Forward(ours.edge, ours.boot, caller.flow, response.encode()))
        elif response.status // 100 == 2 and proxy.is_of(response, "INVITE"):
            self._orphan(response)
        else:
            answers.drop("response-of-a-dead-edge")

    def _orphan(self, response: Response) -> None:
        """A 2xx whose edge is dead goes on by the next Via: the call stands (DESIGN, "A dead edge's set-ups")."""
        upward = proxy.without_top_via(response)
        try:
            via = None if upward is None else upward.via
        except ParseError:
            via = None
        if upward is None or via is None:
            self._answers.drop("response-without-via")
            return
        host, port = via.received or via.host.strip("[]"), via.rport or via.port or 5060
        if parsed(host) is None or self._answers.settings.refuses(host):
            self._answers.drop("orphaned-2xx-denied")
            return
        hop = self.reach.outward(via.transport.lower(), host, port)
        self._answers.drop("orphaned-2xx")
        self._answers.send(response.status, hop, port, upward.encode())

    def _stun(self, data: bytes, flow: Flow) -> None:
        answer = stun.binding_response(data, flow.remote_host, flow.remote_port)
        if answer is None:
            self._answers.drop("stun-ignored")
        else:
            self._answers.actions.sends.append(Send(flow, answer, flow.remote_port))
