"""What the core wants done: octets to send, commands to publish, counts. The shell takes it after each wake-up."""

from typing import NamedTuple

import msgspec

from edge.core.flow import Flow
from events.calls import CallEvent


class Send(msgspec.Struct, frozen=True, gc=False):
    """Octets for the remote end of a flow."""

    flow: Flow
    """Its `connection` is 0 where a stream is not there yet: one to this remote address is used again, or opened."""
    data: bytes
    port: int
    """On UDP, the port at the remote address; on a stream whose connection is gone, that of a new one (0: none)."""
    edge: str = ""
    """The edge whose flow it is; "" for ours."""
    boot: str = ""
    """That edge's life, if the flow is a connection."""
    id: str = ""
    """If not "", the core is told by it when this cannot be sent (`EdgeCore.unsent`)."""
    name: str = ""
    """The SIP domain that a new TLS connection's peer must prove to be (RFC 5922 section 7)."""


class Forward(NamedTuple):
    """A message that another edge has to do with, for `EdgeCore.forward` there."""

    edge: str
    boot: str
    flow: Flow
    """Our flow that it came by."""
    data: bytes


class Seek(NamedTuple):
    """A CANCEL or ACK whose INVITE is not known here, for `EdgeCore.claims` at every live edge."""

    id: str
    """For `EdgeCore.found_elsewhere`; "": nobody needs to know."""
    flow: Flow
    data: bytes


class Binding(msgspec.Struct, frozen=True, gc=False):
    """One binding as an edge routes by it."""

    contact: str
    received: str
    """The source as a SIP URI; "" when the column is empty."""
    path: str
    """Path values, comma-separated; the owner's token comes first."""
    socket: str
    q: float
    instance: str
    expires: int
    """Unix seconds."""
    id: int
    gruus_since: int = 0
    """As in `events.registrations.Binding`."""


class Location(msgspec.Struct, frozen=True, gc=False):
    """What is known of where an AOR can be reached."""

    aor: str
    """Whose the targets are, aliases followed."""
    targets: tuple[Binding, ...] = ()
    known: bool = False
    """Whether there is a row of this AOR: a binding (ended ones too), an alias or a user."""
    away: bool = False
    """The database is away: the targets are the last known; none means never looked up here."""
    owners: tuple[str, ...] = ()
    """Of a look-up by Contact: the AOR of each target; `aor` then is the Contact."""


def is_contact(name: str) -> bool:
    """Whether what is looked up is a Contact URI and no AOR, which has no scheme."""
    return name.startswith(("sip:", "sips:"))


class LookUp(NamedTuple):
    """Bindings of an AOR (aliases followed), or of a Contact, are asked for; answered by `EdgeCore.located`."""

    id: int
    aor: str
    """Or a Contact URI, which is told by its scheme."""


class Resolve(NamedTuple):
    """Where a URI leads by RFC 3263; answered by `EdgeCore.resolved`."""

    id: int
    uri: str


class Media(NamedTuple):
    """A command for rtpengine (ng protocol, without cookie); answered by `EdgeCore.media_reply`."""

    id: int
    command: dict[str, object]


class NextHop(msgspec.Struct, frozen=True):
    """One address that a URI leads to."""

    transport: str
    """`udp`, `tcp`, `tls`, `ws` or `wss`."""
    host: str
    """An IP address without brackets."""
    port: int
    name: str = ""
    """The domain that was asked for: a TLS peer must prove to be it."""


class Publish(NamedTuple):
    """A command for `auth.commands`, encoded."""

    id: str
    key: str
    value: bytes
    kind: str = "ramal.Authenticate"
    """The command's tag."""
    patient: bool = False
    """Whether it may wait a moment for others to go with: nobody waits for a registration, many for a call."""

    def __repr__(self) -> str:
        return f"Publish({self.id!r})"  # the value has the digest's response in it


class Final(NamedTuple):
    """A final response to a request of ours to answer."""

    method: str
    status: int
    seconds: float
    """Since the request was read; 0 where it was answered at once."""


class Unserved(NamedTuple):
    """A REGISTER for a domain that is not served, for the log: the phone's words, printable and cut short."""

    source: str
    transport: str
    domain: str
    """The Request-URI's host."""
    aor: str
    """Of To; "" where that has none."""
    agent: str
    """Its User-Agent."""


class Actions:
    """What is to be done, in order."""

    __slots__ = (
        "by_gateway",
        "closes",
        "drops",
        "events",
        "finals",
        "forwards",
        "gone",
        "lookups",
        "media",
        "publishes",
        "resolves",
        "seeks",
        "sends",
        "statuses",
        "unserved",
    )

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.closes: list[Flow] = []
        """Connections of ours that are to be closed."""
        self.publishes: list[Publish] = []
        self.forwards: list[Forward] = []
        self.seeks: list[Seek] = []
        self.lookups: list[LookUp] = []
        self.resolves: list[Resolve] = []
        self.media: list[Media] = []
        self.gone: list[str] = []
        """Ids of what other edges have sent by connections of ours that have closed since."""
        self.events: list[CallEvent] = []
        """What happened to calls."""
        self.drops: dict[str, int] = {}
        """How many messages were dropped or refused, by name."""
        self.statuses: dict[int, int] = {}
        """How many responses were made, by status."""
        self.finals: list[Final] = []
        """The final responses to REGISTER and INVITE."""
        self.by_gateway: dict[str, int] = {}
        """How many INVITEs went by each gateway."""
        self.unserved: list[Unserved] = []
        """Phones with a domain of nobody's; of a flood a share."""
