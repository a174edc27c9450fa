"""A call on its way to its targets: what is known of it, and what is still asked for. PURE."""

from edge.core.actions import Location
from edge.core.answers import Answers
from edge.core.flow import Flow
from edge.core.proxy.context import Context
from edge.core.tokens.gruu import Gruu
from sipcore.uri import Uri

NOBODYS = Gruu("", "")
"""What was called looks like a GRUU of ours, and is none that we gave."""


class Call:
    """A context on its way to its targets: what is known and what is still asked for."""

    __slots__ = (
        "allowed",
        "believed",
        "context",
        "found",
        "gruu",
        "located",
        "look_up",
        "name",
        "realm",
        "target",
        "user",
    )

    def __init__(self, context: Context, target: Uri) -> None:
        self.context = context
        self.target = target
        """Where it is to go."""
        self.gruu: Gruu | None = None
        """Whose phone it is for, where a GRUU of our domains was called."""
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

    def dereference(self, answers: Answers) -> None:
        """Of a GRUU of our domains: whose it is, and of which phone (RFC 5627 section 6.1)."""
        target = self.target
        if not target.is_sip or target.user is None or target.param("gr") is None:
            return
        served = answers.served(target.host, self.flow, target.port)
        if served is not None:
            self.gruu = answers.gruus.read(target, served) or NOBODYS
            self.target = Uri(target.scheme, self.gruu.aor.rpartition("@")[0] or target.user, None, served)

    @property
    def flow(self) -> Flow:
        """The flow that it came by."""
        return self.context.caller.flow
