"""What the records of `registrations` have of a flow (`edge.core.tokens.path` makes it). PURE.

Apart from what makes it, so that that is compiled (setup.py).
"""

import msgspec


class FlowNames(msgspec.Struct, frozen=True, gc=False):
    """A flow as the records of `registrations` have it."""

    path: str
    """`<sip:TOKEN@service-name;lr>`."""
    received: str
    """`sip:192.0.2.4:5062;transport=udp`."""
    socket: str
    """`udp:192.0.2.1:5060`."""
