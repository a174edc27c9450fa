"""The edge without its sockets: messages and the time in; responses, commands and named drops out. PURE.

    message --> transaction? --> retransmission: the last response again
            --> refused by what it says --> stateless response
            --> no usable credentials --> stateless 401: no record, no look-up, no transaction
            --> REGISTER --> transaction, `Authenticate` --> reply, failure or deadline --> final response

What is sent, published and dropped gathers in `Actions`, which the shell takes after each wake-up.
Times are local monotonic seconds; `LogClock` makes the log's time of them. Nothing raises, whatever came in.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from edge import credentials, response, stun
from edge.actions import Actions, Publish, Send
from edge.clock import LogClock
from edge.flow import Flow
from edge.rate import SourceRate
from edge.register import check_utf8, contact_row, encoded, registration
from edge.settings import CoreSettings
from edge.token import FlowTokens
from edge.transactions import ServerTransactions, Transaction
from events.commands import Authenticate, ReplyTo
from events.replies import Refused, Registered, Reply
from sipcore import nonce
from sipcore.digest import Credentials
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import Keepalive, parse_datagram
from sipcore.transaction import transaction_key
from sipcore.uri import aor, parse_uri

ALLOW = "Allow: REGISTER, OPTIONS\r\n"
SUPPORTED = "Supported: path\r\n"
CAPABILITIES = f"{ALLOW}{SUPPORTED}Accept: application/sdp\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\n"
EXTENSIONS = frozenset({"path"})
"""Option tags that we support; v1 does neither outbound nor gruu."""
AMPLIFICATION = 2
"""A UDP response to an unauthenticated request is at most this many times as large (CHECKLIST S02)."""
SALT = 6


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
    ) -> None:
        """`keys` sign nonces and tags, the first; `entropy(n)` gives n random bytes."""
        self._settings = settings
        self._keys = keys
        self._tag_key = next(iter(keys.values()))
        self._edge, self._boot = edge, boot
        self._tokens = tokens
        self._clock = clock
        self._entropy = entropy
        self._rate = SourceRate(settings.challenges_per_second)
        self._commands = 0
        self._actions = Actions()
        self._date = (0, "")
        self._parse_uri = lru_cache(maxsize=4096)(parse_uri)
        self.transactions = ServerTransactions(settings.reply_seconds, settings.max_completed)
        self.serving = False
        """Whether REGISTERs can be answered: the log's time is known and replies are read. Else they get 503."""

    # --- what the shell calls -------------------------------------------------------------------------------------

    def take(self) -> Actions:
        """What has gathered since the last time."""
        taken, self._actions = self._actions, Actions()
        return taken

    def datagram(self, data: bytes, flow: Flow, now: float) -> None:
        """A UDP datagram."""
        if stun.is_stun(data):
            self._stun(data, flow)
            return
        try:
            message = parse_datagram(data)
        except ParseError as error:
            self._unreadable(error, flow, len(data))
            return
        self._message(message, flow, now, len(data))

    def stream(self, items: Iterable[Request | Response | ParseError | Keepalive], flow: Flow, now: float) -> None:
        """What a stream's parser made of the octets that came."""
        for item in items:
            if isinstance(item, Request | Response):
                self._message(item, flow, now, 0)
            elif isinstance(item, ParseError):
                self._unreadable(item, flow, 0)
            else:
                self._actions.sends.append(Send(flow, b"\r\n", 0))

    def replied(self, replies: Iterable[Reply], now: float) -> None:
        """Answers to commands of this boot, in any order; each may come twice or too late."""
        for reply in replies:
            transaction = self.transactions.answered(reply.id)
            if transaction is None:
                self._drop("late-reply")
            elif isinstance(reply, Registered):
                data = response.encode(200, "OK", transaction.head, self._ok(reply, transaction, now))
                self._finish(transaction, 200, data, now)
            else:
                self._refused(transaction, reply, now)

    def unpublished(self, ids: Iterable[str], now: float) -> None:
        """The log did not take these commands: 503 at once; whatever they did after all is not promised."""
        for id_ in ids:
            transaction = self.transactions.answered(id_)
            if transaction is not None:
                self._drop("unpublished")
                self._unavailable(transaction, now)

    def next_timer(self) -> float | None:
        """When `on_time` is next of use; None while nothing waits."""
        return self.transactions.next_timer()

    def on_time(self, now: float) -> None:
        """Does what is due."""
        self.transactions.expire(now)
        for transaction in self.transactions.trying(now):
            transaction.response = response.encode(100, "Trying", transaction.head)
            self._send(100, transaction.flow, transaction.port, transaction.response)
        for transaction in self.transactions.overdue(now):
            self._drop("deadline")
            self._unavailable(transaction, now)

    # --- messages -------------------------------------------------------------------------------------------------

    def _message(self, message: Request | Response, flow: Flow, now: float, size: int) -> None:
        if isinstance(message, Response):
            ours = self._is_ours(message.via.host, flow)
            self._drop("unexpected-response" if ours else "foreign-response")
            return
        try:
            if message.method == "REGISTER":
                self._register(message, flow, now, size)
            else:
                self._other(message, flow, size)
        except ParseError as error:
            error.message = message
            self._unreadable(error, flow, size)

    def _stun(self, data: bytes, flow: Flow) -> None:
        answer = stun.binding_response(data, flow.remote_host, flow.remote_port)
        if answer is None:
            self._drop("stun-ignored")
        else:
            self._actions.sends.append(Send(flow, answer, flow.remote_port))

    def _unreadable(self, error: ParseError, flow: Flow, size: int) -> None:
        """Answers what breaks the protocol as far as it can be answered; counts it by its name in any case."""
        self._drop(error.name)
        request = error.message
        if error.status is None or request is None or request.method == "ACK":
            return
        try:
            self._stateless(request, flow, size, error.status, error.reason)
        except ParseError:
            self._drop("unanswerable")

    def _other(self, request: Request, flow: Flow, size: int) -> None:
        """Methods other than REGISTER; calls are not routed here yet."""
        if request.method == "ACK":
            self._drop("unexpected-ack")
            return
        if request.method == "CANCEL":
            self._stateless(request, flow, size, 481)
            return
        target = self._parse_uri(request.uri)
        if not target.is_sip:
            self._stateless(request, flow, size, 416)
            return
        if not self._is_ours(target.host, flow) and target.host.lower() not in self._settings.algorithms:
            self._stateless(request, flow, size, 483 if _exhausted(request) else 403)
        elif target.user is not None:
            self._stateless(request, flow, size, 483 if _exhausted(request) else 501, rows=ALLOW)
        elif unsupported := _unsupported(request):
            self._stateless(request, flow, size, 420, rows=unsupported)
        elif request.method == "OPTIONS":
            self._stateless(request, flow, size, 200, rows=CAPABILITIES)
        else:
            self._stateless(request, flow, size, 405, rows=ALLOW)

    # --- REGISTER -------------------------------------------------------------------------------------------------

    def _register(self, request: Request, flow: Flow, now: float, size: int) -> None:
        key = transaction_key(request)
        if (known := self.transactions.find(key)) is not None:
            self._again(known)
            return
        realm = self._domain(request, flow, size)
        if realm is None:
            return
        algorithms = self._settings.algorithms[realm]
        verdict, given = credentials.judge(
            request.values("authorization"),
            realm,
            algorithms,
            self._keys,
            self._clock.at(now) // 1000,
            self._settings.nonce_seconds,
        )
        if given is None:
            if not self._rate.passes(flow.remote_host, now):
                self._drop("rate-limited")
                return
            rows = self._challenges(flow, realm, algorithms, now, stale=verdict is credentials.Verdict.STALE)
            self._stateless(request, flow, size, 401, rows="".join(rows), least=rows[0])
            return
        # SIPp and phones behind a balancer write the address they send to: only another domain of ours is refused.
        if given.uri != request.uri and self._served(self._parse_uri(given.uri).host, flow) not in (None, realm):
            self._stateless(request, flow, size, 400, "Digest URI of Another Resource")
            return
        if not self.serving or self.transactions.pending >= self._settings.max_pending:
            self._drop("shed" if self.serving else "not-serving")
            self._stateless(request, flow, size, 503, rows=self._retry_after())
            return
        self._authenticate(request, given, flow, now, size, key, realm)

    def _domain(self, request: Request, flow: Flow, size: int) -> str | None:
        """The served domain that the Request-URI names; None once the request is refused (RFC 3261 section 10.3)."""
        if _exhausted(request):
            self._stateless(request, flow, size, 483)
            return None
        target = self._parse_uri(request.uri)
        if not target.is_sip:
            self._stateless(request, flow, size, 416)
            return None
        realm = self._served(target.host, flow)
        if realm is None:
            self._stateless(request, flow, size, 403, "Domain Not Served Here")
            return None
        if unsupported := _unsupported(request):
            self._stateless(request, flow, size, 420, rows=unsupported)
            return None
        if request.to.uri.partition(":")[0].lower() not in ("sip", "sips"):
            raise ParseError("to-not-sip", "To Is Not a SIP URI")
        return realm

    def _authenticate(
        self, request: Request, given: Credentials, flow: Flow, now: float, size: int, key: str, realm: str
    ) -> None:
        """Opens the transaction and asks authsvc."""
        to = self._aor(request, flow)
        self._commands += 1
        id_ = f"{self._boot}-{self._commands:x}"
        deadline = self._clock.at(now) + int(self._settings.reply_seconds * 1000)
        command = Authenticate(
            id=id_,
            reply=ReplyTo(self._edge, self._boot, deadline),
            digest=credentials.digest_of(given),
            method=request.method,
            source=flow.remote_host,
            aor=to,
            register=registration(request, self._tokens.names(flow)),
        )
        value = encoded(command)
        head = response.head(request, flow, self._tag_key)
        port = response.reply_port(request, flow)
        self.transactions.open(Transaction(key, flow, port, head, size, realm, id_, now))
        self._actions.publishes.append(Publish(id_, f"{given.username}@{given.realm}", value))

    def _aor(self, request: Request, flow: Flow) -> str:
        """The canonical AOR of To, and of To alone (RFC 3261 section 10.3, step 5)."""
        to = request.to.parsed_uri
        if not request.to.uri.isascii():
            check_utf8(request.to.uri)  # the canonical AOR would hide it behind escapes
        if to.user is None:
            raise ParseError("to-without-user", "Not Found", 404)
        address = aor(to)
        user, _, host = address.rpartition("@")
        domain = self._served(host, flow)
        return address if domain is None or domain == host else f"{user}@{domain}"

    def _again(self, transaction: Transaction) -> None:
        """A retransmission: the last response again, or nothing while there is none (X02, X04)."""
        self._drop("retransmission")
        if last := self.transactions.again(transaction):
            self._actions.sends.append(Send(transaction.flow, last, transaction.port))

    # --- final responses ------------------------------------------------------------------------------------------

    def _ok(self, reply: Registered, transaction: Transaction, now: float) -> str:
        at = self._clock.at(now)
        contacts = "".join([contact_row(binding, at) for binding in reply.bindings if binding.expires > at])
        path = self._tokens.names(transaction.flow).path
        return f"{contacts}Path: {path}\r\n{SUPPORTED}Date: {self._http_date(at // 1000)}\r\n"

    def _refused(self, transaction: Transaction, reply: Refused, now: float) -> None:
        status = reply.status if 400 <= reply.status <= 599 else 500
        rows = least = response.lines(reply.headers)
        if status == 401:
            algorithms = reply.algorithms or self._settings.algorithms[transaction.realm]
            challenges = self._challenges(transaction.flow, transaction.realm, algorithms, now, stale=reply.stale)
            rows, least = rows + "".join(challenges), least + challenges[0]
        elif status == 503 and not any(name.lower() == "retry-after" for name, _ in reply.headers):
            rows = least = rows + self._retry_after()
        reason = response.reason_phrase(status, reply.reason)
        data = response.encode(status, reason, transaction.head, rows)
        if _amplifies(data, transaction.flow, transaction.size):
            data = response.encode(status, reason, transaction.head, least)
        self._finish(transaction, status, data, now)

    def _unavailable(self, transaction: Transaction, now: float) -> None:
        data = response.encode(503, response.reason_phrase(503), transaction.head, self._retry_after())
        self._finish(transaction, 503, data, now)

    def _finish(self, transaction: Transaction, status: int, data: bytes, now: float) -> None:
        self._send(status, transaction.flow, transaction.port, data)
        if ended := self.transactions.complete(transaction, data, now):
            self._drop("transaction-ended-early", ended)

    def _stateless(
        self,
        request: Request,
        flow: Flow,
        size: int,
        status: int,
        reason: str = "",
        *,
        rows: str = "",
        least: str | None = None,
    ) -> None:
        """Answers and forgets. On UDP never with much more than came: then with the `least` rows, or not at all."""
        head = response.head(request, flow, self._tag_key)
        reason = reason or response.reason_phrase(status)
        data = response.encode(status, reason, head, rows)
        if _amplifies(data, flow, size) and least is not None:
            data = response.encode(status, reason, head, least)
        if _amplifies(data, flow, size):
            self._drop("amplification")
            return
        self._send(status, flow, response.reply_port(request, flow), data)

    def _send(self, status: int, flow: Flow, port: int, data: bytes) -> None:
        statuses = self._actions.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self._actions.sends.append(Send(flow, data, port))

    def _drop(self, name: str, count: int = 1) -> None:
        drops = self._actions.drops
        drops[name] = drops.get(name, 0) + count

    # --- parts of responses, and questions ------------------------------------------------------------------------

    def _challenges(self, flow: Flow, realm: str, algorithms: Iterable[str], now: float, *, stale: bool) -> list[str]:
        seconds = self._clock.at(now) // 1000
        fresh = nonce.make(self._keys, realm, seconds, self._entropy(SALT), flow.remote_host)
        return credentials.challenges(realm, fresh, algorithms, stale=stale)

    def _retry_after(self) -> str:
        """Spread at random, so that phones do not come back together (CHECKLIST S05)."""
        least, greatest = self._settings.retry_after
        seconds = least + int.from_bytes(self._entropy(2), "big") % (greatest - least + 1)
        return f"Retry-After: {seconds}\r\n"

    def _http_date(self, seconds: int) -> str:
        if self._date[0] != seconds:
            self._date = (seconds, response.http_date(seconds))
        return self._date[1]

    def _is_ours(self, host: str, flow: Flow) -> bool:
        """Whether a host is this edge: the address that was written to, or one that it is known by."""
        host = host.lower().strip("[]")
        return host == flow.local_host or host in self._settings.own_hosts

    def _served(self, host: str, flow: Flow) -> str | None:
        """The served domain that a host means; None if it means none."""
        domain = host.lower()
        if domain in self._settings.algorithms:
            return domain
        if self._settings.own_addresses and self._is_ours(domain, flow):
            return self._settings.default_domain
        return None


def _exhausted(request: Request) -> bool:
    return request.first("max-forwards") == "0"


def _unsupported(request: Request) -> str:
    """The Unsupported row for the extensions that are required here and not known; "" if there are none."""
    if request.first("require") is None and request.first("proxy-require") is None:
        return ""
    required = request.values("require") + request.values("proxy-require")
    unknown = [tag for tag in required if tag.lower() not in EXTENSIONS]
    return f"Unsupported: {', '.join(unknown)}\r\n" if unknown else ""


def _amplifies(data: bytes, flow: Flow, size: int) -> bool:
    return not flow.reliable and len(data) > AMPLIFICATION * size
