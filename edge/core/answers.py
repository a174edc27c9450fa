"""What the handlers of REGISTER and of calls share: settings, the log's time, and responses that need no transaction.

A stateless response on UDP is never much larger than what it answers (CHECKLIST S02).
"""

from collections.abc import Callable, Iterable, Mapping

from edge.core import credentials, response
from edge.core.actions import Actions, Send
from edge.core.clock import LogClock
from edge.core.flow import Flow
from edge.core.rate import SourceRate
from edge.core.settings import CoreSettings
from edge.core.tokens.record_route import Hop
from edge.core.us import Us
from events.calls import CallEvent
from sipcore import nonce
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.proxy import hops_left
from sipcore.uri import Uri, aor

AMPLIFICATION = 2
"""A UDP response to an unauthenticated request is at most this many times as large (CHECKLIST S02)."""
CHALLENGES = (401, 407)
SALT = 6

METHODS = "REGISTER, INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY"
"""What is taken or routed; SUBSCRIBE and PUBLISH to our users are 489."""
ALLOW = f"Allow: {METHODS}\r\n"
SUPPORTED = "Supported: path\r\n"
CAPABILITIES = f"{ALLOW}{SUPPORTED}Accept: application/sdp\r\nAccept-Encoding: identity\r\nAccept-Language: en\r\n"
EXTENSIONS = frozenset({"path"})
"""Option tags that we support; v1 does neither outbound nor gruu."""


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
        self.us = Us(settings.algorithms, settings.own_hosts)
        self.rate = SourceRate(settings.challenges_per_second)
        self.actions = Actions()
        self._commands = 0
        self._questions = 0
        self._date = (0, "")

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

    def send(self, status: int, flow: Flow, port: int, data: bytes, edge: str = "", boot: str = "") -> None:
        """Sends a response, and counts it."""
        statuses = self.actions.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.actions.sends.append(Send(flow, data, port, edge, boot))

    def stateless(
        self,
        request: Request,
        flow: Flow,
        size: int,
        status: int,
        reason: str = "",
        *,
        rows: str = "",
        least: str = "",
        edge: str = "",
        boot: str = "",
    ) -> None:
        """Answers and forgets. On UDP never with much more than came: then with the `least` rows, or with none.

        A challenge without its row would say nothing: that is not sent at all.

        `edge` and `boot` say whose flow it is, where another edge handed the request over.
        """
        head = response.head(request, flow, self.tag_key)
        reason = reason or response.reason_phrase(status)
        data = response.encode(status, reason, head, rows)
        if amplifies(data, flow, size) and least:
            data = response.encode(status, reason, head, least)
        if amplifies(data, flow, size) and status not in CHALLENGES:
            data = response.encode(status, reason, head)
        if amplifies(data, flow, size):
            self.drop("amplification")
            return
        self.send(status, flow, response.reply_port(request, flow), data, edge, boot)

    def stateless_to(
        self,
        request: Request,
        caller: Hop,
        size: int,
        status: int,
        reason: str = "",
        *,
        rows: str = "",
        least: str = "",
    ) -> None:
        """The same by a hop, which may be another edge's flow."""
        edge, boot = ("", "") if caller.edge == self.edge else (caller.edge, caller.boot)
        self.stateless(request, caller.flow, size, status, reason, rows=rows, least=least, edge=edge, boot=boot)

    def unreadable(self, error: ParseError, flow: Flow, size: int) -> None:
        """Answers what breaks the protocol as far as it can be answered; counts it by its name in any case."""
        self.drop(error.name)
        request = error.message
        if error.status is None or not isinstance(request, Request) or request.method == "ACK":
            return
        try:
            self.stateless(request, flow, size, error.status, error.reason)
        except ParseError:
            self.drop("unanswerable")

    def challenges(
        self, flow: Flow, realm: str, algorithms: Iterable[str], now: float, *, stale: bool, proxy: bool = False
    ) -> list[str]:
        """Challenge rows with a fresh nonce, one for each algorithm in order."""
        seconds = self.clock.at(now) // 1000
        fresh = nonce.make(self.keys, realm, seconds, self.entropy(SALT), flow.remote_host)
        return credentials.challenges(realm, fresh, algorithms, stale=stale, proxy=proxy)

    def retry_after(self) -> str:
        """Spread at random, so that phones do not come back together (CHECKLIST S05)."""
        least, greatest = self.settings.retry_after
        seconds = least + int.from_bytes(self.entropy(2), "big") % (greatest - least + 1)
        return f"Retry-After: {seconds}\r\n"

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


def amplifies(data: bytes, flow: Flow, size: int) -> bool:
    """Whether a response to a UDP request of so many octets is too large for a stranger."""
    return not flow.reliable and len(data) > AMPLIFICATION * size


def exhausted(request: Request) -> bool:
    """Whether the request may be forwarded no more (RFC 3261 section 16.3, step 3)."""
    return hops_left(request) == 0


def unsupported(request: Request) -> str:
    """The Unsupported row for the extensions that are required here and not known; "" if there are none."""
    if request.first("require") is None and request.first("proxy-require") is None:
        return ""
    required = request.values("require") + request.values("proxy-require")
    unknown = [tag for tag in required if tag.lower() not in EXTENSIONS]
    return f"Unsupported: {', '.join(unknown)}\r\n" if unknown else ""
