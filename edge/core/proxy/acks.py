"""ACKs to 2xx responses: each is a request of its own, without a transaction (RFC 3261 section 16.11). PURE.

Nothing answers an ACK. That it was lost shows when it comes again: who sends it has heard the 2xx again. Then it goes
by what else is known, too; and so does one whose connection turns out to be gone.
"""

from collections import OrderedDict
from functools import partial

from edge.core.actions import Send
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.flow import SECURE, Flow, Hop
from edge.core.media.relay import has_sdp, leg_in, with_body
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.identity import rows_that_go_on
from edge.core.proxy.remote import Remote, end_of
from edge.core.proxy.route import RouteInformation
from edge.core.proxy.target_set import Lead, Target
from edge.core.tokens.branch import Branches
from edge.core.tokens.dialog import Dialog
from sipcore import proxy
from sipcore.message import Request, with_received

SENT = 500
"""ACKs that are remembered until the next ones, to be sent elsewhere if their connection was gone."""
COME = 5_000
"""Of how many ACKs it is remembered that they came."""


class Ack:
    """One ACK on its way to one target."""

    __slots__ = ("caller", "otherwise", "request", "target", "tried")

    def __init__(self, request: Request, caller: Flow, target: Target, otherwise: Lead | None = None) -> None:
        self.request = request
        self.caller = caller
        self.target = target
        self.tried = 0
        """How many of the target's ways have been."""
        self.otherwise = otherwise
        """What is left if none can be gone."""


class Acks:
    """The ACKs of one edge that go on."""

    def __init__(self, answers: Answers, branches: Branches, proxy_: Proxy, remote: Remote) -> None:
        self._answers = answers
        self._branches = branches
        self._proxy = proxy_
        self._remote = remote
        self._sent: OrderedDict[str, Ack] = OrderedDict()
        """By branch, those sent by a connection."""
        self._come: OrderedDict[tuple[str, int, str, str], None] = OrderedDict()
        """Call-ID, CSeq and both tags of those that came."""

    def within(self, arrival: Arrival, routed: RouteInformation, dialog: Dialog) -> bool:
        """To the other end of its dialog; whether it comes again."""
        request, caller, now = arrival.request, arrival.flow, arrival.now
        leg = leg_in(dialog, request, to_callee=routed.to_callee)
        sent, again = _received(arrival), self._comes_again(request)
        if leg is None or not has_sdp(sent):
            self._lead(sent, caller, routed, dialog, now, again=again)
            return again

        def rewritten(body: bytes | None, at: float) -> None:
            self._lead(sent if body is None else with_body(sent, body), caller, routed, dialog, at, again=again)

        by_caller = (request.from_.tag or "") == leg.from_tag
        self._proxy.relaying.answer(sent, leg, by_caller=by_caller, then=rewritten)
        return again

    def by(self, arrival: Arrival, target: Target) -> None:
        """To a target that its Route names."""
        self._send(Ack(_received(arrival), arrival.flow, target), arrival.now)

    def unsent(self, branch: str, now: float) -> None:
        """What was sent with this branch did not leave; it may have been an ACK."""
        ack = self._sent.pop(branch, None)
        if ack is not None:
            self._send(ack, now)

    def _lead(
        self, request: Request, caller: Flow, routed: RouteInformation, dialog: Dialog, now: float, *, again: bool
    ) -> None:
        lead, otherwise = self._remote.lead(end_of(request, routed, dialog), routed)

        def go(target: Target, at: float) -> None:
            self._send(Ack(request, caller, target, otherwise), at)

        lead(go, now)
        if again and otherwise is not None:
            otherwise(go, now)

    def _comes_again(self, request: Request) -> bool:
        key = request.call_id, request.cseq.number, request.from_.tag or "", request.to.tag or ""
        if key in self._come:
            return True
        self._come[key] = None
        if len(self._come) > COME:
            self._come.popitem(last=False)
        return False

    def _send(self, ack: Ack, now: float) -> None:
        target = ack.target
        while ack.tried < len(target.ways):
            way = target.ways[ack.tried]
            ack.tried += 1
            hop, _ = self._proxy.reach.reachable(way.hop, ack.caller, now)
            if hop is None:
                continue
            if target.uri[:5].lower() == "sips:" and hop.flow.transport not in SECURE:
                self._answers.drop("sips-in-clear")
                return
            self._send_by(ack, hop, way.port)
            return
        otherwise, ack.otherwise = ack.otherwise, None
        if otherwise is None:
            self._answers.drop("flow-gone")
        else:
            otherwise(partial(self._instead, ack), now)

    def _instead(self, ack: Ack, target: Target, now: float) -> None:
        if target.ways == ack.target.ways:
            self._answers.drop("flow-gone")
        else:
            self._send(Ack(ack.request, ack.caller, target), now)

    def _send_by(self, ack: Ack, hop: Hop, port: int) -> None:
        target = ack.target
        branch = self._branches.make(proxy.loop_digest(ack.request))
        via = self._proxy.reach.via(hop.flow, branch)
        rows = rows_that_go_on(ack.request, "", self._answers.settings)
        sent = proxy.proxied(ack.request, target.uri, via, routes=target.routes, rows=rows)
        edge, boot = ("", "") if hop.edge == self._answers.edge else (hop.edge, hop.boot)
        id_ = branch if hop.flow.reliable else ""
        self._answers.actions.sends.append(Send(hop.flow, sent.encode(), port, edge, boot, id_))
        if id_:
            self._sent[branch] = ack
            if len(self._sent) > SENT:
                self._sent.popitem(last=False)


def _received(arrival: Arrival) -> Request:
    return with_received(arrival.request, arrival.flow.remote_host, arrival.flow.remote_port)
