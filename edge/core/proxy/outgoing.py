"""Requests as they leave for one target: with our Via and, where they begin a dialog, our Record-Route. PURE.

RFC 3261 section 16.6, steps 1 to 8; RFC 5658.
"""

from edge.core.addresses import spelled
from edge.core.answers import Answers
from edge.core.flow import SECURE, Flow, Hop
from edge.core.media.relay import Leg
from edge.core.place import DIALLED, place_of
from edge.core.proxy.context import Attempt, Context
from edge.core.proxy.identity import for_strangers
from edge.core.reach import Reach
from edge.core.senders import reached_by
from edge.core.tokens.dialog import Dialog, Marks
from edge.core.tokens.record_route import DialogTokens
from sipcore import proxy
from sipcore.address import parse_address
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.uri import parse_uri

RECORDED = frozenset({"INVITE", "SUBSCRIBE", "REFER"})
"""Methods that begin a dialog: we stay on its way (CHECKLIST Y12)."""


class Outgoing:
    """Makes the requests that leave one edge."""

    def __init__(self, answers: Answers, dialogs: DialogTokens, reach: Reach) -> None:
        self._answers = answers
        self._settings = answers.settings
        self._dialogs = dialogs
        self._reach = reach

    def request(self, attempt: Attempt, uri: str, hop: Hop, leg: Leg | None, now: float) -> Request:
        """The request as this attempt sends it (section 16.6, steps 1 to 8)."""
        context, routes, flow = attempt.context, attempt.target.routes, hop.flow
        via = self._reach.via(flow, attempt.branch)
        records: list[str] = []
        if context.route_token and context.request.method in RECORDED:
            at = self._answers.clock.at(now)
            dialog = self._dialog(context, uri, hop, 0 if leg is None else leg.octet, at)
            token = self._dialogs.make(dialog, context.call_id, context.tag, at)
            onward = _is_secure(uri) or bool(routes and _is_secure(routes[0].partition("<")[2]))
            records = self.record_routes(token, context.caller.flow, flow, (context.secure, onward))
        trusted = bool(attempt.way.gateway) or self._settings.is_peer(flow.remote_host)
        return proxy.proxied(
            context.request,
            uri,
            via,
            record_routes=records,
            routes=routes,
            rows=context.rows if trusted else for_strangers(context.request, context.rows),
            breadth=attempt.breadth,
        )

    def _dialog(self, context: Context, uri: str, hop: Hop, media: int, at: int) -> Dialog:
        """The dialog between who sent the request and who gets it at this URI."""
        caller, callee = context.parties
        back = self._back(context)
        here = self._marks(context.call_id, contact_of(context.request), caller, back)
        there = self._marks(context.call_id, uri, callee, hop)
        return Dialog(back, hop, media, here, there, at, context.request.cseq.number)

    def _marks(self, call_id: str, target: str, aor: str, hop: Hop) -> Marks:
        """Those of an end with this remote target; "" if there is none to be read."""
        uri = parse_uri(target) if target else None
        place = None if uri is None or not uri.is_sip else place_of(uri)
        direct = not hop.edge or (place is not None and place.host == spelled(hop.flow.remote_host))
        return self._dialogs.marks(call_id, place, aor, direct=direct)

    def _back(self, context: Context) -> Hop:
        """Where requests within the dialog go to reach the caller (section 16.12).

        A phone is reached as its registrations say it is (`reached_by`). A peer is a server: at the address that it
        names, over whatever connection, for the one that it called by need not be there when the callee hangs up.
        """
        caller = context.caller
        if self._settings.is_peer(caller.flow.remote_host):
            return self._named(context.request) or caller
        return Hop(reached_by(context.request, caller.flow), caller.edge, caller.boot)

    def _named(self, request: Request) -> Hop | None:
        """The numeric address of a peer that the top Record-Route, else Contact, names."""
        try:
            values = request.values("record-route")
            addresses = [parse_address(values[0])] if values else request.contacts
            uri = addresses[0].parsed_uri
        except (ParseError, IndexError):
            return None
        transport, host, port = place_of(uri)
        if transport not in DIALLED or not self._settings.is_peer(host):
            return None
        return Hop(Flow(transport, "", 0, host, port))

    def record_routes(self, token: str, caller: Flow, callee: Flow, secure: tuple[bool, bool]) -> list[str]:
        """Our Record-Route values, the topmost first; two where scheme, transport, family or address change (RFC 5658).

        `secure`: whether a sips: URI was asked for, and whether one, or a Route of sips:, goes on. Each side gets what
        it can follow (RFC 3261 section 16.6, step 4; RFC 5630 section 5.3).
        """
        near = _record(secure[1], token, callee.transport, self._reach.sent_by(callee))
        secure_caller = caller if caller.transport in SECURE else self._reach.outward("tls", caller.remote_host, 0).flow
        if secure[0] and secure_caller.local_port:
            far = _record(True, token, secure_caller.transport, self._reach.sent_by(secure_caller))
        else:
            far = _record(False, token, caller.transport, self._reach.sent_by(caller))
        return [f"<{near};lr>"] if near == far else [f"<{near};lr;r2=on>", f"<{far};lr;r2=on>"]


def _record(secure: bool, token: str, transport: str, sent_by: str) -> str:
    by = "" if transport == "udp" else f";transport={transport}"
    return f"{'sips' if secure else 'sip'}:{token}@{sent_by}{by}"


def _is_secure(uri: str) -> bool:
    return uri[:5].lower() == "sips:"


def contact_of(request: Request) -> str:
    """The remote target that a request gives; "" for none, or one that cannot be read."""
    try:
        contacts = request.contacts
        parse_uri(contacts[0].uri)
    except (ParseError, IndexError):
        return ""
    return contacts[0].uri
