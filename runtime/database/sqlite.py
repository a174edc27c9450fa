"""The tables in the one SQLite file of an embedded Ramal (`runtime.store`), shared with the log.

A transaction is one piece of work of the writer's thread: its statements are kept or taken back together, and
share an fsync with whatever else is written at that moment. Queries have a reading thread of their own.
SQLite has no CREATE TABLE LIKE and no hash: a shadow's statements are words of ours that `transact` carries out,
and the checksum is an aggregate in Python.
"""

import contextlib
import fcntl
import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Literal

from runtime.database.migrations import migrate
from runtime.database.port import Advance, Row, Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.store import EmbeddedStore, StoreUnavailable

_MAKE_SHADOW = "make the shadow of"
_TAKE_SHADOW = "take the shadow of"
_MISSING = ("no such table", "no such column", "has no column named")
"""Somebody dropped it or has not migrated yet, so it may come back."""
_WRONG = (
    "syntax error",
    "too many SQL variables",
    "too many terms",
    "ambiguous column",
    "unrecognized token",
    "no such function",
    "wrong number of arguments",
    "same number of result columns",
    "values were supplied",
    "values for",
)
"""Errors that SQLite calls operational, and that the same statement will meet again."""
_CREATES = re.compile(r'^CREATE TABLE (IF NOT EXISTS )?("?)\w+\2', re.IGNORECASE)


class SQLiteDatabase:
    """`runtime.database.port.Database` on an EmbeddedStore.

    `lane`: who reads in which thread; `questions` of people take long, and calls must not wait for them.
    """

    def __init__(self, store: EmbeddedStore, lane: Literal["tables", "questions"] = "tables") -> None:
        self._store = store
        self._lane = lane
        self._open = False

    async def start(self) -> None:
        """Opens the store if nobody has. Raises ConfigError."""
        await self._store.start()
        self._open = True

    async def stop(self, deadline: float = 3.0) -> None:
        """Takes no more calls; the store is stopped by whoever made it."""
        self._open = False

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a SELECT; raises DatabaseUnavailable or DatabaseRefused."""
        text = _placeholders(sql, values)

        def read(connection: sqlite3.Connection) -> list[Row]:
            with _mapped():
                if _Checksum.NAME in text:
                    connection.create_aggregate(_Checksum.NAME, -1, _Checksum)
                return connection.execute(text, values).fetchall()

        self._check_open()
        with _unavailable():
            return await self._store.read(read, self._lane)

    async def transact(self, statements: Sequence[Statement], *advances: Advance) -> None:
        """All or none; raises PositionConflict, DatabaseRefused or DatabaseUnavailable."""

        def write(connection: sqlite3.Connection) -> None:
            with _mapped():
                for advance in advances:
                    _compare_and_set(connection, advance)
                for sql, values in statements:
                    _execute(connection, sql, values)

        self._check_open()
        with _unavailable():
            await self._store.write(write)

    def upsert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Row]) -> Statement:
        """INSERT … ON CONFLICT DO UPDATE, or DO NOTHING when no column is left to overwrite."""
        rest = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
        row = "(" + ",".join(["%s"] * len(columns)) + ")"
        head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {','.join([row] * len(rows))}"  # noqa: S608  # names are ours
        action = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {rest}" if rest else "ON CONFLICT DO NOTHING"
        return Statement(f"{head} {action}", [value for row in rows for value in row])

    def checksum(self, columns: Sequence[str]) -> str:
        """XOR over 63 bits of each row's MD5."""
        return f"COALESCE({_Checksum.NAME}({', '.join(columns)}), 0)"

    def shadow(self, table: str) -> list[Statement]:
        """Made from the table's own CREATE TABLE; its indexes follow when the shadow takes its place."""
        return [Statement(_MAKE_SHADOW, (table,))]

    def swap(self, tables: Sequence[str]) -> list[Statement]:
        """Drops each table and renames its shadow; a SQLite transaction holds for DDL too."""
        return [Statement(_TAKE_SHADOW, (table,)) for table in tables]

    @contextlib.asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """By a lock on a file of its own: to close the tables' file would take SQLite's locks from this process."""

        async def confirm() -> None:
            self._check_open()

        path = self._store.path.with_name(f"{self._store.path.name}-{what.replace(' ', '-')}")
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatabaseUnavailable(f"another {what} is running") from error
            except OSError as error:
                raise DatabaseUnavailable(f"{path}: {error.strerror}") from error
            yield confirm

    async def migrate(self) -> list[str]:
        """Brings the schema up to date; every statement may be run again, also by another process meanwhile."""

        async def execute(statements: Sequence[str]) -> None:
            await self.transact([Statement(statement) for statement in statements])

        return await migrate("sqlite", self.query, execute)

    def _check_open(self) -> None:
        if not self._open:
            raise DatabaseUnavailable("the database is closed")


class _Checksum:
    """The aggregate behind `checksum`: equal for equal sets of rows in any order."""

    NAME = "ramal_checksum"

    def __init__(self) -> None:
        self._sum = 0

    def step(self, *values: object) -> None:
        """Adds a row; the type is in what is hashed, so NULL is not ''."""
        digest = hashlib.md5(repr(values).encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        self._sum ^= int.from_bytes(digest[:8], "big") >> 1

    def finalize(self) -> int:
        """The sum."""
        return self._sum


def _execute(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> None:
    if sql == _MAKE_SHADOW:
        _make_shadow(connection, values[0])
    elif sql == _TAKE_SHADOW:
        _take_shadow(connection, values[0])
    else:
        connection.execute(_placeholders(sql, values), values)


def _make_shadow(connection: sqlite3.Connection, table: str) -> None:
    row = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    if row is None:
        raise DatabaseUnavailable(f"no such table: {table}")
    connection.execute(f"DROP TABLE IF EXISTS {table}_shadow")
    connection.execute(_CREATES.sub(f"CREATE TABLE {table}_shadow", row[0], count=1))


def _take_shadow(connection: sqlite3.Connection, table: str) -> None:
    indexes = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
    ).fetchall()
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE {table}_shadow RENAME TO {table}")
    for (sql,) in indexes:
        connection.execute(sql)


def _compare_and_set(connection: sqlite3.Connection, advance: Advance) -> None:
    changed = connection.execute(
        "UPDATE projection_offset SET next_offset = ?, claim = ? "
        "WHERE projection = ? AND partition_no = ? AND next_offset = ? AND claim <= ?",
        (advance.next, advance.claim, advance.projection, advance.partition, advance.expected, advance.claim),
    ).rowcount
    if changed != 1:
        raise PositionConflict(
            f"{advance.projection}: partition {advance.partition} is not at {advance.expected} "
            f"with a claim of at most {advance.claim}"
        )


def _placeholders(sql: str, values: Sequence[Any]) -> str:
    """`%s` as SQLite writes it; without values the text is taken as it is."""
    return sql.replace("%s", "?").replace("%%", "%") if values else sql


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Around a piece of work in the store's thread: what the statements are to blame for is DatabaseRefused."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if any(word in text for word in _MISSING):
            raise DatabaseUnavailable(text) from error
        if any(word in text for word in _WRONG):
            raise DatabaseRefused(text) from error
        raise
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
        raise DatabaseRefused(str(error)) from error
    except OverflowError as error:
        raise DatabaseRefused(str(error)) from error
    except UnicodeEncodeError as error:
        # Not `from`: the exception holds the text.
        raise DatabaseRefused(f"not Unicode text: {error.reason}") from None


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, sqlite3.Error) as error:
        raise DatabaseUnavailable(f"the database does not answer: {error}") from error
