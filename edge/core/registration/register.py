"""REGISTER at the edge: challenged, asked of the log, answered (RFC 3261 section 10.3; DESIGN section 4). PURE.

retransmission --> the last response again
no usable credentials --> stateless 401: no record, no look-up, no transaction
else --> transaction, `Authenticate` --> reply, failure or deadline --> final response
"""

from collections.abc import Callable, Iterable, Iterator

from edge.core import credentials, response
from edge.core.actions import Publish, Send
from edge.core.answers import SUPPORTED, Answers, amplifies, unsupported
from edge.core.flow import SECURE, Flow
from edge.core.registration.contacts import check_utf8, contact_row, encoded, expires_of, is_removed, registration
from edge.core.registration.senders import way_to
from edge.core.registration.transactions import ServerTransactions, Transaction
from edge.core.tokens.path import FlowTokens
from events.commands import Authenticate, ReplyTo
from events.replies import Refused, Registered
from sipcore.address import Address
from sipcore.digest import Credentials
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.transaction import transaction_key
from sipcore.uri import Uri, aor, parse_uri


class Registering:
    """All REGISTERs of one edge."""

    def __init__(self, answers: Answers, tokens: FlowTokens) -> None:
        self._answers = answers
        self._tokens = tokens
        settings = answers.settings
        self.transactions = ServerTransactions(settings.reply_seconds, settings.max_completed)
        self.refusal: Callable[[Uri, Flow], str] = lambda contact, flow: ""
        """Why nobody may be called at a Contact that is not reached by its sender's flow; "" if they may."""

    def request(self, request: Request, flow: Flow, now: float, size: int, *, serving: bool) -> None:
        """A REGISTER; ParseError where it breaks the protocol."""
        answers = self._answers
        key = transaction_key(request)
        if (known := self.transactions.find(key)) is not None:
            self._again(known)
            return
        realm = self._domain(request, flow, size)
        if realm is None:
            return
        if flow.transport not in SECURE and _wants_secure(request):
            raise ParseError("sips-in-clear", "SIPS Contact Needs TLS")  # RFC 5630 section 5.2
        settings = answers.settings
        algorithms = settings.algorithms[realm]
        seconds = answers.clock.at(now) // 1000
        values = request.values("authorization")
        verdict, given = credentials.judge(values, realm, algorithms, answers.keys, seconds, settings.nonce_seconds)
        if given is None:
            if not answers.rate.passes(flow.remote_host, now):
                answers.drop("rate-limited")
                return
            rows = answers.challenges(flow, realm, algorithms, now, stale=verdict is credentials.Verdict.STALE)
            answers.stateless(request, flow, size, 401, rows="".join(rows), least=rows[0])
            return
        # SIPp and phones behind a balancer write the address they send to: only another domain of ours is refused.
        if given.uri != request.uri and answers.served(parse_uri(given.uri).host, flow) not in (None, realm):
            answers.stateless(request, flow, size, 400, "Digest URI of Another Resource")
            return
        if not serving or self.transactions.pending >= settings.max_pending:
            answers.drop("shed" if serving else "not-serving")
            answers.stateless(request, flow, size, 503, rows=answers.retry_after())
            return
        self._authenticate(request, given, flow, now, size, key, realm)

    def _domain(self, request: Request, flow: Flow, size: int) -> str | None:
        """The served domain that the Request-URI names; None once the request is refused (RFC 3261 section 10.3)."""
        answers = self._answers
        target = parse_uri(request.uri)
        if not target.is_sip:
            answers.stateless(request, flow, size, 416)
            return None
        realm = answers.served(target.host, flow)
        if realm is None:
            answers.stateless(request, flow, size, 403, "Domain Not Served Here")
            return None
        if missing := unsupported(request):
            answers.stateless(request, flow, size, 420, rows=missing)
            return None
        if request.to.uri.partition(":")[0].lower() not in ("sip", "sips"):
            raise ParseError("to-not-sip", "To Is Not a SIP URI")
        return realm

    def _authenticate(
        self, request: Request, given: Credentials, flow: Flow, now: float, size: int, key: str, realm: str
    ) -> None:
        """Opens the transaction and asks authsvc."""
        answers = self._answers
        to = self._aor(request, flow)
        id_ = answers.command_id()
        register = registration(request, self._tokens.names(flow), lambda address: self._way(address, request, flow))
        by = register.contacts[0].path if len(register.contacts) == 1 else None
        path = (by or register.path)[0]
        deadline = answers.clock.at(now) + int(answers.settings.reply_seconds * 1000)
        command = Authenticate(
            id=id_,
            reply=ReplyTo(answers.edge, answers.boot, deadline),
            digest=credentials.digest_of(given),
            method=request.method,
            source=flow.remote_host,
            aor=to,
            register=register,
        )
        value = encoded(command)
        head = response.head(request, flow, answers.tag_key)
        port = response.reply_port(request, flow)
        user = f"{given.username}@{given.realm}"
        self.transactions.open(Transaction(key, flow, port, head, size, realm, id_, now, aor=to, user=user, path=path))
        answers.actions.publishes.append(Publish(id_, user, value, patient=True))

    def _way(self, address: Address, request: Request, flow: Flow) -> tuple[str, ...] | None:
        """The Path of a Contact, where it is not the flow's; ParseError (403) where nothing may be sent (S10)."""
        contact = address.parsed_uri
        if not contact.is_sip:
            return None  # the registrar refuses it
        way = way_to(contact, request.via, flow, alone=len(request.contacts) == 1)
        if way is flow:
            return None
        if why := self.refusal(contact, flow):
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

    def _again(self, transaction: Transaction) -> None:
        """A retransmission: the last response again, or nothing while there is none (X02, X04)."""
        self._answers.drop("retransmission")
        if last := self.transactions.again(transaction):
            self._answers.actions.sends.append(Send(transaction.flow, last, transaction.port))

    # --- final responses ------------------------------------------------------------------------------------------

    def registered(self, transaction: Transaction, reply: Registered, now: float) -> None:
        """The registration is durable and routable: 200."""
        answers = self._answers
        at = answers.clock.at(now)
        contacts = "".join([contact_row(binding, at) for binding in reply.bindings if binding.expires > at])
        rows = f"{contacts}Path: {transaction.path}\r\n{SUPPORTED}Date: {answers.http_date(at // 1000)}\r\n"
        self._finish(transaction, 200, response.encode(200, "OK", transaction.head, rows), now)

    def refused(self, transaction: Transaction, reply: Refused, now: float) -> None:
        """The registration is refused."""
        answers = self._answers
        status = reply.status if 400 <= reply.status <= 599 else 500
        rows = least = response.lines(reply.headers)
        if status == 401:
            algorithms = reply.algorithms or answers.settings.algorithms[transaction.realm]
            challenges = answers.challenges(transaction.flow, transaction.realm, algorithms, now, stale=reply.stale)
            rows, least = rows + "".join(challenges), least + challenges[0]
        elif status == 503 and not any(name.lower() == "retry-after" for name, _ in reply.headers):
            rows = least = rows + answers.retry_after()
        reason = response.reason_phrase(status, reply.reason)
        data = response.encode(status, reason, transaction.head, rows)
        if amplifies(data, transaction.flow, transaction.size):
            data = response.encode(status, reason, transaction.head, least)
        self._finish(transaction, status, data, now)

    def unpublished(self, ids: Iterable[str], now: float) -> None:
        """The log did not take these commands: 503 at once; whatever they did after all is not promised."""
        for id_ in ids:
            transaction = self.transactions.answered(id_)
            if transaction is not None:
                self._answers.drop("unpublished")
                self._unavailable(transaction, now)

    def on_time(self, now: float) -> None:
        """Does what is due."""
        self.transactions.expire(now)
        for transaction in self.transactions.trying(now):
            transaction.response = response.encode(100, "Trying", transaction.head)
            self._answers.send(100, transaction.flow, transaction.port, transaction.response)
        overdue: Iterator[Transaction] = self.transactions.overdue(now)
        for transaction in overdue:
            self._answers.drop("deadline")
            self._unavailable(transaction, now)

    def _unavailable(self, transaction: Transaction, now: float) -> None:
        rows = self._answers.retry_after()
        data = response.encode(503, response.reason_phrase(503), transaction.head, rows)
        self._finish(transaction, 503, data, now)

    def _finish(self, transaction: Transaction, status: int, data: bytes, now: float) -> None:
        self._answers.send(status, transaction.flow, transaction.port, data)
        if ended := self.transactions.complete(transaction, data, now):
            self._answers.drop("transaction-ended-early", ended)


def _wants_secure(request: Request) -> bool:
    """Whether a Contact asks to be bound to a sips: URI; one that is removed asks for nothing."""
    secure = [contact for contact in request.contacts if contact.uri[:5].lower() == "sips:"]
    return any(not is_removed(contact, expires_of(request)) for contact in secure)
