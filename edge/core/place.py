"""Places: where a URI leads, without asking DNS (RFC 3261 section 19.1.2). PURE."""

from typing import NamedTuple

from edge.core.addresses import spelled
from edge.core.flow import PORTS
from sipcore.uri import Uri

DIALLED = frozenset({"udp", "tcp", "tls"})
"""What we may open towards an address; nobody opens a WebSocket to a browser (RFC 7118 section 5)."""


class Place(NamedTuple):
    """A transport, a host in its one spelling, and a port."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.transport} {self.host} {self.port}"


def place_of(uri: Uri) -> Place:
    """Where a SIP URI leads: by its maddr before its host, and by TLS if it is a sips one."""
    transport = (uri.param("transport") or "udp").lower()
    if uri.scheme == "sips":
        transport = {"ws": "wss", "wss": "wss"}.get(transport, "tls")
    return Place(transport, spelled(uri.param("maddr") or uri.host), uri.port or PORTS.get(transport, 5060))
