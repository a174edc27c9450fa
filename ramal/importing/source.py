"""Kamailio's or OpenSIPS' database, which is only read: in chunks, by the columns that it has."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from runtime.config import MySQL, Secret, Sources
from runtime.database.mysql import MySQLDatabase
from runtime.errors import ConfigError

Kind = Literal["kamailio", "opensips"]

CHUNK = 1000
"""Rows read at one time."""
SECONDS = "60"
"""For one statement: a table of calls is large."""
_ESCAPED = "it is like mysql://user@host:3306/kamailio, and in a password / is %2F, @ is %40 (or --password-stdin)"
_VARIABLE = re.compile(r"RAMAL_MYSQL_(\w+)")
"""What nobody typed here: the same settings are options of the URL."""
_OPTIONS = frozenset({"tls", "ca_file", "certificate", "private_key"})
TABLES = {
    "domain": ("domain",),
    "subscriber": ("username", "domain"),
    "dbaliases": ("alias_username", "alias_domain", "username", "domain"),
    "grp": ("username", "domain", "grp"),
    "location": ("username", "domain", "contact", "expires", "q", "callid", "cseq", "user_agent"),
    "acc": ("method", "from_tag", "to_tag", "callid", "sip_code", "sip_reason", "time"),
}
"""What can be taken over, in this order, and the columns that each must have."""


def settings(url: str, password: str | None) -> MySQL:
    """`mysql://user[:password]@host[:port]/database[?tls=true&ca_file=…]`. Raises ConfigError, without the password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        # Without its words: they quote what may be a password.
        raise ConfigError(f"--mysql: its host or port cannot be read; {_ESCAPED}") from None
    database = parts.path.strip("/")
    if parts.scheme != "mysql" or not (parts.hostname and parts.username and database):
        raise ConfigError("--mysql: it is not like mysql://user@host:3306/kamailio")
    if unknown := {name for name, _ in parse_qsl(parts.query)} - _OPTIONS:
        raise ConfigError(
            f"--mysql: there is no option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}"
        )
    secret = unquote(parts.password or "") if password is None else password
    named = {
        "host": parts.hostname, "port": port, "user": unquote(parts.username), "password": Secret(secret),
        "database": database, "timeout": float(SECONDS), "pool": 1,
    }  # fmt: skip
    more = {f"RAMAL_MYSQL_{name.upper()}": value for name, value in parse_qsl(parts.query)}
    try:
        return Sources(more, {}).section(MySQL, "mysql", **named)
    except ConfigError as error:
        raise ConfigError(f"--mysql: {_VARIABLE.sub(lambda found: found[1].lower(), str(error))}") from None


class Source:
    """An open database of theirs."""

    def __init__(self, kind: Kind, database: MySQLDatabase, zone: str) -> None:
        """`zone`: that its times are in, `-03:00` or as the server knows it; "": the server's own."""
        self.kind = kind
        self._database = database
        self._zone = zone
        self._columns: dict[str, tuple[str, ...]] = {}

    async def open(self) -> None:
        """Looks which tables and columns there are. Raises DatabaseUnavailable, or ConfigError: none of theirs."""
        sql = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        found: dict[str, list[str]] = {}
        for table, column in await self._database.query(sql):
            found.setdefault(str(table).lower(), []).append(str(column).lower())
        self._columns = {
            name: tuple(found[name]) for name, needed in TABLES.items() if {*needed} <= {*found.get(name, ())}
        }
        if "subscriber" not in self._columns and "location" not in self._columns:
            raise ConfigError(f"--mysql: neither subscriber nor location of {self.kind} is in that database")
        if not self._zone:
            [(self._zone,)] = await self._database.query("SELECT @@global.time_zone")
        [(known,)] = await self._database.query("SELECT CONVERT_TZ('2026-01-01', %s, '+00:00')", (self._zone,))
        if known is None:
            raise ConfigError(f"--zone: the server does not know {self._zone}; an offset such as -03:00 it knows")

    def has(self, table: str) -> bool:
        """Whether there is such a table, with the columns that we need."""
        return table in self._columns

    def columns(self, table: str) -> Sequence[str]:
        """Those that it has."""
        return self._columns[table]

    async def count(self, table: str) -> int:
        """Its rows."""
        [(count,)] = await self._database.query(f"SELECT COUNT(*) FROM {table}")  # noqa: S608  # one of TABLES
        return int(count)

    async def chunks(self, table: str) -> AsyncIterator[list[dict[str, Any]]]:
        """All rows in the order of their numbers; those of `location` with `left`, those of `acc` with `at`."""
        columns = self._columns[table]
        number = "contact_id" if "contact_id" in columns else "id"
        names = [*columns, *self._computed(table)]
        listed = ", ".join([*(f"`{name}`" for name in columns), *self._computed(table).values()])
        last = -1
        while True:
            found = await self._database.query(
                f"SELECT {listed} FROM {table} WHERE `{number}` > %s ORDER BY `{number}` LIMIT {CHUNK}",  # noqa: S608  # names of columns
                (last,),
            )
            if not found:
                return
            rows = [dict(zip(names, row, strict=True)) for row in found]
            last = int(rows[-1][number])
            yield rows

    async def answered(self, call_ids: Sequence[str]) -> dict[str, set[tuple[str, str]]]:
        """By Call-ID, the tags of From and To of the INVITEs that were answered."""
        found: dict[str, set[tuple[str, str]]] = {}
        if call_ids:
            marks = ", ".join(["%s"] * len(call_ids))
            answered = "SELECT callid, from_tag, to_tag FROM acc WHERE method = 'INVITE' AND sip_code LIKE '2%%'"
            for call_id, from_tag, to_tag in await self._database.query(
                f"{answered} AND callid IN ({marks})", call_ids
            ):
                found.setdefault(str(call_id), set()).add((str(from_tag), str(to_tag)))
        return found

    def _computed(self, table: str) -> dict[str, str]:
        zone = f"'{self._zone}'"  # the server has said that it knows it
        if table == "location" and self.kind == "opensips":
            return {"left": "CAST(expires AS SIGNED) - UNIX_TIMESTAMP()"}
        if table == "location":
            return {"left": f"TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), CONVERT_TZ(expires, {zone}, '+00:00'))"}
        if table == "acc":
            # The session is in UTC.
            return {"at": f"CAST(1000 * UNIX_TIMESTAMP(CONVERT_TZ(`time`, {zone}, '+00:00')) AS SIGNED)"}
        return {}
