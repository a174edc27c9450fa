"""What happened to a call, told by the edge that saw it; the records of `calls`, keyed by Call-ID.

One call is one INVITE outside a dialog, answered by whatever forks: Call-ID, the caller's From tag and the CSeq
number name it in each of its events. A challenge (401, 407) begins no call. Times are milliseconds in the log's
time, when the edge received the message that the event tells of.

A call has exactly one end: `CallEnded` (by BYE), `CallFailed`, `CallCancelled` or `CallRedirected`; or, where none
came, `CallTimedOut`. An event's id is made from SIP facts (`event_id`): whoever sees the same message, however
often, makes the same id. What a branch has to say and the call says in the same moment is told once (`steps` has it
apart again). No record has a body, SDP or credentials: of SDP the codecs' names are told.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal, get_args

import msgspec

from events.personal import Name, Person, Place

Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since 1970, until the year 9999."""
Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""A CSeq number, or seconds (RFC 3261 section 8.1.1.5)."""
Code = Annotated[int, msgspec.Meta(ge=100, le=699)]
Cause = Annotated[int, msgspec.Meta(ge=0, le=127)]
"""Of Q.850; 0: none."""
By = Literal["caller", "callee"]
"""Whose phone sent a request within the dialog."""
EndedBy = Literal["", "caller", "callee"]
"""Who hung up; "" where what was imported from another proxy does not say it."""


class Happened(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,  # no event is in a cycle
    tag_field="type",
    tag=lambda name: f"ramal.{name}",
):
    """What each event says: of which call, when and where it was seen."""

    call_id: Name
    from_tag: str
    """The caller's tag."""
    cseq: Number
    """Of the INVITE (or MESSAGE)."""
    at: Millis
    """Milliseconds in the log's time."""
    edge: str
    """The name of the edge that saw it; `cdr` of a `CallTimedOut`."""


class Branch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The branch that was begun with an attempt: all that a `BranchStarted` says."""

    at: Millis
    branch: str
    contact: Place
    source: Place = ""
    transport: str = ""
    owner: str = ""
    gateway: str = ""
    q: float = 1.0


class CallAttempted(Happened, frozen=True, kw_only=True):
    """An INVITE was admitted: who calls whom, from where. It comes when it is known where the call goes, or that it
    goes nowhere; its time is that of the INVITE."""

    from_uri: Person
    """Of From, as sent."""
    to_uri: Person
    """Of To, as sent."""
    dialled: Person
    """The Request-URI as it came."""
    caller: Person = ""
    """The caller's AOR, as authenticated; "" for a peer, a stranger or somebody anonymous."""
    asserted: Person = ""
    """The URI that a listed peer asserts (RFC 3325)."""
    callee: Person = ""
    """The AOR that is called, aliases and numbers followed; "" where it is none of ours."""
    targets: tuple[Place, ...] = ()
    """The contacts of the callee's bindings, or the URIs tried for another domain or a gateway; the first 16."""
    more_targets: Number = 0
    """How many more there were."""
    source: Place = ""
    """`192.0.2.4:5062`."""
    transport: str = ""
    """`udp`, `tcp`, `tls`, `ws` or `wss`."""
    agent: str = ""
    """User-Agent."""
    codecs: tuple[str, ...] = ()
    """Offered."""
    peer: bool = False
    """Whether it came from a listed peer."""
    first: Branch | None = None
    """The branch that was begun with it; it has no `BranchStarted`."""


class CallRinging(Happened, frozen=True, kw_only=True):
    """The first 18x went to the caller. Where it came with this, a branch's has no `BranchProvisional`."""

    to_tag: str = ""
    code: Code = 180
    branch: str = ""
    """Whose it is."""
    phrase: str = ""


class CallAnswered(Happened, frozen=True, kw_only=True):
    """A 2xx went to the caller: a dialog stands. The branch's answer is this, and has no `BranchFinal`."""

    to_tag: str
    code: Code = 200
    phrase: str = ""
    branch: str = ""
    """Whose answer it is."""
    contact: Place = ""
    """The target that answered."""
    source: Place = ""
    """Its address, as it was reached."""
    transport: str = ""
    agent: str = ""
    """User-Agent or Server of the answer."""
    codecs: tuple[str, ...] = ()
    """Of the answer."""
    gateway: str = ""
    """By which it was reached."""
    session_expires: Number = 0
    """Seconds of the session timer (RFC 4028); 0: none."""


class CallRefreshed(Happened, frozen=True, kw_only=True):
    """A re-INVITE or UPDATE was answered 2xx: both ends live."""

    to_tag: str
    by: By
    refresh: Number
    """CSeq number of the refresh."""
    session_expires: Number = 0
    """Seconds of the session timer that is in force from now on; 0: none."""


class CallTransferred(Happened, frozen=True, kw_only=True):
    """A REFER within the call was accepted (RFC 3515)."""

    to_tag: str
    by: By
    refer: Number
    """CSeq number of the REFER."""
    target: Person
    """Its Refer-To, as sent."""


class CallEnded(Happened, frozen=True, kw_only=True):
    """The first BYE of a dialog."""

    to_tag: str
    """The callee's tag."""
    by: EndedBy
    reason: str = ""
    """The Reason header (RFC 3326)."""
    cause: Cause = 0
    """Its Q.850 cause; 0: none."""
    begun: Millis = 0
    """When the INVITE passed, by the Record-Route token: what a BYE knows alone. 0: unknown."""
    caller_uri: Person = ""
    callee_uri: Person = ""
    """Of From and To, as sent, the caller's first."""
    transport: str = ""
    """That the BYE came by."""


class CallFailed(Happened, frozen=True, kw_only=True):
    """A final response of 4xx to 6xx went to the caller. A branch's that went up as it came has no `BranchFinal`."""

    code: Code
    phrase: str = ""
    to_tag: str = ""
    branch: str = ""
    """Whose answer it is; "" for one of our own making."""
    agent: str = ""
    """User-Agent or Server of an answer that has no `BranchFinal`."""
    reason: str = ""
    cause: Cause = 0


class CallCancelled(Happened, frozen=True, kw_only=True):
    """The caller gave up: its CANCEL ended the INVITE with 487."""

    code: Code = 487
    to_tag: str = ""
    reason: str = ""
    """Of the CANCEL."""
    cause: Cause = 0


class CallRedirected(Happened, frozen=True, kw_only=True):
    """A 3xx went to the caller, who may call elsewhere."""

    code: Code = 302
    to_tag: str = ""
    contacts: tuple[Place, ...] = ()


class CallTimedOut(Happened, frozen=True, kw_only=True):
    """Nothing was heard of a call for too long: written by cdr, void as soon as something later is heard."""

    last: Millis
    """The last sign of life that was known, milliseconds."""
    end: Millis
    """When the call is taken to have ended."""


class BranchStarted(Happened, frozen=True, kw_only=True):
    """The INVITE went to one target, unless its `CallAttempted` says it."""

    branch: str
    contact: Place
    """The Request-URI that it got."""
    source: Place = ""
    """Where it went: `192.0.2.9:5060`."""
    transport: str = ""
    owner: str = ""
    """The edge whose flow it is, if another."""
    gateway: str = ""
    q: float = 1.0


class BranchProvisional(Happened, frozen=True, kw_only=True):
    """A branch's first response of this code, from 101 to 199, unless a `CallRinging` says it."""

    branch: str
    code: Code
    phrase: str = ""
    to_tag: str = ""


class BranchFinal(Happened, frozen=True, kw_only=True):
    """A branch's final response, unless a `CallAnswered` or `CallFailed` says it."""

    branch: str
    code: Code
    phrase: str = ""
    to_tag: str = ""
    agent: str = ""
    reason: str = ""
    cause: Cause = 0
    ours: bool = False
    """Whether we made it: nothing came in time, or it could not be sent."""


class MessageAttempted(Happened, frozen=True, kw_only=True):
    """A MESSAGE (RFC 3428) was admitted; its text is nobody's business."""

    from_uri: Person
    to_uri: Person
    dialled: Person
    caller: Person = ""
    callee: Person = ""
    source: Place = ""
    transport: str = ""
    agent: str = ""


class MessageDelivered(Happened, frozen=True, kw_only=True):
    """A 2xx to a MESSAGE went to its sender."""

    code: Code = 200


class MessageFailed(Happened, frozen=True, kw_only=True):
    """Another final response to a MESSAGE went to its sender."""

    code: Code
    phrase: str = ""


CallEvent = (
    CallAttempted
    | CallRinging
    | CallAnswered
    | CallRefreshed
    | CallTransferred
    | CallEnded
    | CallFailed
    | CallCancelled
    | CallRedirected
    | CallTimedOut
    | BranchStarted
    | BranchProvisional
    | BranchFinal
    | MessageAttempted
    | MessageDelivered
    | MessageFailed
)

_FACTS: dict[type[Happened], tuple[str, ...]] = {
    CallAttempted: ("dialled",),  # a proxy before us may fork: one Call-ID, tag and CSeq, by two Request-URIs
    CallRinging: ("to_tag",),
    CallAnswered: ("to_tag",),
    CallRefreshed: ("to_tag", "by", "refresh"),
    CallTransferred: ("to_tag", "by", "refer"),
    CallEnded: ("to_tag",),
    CallTimedOut: ("last",),
    BranchStarted: ("branch",),
    BranchProvisional: ("branch", "to_tag", "code"),
    BranchFinal: ("branch", "to_tag"),
}
"""What tells two events of one kind and call apart; the other kinds happen once to a call."""
KINDS: Mapping[type[Happened], str] = {kind: f"ramal.{kind.__name__}" for kind in get_args(CallEvent)}
"""The name of each kind, as its records have it."""
_NAMES = {kind: (kind.__name__, _FACTS.get(kind, ())) for kind in KINDS}


def event_id(event: CallEvent) -> str:
    """The event's id, 32 hex digits: equal for equal kinds and SIP facts, whoever saw them, and when."""
    name, facts = _NAMES[type(event)]
    text = f"{name}\0{event.call_id}\0{event.from_tag}\0{event.cseq}"
    for fact in facts:
        text += f"\0{getattr(event, fact)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def steps(event: CallEvent) -> tuple[CallEvent, ...]:
    """The event with what it says of a branch told apart: all that happened, each by an event of its own.

    Events of older edges told both; the branch's has the same id then, so that whoever keeps the first of an id has
    each step once.
    """
    match event:
        case CallAttempted(first=Branch() as first):
            fields = msgspec.structs.asdict(first) | _whose(event)
            return msgspec.structs.replace(event, first=None), BranchStarted(**fields)
        case CallRinging(branch=branch) if branch:
            return BranchProvisional(at=event.at, **_response(event)), event
        case CallAnswered(branch=branch) if branch:
            return BranchFinal(at=event.at, agent=event.agent, **_response(event)), event
        case CallFailed(branch=branch) if branch:
            why: dict[str, Any] = {"agent": event.agent, "reason": event.reason, "cause": event.cause}
            return BranchFinal(at=event.at, **_response(event), **why), event
    return (event,)


def _whose(event: Happened) -> dict[str, Any]:
    return {"call_id": event.call_id, "from_tag": event.from_tag, "cseq": event.cseq, "edge": event.edge}


def _response(event: CallRinging | CallAnswered | CallFailed) -> dict[str, Any]:
    return _whose(event) | {name: getattr(event, name) for name in ("branch", "code", "phrase", "to_tag")}
