"""REGISTER at the edge: challenged, asked of the log, answered (RFC 3261 section 10.3; DESIGN section 4). PURE.

retransmission --> the last response again
no usable credentials --> stateless 401: no record, no look-up, no transaction
else --> transaction, `Authenticate` --> reply, failure or deadline --> final response
"""

from collections.abc import Callable, Iterable

from edge.core import response
from edge.core.actions import Publish, Unserved
from edge.core.answers import SUPPORTED, Answers, amplifies, exhausted, unsupported
from edge.core.arrival import Arrival
from edge.core.commands import check_utf8, digest_of, encoded
from edge.core.flow import SECURE, Flow, Way
from edge.core.pending import Pending
from edge.core.rate import SharedRate
from edge.core.registration.completed import Completed
from edge.core.registration.contacts import (
    asks_for_gruus,
    asks_for_outbound,
    contact_row,
    expires_of,
    is_first_hop,
    is_removed,
    path_beyond,
    registration,
)
from edge.core.registration.flows import Flows
from edge.core.senders import way_to
from edge.core.tokens.gruu import SALT, can_have
from edge.core.tokens.path import FlowTokens
from events.commands import Authenticate
from events.registrations import Binding
from events.replies import Refused, Registered
from sipcore.address import Address, parse_address
from sipcore.digest import Credentials
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.transactions import NOTHING_KEPT, Sending, Server, Transactions
from sipcore.uri import Uri, aor, equal, parse_uri

UNSERVED_PER_SECOND, UNSERVED_PER_SOURCE = 1.0, 1 / 60
"""Phones with a domain that is not served, for the log: in all, and of one address."""
LONGEST_WORD = 100
"""Of what a stranger says of himself so many characters are kept."""


class Registration:
    """A REGISTER that the log is asked about."""

    __slots__ = (
        "aor",
        "began",
        "beyond",
        "flow",
        "gruu",
        "head",
        "outbound",
        "path",
        "realm",
        "server",
        "size",
        "user",
    )

    def __init__(
        self,
        arrival: Arrival,
        server: Server,
        head: str,
        realm: str,
        aor: str,
        user: str,
        path: str,
        beyond: tuple[str, ...],
        *,
        gruu: bool,
    ) -> None:
        self.began = arrival.now
        self.flow = arrival.flow
        self.size = arrival.size
        """Octets of the request."""
        self.server = server
        """Its transaction, which does not keep the request."""
        self.head = head
        """The rows that every response repeats."""
        self.realm = realm
        """The served domain that the Request-URI names."""
        self.aor = aor
        """Who is registered."""
        self.user = user
        """The digest's user and realm."""
        self.path = path
        """Our Path value of the binding."""
        self.beyond = beyond
        """Those of the proxies behind it."""
        self.outbound = asks_for_outbound(arrival.request) and is_first_hop(arrival.request)
        """Whether it registers a flow by RFC 5626, and its 200 says that we do, too."""
        self.gruu = gruu
        """Whether its 200 has GRUUs."""


class Registers:
    """All REGISTERs of one edge."""

    def __init__(self, answers: Answers, tokens: FlowTokens, flows: Flows, refusal: Callable[[Uri, Flow], str]) -> None:
        """`flows` is told who is registered by which. Replies end long before a 100 would be due (after 3.5 s).

        `refusal`: why nobody may be called at a Contact that its sender's flow does not reach; "" if they may.
        """
        self._answers = answers
        self._tokens = tokens
        self._flows = flows
        self._refusal = refusal
        settings = answers.settings
        self._layer = Transactions()
        self._completed = Completed(self._layer, settings.max_completed)
        self.pending = Pending[str, Registration](settings.reply_seconds)
        """By the id of the command that asks for the answer."""
        self._unserved = SharedRate(UNSERVED_PER_SOURCE, UNSERVED_PER_SECOND)

    def __len__(self) -> int:
        return len(self._layer)

    def take_sends(self) -> list[Sending]:
        """What is to be sent, by which `Way`."""
        return self._layer.take_sends()

    def request(self, arrival: Arrival, *, serving: bool) -> None:
        """A REGISTER; ParseError where it breaks the protocol."""
        answers, request, flow = self._answers, arrival.request, arrival.flow
        _, server = self._layer.find(request, arrival.now)
        if server is not None:
            answers.drop("retransmission")
            return
        realm = self._domain(arrival)
        if realm is None:
            return
        if flow.transport not in SECURE and _wants_secure(request):
            raise ParseError("sips-in-clear", "SIPS Contact Needs TLS")  # RFC 5630 section 5.2
        if asks_for_outbound(request) and not (is_first_hop(request) or _first_hop_does_outbound(request)):
            answers.stateless(arrival, 439)  # RFC 5626 section 6: who knows the flow would have to stand in Path
            return
        settings = answers.settings
        given = answers.credentials(arrival, 401, "authorization", realm)
        if given is None:
            return
        # SIPp and phones behind a balancer write the address they send to: only another domain of ours is refused.
        if given.uri != request.uri and answers.served(parse_uri(given.uri).host, flow) not in (None, realm):
            answers.stateless(arrival, 400, "Digest URI of Another Resource")
            return
        if not serving or len(self.pending) >= settings.max_pending:
            answers.drop("shed" if serving else "not-serving")
            answers.stateless(arrival, 503, headers=[answers.retry_after()])
            return
        self._authenticate(arrival, given, realm)

    def _domain(self, arrival: Arrival) -> str | None:
        """The served domain that the Request-URI names; None once the request is refused (RFC 3261 section 10.3)."""
        answers, request = self._answers, arrival.request
        target = parse_uri(request.uri)
        if not target.is_sip:
            answers.stateless(arrival, 416)
            return None
        realm = answers.served(target.host, arrival.flow)
        if realm is None:
            if exhausted(request):  # it would go on
                answers.stateless(arrival, 483)
            else:
                answers.stateless(arrival, 403, "Domain Not Served Here")
                self._note_unserved(arrival, target.host)
            return None
        if missing := unsupported(request):
            answers.stateless(arrival, 420, headers=missing)
            return None
        if request.to.uri.partition(":")[0].lower() not in ("sip", "sips"):
            raise ParseError("to-not-sip", "To Is Not a SIP URI")
        return realm

    def _note_unserved(self, arrival: Arrival, domain: str) -> None:
        """So that its operator can find a phone that was set up wrongly; a flood leaves a line a second at most."""
        flow, now, request = arrival.flow, arrival.now, arrival.request
        if self._unserved.passes(flow.remote_host, now):
            try:
                to = aor(request.to.parsed_uri)  # without the password that some write there
            except ParseError:
                to = ""
            said = (_shown(text) for text in (domain, to, request.first("user-agent") or ""))
            self._answers.actions.unserved.append(Unserved(flow.remote_host, flow.transport, *said))

    def _authenticate(self, arrival: Arrival, given: Credentials, realm: str) -> None:
        """Opens the transaction and asks authsvc."""
        answers, request, flow, now = self._answers, arrival.request, arrival.flow, arrival.now
        to = self._aor(request, flow)
        id_ = answers.command_id()
        beyond = path_beyond(request) if answers.settings.is_peer(flow.remote_host) else ()

        def way(address: Address) -> tuple[str, ...] | None:
            self._check_loop(address, flow, to)
            return None if beyond else self._path(address, request, flow)

        register = registration(request, self._tokens.names(flow), way, beyond)
        by = register.contacts[0].path if len(register.contacts) == 1 else None
        path = (by or register.path)[0]
        command = Authenticate(
            id=id_,
            reply=answers.reply_to(now),
            digest=digest_of(given),
            method=request.method,
            source=flow.remote_host,
            aor=to,
            register=register,
        )
        value = encoded(command)
        origin = Way(arrival.caller, response.reply_port(request, flow))
        server = self._layer.open_server(request, origin, flow.reliable, now)
        head = response.head(answers.tag_key, request, flow)
        server.request = NOTHING_KEPT
        user = f"{given.username}@{given.realm}"
        pending = Registration(arrival, server, head, realm, to, user, path, beyond, gruu=asks_for_gruus(request))
        self.pending.wait(id_, pending, now)
        answers.actions.publishes.append(Publish(id_, user, value, patient=True))

    def _check_loop(self, address: Address, flow: Flow, to: str) -> None:
        """ParseError (403) for a Contact that leads back here: a GRUU, or the AOR `to` (RFC 5627 section 5.1)."""
        contact = address.parsed_uri
        if contact.param("gr") is not None and self._answers.served(contact.host, flow, contact.port):
            raise ParseError("contact-is-gruu", "Contact Is a GRUU", 403)
        if address.get("+sip.instance") and equal(contact, parse_uri(f"sip:{to}")):
            raise ParseError("contact-is-aor", "Contact Is the AOR", 403)

    def _path(self, address: Address, request: Request, flow: Flow) -> tuple[str, ...] | None:
        """The Path of a Contact, where it is not the flow's; ParseError (403) where nothing may be sent (S10)."""
        contact = address.parsed_uri
        if not contact.is_sip:
            return None  # the registrar refuses it
        way = way_to(contact, request.via, flow, alone=len(request.contacts) == 1)
        if way is flow:
            return None
        if why := self._refusal(contact, flow):
            raise ParseError("contact-refused", why, 403)
        return () if way is None else (self._tokens.names(way).path,)

    def _aor(self, request: Request, flow: Flow) -> str:
        """The canonical AOR of To, and of To alone (RFC 3261 section 10.3, step 5)."""
        to = request.to.parsed_uri
        if not request.to.uri.isascii():
            check_utf8(request.to.uri)  # the canonical AOR would hide it behind escapes
        if to.user is None:
            raise ParseError("to-without-user", "Not Found", 404)
        address = aor(to)
        user, _, host = address.rpartition("@")
        domain = self._answers.served(host, flow)
        return address if domain is None or domain == host else f"{user}@{domain}"

    # --- final responses ------------------------------------------------------------------------------------------

    def replied(self, registration: Registration, reply: Registered | Refused, now: float) -> None:
        """What the log says of one that was taken from `pending`."""
        if isinstance(reply, Refused):
            self._refused(registration, reply, now)
            return
        # The registration is durable and routable.
        answers = self._answers
        at = answers.clock.at(now)
        live = [binding for binding in reply.bindings if binding.expires > at]
        gruus = self._gruus(registration.aor, live, reply.at) if registration.gruu else {}
        headers = [contact_row(binding, at, gruus.get(binding.instance, "")) for binding in live]
        path = f"{registration.path[:-1]};ob>" if registration.outbound else registration.path
        headers += [("Path", value) for value in (path, *registration.beyond)]
        headers += SUPPORTED, ("Date", answers.http_date(at // 1000))
        if registration.outbound:
            headers.append(("Require", "outbound"))
            if answers.settings.flow_timer:
                headers.append(("Flow-Timer", str(answers.settings.flow_timer)))
        headers += [("Service-Route", f"<{uri}>") for uri in answers.settings.service_route]
        self._finish(registration, 200, response.encode(200, "OK", registration.head, headers), now)
        if registration.beyond and registration.flow.reliable:
            return  # a proxy's connection: its end is not that of the phones behind it
        self._flows.registered(registration.flow, registration.aor, registration.user, registration.path, reply, now)

    def _gruus(self, address: str, bindings: Iterable[Binding], at: int) -> dict[str | None, str]:
        """By instance, the GRUUs of phones that have some, a temporary one that was never given (RFC 5627 section 5.2).

        As Contact parameters, each with its `;`.
        """
        gruus, entropy = self._answers.gruus, self._answers.entropy
        instances = dict.fromkeys(each.instance for each in bindings if each.gruus_since)
        return {
            instance: f';pub-gruu="{gruus.public(address, instance)}"'
            f';temp-gruu="{gruus.temporary(address, instance, at, entropy(SALT))}"'
            for instance in instances
            if instance is not None and can_have(instance)
        }

    def _refused(self, registration: Registration, reply: Refused, now: float) -> None:
        answers, flow = self._answers, registration.flow
        status = reply.status if 400 <= reply.status <= 599 else 500
        headers = least = response.lines(reply.headers)
        if status == 401:
            algorithms = reply.algorithms or answers.settings.algorithms[registration.realm]
            challenges = answers.challenges(flow, registration.realm, algorithms, now, stale=reply.stale)
            headers, least = headers + challenges, least + challenges[:1]
        elif status == 503:
            headers = least = answers.with_retry_after(headers)
        reason, head = response.printable(reply.reason), registration.head
        data = response.encode(status, reason, head, headers)
        if amplifies(data, flow, registration.size):
            data = response.encode(status, reason, head, least)
        self._finish(registration, status, data, now)

    def unpublished(self, ids: Iterable[str], now: float) -> None:
        """The log did not take these commands: 503 at once; whatever they did after all is not promised."""
        for id_ in ids:
            registration = self.pending.take(id_)
            if registration is not None:
                self._answers.drop("unpublished")
                self._unavailable(registration, now)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use."""
        pending, layer = self.pending.next_timer(), self._layer.next_timer()
        return layer if pending is None else pending if layer is None else min(pending, layer)

    def on_time(self, now: float) -> None:
        """Does what is due."""
        self._layer.on_time(now)
        self._completed.trim()
        for late in self.pending.overdue(now):
            self._answers.drop("deadline")
            self._unavailable(late, now)

    def _unavailable(self, registration: Registration, now: float) -> None:
        data = response.encode(503, "", registration.head, [self._answers.retry_after()])
        self._finish(registration, 503, data, now)

    def _finish(self, registration: Registration, status: int, data: bytes, now: float) -> None:
        self._answers.count(status)
        self._answers.took("REGISTER", status, now - registration.began)
        self._layer.respond_with(registration.server, status, data, now)
        if ended := self._completed.add(registration.server):
            self._answers.drop("transaction-ended-early", ended)


def _shown(text: str) -> str:
    """As a log can have it: octets that are no UTF-8 are question marks."""
    return response.printable(text[:LONGEST_WORD].encode(errors="replace").decode())


def _first_hop_does_outbound(request: Request) -> bool:
    """Whether the first hop, who stands last in Path, has its URI there with `ob`."""
    paths = request.values("path")
    return bool(paths) and parse_address(paths[-1]).parsed_uri.param("ob") is not None


def _wants_secure(request: Request) -> bool:
    """Whether a Contact asks to be bound to a sips: URI; one that is removed asks for nothing."""
    secure = [contact for contact in request.contacts if contact.uri[:5].lower() == "sips:"]
    return bool(secure) and any(not is_removed(contact, expires_of(request)) for contact in secure)
