"""Response contexts: what the proxy keeps of a request that it has forked (RFC 3261 section 16). PURE.

One context is one request; one attempt is one client transaction of it.
"""

from collections.abc import Sequence

from edge.core import response
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.call_events.telling import InDialog, Telling
from edge.core.flow import Hop, Way
from edge.core.media.relay import Leg
from edge.core.proxy.target_set import Lead, Target
from sipcore import proxy, session_timer
from sipcore.message import Request, Response, Row, respond, with_received
from sipcore.transactions import Client, Server, Transactions
from sipcore.uri import Uri

LATE = 10
"""Phones that may join an INVITE while it rings, one branch each, when all its Max-Breadth has been given away."""


class Context:
    """A response context: one received request, its attempts, and the final responses that came (section 16.7)."""

    __slots__ = (
        "answer_by",
        "answered",
        "aor",
        "began",
        "breadth",
        "call_id",
        "caller",
        "caller_gone",
        "cancelled",
        "domain",
        "elsewhere",
        "final",
        "finals",
        "heard",
        "late",
        "leg",
        "live",
        "look_up",
        "no_more",
        "parties",
        "path",
        "q",
        "request",
        "route_token",
        "rows",
        "secure",
        "seen",
        "server",
        "tag",
        "telling",
        "to_tag",
        "waiting",
    )

    def __init__(self, request: Request, server: Server, caller: Hop, now: float) -> None:
        self.request = request
        self.began = now
        """When it came; monotonic seconds."""
        self.server = server
        self.caller = caller
        """Whence it came, with the edge whose flow it is."""
        self.caller_gone = False
        """Whether that was a connection that has closed since."""
        self.rows: Sequence[Row] = request.rows
        """The rows that go on."""
        self.call_id = request.call_id
        self.tag = request.from_.tag or ""
        self.to_tag = ""
        """Of the responses that the caller has had, the first with one; those of our own have it too."""
        breadth = proxy.max_breadth(request)
        self.breadth = proxy.MAX_BREADTH if breadth is None else breadth
        """Its Max-Breadth: as many branches as it and all proxies below may have at once (RFC 5393 section 5.3.3)."""
        self.late = LATE if breadth is None else 0
        """How many more may join what rings beside that: those who have set none leave it to us."""
        self.secure = request.uri[:5].lower() == "sips:"
        """Whether what it asks for is a sips: URI (RFC 5630 section 5.3)."""
        self.route_token = True
        """Whether the dialog that it begins keeps us on its way."""
        self.domain = ""
        """Whose rules hold for its media; "" within a dialog."""
        self.leg: Leg | None = None
        """How rtpengine knows the dialog that it belongs to, if its media is relayed."""
        self.telling: Telling | InDialog | None = None
        """What is told of it, if anything is."""
        self.aor = ""
        """Whose new bindings join while it rings; "" for none (Y10)."""
        self.parties = ("", "")
        """The AORs of caller and callee in the dialog that it begins; "" for who is none of our users."""
        self.elsewhere: Lead | None = None
        """What leads on, once, if the flow that it was sent by is gone."""
        self.path = False
        """Whether its Route named the flow: who did so hears that it is gone (RFC 5626 section 5.3.1)."""
        self.look_up = 0
        """The number of the look-up that is under way for it; 0: none."""
        self.waiting: list[list[Target]] = []
        """Targets of lower q, tried when those before have failed."""
        self.q = 1.0
        """That of the targets that are tried."""
        self.live: dict[str, Attempt] = {}
        self.seen: list[tuple[Uri, Hop]] = []
        """What has been tried: Request-URIs, and where each went."""
        self.finals: list[Response] = []
        """What failed attempts were answered, then what was said for those that nobody answered."""
        self.heard = 0
        """How many of these phones answered."""
        self.final = 0
        """The status of the final response that went up; 0: none yet."""
        self.answered = False
        """Whether a final response has left."""
        self.cancelled = False
        self.answer_by = 0.0
        """Until when the answers of those that were cancelled are waited for; monotonic seconds."""
        self.no_more = False
        """No new attempt is made: it was answered, declined by 6xx, or cancelled."""

    @property
    def is_invite(self) -> bool:
        """Whether it rings."""
        return self.request.method == "INVITE"

    def unused_breadth(self) -> int:
        """What is left of its Max-Breadth beside the attempts that are under way (RFC 5393 section 5.3.3.1)."""
        return self.breadth - sum([attempt.breadth for attempt in self.live.values()])


class Attempt:
    """One client transaction of a context."""

    __slots__ = (
        "branch",
        "breadth",
        "client",
        "context",
        "gives_up",
        "gone",
        "hop",
        "index",
        "leg",
        "offered",
        "provisional",
        "target",
    )

    def __init__(self, context: Context, target: Target, index: int, hop: Hop, branch: str, breadth: int) -> None:
        self.context = context
        self.breadth = breadth
        """Its share of the context's Max-Breadth."""
        self.target = target
        self.index = index
        """Which of the target's ways it is."""
        self.hop = hop
        self.branch = branch
        self.client: Client | None = None
        self.gives_up = 0.0
        """Timer C, or the end of what is tried in spite of a loss; monotonic seconds, 0: never."""
        self.gone = False
        """Whether the connection that it went by has closed since."""
        self.provisional = False
        self.leg = context.leg
        """How rtpengine knows it, if its media is relayed."""
        self.offered = False
        """Whether rtpengine holds ports for it."""

    @property
    def way(self) -> Way:
        """The way of its target that it goes."""
        return self.target.ways[self.index]


def shed(arrival: Arrival, answers: Answers, layer: Transactions, *, times: int = 1) -> bool:
    """Whether there are too many transactions already, `times` what new calls may have: 503 without one (S04)."""
    settings = answers.settings
    most = times * settings.max_calls
    if layer.pending < most and layer.servers < most + times * settings.max_completed:
        return False
    answers.drop("shed")
    answers.stateless(arrival, 503, headers=[answers.retry_after()])
    return True


def opened(arrival: Arrival, answers: Answers, layer: Transactions) -> Context:
    """The context of a new request, with its server transaction; an INVITE gets its 100, a timer what it lacks."""
    caller, flow, now = arrival.caller, arrival.flow, arrival.now
    request = session_timer.prolonged(arrival.request, answers.settings.min_se)
    request = with_received(request, flow.remote_host, flow.remote_port)
    server = layer.open_server(request, Way(caller, response.reply_port(request, flow)), flow.reliable, now)
    edge, boot = caller.edge or answers.edge, caller.boot or answers.boot
    context = Context(request, server, Hop(flow, edge, boot if flow.connection else ""), now)
    server.user = context
    if request.method == "INVITE":
        layer.respond(server, respond(request, 100), now)
    return context
