"""Who may send a request outside a dialog (CHECKLIST A28; RFC 3261 section 22.3; DESIGN section 8). PURE.

a listed peer                         --> may
no usable credentials                 --> stateless 407: no record, no transaction, no 100
else --> transaction (100 to INVITE), `Authenticate` --> may | 407 | 403 | 503
"""

from edge.core import credentials, response
from edge.core.actions import Forward, Publish
from edge.core.answers import Answers
from edge.core.call_events.telling import TOLD, Telling
from edge.core.deny import parsed
from edge.core.flow import Flow, host_port
from edge.core.proxy.forwarding import Proxy
from edge.core.proxy.targets import Destinations
from edge.core.proxy.waiting import Asked, Call, opened, shed
from edge.core.registration.contacts import check_utf8, encoded
from edge.core.tokens.record_route import Hop
from events.commands import Authenticate, ReplyTo, RequestId
from events.replies import Authenticated, Refused
from sipcore import proxy as steps
from sipcore.digest import Credentials
from sipcore.message import Request
from sipcore.transactions import Transactions
from sipcore.uri import Uri, canonical_escapes, parse_uri


class Admission:
    """Lets requests in, and on to their destinations."""

    def __init__(
        self, answers: Answers, layer: Transactions, proxy: Proxy, asked: Asked, destinations: Destinations
    ) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._layer = layer
        self._proxy = proxy
        self._asked = asked
        self._destinations = destinations

    def request(
        self,
        request: Request,
        caller: Hop,
        target: Uri,
        served: str | None,
        now: float,
        size: int,
        *,
        peer: bool,
        serving: bool,
    ) -> None:
        """A request for `target`, in our domain `served` if it is in one; `serving`: whether the log can be asked."""
        origin = self._origin(request, caller.flow)
        if peer or self._is_free(request, origin, served):
            if not shed(request, caller, size, self._answers, self._layer):
                call = Call(opened(request, caller, self._answers, self._layer, now), target)
                call.allowed = True
                self._tell_of(call, now, peer=peer)
                self._destinations.locate(call, now)
            return
        if origin is None:
            self._answers.stateless_to(request, caller, size, 403, "From Is Not a User of Ours")
            return
        domain = origin.rpartition("@")[2]
        realm = domain or served or self._settings.default_domain
        given = self._credentials(request, caller, realm, now, size)
        if given is None:
            return
        if not self._is_for(given.uri, request, served, caller.flow):
            self._answers.stateless_to(request, caller, size, 400, "Digest URI of Another Resource")
            return
        if shed(request, caller, size, self._answers, self._layer):
            return
        # Before there is a transaction: what no record can hold is refused without one.
        question = self._question(request, caller, given, origin, now) if serving else None
        call = Call(opened(request, caller, self._answers, self._layer, now), target)
        call.realm, call.user = realm, origin
        self._tell_of(call, now, peer=False)
        if question is not None:
            self._asked.wait(question.id, call, now)
            self._answers.actions.publishes.append(question)
        else:
            self._destinations.by_binding(call, now)
        self._destinations.locate(call, now)

    def _tell_of(self, call: Call, now: float, *, peer: bool) -> None:
        """What becomes of a call, or of a message, is told (`edge.core.call_events`)."""
        context, answers = call.context, self._answers
        if context.request.method in TOLD and not steps.has_to_tag(context.request):
            flow, at = call.flow, answers.clock.at(now)
            source = host_port(flow.remote_host, flow.remote_port)
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

    def _credentials(self, request: Request, caller: Hop, realm: str, now: float, size: int) -> Credentials | None:
        """The usable credentials; None once the request is challenged."""
        answers, flow = self._answers, caller.flow
        algorithms = self._settings.algorithms[realm]
        seconds = answers.clock.at(now) // 1000
        values = request.values("proxy-authorization")
        nonce_seconds = self._settings.nonce_seconds
        verdict, given = credentials.judge(values, realm, algorithms, answers.keys, seconds, nonce_seconds)
        if given is not None:
            return given
        if not answers.rate.passes(flow.remote_host, now):
            answers.drop("rate-limited")
            return None
        stale = verdict is credentials.Verdict.STALE
        rows = answers.challenges(flow, realm, algorithms, now, stale=stale, proxy=True)
        answers.stateless_to(request, caller, size, 407, rows="".join(rows), least=rows[0])
        return None

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

    def _question(self, request: Request, caller: Hop, given: Credentials, origin: str, now: float) -> Publish:
        """Whether he is who he says; ParseError where no record can hold it."""
        answers = self._answers
        id_ = answers.command_id()
        deadline = answers.clock.at(now) + int(self._settings.reply_seconds * 1000)
        command = Authenticate(
            id=id_,
            reply=ReplyTo(answers.edge, answers.boot, deadline),
            digest=credentials.digest_of(given),
            method=request.method,
            source=caller.flow.remote_host,
            aor=origin,
            request=RequestId(request.call_id, request.cseq.number, request.branch),
        )
        return Publish(id_, f"{given.username}@{given.realm}", encoded(command))

    def authenticated(self, call: Call, reply: Authenticated, now: float) -> None:
        """The sender is who he says."""
        if reply.first is not None and reply.first in self._proxy.forwarding.neighbours:
            # A copy of a request that another edge has: that one answers (Y36).
            self._layer.forget(call.context.server)
            call.context.final = 408
            forward = Forward(*reply.first, call.flow, call.context.request.encode())
            self._answers.actions.forwards.append(forward)
            self._answers.drop("handed-over")
            return
        call.user = reply.user
        call.allowed = True
        self._destinations.go_on(call, now)

    def refused(self, call: Call, reply: Refused, now: float) -> None:
        """The sender is not, or may not."""
        answers = self._answers
        status = reply.status if 400 <= reply.status <= 599 else 500
        rows = response.lines(reply.headers)
        if status == 401:
            status = 407
            algorithms = reply.algorithms or self._settings.algorithms[call.realm]
            stale = reply.stale
            rows += "".join(answers.challenges(call.flow, call.realm, algorithms, now, stale=stale, proxy=True))
        elif status == 503 and "retry-after" not in rows.lower():
            rows += answers.retry_after()
        reason = "" if reply.status == 401 else reply.reason
        self._proxy.answer(call.context, status, now, reason or None, rows)
