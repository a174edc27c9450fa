"""Who may send a request outside a dialog (CHECKLIST A28; RFC 3261 section 22.3; DESIGN section 8). PURE.

a listed peer                         --> may
no usable credentials                 --> stateless 407: no record, no transaction, no 100
else --> transaction (100 to INVITE), `Authenticate` --> may | 407 | 403 | 503
"""

from edge.core import response
from edge.core.actions import Forward, Publish
from edge.core.addresses import parsed
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.call_events.telling import TOLD, Telling
from edge.core.commands import check_utf8, digest_of, encoded
from edge.core.flow import Flow, host_port
from edge.core.pending import Pending
from edge.core.proxy.context import Context, opened, shed
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.outgoing import contact_of
from edge.core.proxy.targets import Destinations
from edge.core.proxy.waiting import Call
from events.commands import Authenticate, RequestId
from events.replies import Authenticated, Refused
from sipcore import proxy as steps
from sipcore.digest import Credentials
from sipcore.message import Request
from sipcore.transactions import Transactions
from sipcore.uri import Uri, canonical_escapes, parse_uri


class Admission:
    """Lets requests in, and on to their destinations."""

    def __init__(
        self,
        answers: Answers,
        layer: Transactions,
        proxy: Proxy,
        asked: Pending[str, Call],
        destinations: Destinations,
    ) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._layer = layer
        self._proxy = proxy
        self._asked = asked
        self._destinations = destinations

    def request(self, arrival: Arrival, target: Uri, served: str | None, *, peer: bool, serving: bool) -> None:
        """A request for `target`, in our domain `served` if it is in one; `serving`: whether the log can be asked."""
        answers, request, now = self._answers, arrival.request, arrival.now
        origin = self._origin(request, arrival.flow)
        if peer or self._is_free(request, origin, served):
            if not shed(arrival, answers, self._layer):
                call = Call(opened(arrival, answers, self._layer), target)
                call.allowed = True
                self.tell_of(call.context, call.flow, now, peer=peer)
                self._destinations.locate(call, now)
            return
        if origin is None:
            answers.stateless(arrival, 403, "From Is Not a User of Ours")
            return
        domain = origin.rpartition("@")[2]
        realm = domain or served or self._settings.default_domain
        given = answers.credentials(arrival, 407, "proxy-authorization", realm)
        if given is None:
            return
        if not self._is_for(given.uri, request, served, arrival.flow):
            answers.stateless(arrival, 400, "Digest URI of Another Resource")
            return
        if shed(arrival, answers, self._layer):
            return
        # Before there is a transaction: what no record can hold is refused without one.
        question = self._question(arrival, given, origin) if serving else None
        call = Call(opened(arrival, answers, self._layer), target)
        call.realm, call.user = realm, origin
        self.tell_of(call.context, call.flow, now, peer=False)
        if question is not None:
            self._asked.wait(question.id, call, now)
            answers.actions.publishes.append(question)
        else:
            self._destinations.by_binding(call, now)
        self._destinations.locate(call, now)

    def tell_of(self, context: Context, flow: Flow, now: float, *, peer: bool) -> None:
        """What becomes of a call, or of a message, is told (`edge.core.call_events`)."""
        answers = self._answers
        if context.request.method in TOLD and not steps.has_to_tag(context.request):
            at, source = answers.clock.at(now), host_port(flow.remote_host, flow.remote_port)
            context.telling = Telling(
                answers.tell, answers.edge, context.request, at, source, flow.transport, peer=peer
            )

    def _is_free(self, request: Request, origin: str | None, served: str | None) -> bool:
        """Whether our domain lets anybody call its users so (it never lets a stranger go further)."""
        if origin is None:
            return self._settings.foreign_callers and served is not None
        open_ = not self._settings.challenge_calls and served is not None
        return open_ and request.first("proxy-authorization") is None

    def _origin(self, request: Request, flow: Flow) -> str | None:
        """The canonical AOR of From, "" for an anonymous caller, None for one of another domain."""
        uri = request.from_.parsed_uri
        if not request.from_.uri.isascii():
            check_utf8(request.from_.uri)
        if uri.is_sip and uri.host.lower() == "anonymous.invalid":
            return ""
        return self._answers.aor(uri, flow)

    def _is_for(self, text: str, request: Request, served: str | None, flow: Flow) -> bool:
        """Whether the digest's URI is that of the request (RFC 2617 section 3.2.2.5).

        Else who reads one INVITE on its way could call anybody with it. To our domains a phone may write the address
        that it sends to, as some do behind a balancer, and no user.
        """
        if text == request.uri:
            return True
        given, asked = parse_uri(text), request.parsed_uri
        if not given.is_sip or not asked.is_sip:
            return False
        same = canonical_escapes(given.user or "") == canonical_escapes(asked.user or "")
        if served is None:
            return same and given.host.lower() == asked.host.lower()
        at_us = self._answers.served(given.host, flow) == served or parsed(given.host) is not None
        return (same or given.user is None) and at_us

    def _question(self, arrival: Arrival, given: Credentials, origin: str) -> Publish:
        """Whether he is who he says; ParseError where no record can hold it."""
        answers, request = self._answers, arrival.request
        id_ = answers.command_id()
        command = Authenticate(
            id=id_,
            reply=answers.reply_to(arrival.now),
            digest=digest_of(given),
            method=request.method,
            source=arrival.flow.remote_host,
            aor=origin,
            request=RequestId(request.call_id, request.cseq.number, request.branch),
        )
        return Publish(id_, f"{given.username}@{given.realm}", encoded(command))

    def authenticated(self, call: Call, reply: Authenticated, now: float) -> None:
        """The sender is who he says."""
        if reply.first is not None and reply.first in self._proxy.reach.neighbours:
            # A copy of a request that another edge has: that one answers (Y36).
            self._layer.forget(call.context.server)
            call.context.final = 408
            forward = Forward(*reply.first, call.flow, call.context.request.encode())
            self._answers.actions.forwards.append(forward)
            self._answers.drop("handed-over")
            return
        if self._is_anothers(call, reply.user):
            self._proxy.answer(call.context, 403, now, "Contact Is Another's GRUU")
            return
        call.user = reply.user
        call.allowed = True
        self._destinations.go_on(call, now)

    def _is_anothers(self, call: Call, user: str) -> bool:
        """Whether the Contact, by which a dialog would go on, is the GRUU of somebody else (RFC 5627 section 6.2)."""
        gruu = self._answers.gruu_of(contact_of(call.context.request))
        return gruu is not None and gruu.aor not in (user, call.user)

    def refused(self, call: Call, reply: Refused, now: float) -> None:
        """The sender is not, or may not."""
        answers = self._answers
        status = reply.status if 400 <= reply.status <= 599 else 500
        headers = response.lines(reply.headers)
        if status == 401:
            status = 407
            algorithms = reply.algorithms or self._settings.algorithms[call.realm]
            headers += answers.challenges(call.flow, call.realm, algorithms, now, stale=reply.stale, proxy=True)
        elif status == 503:
            headers = answers.with_retry_after(headers)
        reason = "" if reply.status == 401 else response.printable(reply.reason)
        self._proxy.answer(call.context, status, now, reason or None, headers)
