"""The proxy core of the edge: response contexts, forking, and which response goes up (RFC 3261 sections 16.6 to 16.10).

Transactions are those of `sipcore.transactions`, told the time; where a request goes has been decided (`requests`).
How it leaves is `edge.core.proxy.outgoing`'s. PURE.

Over 400 lines: what goes down and what comes up are one response context, read in the order of these sections.
"""

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from edge.core.answers import Answers
from edge.core.call_events.telling import Whereto
from edge.core.flow import SECURE, Flow, Hop, Way, host_port
from edge.core.media.relay import Leg, Relaying, has_sdp, response_with_body, with_body
from edge.core.proxy.context import Attempt, Context
from edge.core.proxy.identity import IDENTITIES, claims_identity, for_strangers
from edge.core.proxy.outgoing import Outgoing
from edge.core.proxy.target_set import Go, Target
from edge.core.reach import Reach
from edge.core.tokens.branch import Branches
from sipcore import proxy, session_timer
from sipcore.message import Header, Request, Response, Row, respond
from sipcore.transactions import Client, Transactions
from sipcore.uri import Uri, equal, parse_uri

CONGESTED = 1300
"""Octets above which a request does not go by UDP to a next hop found by URI (RFC 3261 section 18.1.1)."""
CANCELLED_SECONDS = 5.0
"""How long the answers of those that the caller has cancelled are waited for: T4, as long as anything is on its way."""
ELSEWHERE = Row("reason", "Reason", 'SIP;cause=200;text="Call completed elsewhere"')
BUSY_ELSEWHERE = Row("reason", "Reason", 'SIP;cause=600;text="Busy Everywhere"')


class Proxy:
    """Forks requests and sends up what comes back."""

    def __init__(
        self,
        answers: Answers,
        branches: Branches,
        outgoing: Outgoing,
        reach: Reach,
        layer: Transactions,
        is_silent: Callable[[Flow], bool],
    ) -> None:
        """`is_silent`: whether a phone answers no more by a flow of ours."""
        self._answers = answers
        self._settings = answers.settings
        self._branches = branches
        self._outgoing = outgoing
        self.reach = reach
        self._layer = layer
        self._edge = answers.edge
        self._is_silent = is_silent
        self.relaying = Relaying(answers)
        self.ringing: dict[Context, None] = {}
        """INVITEs without a final response, in the order they came."""

    # --- begin ----------------------------------------------------------------------------------------------------

    def begin(self, context: Context, targets: Iterable[Target], now: float) -> None:
        """Sends the request to its targets: those of the highest q at once, the others after them (section 16.6)."""
        by_q: dict[float, list[Target]] = {}
        for target in targets:
            by_q.setdefault(target.q, []).append(target)
        context.waiting = [by_q[q] for q in sorted(by_q, reverse=True)]
        if context.is_invite:
            self.ringing[context] = None
        self._next_group(context, now)

    def beginning(self, context: Context) -> Go:
        """What begins a request with the one target that it is told, unless it is over by then."""

        def go(target: Target, now: float) -> None:
            if not context.final and not context.cancelled:
                self.begin(context, (target,), now)

        return go

    def join(self, context: Context, targets: Iterable[Target], now: float) -> None:
        """Adds targets that have come while the others ring (Y10); a phone that comes by another way rings already.

        But where its connection went while it rang, it hears the same INVITE again.
        """
        if context.no_more or context.final:
            return
        for target in targets:
            uris = [parse_uri(uri) for uri in target.uris()]
            lost = (each for each in context.live.values() if each.gone and _among(parse_uri(each.target.uri), uris))
            if (attempt := next(lost, None)) is not None:
                self._resume(attempt, target, now)
                continue
            waiting = (parse_uri(each.uri) for group in context.waiting for each in group)
            if any(_among(known, uris) for known in (*(seen for seen, _ in context.seen), *waiting)):
                continue
            if target.q >= context.q:
                self._beside(context, target, now)
            else:
                context.waiting.append([target])
                context.waiting.sort(key=lambda group: -group[0].q)
        self._settle(context, now)

    def also(self, context: Context, target: Target, now: float) -> None:
        """Sends to one more target, whatever is under way."""
        self._beside(context, target, now)
        self._settle(context, now)

    def _beside(self, context: Context, target: Target, now: float) -> None:
        """Sends to one more target; where no Max-Breadth is left, once another has ended (RFC 5393 section 5.3.3.1)."""
        if context.unused_breadth() < 1 and context.late:
            context.late -= 1
            context.breadth += 1
        if context.unused_breadth() < 1:
            context.waiting.insert(0, [target])
        else:
            self._attempt(context, target, now, 1)

    def _next_group(self, context: Context, now: float) -> None:
        """Sends to those of the next q once nothing is under way, to as many at a time as Max-Breadth allows."""
        while context.waiting and not context.no_more:
            group = context.waiting[0]
            if context.live and group[0].q < context.q:
                break
            breadth = context.unused_breadth()
            if breadth < 1:
                break
            if not context.live:
                context.q = group[0].q
            some, rest = group[:breadth], group[breadth:]
            context.waiting[:1] = [rest] if rest else []
            shares = proxy.shares(breadth, len(some))
            for number, target in enumerate(some):
                self._attempt(context, target, now, shares[number])
        self._settle(context, now)

    def _attempt(
        self, context: Context, target: Target, now: float, breadth: int, index: int = 0, *, again: bool = False
    ) -> None:
        """Sends to one target, unless it has been tried (Y09); `again`: because its owner has died.

        Phones behind two NATs may have one Contact URI (192.168.1.10:5060): they are two targets all the same.
        """
        way = target.ways[index]
        if not index and not again:
            uri = parse_uri(target.uri)
            if any(hop == way.hop and equal(uri, seen) for seen, hop in context.seen):
                return
            context.seen.append((uri, way.hop))
        branch = self._branches.make(proxy.loop_digest(context.request))
        self._launch(Attempt(context, target, index, way.hop, branch, breadth), now)

    def _resume(self, attempt: Attempt, target: Target, now: float) -> None:
        """The INVITE of an attempt whose connection is gone, by another to the same Contact and in the same branch.

        A phone that remembers it takes it for a retransmission, one that has begun anew for a call.
        """
        hop, _ = self.reach.reachable(target.ways[0].hop, attempt.context.caller.flow, now)
        if hop is None or hop == attempt.hop or attempt.client is None:
            return
        self._answers.drop("flow-replaced")
        self._layer.forget_client(attempt.client)
        attempt.target, attempt.index = target, 0
        attempt.gone = attempt.provisional = False
        self._launch(attempt, now)

    def leave_flow(self, attempt: Attempt, now: float) -> bool:
        """Its flow is gone: goes on by the phone's next one, in the same branch; False if there is none.

        As with `_resume`, a phone that rings already takes it for a retransmission (RFC 5626 section 7).
        """
        if not self._has_next_flow(attempt):
            return False
        if attempt.client is not None:
            self._layer.forget_client(attempt.client)
        attempt.gone = attempt.provisional = False
        self._next_flow(attempt, now)
        self._settle(attempt.context, now)
        return True

    def _next_flow(self, attempt: Attempt, now: float) -> None:
        self._answers.drop("flow-replaced")
        attempt.index += 1
        self._launch(attempt, now)

    def _has_next_flow(self, attempt: Attempt) -> bool:
        target = attempt.target
        return target.flows and attempt.index + 1 < len(target.ways) and not attempt.context.no_more

    def _launch(self, attempt: Attempt, now: float) -> None:
        context, target, index, branch = attempt.context, attempt.target, attempt.index, attempt.branch
        way = target.ways[index]
        if self._has_next_flow(attempt) and way.hop.edge == self._edge and self._is_silent(way.hop.flow):
            self._next_flow(attempt, now)
            return
        hop, gives_up = self.reach.reachable(way.hop, context.caller.flow, now)
        if hop is None:
            self._answers.drop("flow-gone")
            self._not_launched(attempt, self._made(context, 430), now)
            return
        uri = proxy.by_scheme(way.uri or target.uri, secure=context.secure)
        if uri is None or (context.secure and hop.flow.transport not in SECURE):
            made = self._made(context, 480, None, [("Warning", '380 ramal "SIPS Not Allowed"')])
            self._not_launched(attempt, made, now)
            return
        leg = attempt.leg = attempt.leg or self._leg(context, hop, branch)
        request = self._outgoing.request(attempt, uri, hop, leg, now)
        if not hop.edge and hop.flow.transport == "udp" and way.may_grow and len(request.encode()) > CONGESTED:
            # By TCP to the same place; if that cannot be reached, by UDP after all (section 18.1.1).
            ways = (*target.ways[:index], way.by_tcp(), *_small(target.ways[index:]))
            target = attempt.target = Target(target.uri, ways, target.q, target.routes)
            way = target.ways[index]
            hop = way.hop
            request = self._outgoing.request(attempt, uri, hop, leg, now)
        attempt.hop = hop
        attempt.gives_up = gives_up or (now + self._settings.timer_c if context.is_invite else 0.0)
        context.live[branch] = attempt
        if leg is None or not has_sdp(context.request):
            self._open(attempt, request, way, now)
        else:
            self._open_relayed(attempt, leg, request, way)

    def _not_launched(self, attempt: Attempt, response: Response, now: float) -> None:
        """Its way cannot be taken: goes on by the phone's next flow, or ends as if this had been answered."""
        attempt.context.live.pop(attempt.branch, None)
        if self._has_next_flow(attempt):
            self._next_flow(attempt, now)
            return
        if attempt.offered and attempt.leg is not None:
            self.relaying.end_branch(attempt.leg)
        attempt.context.finals.append(response)

    def _open(self, attempt: Attempt, request: Request, way: Way, now: float) -> None:
        hop = attempt.hop
        if way.gateway and attempt.context.is_invite:
            self._answers.by_gateway(way.gateway)
        if (telling := attempt.context.telling) is not None:
            flow, owner = hop.flow, "" if hop.edge == self._edge else hop.edge
            source = host_port(flow.remote_host, flow.remote_port)
            whereto = Whereto(request.uri, source, flow.transport, owner, way.gateway, attempt.target.q)
            telling.started(self._answers.clock.at(now), attempt.branch, whereto)
        destination = Way(hop, way.port, way.name)
        attempt.client = self._layer.open_client(request, destination, hop.flow.reliable, now, user=attempt)

    def _open_relayed(self, attempt: Attempt, leg: Leg, request: Request, way: Way) -> None:
        """Sends it once rtpengine has rewritten its SDP; without that nobody would hear anybody."""

        def rewritten(body: bytes | None, now: float) -> None:
            if attempt.branch not in attempt.context.live:
                self.relaying.end_branch(leg)  # given up meanwhile
            elif body is None:
                self._answers.drop("not-relayed")
                self.gone(attempt, 503, now)
            elif attempt.context.no_more:
                self.gone(attempt, 487, now)
            else:
                self._open(attempt, with_body(request, body), way, now)

        attempt.offered = bool(leg.branch)
        by_caller = (attempt.context.request.from_.tag or "") == leg.from_tag
        if leg.delayed and request.method == "PRACK":
            self.relaying.answer(request, leg, by_caller=by_caller, then=rewritten)
        else:
            self.relaying.offer(request, leg, by_caller=by_caller, then=rewritten)

    def _leg(self, context: Context, hop: Hop, branch: str) -> Leg | None:
        """How rtpengine is to know an attempt; None where media goes directly."""
        if context.leg is not None or not context.is_invite or not context.domain:
            return context.leg
        kinds = self.relaying.kinds(context.domain, context.caller.flow, hop.flow)
        if kinds is None:
            return None
        return Leg(context.call_id, context.tag, branch, *kinds, delayed=not has_sdp(context.request))

    # --- what comes back ------------------------------------------------------------------------------------------

    def response(self, client: Client, response: Response, now: float) -> None:
        """A response that the transaction layer passes up (section 16.7)."""
        attempt = client.user
        if not isinstance(attempt, Attempt):
            return  # of a request of our own: a CANCEL, a probe
        upward = proxy.without_top_via(response)
        if upward is None or not proxy.fits(upward, attempt.context.request):
            self._unfit(attempt, response.status, now)
            return
        if claims_identity(upward):
            rows = self._identified(attempt, upward)
            upward = Response(upward.status, upward.reason, rows, upward.body)
        upward = session_timer.answered(upward, attempt.context.request)
        if attempt.leg is None:
            self._responded(attempt, upward, now)
        else:
            self.relaying.in_order(attempt.branch, lambda at: self._relayed(attempt, upward, at), now)

    def _identified(self, attempt: Attempt, response: Response) -> Sequence[Row]:
        """The rows of a response as the caller may hear them: who answers is said by a trusted peer (RFC 3325)."""
        is_peer = self._settings.is_peer
        if not is_peer(attempt.hop.flow.remote_host):
            return [row for row in response.rows if row.name not in IDENTITIES]
        caller = attempt.context.caller.flow.remote_host
        return response.rows if is_peer(caller) else for_strangers(response, response.rows)

    def _unfit(self, attempt: Attempt, status: int, now: float) -> None:
        """A response that nobody above could know as his: it is not passed on, but a final one has ended its branch."""
        self._answers.drop("response-without-via")
        if status >= 200:
            self.gone(attempt, 502, now)
        else:
            self._rings(attempt, now)

    def _relayed(self, attempt: Attempt, response: Response, now: float) -> None:
        """A response of a relayed call: with its SDP rewritten, if it has one."""
        leg, branch = attempt.leg, attempt.branch
        if leg is None or not has_sdp(response) or response.status >= 300:
            self._responded(attempt, response, now)
            return

        def rewritten(body: bytes | None, at: float) -> None:
            if body is None:
                self._answers.drop("not-relayed")  # the call stands, perhaps without sound
            self._responded(attempt, response if body is None else response_with_body(response, body), at)
            self.relaying.release(branch, at)

        self.relaying.hold(branch)
        attempt.offered = attempt.offered or bool(leg.branch)
        request = attempt.context.request
        by_caller = (request.from_.tag or "") != leg.from_tag
        if has_sdp(request) and not (leg.delayed and request.method == "PRACK"):
            self.relaying.answer(response, leg, by_caller=by_caller, then=rewritten)
        else:
            self.relaying.offer(response, leg, by_caller=by_caller, then=rewritten)

    def _responded(self, attempt: Attempt, upward: Response, now: float) -> None:
        telling = attempt.context.telling
        if telling is None:
            self._decided(attempt, upward, now)
            return
        telling.heard(self._answers.clock.at(now), attempt.branch, upward)
        self._decided(attempt, upward, now)
        telling.settled()

    def _decided(self, attempt: Attempt, upward: Response, now: float) -> None:
        context, status = attempt.context, upward.status
        if status < 200:
            if status != 100 or not attempt.provisional:
                self._rings(attempt, now)
            if status != 100 and not context.final:
                self._up(context, upward, now)
            return
        first = context.live.pop(attempt.branch, None) is not None
        if status < 300:
            if context.is_invite or not context.final:
                context.final = context.final or status
                self._up(context, upward, now)
            self._end_others(context, ELSEWHERE, now)
            self._settle(context, now)
        elif first:
            self._failed(attempt, upward, now)

    def _rings(self, attempt: Attempt, now: float) -> None:
        """It lives: Timer C begins anew (section 16.7, step 2)."""
        attempt.provisional = True
        if attempt.context.is_invite:
            attempt.gives_up = now + self._settings.timer_c

    def _up(self, context: Context, response: Response, now: float) -> None:
        if context.telling is not None:
            context.telling.up(self._answers.clock.at(now), response)
        if not context.to_tag and response.status > 100:
            context.to_tag = proxy.to_tag(response)
        if self._layer.respond(context.server, response, now):
            self._answers.count(response.status)
            if response.status >= 200 and not context.answered:
                context.answered = True
                self._answers.took(context.request.method, response.status, now - context.began)

    def _failed(self, attempt: Attempt, response: Response, now: float, *, ours: bool = False) -> None:
        """A final response other than 2xx of one attempt: the target's next way, or kept (section 16.7, step 5).

        `ours`: the attempt ended without one. A phone that answers is asked no more by its other flows.
        """
        context = attempt.context
        if attempt.offered and attempt.leg is not None:
            self.relaying.end_branch(attempt.leg)
        unheard = response.status == 430 or (ours and (response.status != 408 or context.is_invite))
        if unheard and self._has_next_flow(attempt):
            self._answers.drop("flow-replaced")
            self._attempt(context, attempt.target, now, attempt.breadth, attempt.index + 1)
            if context.live:
                return
        more = attempt.index + 1 < len(attempt.target.ways) and not attempt.target.flows
        waited = response.status == 408 and context.is_invite  # the client of another request has given up
        if (waited or response.status == 503) and more and not context.no_more:
            self._attempt(context, attempt.target, now, attempt.breadth, attempt.index + 1)
            if context.live:
                return
        if ours:
            context.finals.append(response)
        else:  # a phone's answer comes before what is said for one that is gone: busy, not unavailable
            context.finals.insert(context.heard, response)
            context.heard += 1
        if response.status >= 600:
            self._end_others(context, BUSY_ELSEWHERE, now)
        self._next_group(context, now)

    def _end_others(self, context: Context, reason: Row, now: float) -> None:
        """No new attempt; those under way are cancelled (section 16.7, step 10; RFC 3326)."""
        context.no_more = True
        context.waiting.clear()
        if context.is_invite:
            for other in context.live.values():
                if other.client is not None:
                    self._layer.cancel(other.client, now, (reason,))

    def _settle(self, context: Context, now: float) -> None:
        """Once nothing is under way: the best response goes up, if none has (section 16.7, step 6)."""
        if context.live:
            return
        if context.is_invite:
            self.ringing.pop(context, None)
        if not context.final:
            self.decide(context, now)

    def decide(self, context: Context, now: float) -> None:
        """Sends up the best of what has come; where nothing has, an answer of our own."""
        if not context.finals:
            self.answer(context, 487 if context.cancelled else 480, now)
            return
        finals = context.finals
        if context.cancelled:  # of several, the one whose tag the caller has had
            finals = sorted(finals, key=lambda final: proxy.to_tag(final) != context.to_tag)
        chosen = proxy.best(finals, cancelled=context.cancelled)
        if chosen.status == 430 and context.elsewhere is not None and not context.no_more:
            elsewhere, context.elsewhere = context.elsewhere, None
            finals.clear()
            context.heard = 0
            elsewhere(self.beginning(context), now)
            return
        if chosen.status == 430 and not context.path:  # the flow is gone, and no other was there (CHECKLIST N06)
            chosen = self._made(context, 480)
        if chosen.status == 408 and not context.is_invite:
            context.final = 408  # never sent upstream: the client has given up by now (RFC 4320 section 4.2)
            if context.telling is not None:
                context.telling.up(self._answers.clock.at(now), chosen)
            self._layer.respond(context.server, chosen, now)
            return
        context.final = chosen.status
        self._up(context, chosen, now)

    def answer(
        self, context: Context, status: int, now: float, reason: str | None = None, headers: Iterable[Header] = ()
    ) -> None:
        """A final response of our own."""
        context.final = status
        context.no_more = True
        self._up(context, self._made(context, status, reason, headers), now)

    def _made(
        self, context: Context, status: int, reason: str | None = None, headers: Iterable[Header] = ()
    ) -> Response:
        return respond(context.request, status, reason, to_tag=self.to_tag(context), headers=headers)

    def to_tag(self, context: Context) -> str:
        """The tag of responses of our own: one for all of them, and that of the phone if the caller knows it."""
        context.to_tag = context.to_tag or self._answers.entropy(8).hex()
        return context.to_tag

    def unavailable(self, context: Context, now: float) -> None:
        """Something that is needed is away: 503, and when to come again."""
        self.answer(context, 503, now, None, [self._answers.retry_after()])

    # --- ends -----------------------------------------------------------------------------------------------------

    def cancel(self, context: Context, now: float, reasons: Sequence[Row] = ()) -> None:
        """The caller's CANCEL: all attempts are cancelled (section 16.10).

        What they answer goes up as any other answer (section 16.7, step 6), a 487 of our own only where none comes.
        """
        if context.final:
            return
        context.cancelled = context.no_more = True
        context.answer_by = now + CANCELLED_SECONDS
        context.waiting.clear()
        for attempt in context.live.values():
            if attempt.client is not None:
                self._layer.cancel(attempt.client, now, tuple(reasons))
        self._settle(context, now)

    def gone(self, attempt: Attempt, status: int, now: float) -> None:
        """An attempt has failed without a response: as if this had been answered (sections 16.8 and 16.9)."""
        context = attempt.context
        if context.live.pop(attempt.branch, None) is not None:
            sent = attempt.client is not None  # else it was held back here: no relay for its media
            if status == 503 and sent and context.parties[1] and attempt.index + 1 >= len(attempt.target.ways):
                status = 480  # one of our users cannot be reached by any way: it is he who is away, not we
            made = self._made(context, 487 if context.cancelled else status)
            if context.telling is not None:
                context.telling.heard(self._answers.clock.at(now), attempt.branch, made, ours=True)
                context.telling.settled()
            self._failed(attempt, made, now, ours=True)

    def again(self, attempt: Attempt, now: float) -> bool:
        """Tries an attempt's way once more, in a new branch; False if it has ended."""
        if attempt.context.live.pop(attempt.branch, None) is None:
            return False
        if attempt.client is not None:
            self._layer.forget_client(attempt.client)
        self._attempt(attempt.context, attempt.target, now, attempt.breadth, attempt.index, again=True)
        return True


def _among(uri: Uri, uris: Iterable[Uri]) -> bool:
    return any(equal(uri, each) for each in uris)


def _small(ways: Sequence[Way]) -> list[Way]:
    return [replace(way, may_grow=False) for way in ways]
