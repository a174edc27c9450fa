"""Users of the directory who have enrolled: the table `enrolled`, one row a user and realm, HA1s sealed.

A row outlives its HA1s: retired, it says since when and why, so that the user can be told to enrol again.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from authsvc.users.ha1 import ALGORITHMS, User, from_ha1s, from_password
from authsvc.users.outage import Outage
from authsvc.users.remembered import Key
from authsvc.users.sealing import NONCE_BYTES, Keyring, Keys, Unopened
from runtime.database.keyset import following
from runtime.database.port import Database, Row, Statement
from runtime.errors import DatabaseUnavailable

log = logging.getLogger("ramal.authsvc")

HA1S: Mapping[str, str] = {"MD5": "ha1", "SHA-256": "ha1_sha256", "SHA-512-256": "ha1_sha512t256"}
"""By algorithm, the column; named as those of `subscriber`."""
PAGE = 500
STAMP = 32
"""Characters kept of a time that the directory says."""

_COLUMNS = (
    "username", "domain", "key_id", "ha1", "ha1_sha256", "ha1_sha512t256", "password", "enrolled_at",
    "password_changed", "modified", "retired_at", "retired_for",
)  # fmt: skip
_ALL = ", ".join(_COLUMNS)


class Enrolled(msgspec.Struct, frozen=True):
    """A row. Times in milliseconds since 1970."""

    username: str
    domain: str
    key_id: str
    sealed: tuple[str, str, str]
    """By ALGORITHMS; "" when retired."""
    password: str
    """`directory` or `generated`: what phones log in with."""
    enrolled_at: int
    password_changed: str
    """What the directory said then (see `authsvc.users.accounts.Account`)."""
    modified: str
    retired_at: int
    """0: it is in force."""
    retired_for: str

    @property
    def key(self) -> Key:
        return self.username, self.domain

    def opened(self, ring: Keyring) -> User:
        """The HA1s; raises Unopened."""
        pairs = zip(ALGORITHMS, self.sealed, strict=True)
        opened = {a: ring.open(self.key_id, sealed, *self.key, a) for a, sealed in pairs if sealed}
        return from_ha1s(opened)

    def __repr__(self) -> str:
        return f"Enrolled({self.username}@{self.domain})"


class EnrolledUsers:
    """HA1s of who has enrolled, for those whom the directory has (see `authsvc.users.directory`)."""

    name = "enrolled"

    def __init__(self, database: Database, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._keys = keys
        self._outage = Outage(database, "enrolled", clock)
        self._told: set[str] = set()

    @property
    def away(self) -> bool:
        """Whether a query failed a moment ago."""
        return self._outage.away

    def lost(self) -> str:
        """Why it does not tell of somebody; "" while it does."""
        return self._outage.told()

    async def stop(self) -> None:
        """Asks nothing more by itself."""
        await self._outage.stop()

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """Those of these users whose enrolment is in force; raises DatabaseUnavailable."""
        found: dict[Key, User] = {}
        try:
            rows = await rows_of(self._database, keys)
        except DatabaseUnavailable as error:
            self._outage.began(error)
            raise
        self._outage.ended()
        for row in rows:
            if row.retired_at:
                continue
            try:
                self._keys.knows(row.key_id)
                found[row.key] = row.opened(self._keys.ring)
            except Unopened as error:
                self._tell(str(error), row)
        return found

    def _tell(self, why: str, row: Enrolled) -> None:
        if why not in self._told:  # of a missing key once, not for each of its users
            self._told.add(why)
            extra = {"cause": why, "user": "@".join(row.key)}
            log.error("an enrolment cannot be opened: its user cannot log in", extra=extra)


async def rows_of(database: Database, keys: Collection[Key]) -> list[Enrolled]:
    """The rows of these users; raises DatabaseUnavailable."""
    domains: dict[str, list[str]] = {}
    for name, domain in keys:
        domains.setdefault(domain, []).append(name)
    rows: list[Row] = []
    for domain, names in domains.items():
        marks = ", ".join(["%s"] * len(names))
        sql = f"SELECT {_ALL} FROM enrolled WHERE domain = %s AND username IN ({marks})"  # noqa: S608  # names are ours, values are bound
        rows += await database.query(sql, [domain, *names])
    return [each for each in map(_row, rows) if each.key in keys]


async def page(database: Database, after: Key | None, condition: str, values: Sequence[object] = ()) -> list[Enrolled]:
    """The next rows in order, PAGE at most, that meet a condition of ours; raises DatabaseUnavailable."""
    behind = following(("username", "domain"), after) if after else Statement("1 = 1")
    sql = f"SELECT {_ALL} FROM enrolled WHERE {condition} AND {behind.sql} ORDER BY username, domain LIMIT {PAGE}"  # noqa: S608  # ours
    return [_row(each) for each in await database.query(sql, [*values, *behind.values])]


async def changed_since(database: Database, at: int) -> list[tuple[Key, int]]:
    """Whose rows were written since then, and when; raises DatabaseUnavailable."""
    sql = "SELECT username, domain, changed_at FROM enrolled WHERE changed_at >= %s"
    return [((str(row[0]), str(row[1])), int(row[2])) for row in await database.query(sql, (at,))]


async def used_keys(database: Database) -> dict[str, int]:
    """By key id, how many rows in force it has sealed; raises DatabaseUnavailable."""
    rows = await database.query("SELECT key_id, COUNT(*) FROM enrolled WHERE retired_at = 0 GROUP BY key_id")
    return {str(row[0]): int(row[1]) for row in rows}


def enrolling(
    database: Database,
    ring: Keyring,
    keys: Iterable[Key],
    password: str,
    kind: str,
    seen: tuple[str, str],
    at: int,
    random: Callable[[int], bytes] = os.urandom,
) -> Statement:
    """Stores the HA1s of one person for each of these names and realms, in place of what there was.

    `seen`: when the directory says that password and entry changed; `at` in milliseconds.
    """
    rows = []
    for name, realm in keys:
        user = from_password(name, realm, password)
        sealed = [ring.seal(user.ha1(a) or "", name, realm, a, random(NONCE_BYTES)) for a in ALGORITHMS]
        rows.append((name, realm, ring.sealing, *sealed, kind, at, *seen, 0, "", at))
    return database.upsert("enrolled", (*_COLUMNS, "changed_at"), ("username", "domain"), rows)


async def remove(database: Database, key: Key) -> bool:
    """Ends a user's enrolment in one domain as if it had never been; False when there was none."""
    if not await rows_of(database, [key]):
        return False
    this = "DELETE FROM enrolled WHERE username = %s AND domain = %s"
    await database.transact([Statement(this, key)])
    return True


def retiring(row: Enrolled, why: str, at: int) -> Statement:
    """Ends an enrolment, unless the user has enrolled again meanwhile."""
    return Statement(
        "UPDATE enrolled SET ha1 = '', ha1_sha256 = '', ha1_sha512t256 = '', retired_at = %s, retired_for = %s,"
        " changed_at = %s WHERE username = %s AND domain = %s AND enrolled_at = %s AND retired_at = 0",
        (at, why, at, *row.key, row.enrolled_at),
    )


def resealing(row: Enrolled, ring: Keyring, random: Callable[[int], bytes] = os.urandom) -> Statement:
    """Seals a row by the first key, unless it has changed meanwhile; raises Unopened."""
    user = row.opened(ring)
    sealed = [
        ring.seal(ha1, *row.key, algorithm, random(NONCE_BYTES)) if (ha1 := user.ha1(algorithm)) else ""
        for algorithm in ALGORITHMS
    ]
    return Statement(
        "UPDATE enrolled SET key_id = %s, ha1 = %s, ha1_sha256 = %s, ha1_sha512t256 = %s"
        " WHERE username = %s AND domain = %s AND key_id = %s AND ha1 = %s",
        (ring.sealing, *sealed, *row.key, row.key_id, row.sealed[0]),
    )


def _row(row: Row) -> Enrolled:
    name, domain, key_id, md5, sha256, sha512_256, password, enrolled_at, changed, modified, retired_at, why = row
    sealed = (str(md5), str(sha256), str(sha512_256))
    texts = (str(changed), str(modified))
    return Enrolled(
        str(name), str(domain), str(key_id), sealed, str(password), int(enrolled_at), *texts, int(retired_at), str(why)
    )
