"""Is this digest right, and may this user register, or call as, that AOR? PURE: the command, what is known, the time.

`decide` says what to do, or what must be known first; it changes nothing. `evolve` remembers what was
decided: the use of a nonce, a failure, a success, which edge asked first for a call.
"""

import enum
from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec

from authsvc.memory.lockouts import Lockouts
from authsvc.memory.nonces import Replays, Use
from authsvc.memory.requests import Edge, Requests
from authsvc.users.ha1 import DIGITS, User
from events.commands import Authenticate
from runtime.config import Domain
from sipcore import digest, nonce
from sipcore.uri import canonical_escapes

UNKNOWN = "unknown user"
WITH_DOMAIN = "user name with domain"
LOCKED_OUT = "locked out"
NOT_OWN = "not this user's AOR"
"""Why somebody with right credentials is refused, as `audit` says it."""
RETRY_AFTER = 5
"""Seconds a phone is asked to wait when a source of users is away."""

_NOBODY = User("0" * 32, "0" * 64, "0" * 64)
"""Stands in for a user who is unknown, so that the same work is done (CHECKLIST A17)."""


class Unknown(enum.Enum):
    """Why a fact is not there."""

    UNASKED = "unasked"
    AWAY = "away"
    """Who could tell does not answer."""


class Owner(msgspec.Struct, frozen=True):
    """Whose an AOR is that is not the digest user's own by name."""

    user: str | None
    """`name@domain` of the user whose alias it is; None: it is no alias."""
    exists: bool
    """Whether there is a user of that very name."""


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What is known of the command's user (None: there is no such user) and of a foreign AOR."""

    user: User | Unknown | None
    owner: Owner | Unknown = Unknown.UNASKED


class Needs(enum.Enum):
    """The decision needs a fact that was not asked for yet."""

    USER = "user"
    OWNER = "owner"
    """Who is called by a name: whose the AOR is, or whom `FindUser` asks for."""


class Accept(msgspec.Struct, frozen=True, gc=False):
    """The user is who they say, and the AOR is theirs."""

    user: str
    aor: str
    """The user's main AOR, also when an alias was named: one AOR, one place."""
    copy: bool
    """A retransmission: answered as the first was, remembered already."""
    first: Edge | None = None
    """The edge that asked before for a copy of this request; never of a REGISTER."""


class Refuse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The final response to send instead."""

    status: int
    stale: bool = False
    algorithms: tuple[str, ...] = ()
    retry_after: int = 0
    """Seconds; 0: none."""
    failure: str = ""
    """For the audit: why this is an attempt to be somebody else; empty: it is none."""
    counts: bool = False
    """Counts towards the lock-out."""
    used: bool = False
    """The response was right and the nonce has served."""


class Called(msgspec.Struct, frozen=True, gc=False):
    """Who is called by the name that `FindUser` asks for."""

    aor: str | None
    """The user's main AOR; None: nobody."""


Decision = Accept | Refuse | Needs


class Rules(msgspec.Struct, frozen=True):
    """What does not change while the service runs."""

    domains: Mapping[str, Domain]
    keys: Mapping[str, bytes]
    nonce_seconds: int

    def __repr__(self) -> str:
        return f"Rules({', '.join(self.domains)})"


class State:
    """What a partition remembers of its users."""

    __slots__ = ("lockouts", "replays", "requests")

    def __init__(self, replays: Replays, lockouts: Lockouts) -> None:
        self.replays = replays
        self.lockouts = lockouts
        self.requests = Requests()


def decide(rules: Rules, state: State, command: Authenticate, facts: Facts, at: int) -> Decision:
    """What becomes of an `Authenticate` that was appended `at` (milliseconds in the log's time)."""
    given = command.digest
    domain = rules.domains.get(given.realm)
    if domain is None:
        return Refuse(401)
    if given.algorithm not in domain.algorithms:
        return Refuse(401, algorithms=domain.algorithms)
    name = f"{given.username}@{given.realm}"
    if seconds := state.lockouts.remaining(name, command.source, at):
        return Refuse(403, retry_after=seconds, failure=LOCKED_OUT)
    user = facts.user
    if isinstance(user, Unknown):
        return Needs.USER if user is Unknown.UNASKED else _unavailable(domain)
    known = nonce.check(rules.keys, given.realm, given.nonce, at // 1000, rules.nonce_seconds)
    if known is nonce.Nonce.FORGED:
        return Refuse(401)
    if refusal := _wrong(command, domain, user):
        # Not against one who never got this nonce: else a forged source address would shut a victim out (S03).
        blamed = refusal.counts and nonce.given_to(rules.keys, given.nonce, command.source)
        return msgspec.structs.replace(refusal, counts=blamed)
    if known is nonce.Nonce.STALE:
        return Refuse(401, stale=True)
    use = state.replays.look(*_use(command), at)
    if use is Use.REPEATED or use is Use.FORGOTTEN:
        return Refuse(401, stale=True)
    decision = _allowed(rules, domain, command, name, facts.owner, use is Use.COPY)
    if command.request is not None and isinstance(decision, Accept):
        first = state.requests.first(name, command.request, _edge(command), at)
        return msgspec.structs.replace(decision, first=first) if first else decision
    return decision


def find(rules: Rules, domain: str, called: tuple[str, str] | Unknown | None) -> Called | Refuse | Needs:
    """The answer to a `FindUser` in this domain; `called` is name and domain of who is called so."""
    if domain not in rules.domains or called is None:
        return Called(None)
    if called is Unknown.UNASKED:
        return Needs.OWNER
    if isinstance(called, Unknown):
        return _unavailable(rules.domains[domain])
    return Called(own_aor(*called))


def evolve(state: State, command: Authenticate, decision: Accept | Refuse, at: int) -> None:
    """Remembers a decision."""
    given = command.digest
    name = f"{given.username}@{given.realm}"
    if isinstance(decision, Accept):
        if not decision.copy:
            state.replays.enter(*_use(command), at)
        if command.request is not None:
            state.requests.enter(name, command.request, _edge(command), at)
        state.lockouts.succeeded(name, command.source)
    elif decision.used:
        state.replays.enter(*_use(command), at)
    elif decision.counts:
        state.lockouts.failed(name, command.source, at)


def give_up(rules: Rules, domain: str) -> Refuse:
    """The refusal when what is needed will not be known in time, for a user of this domain."""
    return _unavailable(rules.domains.get(domain, Domain()))


def named_by(aor: str) -> tuple[str, str]:
    """Name and domain of the user whose own this AOR would be."""
    user, _, domain = aor.rpartition("@")
    return unquote(user, errors="surrogateescape"), domain


def own_aor(name: str, domain: str) -> str:
    """The canonical AOR of a user, as `sipcore.uri.aor` makes it of a URI."""
    return f"{canonical_escapes(quote(name, safe=_RESERVED))}@{domain}"


_RESERVED = "&=+$,;?/"
"""Those of RFC 3261's reserved characters that a user part may have plain; escaped they are another user part."""


def _wrong(command: Authenticate, domain: Domain, user: User | None) -> Refuse | None:
    """The refusal of a response that is not the user's; None: it is right."""
    given = command.digest
    if len(given.response) != DIGITS[given.algorithm] or not _whole(command):
        return Refuse(401, failure="wrong response", counts=True)
    ha1 = (user or _NOBODY).ha1(given.algorithm)
    if ha1 is None and user and (has := tuple(a for a in domain.algorithms if user.ha1(a))):
        return Refuse(401, algorithms=has)
    expected = digest.expected_response(
        given.algorithm,
        ha1 or _NOBODY.ha1(given.algorithm) or "",
        command.method,
        given.uri,
        given.nonce,
        given.qop,
        given.nc,
        given.cnonce,
    )
    right = digest.same(expected, given.response)
    if user is None:
        # To a caller 404 would say that the callee is unknown.
        thesis = domain.thesis_mode and command.register is not None
        # An HA1 is of `name:realm:password`: from it nobody can make that of `name@realm:realm:password`.
        failure = WITH_DOMAIN if given.username.endswith(f"@{given.realm}") else UNKNOWN
        return Refuse(404 if thesis else 401, failure=failure, counts=True)
    if ha1 is None:
        return Refuse(401, failure="no HA1", counts=True)
    return None if right else Refuse(401, failure="wrong response", counts=True)


def _whole(command: Authenticate) -> bool:
    """Whether qop, nc and cnonce come together or not at all (RFC 7616 section 3.4)."""
    given = command.digest
    if given.qop is None:
        return True
    return given.qop == "auth" and given.nc is not None and given.cnonce is not None


def _use(command: Authenticate) -> tuple[int, int, int | None, int]:
    """Key, second, nc and fingerprint of a use, for `Replays`.

    A copy must say the same, not only bear the same Call-ID, CSeq and branch: those are in the open.
    """
    given, register = command.digest, command.register
    if register is None:
        # The response covers method and Request-URI. Without a request nothing tells a copy from a replay.
        said: tuple[object, ...] = (command.request or command.id, command.method, given.uri, command.aor)
    else:
        said = (
            register.call_id,
            register.cseq,
            register.branch,
            command.aor,
            register.contacts,
            register.star,
            register.expires,
        )
    nc = None if given.qop is None else given.nc
    return nonce_key(command), nonce.issued_at(given.nonce), nc, hash(said)


def nonce_key(command: Authenticate) -> int:
    """What stands for the command's user and nonce in `Replays`, in this process."""
    given = command.digest
    return hash((given.username, given.realm, given.nonce))


def _edge(command: Authenticate) -> Edge:
    return command.reply.edge, command.reply.boot


def _allowed(
    rules: Rules, domain: Domain, command: Authenticate, name: str, owner: Owner | Unknown, copy: bool
) -> Decision:
    """Whether the AOR is the user's own or an alias of it (RFC 3261 section 10.3, steps 4 and 5).

    A caller may also be anonymous, and who calls as nobody's AOR hears 403: 404 would be of the callee.
    """
    given = command.digest
    if not command.aor and command.register is None:
        return Accept(name, own_aor(given.username, given.realm), copy)
    plain = given.username.isascii() and given.username.isalnum()
    if command.aor == (name if plain else own_aor(given.username, given.realm)):
        return Accept(name, command.aor, copy)
    if command.aor.rpartition("@")[2] not in rules.domains:
        return Refuse(403, failure=NOT_OWN, used=not copy)
    if owner is Unknown.UNASKED:
        return Needs.OWNER
    if isinstance(owner, Unknown):
        return _unavailable(domain)
    if owner.user == name:
        return Accept(name, own_aor(given.username, given.realm), copy)
    if owner.user is None and not owner.exists and command.register is not None:
        return Refuse(404, used=not copy)
    return Refuse(403, failure=NOT_OWN, used=not copy)


def _unavailable(domain: Domain) -> Refuse:
    """Who the user is cannot be told now; never 404, never 200 (CHECKLIST A18)."""
    return Refuse(500) if domain.thesis_mode else Refuse(503, retry_after=RETRY_AFTER)
