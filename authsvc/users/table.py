"""Users and aliases in OpenSIPS' tables `subscriber` and `dbaliases`; and what `ramal user` writes there.

Names are compared here, letter for letter: the columns' collation takes `Alice` for `alice`.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence

from authsvc.users.ha1 import User, from_ha1s, from_password
from authsvc.users.outage import Outage
from authsvc.users.remembered import Key
from runtime.database.port import Database, Statement
from runtime.errors import DatabaseUnavailable


class SubscriberUsers:
    """A source of users, and of aliases (see `authsvc.users.directory`)."""

    name = "subscriber"

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._outages = {table: Outage(database, table, clock) for table in ("subscriber", "dbaliases")}

    @property
    def away(self) -> bool:
        """Whether a query failed a moment ago."""
        return any(outage.away for outage in self._outages.values())

    def lost(self) -> str:
        """Why it does not tell of somebody; "" while it does."""
        return "; ".join(why for outage in self._outages.values() if (why := outage.told()))

    async def stop(self) -> None:
        """Asks nothing more by itself."""
        for outage in self._outages.values():
            await outage.stop()

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        """Those of these users that have a row; raises DatabaseUnavailable."""
        found: dict[Key, User] = {}
        columns = "username, domain, password, ha1, ha1_sha256, ha1_sha512t256"
        for row in await self._rows(columns, "subscriber", ("username", "domain"), keys):
            name, domain, password, md5, sha256, sha512_256 = (str(value or "") for value in row)
            user = from_ha1s({"MD5": md5, "SHA-256": sha256, "SHA-512-256": sha512_256})
            if password:
                user = user.completed(from_password(name, domain, password))
            found[name, domain] = user
        return {key: user for key, user in found.items() if key in keys}

    async def in_use(self, keys: Collection[Key]) -> Collection[Key]:
        """Those of these users that have a row; raises DatabaseUnavailable."""
        rows = await self._rows("username, domain", "subscriber", ("username", "domain"), keys)
        return {(str(row[0]), str(row[1])) for row in rows}

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        """By alias name and domain, the user's; raises DatabaseUnavailable."""
        columns = "alias_username, alias_domain, username, domain"
        rows = await self._rows(columns, "dbaliases", ("alias_username", "alias_domain"), keys)
        found = {(str(row[0]), str(row[1])): (str(row[2]), str(row[3])) for row in rows}
        return {alias: user for alias, user in found.items() if alias in keys}

    async def _rows(
        self, columns: str, table: str, key_columns: tuple[str, str], keys: Collection[Key]
    ) -> list[tuple[object, ...]]:
        """Rows by name and domain, one query a domain: row values are not spelled alike in MySQL and SQLite."""
        rows: list[tuple[object, ...]] = []
        try:
            for domain, names in _by_domain(keys):
                marks = ", ".join(["%s"] * len(names))
                sql = f"SELECT {columns} FROM {table} WHERE {key_columns[1]} = %s AND {key_columns[0]} IN ({marks})"  # noqa: S608  # names are ours, values are bound
                rows += await self._database.query(sql, [domain, *names])
        except DatabaseUnavailable as error:
            self._outages[table].began(error)
            raise
        self._outages[table].ended()
        return rows


def _by_domain(keys: Collection[Key]) -> Iterator[tuple[str, Sequence[str]]]:
    domains: dict[str, list[str]] = {}
    for name, domain in keys:
        domains.setdefault(domain, []).append(name)
    yield from domains.items()


async def add_user(database: Database, name: str, realm: str, password: str) -> None:
    """Stores the HA1s of a user, new or with a new password; the password itself is not stored."""
    user = from_password(name, realm, password)
    columns = ("username", "domain", "password", "ha1", "ha1_sha256", "ha1_sha512t256")
    row = (name, realm, "", user.md5, user.sha256, user.sha512_256)
    await database.transact([database.upsert("subscriber", columns, ("username", "domain"), [row])])


async def remove_user(database: Database, name: str, realm: str) -> bool:
    """Removes a user, and takes him out of his groups; False when there was none."""
    this = "username = %s AND domain = %s"
    if not await database.query(f"SELECT username FROM subscriber WHERE {this}", (name, realm)):  # noqa: S608  # no value in it
        return False
    gone = [Statement(f"DELETE FROM {table} WHERE {this}", (name, realm)) for table in ("subscriber", "grp")]  # noqa: S608  # no value in it
    await database.transact(gone)
    return True


async def list_users(database: Database) -> list[Key]:
    """Name and realm of every user, in order."""
    rows = await database.query("SELECT username, domain FROM subscriber ORDER BY domain, username")
    return [(str(row[0]), str(row[1])) for row in rows]


async def add_alias(database: Database, alias: Key, user: Key) -> None:
    """Stores whose an alias is, in place of whose it was."""
    columns = ("alias_username", "alias_domain", "username", "domain")
    await database.transact([database.upsert("dbaliases", columns, columns[:2], [(*alias, *user)])])


async def remove_alias(database: Database, alias: Key) -> bool:
    """Removes an alias; False when there was none."""
    this = "alias_username = %s AND alias_domain = %s"
    if not await database.query(f"SELECT username FROM dbaliases WHERE {this}", alias):  # noqa: S608  # no value in it
        return False
    await database.transact([Statement(f"DELETE FROM dbaliases WHERE {this}", alias)])  # noqa: S608  # no value in it
    return True


async def list_aliases(database: Database) -> list[tuple[Key, Key]]:
    """Every alias and whose it is, in order."""
    columns = "alias_username, alias_domain, username, domain"
    rows = await database.query(f"SELECT {columns} FROM dbaliases ORDER BY alias_domain, alias_username")  # noqa: S608  # names are ours
    return [((str(row[0]), str(row[1])), (str(row[2]), str(row[3]))) for row in rows]
