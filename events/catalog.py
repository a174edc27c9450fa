"""Every record type by topic: what the schemas and the AsyncAPI document are generated from."""

from typing import Any, NamedTuple, get_args

from events.audit import AuditEvent
from events.calls import CallEvent
from events.cdrs import CallRecord
from events.commands import AuthCommand, RegistrarCommand
from events.leases import EdgeLease
from events.people import PersonForgotten
from events.registrations import AorState, BindingsRecorded, RegistrationEvent, Watermark
from events.replies import Reply
from events.stats import Statistics
from events.topics import (
    AUDIT,
    AUTH_COMMANDS,
    BINDINGS,
    CALLS,
    CDRS,
    EDGE_LEASES,
    EDGE_REPLIES,
    REGISTRAR_COMMANDS,
    REGISTRATIONS,
    STATS,
    VIEW_PREFIX,
)


class Channel(NamedTuple):
    """Who writes a topic, who reads it, and the types of its values."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    kinds: tuple[type[Any], ...]


CHANNELS: dict[str, Channel] = {
    AUTH_COMMANDS: Channel(("edge",), ("authsvc",), get_args(AuthCommand)),
    REGISTRAR_COMMANDS: Channel(("authsvc", "registrar", "ramal"), ("registrar",), get_args(RegistrarCommand)),
    REGISTRATIONS: Channel(("registrar",), ("registrar", "locator", "cdr", "analytics"), get_args(RegistrationEvent)),
    BINDINGS: Channel(("registrar",), ("registrar",), (AorState, Watermark)),
    EDGE_REPLIES: Channel(("authsvc", "registrar", "locator"), ("edge",), get_args(Reply)),
    EDGE_LEASES: Channel(("edge",), ("edge",), (EdgeLease,)),
    CALLS: Channel(("edge", "cdr", "ramal"), ("cdr", "analytics"), (*get_args(CallEvent), PersonForgotten)),
    CDRS: Channel(("cdr", "ramal"), ("cdr",), (CallRecord, PersonForgotten)),
    AUDIT: Channel(
        ("authsvc", "console", "ramal"),
        ("analytics",),
        (*get_args(AuditEvent), PersonForgotten),
    ),
    STATS: Channel(("analytics",), ("analytics", "console", "analysts"), get_args(Statistics)),
    VIEW_PREFIX + CALLS: Channel(("cdr",), ("analysts",), get_args(CallEvent)),
    VIEW_PREFIX + CDRS: Channel(("cdr",), ("analysts",), (CallRecord,)),
    VIEW_PREFIX + REGISTRATIONS: Channel(("cdr",), ("analysts",), (BindingsRecorded,)),
}
"""All but `dead`, whose values are whatever they were, and Faust's changelog. In the view, personal fields are
pseudonyms or empty."""


def name_of(kind: type[Any]) -> str:
    """The `ce_type` of a record, which is also the value's `type` where it has one: `ramal.CallAnswered`."""
    return f"ramal.{kind.__name__}"
