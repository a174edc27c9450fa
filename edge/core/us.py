"""Who we are: the one answer to "is this us?" (RFC 3261 sections 16.4 and 16.5). PURE.

We are the domains that we serve, the names that we are known by, and every address of every live edge, however it is
spelled. A name means us at any port. An address with a port means us only where an edge of ours hears at that port:
on the same host others may listen.
"""

from collections.abc import Iterable

from edge.core.addresses import parsed, spelled
from edge.core.flow import Flow
from sipcore.uri import Uri

Endpoint = tuple[str, int]
"""A host, with or without brackets, and a port; 0: any."""


class Us:
    """All names and addresses of one edge and of the others that live."""

    def __init__(self, domains: Iterable[str], hosts: Iterable[str] = ()) -> None:
        """`domains` are served; `hosts` are the names and addresses of this edge that are known from the start."""
        self._domains = {spelled(name): name for name in domains}
        self._hosts = frozenset(map(spelled, hosts))
        self._own: tuple[Endpoint, ...] = ()
        self._others: dict[str, tuple[Endpoint, ...]] = {}
        self._known = self._hosts.union(self._domains)
        self._ports: frozenset[int] = frozenset()

    def hears_at(self, endpoints: Iterable[Endpoint]) -> None:
        """Where this edge is reached: what it has bound, and what it is told that others know it by."""
        self._own = tuple(endpoints)
        self._gather()

    def others(self, endpoints: Iterable[tuple[str, Iterable[Endpoint]]], gone: Iterable[str] = ()) -> None:
        """Where other edges are reached, by their names; and edges that are gone."""
        before = dict(self._others)
        for edge in gone:
            self._others.pop(edge, None)
        self._others.update((edge, tuple(each)) for edge, each in endpoints)
        if self._others != before:
            self._gather()

    def _gather(self) -> None:
        endpoints = [*self._own, *(each for edge in self._others.values() for each in edge)]
        self._known = self._hosts.union(self._domains, (spelled(host) for host, _ in endpoints))
        self._ports = frozenset(port for _, port in endpoints if port)

    def domain(self, host: str) -> str | None:
        """The served domain that a host names; None if it names none."""
        return self._domains.get(spelled(host))

    def has(self, host: str, flow: Flow, port: int | None = None) -> bool:
        """Whether a host, and a port if one is given, is us; `flow` tells the address that was written to."""
        name = spelled(host)
        if name != spelled(flow.local_host) and name not in self._known:
            return False
        return port is None or parsed(name) is None or port == flow.local_port or port in self._ports

    def named_by(self, uri: Uri, flow: Flow) -> bool:
        """Whether a SIP URI leads to us: its maddr, if it has one, else its host."""
        return uri.is_sip and self.has(uri.param("maddr") or uri.host, flow, uri.port)
