"""Requests within a dialog, to the end that they are for: no challenge, no look-up where nothing has moved. PURE.

(CHECKLIST Y26, N10; where they lead: `remote`.) One that nobody answers for two seconds, by a flow that may be
dead without anybody's having been told, is sent by what else is known as well.
"""

from functools import partial

from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.call_events.telling import TOLD_IN_DIALOG, InDialog
from edge.core.media.relay import leg_in
from edge.core.pending import Pending
from edge.core.proxy.context import Context, opened, shed
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.identity import rows_that_go_on
from edge.core.proxy.remote import Remote, end_of
from edge.core.proxy.route import RouteInformation
from edge.core.proxy.target_set import Target
from edge.core.tokens.dialog import Dialog
from sipcore.transactions import Server, Transactions

SILENT = 2.0
"""Seconds without any answer after which more is tried: on UDP a request was sent three times by then."""


class Within:
    """All requests of one edge but ACK that a token proves to be of a dialog."""

    def __init__(self, answers: Answers, layer: Transactions, proxy: Proxy, remote: Remote) -> None:
        self._answers = answers
        self._layer = layer
        self._proxy = proxy
        self._remote = remote
        self._silent = Pending[str, Server](SILENT, lambda server: _unanswered(server) is None)
        """Requests that may stay without an answer, by their transactions, which let go of them once they have one."""

    def request(self, arrival: Arrival, routed: RouteInformation, dialog: Dialog) -> None:
        """To the other end of its dialog."""
        if shed(arrival, self._answers, self._layer, times=2):
            return
        request, now = arrival.request, arrival.now
        context = opened(arrival, self._answers, self._layer)
        context.route_token = False
        context.secure = routed.uri[:5].lower() == "sips:"
        context.rows = rows_that_go_on(context.request, "", self._answers.settings, arrival.flow.remote_host)
        if request.method in TOLD_IN_DIALOG:
            to_callee = routed.to_callee
            answers = self._answers
            told = InDialog(answers.tell, answers.edge, context.request, dialog.cseq, to_callee=to_callee)
            told.came(answers.clock.at(now), dialog.begun, arrival.flow.transport)
            context.telling = told
        context.leg = leg_in(dialog, request, to_callee=routed.to_callee)
        if context.leg is not None and request.method == "BYE":
            callee_tag = request.to.tag if routed.to_callee else request.from_.tag
            self._proxy.relaying.end_call(context.leg, callee_tag or "")

        self._remote.came(arrival, routed, dialog)
        lead, otherwise = self._remote.lead(end_of(request, routed, dialog), routed)
        if otherwise is not None:
            context.elsewhere = otherwise
            self._silent.wait(context.server.key, context.server, now)
        lead(self._proxy.beginning(context), now)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        return self._silent.next_timer()

    def on_time(self, now: float) -> None:
        """Sends what nobody has answered by what else is known."""
        for server in self._silent.overdue(now):
            context = _unanswered(server)
            if context is None or context.elsewhere is None:
                continue
            if context.live and not any(attempt.provisional for attempt in context.live.values()):
                self._answers.drop("silent-flow")
                context.elsewhere(partial(self._also, context), now)

    def _also(self, context: Context, target: Target, now: float) -> None:
        if context.live and not context.no_more:
            self._proxy.also(context, target, now)


def _unanswered(server: Server) -> Context | None:
    """The request of a transaction; None once it has its final response."""
    context = server.user
    return context if isinstance(context, Context) and not context.final else None
