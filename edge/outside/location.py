"""Where an AOR can be reached: the query by which any edge routes, and its page on the edge's HTTP.

One query gives the bindings of many AORs, in one column: a column costs the driver more than its contents. Where
nothing says yet that an AOR is a user's own, the same query follows aliases (one level) and, for a telephone
number, its other spellings. An AOR's own live bindings go before those of an alias of the same name, as its own
user goes before an alias in authsvc; and the name as asked for before other spellings.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec
from aiohttp import web

from edge.core.actions import Binding, Location
from events import limits
from runtime.database.port import Database, Row
from runtime.errors import DatabaseUnavailable
from sipcore.grammar import uint
from sipcore.telephone import NO_RULE, NumberRule, digits, spellings
from sipcore.uri import Uri, canonical_escapes, parse_uri

Name = tuple[str, str]
"""User part and domain. In `location` the user part is canonical (`jos%C3%A9`), in the users' tables unescaped."""

# The database's own clock comes with the rows: no edge's clock counts (DESIGN section 7).
_BINDINGS = (
    "SELECT JSON_ARRAY(username, domain, NULL, NULL, contact, received, path, socket, q, sip_instance, expires,"
    " contact_id, attr, CURRENT_TIMESTAMP) FROM location WHERE "
)
_ALIASES = (
    "SELECT JSON_ARRAY(d.alias_username, d.alias_domain, d.username, d.domain, l.contact, l.received, l.path,"
    " l.socket, l.q, l.sip_instance, l.expires, l.contact_id, l.attr, CURRENT_TIMESTAMP)"
    " FROM dbaliases d LEFT JOIN location l ON l.username = d.username AND l.domain = d.domain WHERE "
)
_USERS = "SELECT 0, username, domain FROM subscriber WHERE "
_REGISTERED = "SELECT 1, username, domain FROM registration_history WHERE "
# A spelling itself, or with what follows `;` or `?`: those, and no character of a host, are between ";" and "@".
_OF_CONTACT = "contact = %s OR (contact >= %s AND contact < %s)"
LATEST = 10**15
"""No time in milliseconds is later."""
_SPELLINGS = 200
"""Spellings in one query: SQLite takes no deeper expression than 1,000."""
_RESERVED = "&=+$,;?/"
"""What a user part may have plain; escaped it is another user part."""


class _Row(msgspec.Struct, array_like=True, gc=False):
    """A row of the query; of an alias without bindings, only the first four."""

    user: str
    domain: str
    of: str | None
    """The alias's user; None in a row of an AOR's own."""
    of_domain: str | None
    contact: str | None
    received: str | None
    path: str | None
    socket: str | None
    q: float | None
    instance: str | None
    expires: int | None
    id: int | None
    attr: str | None
    now: str


_decode = msgspec.json.Decoder(_Row).decode


class Names:
    """By which names AORs are looked up, and which AOR is meant by the name of a row."""

    def __init__(self, rules: Mapping[str, NumberRule]) -> None:
        """`rules` by served domain."""
        self._rules = rules

    def of(self, aor: str) -> list[Name]:
        """The AOR's own name and, of a telephone number, its other spellings; none if the tables can have none."""
        user, _, domain = aor.rpartition("@")
        if len(user) > limits.USERNAME or len(domain) > limits.DOMAIN:
            return []
        number = digits(plain(user) or "")
        if number is None:
            return [(user, domain)]
        others = spellings(number, self._rules.get(domain, NO_RULE))
        return list(dict.fromkeys([(user, domain), *((canonical_user(other), domain) for other in others)]))


async def find(
    database: Database, names: Mapping[str, list[Name]], own: Collection[str] = (), grace: int = 5
) -> tuple[dict[str, Location], float]:
    """By AOR, what the tables say; and the database's time in Unix seconds (0 without any row).

    `names` are the AORs with their `Names.of`; `own` are those that were found under their own name before: an
    alias is asked for only if they have no binding now. `known` is told of those without targets by `find_known`.
    Raises DatabaseUnavailable.
    """
    reading = _Reading(grace)
    direct = {name: None for aor, whole in names.items() for name in (whole[:1] if aor in own else whole)}
    indirect = {name: None for aor, whole in names.items() if aor not in own for name in whole}
    reading.take(await _query(database, direct, indirect))
    # Users who were reached under their own name, and now have no binding there.
    gone = {n: None for aor in own if (whole := names.get(aor)) and not reading.targets.get(whole[0]) for n in whole}
    if gone:
        reading.take(await _query(database, gone.keys() - direct.keys(), gone.keys() - indirect.keys()))
    # The join missed users whose names have other characters in `location` than in `dbaliases`.
    if spelled := reading.unjoined() - direct.keys() - gone.keys():
        reading.take(await _query(database, spelled, ()))
    return {aor: reading.located(aor, whole) for aor, whole in names.items()}, reading.now


def bases(contact: Uri) -> list[str]:
    """The spellings of a Contact, without parameters and headers, by which its bindings are found.

    The scheme is that of the request, not of the binding (RFC 5630 section 5.3), and hosts have no case. What is
    found may still be another one by its parameters: `sipcore.uri.equal` tells.
    """
    users = dict.fromkeys((contact.user, None if contact.user is None else canonical_escapes(contact.user)))
    hosts = dict.fromkeys((contact.host, contact.host.lower()))
    found = [Uri(s, u, contact.password, h, contact.port) for s in ("sip", "sips") for u in users for h in hosts]
    return [str(uri) for uri in found]


async def find_contacts(
    database: Database, contacts: Collection[str], grace: int = 5
) -> tuple[dict[str, Location], float]:
    """By Contact URI, the live bindings that may be meant by it, of any AOR, by age; and the database's time.

    An index serves it: texts that are a spelling's, or begin with it before a parameter. Raises DatabaseUnavailable.
    """
    wanted = {contact: bases(parse_uri(contact)) if len(contact) <= limits.CONTACT else [] for contact in contacts}
    spellings = list(dict.fromkeys(base for each in wanted.values() for base in each))
    now, by_base = 0.0, dict[str, list[_Row]]()
    for start in range(0, len(spellings), _SPELLINGS):
        some = spellings[start : start + _SPELLINGS]
        arms = " OR ".join([_OF_CONTACT] * len(some))
        values = [text for base in some for text in (base, f"{base};", f"{base}@")]
        for (text,) in await database.query(_BINDINGS + arms, values):
            row = _decode(text)
            now = _unix(row.now)
            if row.contact is not None and row.expires is not None and row.expires > now - grace:
                by_base.setdefault(_base(row.contact), []).append(row)
    found = {}
    for contact, mine in wanted.items():
        bindings = {row.id: row for base in mine for row in by_base.get(base, ())}
        ordered = sorted(bindings.values(), key=lambda row: row.id or 0)
        owners = tuple([f"{row.user}@{row.domain}" for row in ordered])
        found[contact] = Location(contact, tuple(map(_target, ordered)), known=bool(ordered), owners=owners)
    return found, now


def _base(contact: str) -> str:
    """A Contact URI without parameters and headers."""
    start = contact.find("@") + 1
    ends = [end for mark in ";?" if (end := contact.find(mark, start)) >= 0]
    return contact[: min(ends)] if ends else contact


async def find_known(database: Database, names: Mapping[str, list[Name]]) -> set[str]:
    """Those of the AORs that are users' of the table `subscriber`, or that were ever registered.

    Raises DatabaseUnavailable.
    """
    direct = {name: None for whole in names.values() for name in whole}
    unescaped = {there: name for name in direct for there in _unescaped([name])}
    arms, values = [], list[str]()
    if unescaped:
        arms.append(_USERS + _among(unescaped, "", values))
    if direct:
        arms.append(_REGISTERED + _among(direct, "", values) + " GROUP BY username, domain")
    known = set()
    for registered, user, domain in await database.query(" UNION ALL ".join(arms), values) if arms else ():
        known.add((user, domain) if registered else unescaped.get((user, domain)))
    return {aor for aor, whole in names.items() if not known.isdisjoint(whole)}


class _Reading:
    """Rows read, by the canonical name of the AOR or alias."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self.now = 0.0
        self.targets: dict[Name, list[Binding]] = {}
        """Live bindings of an AOR's own; empty if all have ended."""
        self._through: dict[Name, list[Binding]] = {}
        """Those of the user whose alias it is."""
        self.aliases: dict[Name, Name] = {}

    def take(self, rows: Iterable[Row]) -> None:
        for (text,) in rows:
            row = _decode(text)
            name = row.user, row.domain
            into = self.targets
            if row.of is not None and row.of_domain is not None:
                name = canonical_user(row.user), row.domain
                self.aliases[name] = canonical_user(row.of), row.of_domain
                into = self._through
            bindings = into.setdefault(name, [])
            self.now = _unix(row.now)
            if row.contact is not None and row.expires is not None and row.expires > self.now - self._grace:
                bindings.append(_target(row))

    def unjoined(self) -> set[Name]:
        """Users of aliases that the join found no bindings of, if their names differ between the tables."""
        return {user for name, user in self.aliases.items() if not self._through[name] and "%" in user[0]}

    def located(self, aor: str, whole: list[Name]) -> Location:
        known = False
        for name in whole:
            own = self.targets.get(name)
            if own:
                return Location(f"{name[0]}@{name[1]}", _in_order(own), known=True)
            known = known or own is not None
        for name in whole:
            user = self.aliases.get(name)
            if user is not None:
                through = self._through[name] or self.targets.get(user, [])
                return Location(f"{user[0]}@{user[1]}", _in_order(through), known=True)
        return Location(aor, known=known)


async def _query(database: Database, direct: Collection[Name], indirect: Collection[Name]) -> list[Row]:
    """Rows of the AORs `direct`, and of those whose aliases are `indirect`."""
    arms, values = [], list[str]()
    if direct:
        arms.append(_BINDINGS + _among(direct, "", values))
    if aliases := _unescaped(indirect):
        arms.append(_ALIASES + _among(aliases, "d.alias_", values))
    return await database.query(" UNION ALL ".join(arms), values) if arms else []


def _among(names: Collection[Name], prefix: str, values: list[str]) -> str:
    """A condition that an index serves in MySQL and SQLite, who spell row values differently; appends its values."""
    domains: dict[str, list[str]] = {}
    for user, domain in names:
        domains.setdefault(domain, []).append(user)
    parts = []
    for domain, users in domains.items():
        parts.append(f"({prefix}domain = %s AND {prefix}username IN ({','.join(['%s'] * len(users))}))")
        values.append(domain)
        values += users
    return " OR ".join(parts)


def _unescaped(names: Iterable[Name]) -> list[Name]:
    """The names as the users' tables have them; without those that can stand in no table."""
    return [(user, domain) for name, domain in names if (user := plain(name)) is not None]


def _target(row: _Row) -> Binding:
    q = 1.0 if row.q is None else round(row.q, 3)
    return Binding(
        row.contact or "",
        row.received or "",
        row.path or "",
        row.socket or "",
        q,
        row.instance or "",
        row.expires or 0,
        row.id or 0,
        0 if row.attr is None else _gruus_since(row.attr),
    )


def _gruus_since(attr: str) -> int:
    """What the locator has noted; 0 for what another wrote there."""
    name, _, value = attr.partition("=")
    return (uint(value, LATEST) or 0) if name == "gruus_since" else 0


def _in_order(targets: list[Binding]) -> tuple[Binding, ...]:
    """By age, each once: MySQL finds a name with spaces behind it as the name without them."""
    if len(targets) < 2:
        return tuple(targets)
    by_id = {target.id: target for target in targets}
    return tuple([by_id[id_] for id_ in sorted(by_id)])


def plain(user: str) -> str | None:
    """A canonical user part unescaped; None if no text has it as its canonical form."""
    if "%" not in user:
        return user
    try:
        text = unquote(user, errors="strict")
    except UnicodeDecodeError:
        return None
    return text if canonical_user(text) == user else None


def canonical_user(name: str) -> str:
    """A user's name as the user part of his AOR (see `sipcore.uri.aor`)."""
    return name if name.isalnum() and name.isascii() else canonical_escapes(quote(name, safe=_RESERVED))


async def time_of(database: Database) -> float:
    """The database's own time in Unix seconds, to the second; raises DatabaseUnavailable."""
    [[text]] = await database.query("SELECT JSON_ARRAY(CURRENT_TIMESTAMP)")
    [now] = msgspec.json.decode(text, type=list[str])
    return _unix(now)


@lru_cache(maxsize=4)
def _unix(now: str) -> float:
    """Seconds of CURRENT_TIMESTAMP, which is in UTC; the same text for a second."""
    return datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()


async def look_up(database: Database, aor: str, grace: int = 5) -> list[Binding]:
    """The bindings of a canonical AOR (`alice@example.test`) that have not ended; raises DatabaseUnavailable.

    One that ended no longer than `grace` seconds ago still counts.
    """
    found, _ = await find(database, {aor: Names({}).of(aor)}, grace=grace)
    return list(found[aor].targets)


def location_page(database: Database, grace: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of `GET /location/{aor}`: a JSON list of targets; 503 while the database is away."""

    async def page(request: web.Request) -> web.StreamResponse:
        try:
            targets = await look_up(database, request.match_info["aor"], grace)
        except DatabaseUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.Response(body=msgspec.json.encode(targets), content_type="application/json")

    return page
