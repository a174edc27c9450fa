"""A flow: one way to reach one peer (RFC 5626 section 3.1), and all the core knows of the network."""

import msgspec
from msgspec.structs import replace

TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
"""By transport, the port where a URI or sent-by names none (RFC 3261 section 19.1.2, RFC 7118 section 5)."""
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound
"""Local addresses that mean all of them, or that none is known yet."""
SECURE = ("tls", "wss")
"""What a sips: URI may be reached by (RFC 3261 section 26.2.2; RFC 5630 section 5; CHECKLIST T18)."""


class Flow(msgspec.Struct, frozen=True, gc=False):
    """What a message came in on, and what its response leaves by.

    `gc=False`: tens of thousands of them live in transactions, and none can be part of a cycle.
    """

    transport: str
    """`udp`, `tcp`, `tls`, `ws` or `wss`."""
    local_host: str
    """The address the message was sent to; an IP address without brackets."""
    local_port: int
    remote_host: str
    """The source; an IP address without brackets."""
    remote_port: int
    connection: int = 0
    """Number of the connection within this edge's life; 0 on UDP."""

    @property
    def reliable(self) -> bool:
        """Whether the transport is a stream, on which nothing is retransmitted."""
        return self.transport != "udp"


class Hop(msgspec.Struct, frozen=True, gc=False):
    """Where a message goes: by a flow of one edge, or to an address that any edge may send to."""

    flow: Flow
    edge: str = ""
    """The owner of the flow; "" for an address found by a URI."""
    boot: str = ""
    """The owner's life, if the flow is a connection."""


class Way(msgspec.Struct, frozen=True, gc=False):
    """One way to a target, or to where a request came from."""

    hop: Hop
    port: int
    """As in `edge.core.actions.Send`."""
    name: str = ""
    """The SIP domain that a new TLS connection's peer must prove to be."""
    may_grow: bool = False
    """Whether a large request goes by TCP instead of UDP: the next hop was found by URI or DNS."""
    uri: str = ""
    """The Request-URI for this way, if it is not the target's: gateways spell a number each in its own way."""
    gateway: str = ""
    """The name of the gateway that it leads to."""

    def through(self, gateway: str) -> "Way":
        """The same for a call by this gateway."""
        return replace(self, gateway=gateway)

    def by_tcp(self) -> "Way":
        """The same place by TCP."""
        flow = self.hop.flow
        hop = Hop(Flow("tcp", flow.local_host, flow.local_port, flow.remote_host, flow.remote_port))
        return Way(hop, self.port, uri=self.uri, gateway=self.gateway)


def host_port(host: str, port: int) -> str:
    """`192.0.2.1:5060`, or `[2001:db8::1]:5060`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
