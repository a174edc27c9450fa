"""The schema as numbered files of SQL, and how both databases are brought up to date with them.

`schema/DIALECT/NNN_name.sql` holds statements that end with `;` at the end of a line. Every one may be run again
(`CREATE TABLE IF NOT EXISTS`, `INSERT IGNORE`): DDL commits by itself on MySQL, so a migration may stop half-way,
and a table that somebody dropped is made again. What was applied is in `schema_version`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

from runtime.database.port import Row

Dialect = Literal["mysql", "sqlite"]

_VERSIONS = """\
CREATE TABLE IF NOT EXISTS schema_version (number INTEGER PRIMARY KEY NOT NULL, name VARCHAR(64) NOT NULL)"""
_CREATES = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_COMMENT = re.compile(r"^--.*\n?", re.MULTILINE)


class Migration(NamedTuple):
    """One file of the schema."""

    number: int
    name: str
    statements: tuple[str, ...]

    def tables(self) -> list[str]:
        """The tables that it makes."""
        return [table for statement in self.statements for table in _CREATES.findall(statement)]


def migrations(dialect: Dialect) -> list[Migration]:
    """All migrations of a dialect in order."""
    found = []
    for file in (files("runtime.database") / "schema" / dialect).iterdir():
        number, underscore, rest = file.name.partition("_")
        if not underscore or not rest.endswith(".sql"):
            continue
        text = _COMMENT.sub("", file.read_text(encoding="utf-8"))
        statements = tuple(part.strip() for part in re.split(r";\s*$", text, flags=re.MULTILINE) if part.strip())
        found.append(Migration(int(number), rest.removesuffix(".sql"), statements))
    return sorted(found)


async def migrate(
    dialect: Dialect,
    query: Callable[[str], Awaitable[list[Row]]],
    execute: Callable[[Sequence[str]], Awaitable[None]],
) -> list[str]:
    """Applies what is missing, in order, and returns its names (`001_location`).

    `query` gives the rows of a SELECT; `execute` runs statements without placeholders, in one transaction where
    the database has that for DDL. The caller keeps a second migration away and gives both a generous deadline.
    """
    await execute([_VERSIONS])
    applied = {int(row[0]) for row in await query("SELECT number FROM schema_version")}
    present = {str(row[0]).lower() for row in await query(_TABLES[dialect])}
    names = []
    for migration in migrations(dialect):
        if migration.number in applied and present.issuperset(migration.tables()):
            continue
        # Again, when its tables were dropped: then its number is there already.
        known = f"DELETE FROM schema_version WHERE number = {migration.number}"  # noqa: S608  # a number
        note = f"INSERT INTO schema_version VALUES ({migration.number}, '{migration.name}')"  # noqa: S608  # file names
        await execute([*migration.statements, known, note])
        names.append(f"{migration.number:03}_{migration.name}")
    return names


_TABLES: dict[Dialect, str] = {
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
}
