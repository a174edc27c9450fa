"""Requests other than REGISTER, each to what knows what is to be done with it (RFC 3261 sections 16.3, 16.4). PURE.

    retransmission, ACK of a failure, CANCEL --> the transaction that it belongs to (`edge.core.proxy.cancel`)
    a Route token of ours that fits --> the other end of the dialog: no challenge, no look-up
    a Path of ours in a Route, from a listed peer --> the flow that it names
    all else --> who may (`admission`), then where to (`targets`), then `forwarding`

A request that nothing else answers is answered here: none stays without a final response (CHECKLIST Y34).
"""

from collections.abc import Callable, Iterable

from edge.core.answers import ALLOW, CAPABILITIES, Answers, exhausted, refusing, unsupported
from edge.core.arrival import Arrival
from edge.core.call_events.telling import Telling
from edge.core.flow import Hop, Way
from edge.core.gateways.routes import Gateways
from edge.core.pending import Pending, earliest
from edge.core.proxy.acks import Acks
from edge.core.proxy.admission import Admission
from edge.core.proxy.cancel import Cancels
from edge.core.proxy.context import Context, opened, shed
from edge.core.proxy.failures import Failures
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.identity import rows_that_go_on
from edge.core.proxy.remote import Remote
from edge.core.proxy.route import RouteInformation, Routes
from edge.core.proxy.target_set import Target, port_of
from edge.core.proxy.targets import Destinations
from edge.core.proxy.waiting import Call
from edge.core.proxy.within import Within
from edge.core.tokens.branch import Branches
from edge.core.tokens.path import FlowTokens
from edge.core.tokens.record_route import DialogTokens
from events.replies import Authenticated, Found, Refused
from sipcore import proxy, session_timer
from sipcore.message import Header, Request
from sipcore.transactions import RequestMatch, Transactions
from sipcore.uri import Uri, parse_uri

GRACE = 0.5
"""Seconds after the deadline of a reply in which the log may still say that it did not take the command."""
NOT_SERVED = frozenset({"SUBSCRIBE", "PUBLISH"})
"""Event packages at a user's AOR are the server's to serve, and we serve none (CHECKLIST Y37)."""
ABSORBED = (RequestMatch.RETRANSMISSION, RequestMatch.ACKED)
ALLOW_EVENTS: Header = ("Allow-Events", "refer")
"""The one package whose NOTIFYs pass here: within the dialog of a REFER."""


class Calls:
    """All requests of one edge but REGISTER."""

    def __init__(
        self,
        answers: Answers,
        branches: Branches,
        dialogs: DialogTokens,
        tokens: FlowTokens,
        layer: Transactions,
        proxy_: Proxy,
        gateways: Gateways,
        hands_over: Callable[[Arrival], bool],
    ) -> None:
        """`hands_over`: whether a new request is another edge's, which has been given it (`edge.core.drain`)."""
        self._answers = answers
        self._settings = answers.settings
        self._branches = branches
        self._routes = Routes(answers, dialogs, tokens)
        self._layer = layer
        self._proxy = proxy_
        self._hands_over = hands_over
        self.asked = Pending[str, Call](answers.settings.reply_seconds + GRACE)
        """By the id of the command whose reply each waits for."""
        self.destinations = Destinations(answers, tokens, proxy_, self.asked, gateways)
        self.failures = Failures(answers, layer, proxy_)
        self.cancels = Cancels(answers, layer, proxy_, self._forget)
        remote = Remote(answers, dialogs, tokens, self.destinations)
        self.within = Within(answers, layer, proxy_, remote)
        self.acks = Acks(answers, branches, proxy_, remote)
        self._admission = Admission(answers, layer, proxy_, self.asked, self.destinations)

    @property
    def transactions(self) -> int:
        """How many there are, those that only absorb repetitions included."""
        return len(self._layer)

    # --- in -------------------------------------------------------------------------------------------------------

    def request(self, arrival: Arrival, *, serving: bool) -> None:
        """A request that is not REGISTER; ParseError where it breaks the protocol."""
        request = arrival.request
        known, server = self._layer.find(request, arrival.now)
        if known in ABSORBED:
            self._answers.drop("ack" if request.method == "ACK" else "retransmission")
        elif request.method == "CANCEL":
            self.cancels.cancel(arrival, known, server)
        elif request.method == "ACK":
            self._ack(arrival)
        elif not self._hands_over(arrival):
            self._new(arrival, serving=serving)

    def _new(self, arrival: Arrival, *, serving: bool) -> None:
        """Validation (section 16.3), and what needs no target."""
        answers, request, flow = self._answers, arrival.request, arrival.flow
        routed = self._routes.taken_off(arrival)
        target = parse_uri(routed.uri)
        to_us = target.user is None and answers.us.named_by(target, flow) and not routed.routes
        if exhausted(request) and not (to_us and request.method == "OPTIONS"):
            answers.stateless(arrival, 483)
        elif not to_us and proxy.max_breadth(request) == 0:
            answers.stateless(arrival, 440)  # RFC 5393 section 5.3.3
        elif missing := proxy.unsupported(request, "proxy-require", ()):
            answers.stateless(arrival, 420, headers=refusing(missing))
        elif not to_us and session_timer.is_too_short(request, self._settings.min_se):
            answers.stateless(arrival, 422, headers=[("Min-SE", str(self._settings.min_se))])  # RFC 4028 section 8.1
        elif self._loops(request):
            answers.stateless(arrival, 482)
        elif routed.dialog is not None:
            self.within.request(arrival, routed, routed.dialog)
        elif routed.named is not None and self._settings.is_peer(flow.remote_host):
            self._by_path(arrival, routed, routed.named)
        elif not target.is_sip and target.scheme != "tel":
            answers.stateless(arrival, 416)
        elif to_us:
            self._to_us(arrival)
        else:
            self._outside(arrival, routed, target, serving=serving)

    def _outside(self, arrival: Arrival, routed: RouteInformation, target: Uri, *, serving: bool) -> None:
        """Outside a dialog, or within one that nobody can prove (CHECKLIST Y35)."""
        answers, request = self._answers, arrival.request
        peer = self._settings.is_peer(arrival.flow.remote_host)
        served = answers.served(target.host, arrival.flow, target.port) if target.is_sip else None
        if (routed.foreign_token or routed.named) and not proxy.has_to_tag(request):
            answers.stateless(arrival, 403, "Route Not Allowed")  # N05
        elif routed.routes and not peer and not proxy.has_to_tag(request):
            answers.stateless(arrival, 403, "Route Not Allowed")  # Y07
        elif request.method in NOT_SERVED and served:
            answers.stateless(arrival, 489, headers=[ALLOW_EVENTS])
        elif request.method == "NOTIFY" and not peer:
            answers.stateless(arrival, 403)
        else:
            self._admission.request(arrival, target, served, peer=peer, serving=serving)

    def _by_path(self, arrival: Arrival, routed: RouteInformation, named: Hop) -> None:
        """By the flow that a Path of ours names, which a proxy has read beside the Contact (RFC 3327 section 5.3)."""
        if shed(arrival, self._answers, self._layer):
            return
        context = opened(arrival, self._answers, self._layer)
        context.path = True
        callee = self._answers.aor(arrival.request.to.parsed_uri, arrival.flow) or ""
        context.parties = ("", callee)
        context.domain = callee.rpartition("@")[2] or self._settings.default_domain
        context.rows = rows_that_go_on(context.request, "", self._settings, arrival.flow.remote_host)
        self._admission.tell_of(context, arrival.flow, arrival.now, peer=True)
        if isinstance(context.telling, Telling):
            context.telling.callee, context.telling.targets = callee, (routed.uri,)
        self._proxy.begin(context, (_by_flow(named, routed),), arrival.now)

    def _to_us(self, arrival: Arrival) -> None:
        """What is asked of the edge itself (RFC 3261 section 11.2, 8.2.1; CHECKLIST R28, Y01)."""
        answers, method = self._answers, arrival.request.method
        if method == "INVITE":
            answers.stateless(arrival, 484)
        elif missing := unsupported(arrival.request):
            answers.stateless(arrival, 420, headers=missing)
        elif method == "OPTIONS":
            answers.stateless(arrival, 200, headers=CAPABILITIES)
        elif method in NOT_SERVED:
            answers.stateless(arrival, 489, headers=[ALLOW_EVENTS])
        else:
            answers.stateless(arrival, 405, headers=[ALLOW])

    def _loops(self, request: Request) -> bool:
        """Whether the request has been here with the same target (RFC 5393 section 4.2; Y03)."""
        loop = ""
        for via in request.vias:
            ours = self._branches.verify(via.branch)
            if ours is not None:
                loop = loop or proxy.loop_digest(request)
                if ours.loop == loop:
                    return True
        return False

    def _ack(self, arrival: Arrival) -> None:
        """An ACK to a 2xx goes its way without a transaction; one to our stateless refusal ends here (X12, X01)."""
        request = arrival.request
        if self._answers.acknowledged(request):
            self._answers.drop("ack")
            return
        if exhausted(request):
            self._answers.drop("ack-exhausted")
            return
        routed = self._routes.taken_off(arrival)
        if routed.dialog is not None:
            if self.acks.within(arrival, routed, routed.dialog):
                self.cancels.ack_again(arrival)
            return
        if routed.named is not None and self._settings.is_peer(arrival.flow.remote_host):
            self.acks.by(arrival, _by_flow(routed.named, routed))
        # Of a failure that another edge answered, or of a dialog that never was.
        self.cancels.ack(arrival)

    # --- replies and time -----------------------------------------------------------------------------------------

    def replied(self, reply: Authenticated | Found | Refused, now: float) -> None:
        """The answer to a command that a call waits for."""
        call = self.asked.take(reply.id)
        if call is None:
            self._answers.drop("late-reply")
        elif isinstance(reply, Authenticated):
            self._admission.authenticated(call, reply, now)
        elif isinstance(reply, Found):
            self.destinations.found(call, reply.aor, now)
        elif call.allowed:  # who is called could not be found out
            self._proxy.unavailable(call.context, now)
        else:
            self._admission.refused(call, reply, now)

    def unpublished(self, ids: Iterable[str], now: float) -> None:
        """The log did not take these commands."""
        for id_ in ids:
            call = self.asked.take(id_)
            if call is None:
                continue
            self._answers.drop("unpublished")
            if call.allowed:
                self._proxy.unavailable(call.context, now)
            else:
                self.destinations.by_binding(call, now)

    def _forget(self, context: Context) -> None:
        """The caller has given up."""
        self.asked.forget(lambda call: call.context is context)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return earliest(
            self.failures.next_look(),
            self.asked.next_timer(),
            self.cancels.next_timer(),
            self.destinations.next_timer(),
            self.within.next_timer(),
        )

    def on_time(self, now: float) -> None:
        """Does what is due: deadlines of replies, CANCELs without INVITE, ringing calls."""
        for call in self.asked.overdue(now):
            self._answers.drop("deadline")
            self._proxy.unavailable(call.context, now)
        self.cancels.on_time(now)
        self.destinations.on_time(now)
        self.within.on_time(now)
        look = self.failures.next_look()
        if look is not None and look <= now:
            self.failures.on_time(now)
            self.destinations.look_again(self._proxy.ringing, now)

    def edges(self, live: frozenset[tuple[str, str]], now: float) -> None:
        """Which other edges live."""
        before = self._proxy.reach.neighbours
        self._proxy.reach.neighbours = live
        for gone in before - live:
            self.cancels.edge_died(gone, now)
            self.failures.edge_lost(gone[0], now)
        for edge, boot in live - before:
            self.failures.edge_began(edge, boot, now)


def _by_flow(named: Hop, routed: RouteInformation) -> Target:
    return Target(routed.uri, (Way(named, port_of(named)),), 1.0, routed.routes)
