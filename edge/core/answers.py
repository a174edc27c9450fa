"""What the handlers of REGISTER and of calls share: settings, the log's time, and responses of our own.

A stateless response on UDP is never much larger than what it answers (CHECKLIST S02).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge.core import credentials, response
from edge.core.actions import Actions, Final, Send
from edge.core.arrival import Arrival
from edge.core.clock import LogClock
from edge.core.flow import Flow, Hop
from edge.core.rate import SourceRate
from edge.core.settings import CoreSettings
from edge.core.tokens.gruu import Gruu, Gruus
from edge.core.us import Us
from events.calls import CallEvent
from events.commands import ReplyTo
from sipcore import nonce, proxy
from sipcore.digest import Credentials
from sipcore.errors import ParseError
from sipcore.message import Header, Request
from sipcore.transaction import transaction_key
from sipcore.uri import Uri, aor, parse_uri

AMPLIFICATION = 2
"""A UDP response to an unauthenticated request is at most this many times as large (CHECKLIST S02)."""
CHALLENGES = (401, 407)
SALT = 6
REFUSED = 2_000
"""INVITEs within dialogs that were refused without a transaction and are remembered for their ACKs."""
TIMED = ("REGISTER", "INVITE")
"""Whose answers are timed."""

METHODS = "REGISTER, INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY"
"""What is taken or routed; SUBSCRIBE and PUBLISH to our users are 489."""
ALLOW: Header = ("Allow", METHODS)
SUPPORTED: Header = ("Supported", "path, outbound")
CAPABILITIES: tuple[Header, ...] = (
    ALLOW,
    SUPPORTED,
    ("Accept", "application/sdp"),
    ("Accept-Encoding", "identity"),
    ("Accept-Language", "en"),
)
EXTENSIONS = frozenset({"path", "outbound", "gruu"})
"""Option tags that we support; of gruu no response says so (RFC 5627 section 5.2)."""


class Answers:
    """One edge's responses, and who it is."""

    def __init__(
        self,
        settings: CoreSettings,
        keys: Mapping[str, bytes],
        edge: str,
        boot: str,
        clock: LogClock,
        entropy: Callable[[int], bytes],
    ) -> None:
        """`keys` sign nonces and tags, the first; `entropy(n)` gives n random bytes."""
        self.settings = settings
        self.keys = keys
        self.tag_key = next(iter(keys.values()))
        self.edge, self.boot = edge, boot
        self.clock = clock
        self.entropy = entropy
        self.gruus = Gruus(keys)
        self.us = Us(settings.algorithms, settings.own_hosts)
        self.rate = SourceRate(settings.challenges_per_second)
        self.actions = Actions()
        self._commands = 0
        self._questions = 0
        self._date = (0, "")
        self._refused: OrderedDict[str, None] = OrderedDict()
        """INVITEs whose To tag was another's already when they were refused: by it their ACKs cannot be told."""

    def command_id(self) -> str:
        """The id of a new command of this boot."""
        self._commands += 1
        return f"{self.boot}-{self._commands:x}"

    def question(self) -> int:
        """The number of a new question to the shell."""
        self._questions += 1
        return self._questions

    def drop(self, name: str, count: int = 1) -> None:
        """Counts what was dropped or refused, by name."""
        drops = self.actions.drops
        drops[name] = drops.get(name, 0) + count

    def tell(self, event: CallEvent) -> None:
        """Notes what happened to a call."""
        self.actions.events.append(event)

    def send(self, status: int, caller: Hop, port: int, data: bytes) -> None:
        """Sends a response, and counts it."""
        self.count(status)
        edge, boot = ("", "") if caller.edge in ("", self.edge) else (caller.edge, caller.boot)
        self.actions.sends.append(Send(caller.flow, data, port, edge, boot))

    def count(self, status: int) -> None:
        """Counts a response that leaves."""
        statuses = self.actions.statuses
        statuses[status] = statuses.get(status, 0) + 1

    def by_gateway(self, name: str) -> None:
        """Counts an INVITE that goes by a gateway."""
        counts = self.actions.by_gateway
        counts[name] = counts.get(name, 0) + 1

    def took(self, method: str, status: int, seconds: float) -> None:
        """Notes how long the final response to a request took."""
        if method in TIMED:
            self.actions.finals.append(Final(method, status, seconds))

    def stateless(
        self,
        arrival: Arrival,
        status: int,
        reason: str = "",
        headers: Sequence[Header] = (),
        least: Sequence[Header] | None = None,
    ) -> None:
        """Answers and forgets. On UDP never with much more than came: then with the `least` headers, or with none.

        A challenge without its header would say nothing: that is not sent at all.
        """
        flow = arrival.flow
        port, head = response.reply_port(arrival.request, flow), response.head(self.tag_key, arrival.request, flow)
        data = response.encode(status, reason, head, headers)
        fewer = [] if least is None else [least]
        if status not in CHALLENGES:
            fewer.append(())
        while amplifies(data, flow, arrival.size):
            if not fewer:
                self.drop("amplification")
                return
            data = response.encode(status, reason, head, fewer.pop(0))
        self._remember(arrival.request)
        self.took(arrival.request.method, status, 0.0)
        self.send(status, arrival.caller, port, data)

    def _remember(self, request: Request) -> None:
        if request.method != "INVITE" or not proxy.has_to_tag(request):
            return
        try:
            self._refused[transaction_key(request)] = None
        except ParseError:
            return  # of a Via that nobody can read: its ACK has the same, and is dropped for it
        if len(self._refused) > REFUSED:
            self._refused.popitem(last=False)

    def acknowledged(self, ack: Request) -> bool:
        """Whether an ACK is to a stateless response of ours: it ends here (RFC 3261 sections 8.2.7 and 17.1.1.3)."""
        return ack.to.tag == response.to_tag(self.tag_key, ack) or transaction_key(ack) in self._refused

    def unreadable(self, error: ParseError, caller: Hop, now: float, size: int) -> None:
        """Answers what breaks the protocol as far as it can be answered; counts it by its name in any case."""
        self.drop(error.name)
        request = error.message
        if error.status is None or not isinstance(request, Request) or request.method == "ACK":
            return
        try:
            self.stateless(Arrival(request, caller, now, size), error.status, error.reason)
        except ParseError:
            self.drop("unanswerable")

    def credentials(self, arrival: Arrival, status: int, header: str, realm: str) -> Credentials | None:
        """The usable credentials in this header; None once the request is challenged with this status (401 or 407)."""
        flow, now, settings = arrival.flow, arrival.now, self.settings
        algorithms = settings.algorithms[realm]
        values, seconds = arrival.request.values(header), self.clock.at(now) // 1000
        verdict, given = credentials.judge(values, realm, algorithms, self.keys, seconds, settings.nonce_seconds)
        if given is not None:
            return given
        if not self.rate.passes(flow.remote_host, now):
            self.drop("rate-limited")
            return None
        stale = verdict is credentials.Verdict.STALE
        headers = self.challenges(flow, realm, algorithms, now, stale=stale, proxy=status == 407)
        self.stateless(arrival, status, headers=headers, least=headers[:1])
        return None

    def challenges(
        self, flow: Flow, realm: str, algorithms: Iterable[str], now: float, *, stale: bool, proxy: bool = False
    ) -> list[Header]:
        """Challenges with a fresh nonce, one for each algorithm in order."""
        seconds = self.clock.at(now) // 1000
        fresh = nonce.make(self.keys, realm, seconds, self.entropy(SALT), flow.remote_host)
        return credentials.challenges(realm, fresh, algorithms, stale=stale, proxy=proxy)

    def retry_after(self) -> Header:
        """Spread at random, so that phones do not come back together (CHECKLIST S05)."""
        least, greatest = self.settings.retry_after
        seconds = least + int.from_bytes(self.entropy(2), "big") % (greatest - least + 1)
        return "Retry-After", str(seconds)

    def with_retry_after(self, headers: list[Header]) -> list[Header]:
        """These headers, one of which is Retry-After."""
        return headers if any(name.lower() == "retry-after" for name, _ in headers) else [*headers, self.retry_after()]

    def reply_to(self, now: float) -> ReplyTo:
        """Where the reply to a command of this moment goes, and until when."""
        return ReplyTo(self.edge, self.boot, self.clock.at(now) + int(self.settings.reply_seconds * 1000))

    def http_date(self, seconds: int) -> str:
        """The Date of a moment, made once a second."""
        if self._date[0] != seconds:
            self._date = (seconds, response.http_date(seconds))
        return self._date[1]

    def aor(self, uri: Uri, flow: Flow) -> str | None:
        """The canonical AOR that a URI is; None for what is no user of a domain of ours."""
        domain = self.served(uri.host, flow) if uri.is_sip and uri.user is not None else None
        return None if domain is None else aor(Uri("sip", uri.user, None, domain))

    def served(self, host: str, flow: Flow, port: int | None = None) -> str | None:
        """The served domain that a host means, at a port if one is asked for; None if it means none."""
        domain = self.us.domain(host)
        if domain is None and self.settings.own_addresses and self.us.has(host, flow, port):
            return self.settings.default_domain
        return domain

    def gruu_of(self, text: str) -> Gruu | None:
        """Whose a URI is that is a GRUU of a domain of ours; None for all others."""
        if ";gr" not in text.lower():
            return None
        try:
            uri = parse_uri(text)
        except ParseError:
            return None
        domain = self.us.domain(uri.host) if uri.is_sip else None
        return None if domain is None else self.gruus.read(uri, domain)


def amplifies(data: bytes, flow: Flow, size: int) -> bool:
    """Whether a response to a UDP request of so many octets is too large for a stranger."""
    return not flow.reliable and len(data) > AMPLIFICATION * size


def exhausted(request: Request) -> bool:
    """Whether the request may be forwarded no more (RFC 3261 section 16.3, step 3)."""
    return proxy.hops_left(request) == 0


def unsupported(request: Request) -> list[Header]:
    """Unsupported, for the extensions that are required here and not known; none if there are none."""
    if request.first("require") is None and request.first("proxy-require") is None:
        return []
    required = request.values("require") + request.values("proxy-require")
    return refusing([tag for tag in required if tag.lower() not in EXTENSIONS])


def refusing(tags: Iterable[str]) -> list[Header]:
    """Unsupported, for these option tags; none if there are none."""
    text = ", ".join(tags)
    return [("Unsupported", text)] if text else []
