"""Replies: what an edge is told about a command of its own, on its partition of `edge.replies`."""

import msgspec

from events.registrations import Binding


class Registered(msgspec.Struct, frozen=True, tag="ramal.Registered", tag_field="type"):
    """The registration is durable and in MySQL; from the locator alone."""

    id: str
    edge: str
    boot: str
    at: int
    """Time of the decision, milliseconds in the log's time."""
    bindings: tuple[Binding, ...]


class Refused(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.Refused", tag_field="type"):
    """The command was refused; the edge makes the final response of it.

    401: the edge adds its own challenge for `algorithms` (empty: those of the domain), with `stale`.
    503 carries Retry-After in `headers`.
    """

    id: str
    edge: str
    boot: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    stale: bool = False
    algorithms: tuple[str, ...] = ()


Reply = Registered | Refused
