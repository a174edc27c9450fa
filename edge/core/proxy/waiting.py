"""A call on its way to its targets, and the commands whose replies such calls wait for. PURE."""

from collections import deque
from collections.abc import Iterator

from edge.core import response
from edge.core.actions import Located
from edge.core.answers import Answers
from edge.core.flow import Flow
from edge.core.proxy.context import Context
from edge.core.proxy.forwarding import IDENTITIES, claims_identity
from edge.core.proxy.target_set import Way
from edge.core.tokens.record_route import Hop
from sipcore import proxy
from sipcore.message import Request, Row, respond, with_received
from sipcore.transactions import Transactions
from sipcore.uri import Uri

GRACE = 0.5
"""Seconds after the deadline of a reply in which the log may still say that it did not take the command."""


class Call:
    """A context on its way to its targets: what is known and what is still asked for."""

    __slots__ = ("allowed", "believed", "context", "found", "located", "look_up", "name", "realm", "target", "user")

    def __init__(self, context: Context, target: Uri) -> None:
        self.context = context
        self.target = target
        """Where it is to go."""
        self.realm = ""
        self.allowed = False
        """Whether the sender may send this."""
        self.believed = False
        """Whether that is by his binding alone, the log being away: no gateway is reached so."""
        self.user = ""
        """Who sends it: his AOR, or "" for a peer, a stranger, or somebody anonymous."""
        self.name = ""
        """The AOR that was last looked up for it."""
        self.look_up = 0
        """The number of that look-up."""
        self.located: Located | None = None
        self.found = False
        """Whether authsvc was asked who is called so."""

    @property
    def flow(self) -> Flow:
        """The flow that it came by."""
        return self.context.caller.flow


class Asked:
    """Commands whose replies calls wait for, until the deadline."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds + GRACE
        self._calls: dict[str, Call] = {}
        self._deadlines: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._calls

    def wait(self, id_: str, call: Call, now: float) -> None:
        """A call waits for the reply to this command."""
        self._calls[id_] = call
        self._deadlines.append((now + self._seconds, id_))

    def answered(self, id_: str) -> Call | None:
        """The call that waits for this command's reply; it waits no longer."""
        return self._calls.pop(id_, None)

    def forget(self, context: Context) -> None:
        """The caller has given up."""
        for id_ in [id_ for id_, call in self._calls.items() if call.context is context]:
            del self._calls[id_]

    def next_timer(self) -> float | None:
        """When `overdue` is next of use."""
        while self._deadlines and self._deadlines[0][1] not in self._calls:
            self._deadlines.popleft()
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now: float) -> Iterator[Call]:
        """The calls whose reply has not come."""
        while self._deadlines and self._deadlines[0][0] <= now:
            call = self._calls.pop(self._deadlines.popleft()[1], None)
            if call is not None:
                yield call


def shed(request: Request, caller: Hop, size: int, answers: Answers, layer: Transactions, *, times: int = 1) -> bool:
    """Whether there are too many transactions already, `times` what new calls may have: 503 without one (S04)."""
    settings = answers.settings
    most = times * settings.max_calls
    if layer.pending < most and layer.servers < most + times * settings.max_completed:
        return False
    answers.drop("shed")
    answers.stateless_to(request, caller, size, 503, rows=answers.retry_after())
    return True


def opened(request: Request, caller: Hop, answers: Answers, layer: Transactions, now: float) -> Context:
    """The context of a new request, with its server transaction; an INVITE gets its 100."""
    flow = caller.flow
    request = with_received(request, flow.remote_host, flow.remote_port)
    origin = Way(caller, response.reply_port(request, flow))
    server = layer.open_server(request, origin, flow.reliable, now)
    edge, boot = caller.edge or answers.edge, caller.boot or answers.boot
    context = Context(request, server, Hop(flow, edge, boot if flow.connection else ""))
    server.user = context
    if request.method == "INVITE":
        layer.respond(server, respond(request, 100), now)
    return context


def rows_that_go_on(request: Request, user: str, realms: "frozenset[str] | tuple[str, ...]") -> list[Row]:
    """The rows without credentials of ours or an identity that a phone claims (A12, A29, S07), and who it really is."""
    first = request.first
    rows = list(request.rows)
    if first("proxy-authorization") is not None:
        rows = proxy.without_credentials(rows, realms)
    if claims_identity(request):
        rows = [row for row in rows if row.name not in IDENTITIES]
    if user and not (first("privacy") is not None and _hides_identity(request)):
        rows.append(Row("p-asserted-identity", "P-Asserted-Identity", f"<sip:{user}>"))
    return rows


def _hides_identity(request: Request) -> bool:
    """Privacy-hdr = "Privacy" HCOLON priv-value *(";" priv-value) (RFC 3323 section 4.2); a comma is forgiven."""
    values = ";".join(request.values("privacy")).lower().replace(",", ";")
    return "id" in [value.strip() for value in values.split(";")]
