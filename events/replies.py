"""Replies: what an edge is told about a command of its own, or about a flow, on its partition of `edge.replies`."""

import msgspec

from events.personal import Person, Place
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


class Authenticated(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.Authenticated", tag_field="type"):
    """The digest of a request other than REGISTER is right, and its From is the user's (or anonymous)."""

    id: str
    edge: str
    boot: str
    user: Person
    """Who authenticated: his AOR, `alice@example.test`."""
    first: tuple[str, str] | None = None
    """Edge and boot that asked before for a copy of this request: it is theirs; None if we are the first."""


class Found(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.Found", tag_field="type"):
    """Who is called by the name that `FindUser` asked for."""

    id: str
    edge: str
    boot: str
    aor: Person | None = None
    """Canonical AOR; None: nobody."""


class CloseFlow(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.CloseFlow", tag_field="type"):
    """A binding was kicked and is out of the tables: its connection is to be closed. Or its phone has left a flow on
    UDP for another edge: that is not to be pinged. Nobody waits for an answer."""

    id: str
    """Of the command: an operator's, or the REGISTER's."""
    edge: str
    boot: str
    """"" where the flow is no connection: any life of the edge."""
    path: Place
    """The Path value that names the flow."""
    aor: Person = ""
    """Whose binding it was; "" from a locator that does not tell."""


Reply = Registered | Refused | Authenticated | Found | CloseFlow
