"""A call on its way to its targets: what is known of it, and what is still asked for. PURE."""

from edge.core.actions import Location
from edge.core.flow import Flow
from edge.core.proxy.context import Context
from sipcore.uri import Uri


class Call:
    """A context on its way to its targets: what is known and what is still asked for."""

    __slots__ = ("allowed", "believed", "context", "found", "located", "look_up", "name", "realm", "target", "user")

    def __init__(self, context: Context, target: Uri) -> None:
        self.context = context
        self.target = target
        """Where it is to go."""
        self.realm = ""
        self.allowed = False
        """Whether the sender may send this."""
        self.believed = False
        """Whether that is by his binding alone, the log being away: no gateway is reached so."""
        self.user = ""
        """Who sends it: his AOR, or "" for a peer, a stranger, or somebody anonymous."""
        self.name = ""
        """The AOR that was last looked up for it."""
        self.look_up = 0
        """The number of that look-up."""
        self.located: Location | None = None
        self.found = False
        """Whether authsvc was asked who is called so."""

    @property
    def flow(self) -> Flow:
        """The flow that it came by."""
        return self.context.caller.flow
