"""Where a request within a dialog leads (RFC 3261 sections 12.2.1.1 and 16.6, steps 6 and 7). PURE.

The token says who may be reached (CHECKLIST Y35), the request where he is now: its remote target, which moves with
the Contacts of both ends.

the end itself has said so by a request that came here   --> the flow that this came by
the target is a GRUU of that end's                       --> that phone's registered Contact
the target is where it was when the token was made       --> the token's hop: no look-up
it is a live Contact of the AOR that the token is for    --> that binding's flow
another port or transport of the host that the token has --> there, then the token's hop
a next proxy, which the top Route names                  --> the same by the Route
anywhere else                                            --> the token's hop

What is gone, or says nothing, is tried by what else is known: a live binding of that AOR with this Contact, for a
phone that came back by another flow; or the token's hop.
"""

from collections import OrderedDict
from typing import NamedTuple

from edge.core.actions import Location
from edge.core.addresses import spelled
from edge.core.answers import Answers
from edge.core.arrival import Arrival
from edge.core.flow import Flow, Hop, Way
from edge.core.place import DIALLED, Place, place_of
from edge.core.proxy.outgoing import contact_of
from edge.core.proxy.route import RouteInformation
from edge.core.proxy.target_set import Go, Lead, Target, of_bindings, of_phones, port_of, same_contact
from edge.core.proxy.targets import Destinations
from edge.core.senders import reached_by
from edge.core.tokens.dialog import NOBODY, Dialog, Marks
from edge.core.tokens.gruu import Gruu
from edge.core.tokens.path import FlowTokens
from edge.core.tokens.record_route import DialogTokens
from sipcore.address import uri_of
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.uri import parse_uri

REFRESHES = frozenset({"INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"})
"""Requests whose Contact is the sender's new remote target (RFC 3261 section 12.2, RFC 3311, RFC 6665)."""
CAME = 10_000
"""Ends of dialogs that are remembered to have moved; the first that did is forgotten first."""


class DialogEnd(NamedTuple):
    """The end of a dialog that a request is for."""

    call_id: str
    tag: str
    hop: Hop
    marks: Marks


def end_of(request: Request, routed: RouteInformation, dialog: Dialog) -> DialogEnd:
    """The end that the request is for."""
    tag = request.to.tag or ""
    if routed.to_callee:
        return DialogEnd(request.call_id, tag, dialog.callee, dialog.callee_marks)
    return DialogEnd(request.call_id, tag, dialog.caller, dialog.caller_marks)


class Remote:
    """Knows where the ends of dialogs are."""

    def __init__(self, answers: Answers, dialogs: DialogTokens, tokens: FlowTokens, destinations: Destinations) -> None:
        self._answers = answers
        self._dialogs = dialogs
        self._tokens = tokens
        self._destinations = destinations
        self._came: OrderedDict[tuple[str, str], tuple[Place, Hop]] = OrderedDict()
        """By Call-ID and tag, where ends say that they are, and by which flow they said so."""

    def came(self, arrival: Arrival, routed: RouteInformation, dialog: Dialog) -> None:
        """A request within a dialog: whether it tells a new remote target of its sender, who has not registered yet.

        Whoever brings the token and the tags of an end can have but the other end's requests sent to himself.
        """
        request, caller = arrival.request, arrival.caller
        hop = dialog.caller if routed.to_callee else dialog.callee
        if request.method not in REFRESHES or not hop.edge or not (contact := contact_of(request)):
            return
        uri, key = parse_uri(contact), (request.call_id, request.from_.tag or "")
        flow = reached_by(request, caller.flow)
        self._came.pop(key, None)
        if uri.is_sip and _far(flow) != _far(hop.flow):
            boot = (caller.boot or self._answers.boot) if flow.connection else ""
            self._came[key] = place_of(uri), Hop(flow, caller.edge or self._answers.edge, boot)
            if len(self._came) > CAME:
                self._came.popitem(last=False)

    def lead(self, end: DialogEnd, routed: RouteInformation) -> tuple[Lead, Lead | None]:
        """Where a request leads, and where else if nobody is there."""
        place = self._place(routed)
        by_hop = Target(routed.uri, (self._hop(end),), 1.0, routed.routes)
        came = self._came.get((end.call_id, end.tag))
        if came is not None and came[0] == place and not routed.routes:
            by_flow = Target(routed.uri, (Way(came[1], port_of(came[1])),), 1.0)
            return _to(by_flow), self._to_binding(end, routed, by_hop)
        if (gruu := self._gruu(end, routed)) is not None:
            return self._to_phone(gruu, by_hop), None
        if place is None or (not routed.routes and self._is_at(end, place)):
            bound = None if end.marks.party == NOBODY or routed.routes else self._to_binding(end, routed, by_hop)
            return _to(by_hop), bound
        there = self._beside(end, place)
        # That nobody hears at a port is told by TCP, not by UDP: then it is found out by silence.
        ways = (self._hop(end),) if there is None else (there,) if there.hop.edge else (there, self._hop(end))
        by_place = Target(routed.uri, ways, 1.0, routed.routes)
        return _to(by_place) if routed.routes else self._to_binding(end, routed, by_place), _to(by_hop)

    def _place(self, routed: RouteInformation) -> Place | None:
        """What the top Route or, without one, the Request-URI names; None for what cannot be read."""
        try:
            uri = parse_uri(uri_of(routed.routes[0]) if routed.routes else routed.uri)
        except ParseError:
            return None
        return place_of(uri) if uri.is_sip else None

    def _is_at(self, end: DialogEnd, place: Place) -> bool:
        """Whether an end is still where it was when the token was made, or at the other end of its flow."""
        return self._dialogs.is_at(end.marks, end.call_id, place) or place == _place_of(end.hop.flow)

    def _to_binding(self, end: DialogEnd, routed: RouteInformation, else_: Target) -> Lead:
        """To the live binding of this end's AOR that has the request's target for its Contact, if there is one."""

        def lead(go: Go, now: float) -> None:
            if end.marks.party == NOBODY:
                go(else_, now)
            else:
                self._destinations.seek(
                    routed.uri, lambda found, at: go(self._bound(end, routed, found) or else_, at), now
                )

        return lead

    def _gruu(self, end: DialogEnd, routed: RouteInformation) -> Gruu | None:
        """The GRUU that is the remote target of this end; None where that is something else."""
        gruu = None if routed.routes else self._answers.gruu_of(routed.uri)
        # Whoever has the token of a call may reach its two ends, and nobody else by it (CHECKLIST Y35).
        return gruu if gruu is not None and self._dialogs.is_party(end.marks, end.call_id, gruu.aor) else None

    def _to_phone(self, gruu: Gruu, by_hop: Target) -> Lead:
        """To the phone's registered Contact, or by the token's hop if it has none any more (RFC 5627 section 6.1)."""

        def lead(go: Go, now: float) -> None:
            self._destinations.seek(gruu.aor, lambda found, at: go(self._phone(gruu, found) or by_hop, at), now)

        return lead

    def _phone(self, gruu: Gruu, located: Location) -> Target | None:
        targets = of_phones(gruu.among(located.targets), self._tokens)
        return targets[-1] if targets else None

    def _bound(self, end: DialogEnd, routed: RouteInformation, located: Location) -> Target | None:
        """The one among these that is this end's: by the whole Contact, else by its user and host; the newest."""
        mine = [
            binding
            for owner, binding in zip(located.owners, located.targets, strict=True)
            if self._dialogs.is_party(end.marks, end.call_id, owner)
        ]
        mine.sort(key=lambda binding: (same_contact(binding.contact, routed.uri), binding.expires), reverse=True)
        targets = of_bindings(mine, self._tokens)
        return Target(routed.uri, targets[0].ways, 1.0, targets[0].routes) if targets else None

    @staticmethod
    def _hop(end: DialogEnd) -> Way:
        return Way(end.hop, port_of(end.hop), may_grow=not end.hop.edge)

    def _beside(self, end: DialogEnd, place: Place) -> Way | None:
        """The way to another port or transport of the host that the token's hop has; None if the place is none.

        Not where a NAT stands between, whose ports mean something else there.
        """
        hop, flow = end.hop, end.hop.flow
        at = _place_of(flow)
        if not end.marks.direct or place.host != at.host or place == at or place.transport not in DIALLED:
            return None
        if self._answers.settings.refuses(flow.remote_host):
            return None
        if place.transport == flow.transport == "udp":
            flow = Flow("udp", flow.local_host, flow.local_port, flow.remote_host, place.port)
            return Way(Hop(flow, hop.edge), place.port, may_grow=not hop.edge)
        return Way(Hop(Flow(place.transport, "", 0, flow.remote_host, place.port)), place.port, may_grow=True)


def _to(target: Target) -> Lead:
    return lambda go, now: go(target, now)


def _far(flow: Flow) -> tuple[str, str, int, int]:
    """The far end of a flow; our own end may be another, behind a balancer."""
    return flow.transport, flow.remote_host, flow.remote_port, flow.connection


def _place_of(flow: Flow) -> Place:
    return Place(flow.transport, spelled(flow.remote_host), flow.remote_port)
