"""A request as it came."""

from edge.core.flow import Flow, Hop
from sipcore.message import Request


class Arrival:
    """A request, whence and when it came."""

    __slots__ = ("caller", "now", "request", "size")

    def __init__(self, request: Request, caller: Hop, now: float, size: int) -> None:
        self.request = request
        self.caller = caller
        """The flow that it came by, with its edge where another edge handed it over."""
        self.now = now
        """Monotonic seconds."""
        self.size = size
        """Octets of the datagram; 0 on streams."""

    def of(self, request: Request) -> "Arrival":
        """Another request that came with this one."""
        return Arrival(request, self.caller, self.now, self.size)

    @property
    def flow(self) -> Flow:
        """The flow that it came by."""
        return self.caller.flow
