"""The truth: what `registrations` holds, and the state of one AOR.

Each record on `registrations` carries two headers: `s`, the offset of the command it
answers, and `c`, the claim of its writer. A reader skips a record whose `c` is below
the highest claim it has seen in that partition (DESIGN section 7).
"""

import enum

import msgspec

from events.commands import ReplyTo
from events.personal import Name, Person, Place


class Kind(enum.StrEnum):
    """What became of a binding, in the words of RFC 3680 section 4.7."""

    CREATED = "created"
    REFRESHED = "refreshed"
    SHORTENED = "shortened"
    UNREGISTERED = "unregistered"
    EXPIRED = "expired"
    DEACTIVATED = "deactivated"
    """Ended by us: the oldest binding left for a new one, its flow's connection is closed, its user is gone, or an
    operator has kicked it."""


class Binding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contact of an AOR, until when, and how to reach it."""

    id: int
    """From the command that created it: see `binding_id`. Never reused."""
    contact: Place
    """The URI as sent."""
    call_id: Name
    cseq: int
    expires: int
    """When it ends, milliseconds in the log's time."""
    granted: int
    """Seconds granted by the last refresh."""
    created: int
    """When it was made, milliseconds."""
    updated: int
    """When it was last refreshed, milliseconds."""
    params: Place = ""
    """As sent; they may name the phone."""
    q: float | None = None
    instance: Name | None = None
    reg_id: int | None = None
    received: Place = ""
    path: tuple[Place, ...] = ()
    socket: str = ""
    user_agent: str = ""
    methods: int | None = None
    gruus_since: int = 0
    """Since when temporary GRUUs of its `instance` are good (RFC 5627 section 5), milliseconds; 0: it has had none."""


class Seen(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """An answered command, remembered 32 s so that a copy of it changes nothing (CHECKLIST R19)."""

    id: str
    call_id: Name
    cseq: int
    branch: str
    at: int


class Gone(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """A removed contact, remembered 32 s so that a late copy revives nothing (CHECKLIST R19)."""

    contact: Place
    call_id: Name
    cseq: int
    at: int


class AorState(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that the registrar knows of one AOR; the value on `bindings`."""

    at: int = 0
    """Time of the last decision, milliseconds in the log's time."""
    bindings: tuple[Binding, ...] = ()
    seen: tuple[Seen, ...] = ()
    gone: tuple[Gone, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """What happened to one binding."""

    kind: Kind
    id: int
    contact: Place


class BindingsRecorded(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.BindingsRecorded", tag_field="type"):
    """A command was accepted: what changed (perhaps nothing), and the AOR's whole state after it."""

    id: str
    """The command's id."""
    aor: Person
    by: Person
    """The user, `operator:NAME`, `expiry`, `flow-lost` or `user-gone`."""
    changes: tuple[Change, ...]
    state: AorState
    reply: ReplyTo | None = None
    forgotten: bool = False
    """Whether the person is to be forgotten: history of the AOR up to here goes, too."""
    closes: tuple[Place, ...] = ()
    """First Path values of bindings that were kicked: the edges that they name close these connections. With a reply:
    of flows on UDP that phones have left for another edge, and that are pinged no more."""


class Claimed(msgspec.Struct, frozen=True, tag="ramal.Claimed", tag_field="type"):
    """A registrar became the writer of this partition: this record's own offset is its claim `c`."""

    registrar: str
    """Name and boot of the writer, for people."""


class Watermark(msgspec.Struct, frozen=True):
    """On `bindings`, under `WATERMARK_KEY`: every truth up to and including `through` is in the snapshots."""

    through: int
    """Offset on `registrations`; -1 when there is none."""
    command: int
    """The last command handled, refused ones included; -1 when there is none."""
    claim: int
    """The claim in force at `through`; -1 when there is none."""


RegistrationEvent = BindingsRecorded | Claimed

WATERMARK_KEY = "\x00watermark"
"""Sorts before and differs from every AOR: an AOR has no NUL unescaped."""


def binding_id(partition: int, command: int, index: int) -> int:
    """The id of the index-th contact that the command at this offset creates: below 2**63, unique for ever.

    partition < 1024, index < 64, offset < 2**47.
    """
    return command << 16 | partition << 6 | index
