"""Where a request may go: targets, and the ways to each (RFC 3261 sections 16.5 and 16.6, step 7). PURE."""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from edge.core.actions import Binding
from edge.core.addresses import parsed, spelled
from edge.core.flow import Flow, Hop, Way
from edge.core.place import Place, place_of
from edge.core.tokens.path import FlowTokens
from sipcore import proxy
from sipcore.address import parse_address
from sipcore.errors import ParseError
from sipcore.grammar import split_list
from sipcore.uri import Uri, equal, parse_uri


class Target:
    """One member of a target set."""

    __slots__ = ("flows", "q", "routes", "uri", "ways")

    def __init__(
        self, uri: str, ways: Iterable[Way], q: float = 1.0, routes: Iterable[str] = (), *, flows: bool = False
    ) -> None:
        self.uri = uri
        """The Request-URI that it gets."""
        self.ways = tuple(ways)
        """Tried one after the other (RFC 3263 section 4.3); at least one."""
        self.q = q
        self.routes = tuple(routes)
        """The Route values that it gets."""
        self.flows = flows
        """Whether the ways are flows of one phone: where one is gone the next is tried, and after an answer none."""

    def uris(self) -> list[str]:
        """The Request-URIs of its ways."""
        return [way.uri or self.uri for way in self.ways]


Go = Callable[[Target, float], None]
"""Sends to a target at a time."""
Lead = Callable[[Go, float], None]
"""Has a request sent where it leads, at once or once that is looked up."""


def of_bindings(bindings: Iterable[Binding], tokens: FlowTokens) -> list[Target]:
    """The targets of bindings, each for itself; one whose Path is not ours, or not to be read, is left out."""
    return [target for binding in bindings if (target := _of_binding(binding, tokens)) is not None]


def of_phones(bindings: Iterable[Binding], tokens: FlowTokens) -> list[Target]:
    """The targets of an AOR's bindings, the older first: a phone with several flows is one (RFC 5626 section 7).

    A phone is told by its `+sip.instance`; its newest flow is tried first.
    """
    targets: list[Target] = []
    phones: dict[tuple[str, tuple[str, ...]], int] = {}
    for binding in bindings:
        target = _of_binding(binding, tokens)
        if target is None:
            continue
        phone = binding.instance, target.routes
        if not binding.instance or (index := phones.setdefault(phone, len(targets))) == len(targets):
            targets.append(target)
            continue
        older = targets[index]
        ways = [replace(way, uri=uri) for way, uri in zip(older.ways, older.uris(), strict=True)]
        q = max(target.q, older.q)
        targets[index] = Target(target.uri, (*target.ways, *ways), q, target.routes, flows=True)
    return targets


def _of_binding(binding: Binding, tokens: FlowTokens) -> Target | None:
    try:
        paths = [parse_address(value) for value in split_list(binding.path) if value]
        uri = proxy.request_uri(parse_uri(binding.contact))
    except ParseError:
        return None
    hop = tokens.verify(paths[0].parsed_uri.user or "") if paths else None
    if hop is None:
        return None
    routes = [f"<{path.uri}>" for path in paths[1:]]
    port = 0 if hop.flow.reliable else hop.flow.remote_port
    ways = [Way(hop, port)]
    if routes and hop.flow.transport in ("tcp", "tls"):
        ways += _anew(hop.flow, place_of(paths[1].parsed_uri))
    q = binding.q if binding.q >= 0 else 1.0  # none was given
    return Target(uri, ways, q, routes, flows=len(ways) > 1)


def _anew(flow: Flow, place: Place) -> list[Way]:
    """By another connection to where a proxy's Path says that it listens: its connection is no phone's.

    On the host that it registered from and nowhere else. A name is not looked up: by TLS that host has to prove it.
    """
    numeric = parsed(place.host) is not None
    if place.transport != flow.transport or (numeric and place.host != spelled(flow.remote_host)):
        return []
    name = place.host if flow.transport == "tls" else ""
    return [Way(Hop(Flow(flow.transport, "", 0, flow.remote_host, place.port)), place.port, name)]


def same_contact(contact: str, text: str) -> bool:
    """Whether a stored Contact is this URI (RFC 3261 section 19.1.4), whose scheme is the request's choice."""
    try:
        uri, stored = parse_uri(text), parse_uri(proxy.request_uri(parse_uri(contact)))
    except ParseError:
        return False
    return equal(Uri(uri.scheme, stored.user, stored.password, stored.host, stored.port, stored.params), uri)


def port_of(hop: Hop) -> int:
    """The port that a message for a hop is sent with (see `edge.core.actions.Send`)."""
    return hop.flow.remote_port if hop.flow.transport == "udp" or not hop.flow.connection else 0
