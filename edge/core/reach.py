"""By which hop this edge reaches an address or a flow, and what it is known by there (RFC 3261 section 18.1.1)."""

from collections.abc import Mapping

from edge.core.flow import WILDCARDS, Flow, Hop, host_port
from edge.core.settings import CoreSettings

LOST_OWNER_SECONDS = 4.0
"""How long a phone on UDP is tried without its owner (DESIGN section 8)."""


class Reach:
    """The ways out of one edge."""

    def __init__(self, settings: CoreSettings, edge: str, boot: str) -> None:
        self._settings = settings
        self._edge, self._boot = edge, boot
        self.addresses: Mapping[tuple[str, bool], tuple[str, int]] = {}
        """By transport and whether it is IPv6, the first address by which this edge is reached."""
        self.neighbours: frozenset[tuple[str, str]] = frozenset()
        """Live other edges and their lives."""

    def reachable(self, hop: Hop, caller: Flow, now: float) -> tuple[Hop | None, float]:
        """The hop as it can be reached now and, without its owner, until when it is tried (DESIGN, "A dead owner")."""
        if not hop.edge and not hop.flow.local_host:
            flow = hop.flow
            return self.outward(flow.transport, flow.remote_host, flow.remote_port, caller), 0.0
        if hop.edge in ("", self._edge):
            if hop.flow.connection and hop.edge and hop.boot != self._boot:
                return None, 0.0
            return hop, 0.0
        for edge, boot in self.neighbours:
            if edge == hop.edge and hop.boot in ("", boot):
                return hop, 0.0
        if hop.flow.reliable:
            return None, 0.0
        return self.outward("udp", hop.flow.remote_host, hop.flow.remote_port, caller), (now + LOST_OWNER_SECONDS)

    def upward(self, hop: Hop) -> Hop:
        """The hop as a response to a caller whom another edge hears can take it.

        On UDP that edge's next life will do, and if there is none, our own address.
        """
        if hop.flow.reliable or hop.edge == self._edge:
            return hop
        if any(edge == hop.edge for edge, _ in self.neighbours):
            return Hop(hop.flow, hop.edge)
        return self.outward("udp", hop.flow.remote_host, hop.flow.remote_port)

    def outward(self, transport: str, host: str, port: int, caller: Flow | None = None) -> Hop:
        """The way from this edge to an address."""
        local_host, local_port = self.addresses.get((transport, ":" in host), ("", 0))
        if local_host in WILDCARDS and caller is not None and (":" in caller.local_host) == (":" in host):
            local_host = caller.local_host
        return Hop(Flow(transport, local_host, local_port, host, port))

    def via(self, flow: Flow, branch: str) -> str:
        """Our Via value for a request by this flow."""
        rport = ";rport" if flow.transport == "udp" else ""
        return f"SIP/2.0/{flow.transport.upper()} {self.sent_by(flow)};branch={branch}{rport}"

    def sent_by(self, flow: Flow) -> str:
        """What the other end of a flow knows us by (CHECKLIST T15)."""
        advertised = self._settings.advertised.get(flow.transport)
        if advertised is not None:
            return advertised
        return host_port(flow.local_host, flow.local_port) if flow.local_host else self._settings.default_domain
