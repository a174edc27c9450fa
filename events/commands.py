"""Commands: what one service asks of another; each carries an id and a deadline in the log's time.

Being on `registrar.commands` means authenticated (DESIGN section 6).
"""

import msgspec

from events.personal import Name, Person, Place


class ReplyTo(msgspec.Struct, frozen=True):
    """Where the answer to a command goes, and until when it is of use."""

    edge: str
    """The edge's name; its partition of `edge.replies` is the hash of it."""
    boot: str
    """The edge's life; a later life drops the reply."""
    deadline: int
    """Milliseconds in the log's time; a command appended after it is dropped."""


class Digest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The credentials of one Authorization header (RFC 7616 section 3.4): the response and its inputs."""

    username: Person
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = "MD5"
    """`MD5`, `SHA-256` or `SHA-512-256`, spelled so."""
    qop: str | None = None
    nc: int | None = None
    """The value of the 8 hex digits; None without qop."""
    cnonce: str | None = None


class Contact(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Contact of a REGISTER."""

    uri: Place
    """As sent, without `<>`."""
    params: Place = ""
    """All header parameters but `expires`, as sent, each with its `;`. Includes q and +sip.instance."""
    q: float | None = None
    expires: int | None = None
    """Seconds asked for by the parameter; None when it has none."""
    instance: Name | None = None
    """The +sip.instance value without quotes, with its `<>`."""
    reg_id: int | None = None
    path: tuple[Place, ...] | None = None
    """Instead of the registration's, where another way leads to it; () for one that is elsewhere than its sender:
    that is found by its URI."""


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a REGISTER says, and how it came."""

    call_id: Name
    cseq: int
    branch: str
    contacts: tuple[Contact, ...] = ()
    star: bool = False
    """`Contact: *`; then `contacts` holds any others that stood beside it."""
    expires: int | None = None
    """The Expires header in seconds; None when absent."""
    received: Place = ""
    """The source as a SIP URI: `sip:192.0.2.4:5062;transport=udp`, IPv6 in brackets."""
    path: tuple[Place, ...] = ()
    """Path values in order, each with its `<>`; the owner edge's token comes first."""
    socket: str = ""
    """The edge's socket that the phone reached: `udp:192.0.2.1:5060`."""
    user_agent: str = ""
    methods: int | None = None
    """OpenSIPS' bit mask of the Allow header; None when absent."""
    gruu: bool = False
    """Whether the phone asks for GRUUs (RFC 5627): `Supported: gruu`."""


class RequestId(msgspec.Struct, frozen=True):
    """What makes two copies of one request the same, whichever edge they reached (RFC 3261 section 17.2.3)."""

    call_id: Name
    cseq: int
    branch: str


class Authenticate(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.Authenticate", tag_field="type"):
    """Asks authsvc whether this digest is right, and if it is, to register; or, for other methods, to say so."""

    id: str
    reply: ReplyTo
    digest: Digest
    method: str
    source: Place
    """The sender's IP address, for lock-outs and the audit."""
    aor: Person
    """Canonical AOR, `alice@example.test`: of To in a REGISTER; else of From, "" for an anonymous caller."""
    register: Registration | None = None
    """What a REGISTER says; None for other methods, which are answered with `Authenticated`."""
    request: RequestId | None = None
    """Of methods other than REGISTER: a repeated one is answered with the edge that asked first (CHECKLIST Y36)."""


class FindUser(msgspec.Struct, frozen=True, tag="ramal.FindUser", tag_field="type"):
    """Asks authsvc who is called so: a user, or the one who has this telephone number. Answered with `Found`."""

    id: str
    reply: ReplyTo
    name: Person
    """The user part of the Request-URI, unescaped: `alice` or `+55 48 3381-2800`."""
    domain: str


class FlowLost(msgspec.Struct, frozen=True, tag="ramal.FlowLost", tag_field="type"):
    """An edge says that a connection is closed by which this AOR had registered; nobody waits for an answer."""

    id: str
    reply: ReplyTo
    user: Person
    """Who had authenticated (the record's key is his)."""
    aor: Person
    path: Place
    """The Path value of the binding; a binding by another path is not touched."""


class RegisterContacts(msgspec.Struct, frozen=True, tag="ramal.RegisterContacts", tag_field="type"):
    """Asks the registrar to do what an authenticated REGISTER says."""

    id: str
    reply: ReplyTo
    user: Person
    """Who authenticated: `alice@example.test`."""
    aor: Person
    register: Registration


class ExpireContacts(msgspec.Struct, frozen=True, tag="ramal.ExpireContacts", tag_field="type"):
    """Asks the registrar (by its own timer) to end those bindings of the AOR whose time is over."""

    id: str
    aor: Person


class RemoveContacts(msgspec.Struct, frozen=True, omit_defaults=True, tag="ramal.RemoveContacts", tag_field="type"):
    """An operator's removal of one binding (by its contact URI) or of all."""

    id: str
    aor: Person
    operator: Person
    contact: Place | None = None
    forget: bool = False
    """Whether the person is to be forgotten: all bindings, and the history of them."""
    kick: bool = False
    """Whether the edges are to close the connections of these bindings, so that their phones register again."""


class RemoveFlow(msgspec.Struct, frozen=True, tag="ramal.RemoveFlow", tag_field="type"):
    """Asks the registrar to end the bindings of the AOR whose first Path value is this: their connection is closed."""

    id: str
    aor: Person
    path: Place


class DeactivateContacts(msgspec.Struct, frozen=True, tag="ramal.DeactivateContacts", tag_field="type"):
    """Asks the registrar to end all bindings of an AOR whose user is no user any more: removed, or disabled."""

    id: str
    aor: Person


AuthCommand = Authenticate | FindUser | FlowLost
RegistrarCommand = RegisterContacts | ExpireContacts | RemoveContacts | RemoveFlow | DeactivateContacts
