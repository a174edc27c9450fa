"""A request as it came."""

from typing import NamedTuple

from edge.core.flow import Flow, Hop
from sipcore.message import Request


class Arrival(NamedTuple):
    """A request, whence and when it came."""

    request: Request
    caller: Hop
    """The flow that it came by, with its edge where another edge handed it over."""
    now: float
    """Monotonic seconds."""
    size: int
    """Octets of the datagram; 0 on streams."""

    @property
    def flow(self) -> Flow:
        """The flow that it came by."""
        return self.caller.flow
