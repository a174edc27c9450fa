"""What Request-URI and Route say once all that is ours has been taken off (RFC 3261 section 16.4). PURE."""

import re

from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.flow import Flow, Hop
from edge.core.tokens.dialog import Dialog
from edge.core.tokens.path import FlowTokens
from edge.core.tokens.record_route import DialogTokens
from sipcore import proxy
from sipcore.address import uri_of
from sipcore.errors import ParseError
from sipcore.uri import Uri, parse_uri

TOKEN = re.compile(r"[A-Za-z2-7]{14,}")
"""What may have been a token of ours: base32. A shorter user part, or another, before our host is a name."""


class RouteInformation:
    """What is left."""

    __slots__ = ("dialog", "foreign_token", "named", "routes", "to_callee", "uri")

    def __init__(self, uri: str, routes: list[str]) -> None:
        self.uri = uri
        """Where the request is to go in the end."""
        self.routes = routes
        """Whom it is to visit before."""
        self.dialog: Dialog | None = None
        """What a token says that fits the request; then nothing more is asked of its sender."""
        self.to_callee = False
        self.named: Hop | None = None
        """The flow that a Path of ours names (RFC 3327 section 5.3)."""
        self.foreign_token = False
        """Whether there was a token that is another call's, or nobody's."""


class Routes:
    """Knows what is ours in Request-URI and Route."""

    def __init__(self, answers: Answers, dialogs: DialogTokens, tokens: FlowTokens) -> None:
        self._answers = answers
        self._dialogs = dialogs
        self._tokens = tokens

    def taken_off(self, arrival: Arrival) -> RouteInformation:
        """What is left of a request.

        Names of ours go, however many. Of tokens the topmost counts, which may stand in two values (RFC 5658); one
        of another turn of the same call stays for when the request comes back.
        """
        request, flow = arrival.request, arrival.flow
        routed = RouteInformation(request.uri, proxy.route_values(request))
        routes = routed.routes
        token = ""
        if routes and self._dialogs.is_ours(user := parse_uri(request.uri).user or ""):
            # A strict router put the next hop into the Request-URI, and the target behind the routes (Y06).
            token = user.lower()
            routed.uri = uri_of(routes.pop())
        while routes and (mine := self._ours(uri_of(routes[0]), flow)) is not None:
            if mine and token and mine != token:
                break
            token = mine or token
            del routes[0]
        if token:
            self._open(token, arrival, routed)
        routed.uri = self._without_maddr(routed.uri, flow)
        return routed

    def _open(self, token: str, arrival: Arrival, routed: RouteInformation) -> None:
        request = arrival.request
        tags = request.from_.tag or "", request.to.tag or ""
        found = self._dialogs.open(token, request.call_id, tags, self._answers.clock.at(arrival.now))
        if found is not None and request.to.tag:
            routed.dialog, routed.to_callee = found
        else:
            routed.named = self._tokens.verify(token)
            routed.foreign_token = routed.named is None

    def _ours(self, text: str, flow: Flow) -> str | None:
        """The token in a URI that leads to us, "" without one; None if it leads to somebody else."""
        try:
            uri = parse_uri(text)
        except ParseError:
            return None  # a lower Route value is for the next to read
        user = uri.user or ""
        is_token = TOKEN.fullmatch(user) is not None
        if self._answers.us.named_by(uri, flow) or (is_token and uri.is_sip and self._made_by_us(user)):
            return user.lower() if is_token else ""
        return None

    def _made_by_us(self, token: str) -> bool:
        """Whether a token is ours whatever host is behind it, which may have been that of an edge that is gone."""
        return self._dialogs.is_ours(token) or self._tokens.verify(token) is not None

    def _without_maddr(self, text: str, flow: Flow) -> str:
        """The URI as if it had not been said that it comes here."""
        if "maddr" not in text.lower():
            return text
        uri = parse_uri(text)
        maddr = uri.param("maddr") if uri.is_sip else None
        if not maddr or not self._answers.us.has(maddr, flow, uri.port):
            return text
        params = tuple(param for param in uri.params if param[0].lower() not in ("maddr", "transport"))
        return str(Uri(uri.scheme, uri.user, uri.password, uri.host, None, params, uri.headers))
