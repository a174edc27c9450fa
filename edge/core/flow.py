"""A flow: one way to reach one peer (RFC 5626 section 3.1), and all the core knows of the network."""

import msgspec

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


def host_port(host: str, port: int) -> str:
    """`192.0.2.1:5060`, or `[2001:db8::1]:5060`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
