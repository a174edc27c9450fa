"""MySQL 8.4+ and MariaDB 10.11+ through aiomysql: one packet a transaction, a deadline on every wait.

Theory of operation. A connection is used by one call at a time. A call that does not end well and in time
closes its socket at once: a connection whose state is in doubt is never used again, and a server that stands
still (SIGSTOP, a dead link) costs a caller `timeout` seconds and nothing else. There is no back-off in here: the
first call after the server is back succeeds. Every session has its mode set: strict, UTC, READ COMMITTED (an
insert then takes no gap locks, which made transactions of neighbouring partitions deadlock), 2 s for locks.

Values are escaped here, and a transaction's statements are joined into one packet, the compare-and-set of the
position first. It stops the packet by an SQL error: `ROW_COUNT() - 1` in unsigned arithmetic is out of range
when no row had the expected position. The server runs nothing after an error, so COMMIT is not reached.

The primary may change behind one address (a planned switch-over: the old one lives, read-only, and keeps what is
connected to it). So a connection that has not been looked at for LOOK_SECONDS is asked before it is used, and one to
a read-only server makes way for a new one, which leads to whatever is the primary now. Where that is read-only, too,
it is read all the same: nobody can write anything newer.

aiomysql's own pool is not used: it connects while it holds the lock that every release needs, so that one
connection that hangs holds up those that do not.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pymysql

from runtime.config import MySQL
from runtime.database.literals import listed, literal, render
from runtime.database.migrations import migrate
from runtime.database.mysql_connection import Connection
from runtime.database.mysql_errors import LEFT, OUT_OF_RANGE, Deadlock, code_of, failure
from runtime.database.port import Advance, Row, Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.tls import client_context

log = logging.getLogger("ramal.database")

MIGRATION_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How long a read-only server may still be read by a connection that was made before it became so."""
PACKET_BYTES = 8 << 20
"""Half of MariaDB's default max_allowed_packet; of a server that takes less, half of what it takes. A larger
transaction is refused here: the server would close the connection, which looks like an outage, while half of the batch
would have been welcome."""
_WRITABLE = ("0", "OFF")
"""What `read_only` says then; MariaDB 12 has words."""
_LOOK = "SELECT @@global.read_only, @@session.max_allowed_packet"
_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO',"
    " time_zone = '+00:00', innodb_lock_wait_timeout = 2, lock_wait_timeout = 2, autocommit = 1;"
    " SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
)
_GUARD = "SET @ramal_guard = CAST(ROW_COUNT() AS UNSIGNED)"
_GUARD_RESULT = 2
"""The guard's place among the packet's results, after START TRANSACTION and UPDATE."""
DEADLOCKS = 3
"""A transaction that the server chose to end a deadlock was rolled back whole; so often it is sent again at once."""


class MySQLDatabase:
    """`runtime.database.port.Database` on MySQL or MariaDB."""

    def __init__(self, settings: MySQL) -> None:
        """Raises ConfigError for files that cannot be used."""
        self._settings = settings
        self._context = client_context(settings, "MYSQL") if settings.tls else None
        self._free: deque[Connection] = deque()
        self._used: set[Connection] = set()
        self._places = asyncio.Semaphore(settings.pool)
        self._stopping = False
        self._packet_bytes = PACKET_BYTES
        self._read_only = False
        """Whether the server that was looked at last takes no writes."""

    async def start(self) -> None:
        """Opens one connection; raises DatabaseUnavailable when it cannot within its deadline."""
        self._stopping = False
        await self.query("SELECT 1")

    async def stop(self, deadline: float = 3.0) -> None:
        """Lets calls in flight end within the deadline, then closes every socket."""
        self._stopping = True
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(deadline):
                for _ in range(self._settings.pool):
                    await self._places.acquire()
                for connection in self._free:
                    await connection.leave()
        for connection in (*self._free, *self._used):
            _abort(connection)
        self._free.clear()
        self._used.clear()
        self._places = asyncio.Semaphore(self._settings.pool)

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a SELECT; raises DatabaseUnavailable or DatabaseRefused."""
        text = _encoded(render(sql, values))
        with _mapped():
            async with self._connection() as connection:
                return await _rows(connection, text)

    async def transact(self, statements: Sequence[Statement], *advances: Advance) -> None:
        """All statements in one packet; raises PositionConflict, DatabaseRefused or DatabaseUnavailable."""
        parts = ["START TRANSACTION"]
        if advances:
            parts += [_compare_and_set(advances), f"{_GUARD} - {len(advances)}"]
        parts += [render(statement.sql, statement.values) for statement in statements]
        parts.append("COMMIT")
        packet = _encoded(";".join(parts))
        if len(packet) > self._packet_bytes:
            raise DatabaseRefused(f"{len(packet)} bytes are too many for one packet")
        for _ in range(DEADLOCKS):
            with contextlib.suppress(Deadlock):
                return await self._transact(packet, len(parts), advances)
        return await self._transact(packet, len(parts), advances)

    async def _transact(self, packet: bytes, count: int, advances: Sequence[Advance]) -> None:
        with _mapped():
            async with self._connection() as connection:
                await _send(connection, packet, count, advances)

    def upsert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Row]) -> Statement:
        """INSERT … ON DUPLICATE KEY UPDATE, its values already escaped.

        `VALUES()` is deprecated in MySQL, but MariaDB does not know the alias that replaces it.
        """
        # A row that is there is assigned its own key when nothing else is to be overwritten.
        rest = [f"{c} = VALUES({c})" for c in columns if c not in key] or [f"{key[0]} = {key[0]}"]
        body = ",".join([f"({listed(row)})" for row in rows])
        head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608  # names are ours
        return Statement(f"{head}{body} ON DUPLICATE KEY UPDATE {', '.join(rest)}")

    def checksum(self, columns: Sequence[str]) -> str:
        """XOR over 64 bits of each row's SHA-256; QUOTE tells NULL from an empty text and keeps columns apart.

        MySQL 9 has no MD5() of its own; MariaDB and every MySQL have SHA2().
        """
        row = ", ".join(f"QUOTE({column})" for column in columns)
        return f"COALESCE(BIT_XOR(CAST(CONV(LEFT(SHA2(CONCAT_WS(',', {row}), 256), 16), 16, 10) AS UNSIGNED)), 0)"

    def shadow(self, table: str) -> list[Statement]:
        """CREATE TABLE … LIKE."""
        return [
            Statement(f"DROP TABLE IF EXISTS {table}_shadow"),
            Statement(f"CREATE TABLE {table}_shadow LIKE {table}"),
        ]

    def swap(self, tables: Sequence[str]) -> list[Statement]:
        """One RENAME TABLE, which is atomic over all its tables; it waits 2 s for those who read them."""
        renames = [f"{table} TO {table}_old, {table}_shadow TO {table}" for table in tables]
        old = ", ".join(f"{table}_old" for table in tables)
        return [
            Statement(f"DROP TABLE IF EXISTS {old}"),
            Statement(f"RENAME TABLE {', '.join(renames)}"),
            Statement(f"DROP TABLE {old}"),
        ]

    @contextlib.asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """By GET_LOCK on a connection of its own, with which the lock goes."""

        async def ask(sql: str) -> Row:
            with _mapped():
                async with asyncio.timeout(self._settings.timeout):
                    return (await _rows(connection, sql.encode()))[0]

        with _mapped():
            async with asyncio.timeout(self._settings.timeout):
                connection = await self._connect()
        try:
            name = f"LEFT(CONCAT({literal(f'ramal.{what}.')}, DATABASE()), 64)"
            got, holder = await ask(f"SELECT GET_LOCK({name}, 0), IS_USED_LOCK({name})")
            if got != 1:
                raise DatabaseUnavailable(f"another {what} is running (the server's connection {holder})")

            async def confirm() -> None:
                try:
                    await ask("SELECT 1")
                except DatabaseUnavailable as error:
                    raise PositionConflict(f"whether another {what} runs is not known any more: {error}") from error

            yield confirm
        finally:
            _abort(connection)

    async def migrate(self) -> list[str]:
        """Brings the schema up to date over a connection of its own, one process at a time."""
        with _mapped():
            async with asyncio.timeout(MIGRATION_SECONDS):
                connection = await self._connect()
                try:
                    return await _migrate(connection)
                finally:
                    _abort(connection)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own for up to `timeout` seconds; broken by any error, kept otherwise."""
        async with asyncio.timeout(self._settings.timeout):
            if self._stopping:
                raise DatabaseUnavailable("the database is being closed")
            async with self._places:
                connection = await self._idle_at_primary() or await self._connect()
                self._used.add(connection)
                try:
                    yield connection
                except (PositionConflict, DatabaseRefused, DatabaseUnavailable):
                    raise  # answered by the server and rolled back: the session is clean
                except BaseException:
                    _abort(connection)
                    raise
                finally:
                    self._used.discard(connection)
                    if not connection.closed:
                        self._free.append(connection)

    def _idle(self) -> Connection | None:
        """The connection used last that the server has not closed since."""
        while self._free:
            connection: Connection = self._free.pop()
            reader = connection._reader  # noqa: SLF001  # aiomysql's pool looks there too; there is no public way
            if reader is not None and not reader.at_eof() and reader.exception() is None and not reader.eof_received:
                return connection
            _abort(connection)
        return None

    async def _idle_at_primary(self) -> Connection | None:
        """The same, of a server that was not read-only a moment ago."""
        while (connection := self._idle()) is not None:
            if time.monotonic() - connection.looked_at < LOOK_SECONDS:
                return connection
            try:
                if not await self._look(connection):
                    return connection
            except pymysql.MySQLError as error:
                log.debug("an idle connection is left", extra={"cause": str(error)})
            except BaseException:
                _abort(connection)
                raise
            _abort(connection)
        return None

    async def _connect(self) -> Connection:
        connection = Connection(self._settings, self._context)
        try:
            await connection.open()
            await connection.query(_SESSION)
            await connection.next_result()
            read_only = await self._look(connection)
        except BaseException:
            _abort(connection)
            raise
        if read_only != self._read_only:
            self._read_only = read_only
            told = log.error if read_only else log.warning
            told("the database is read-only: is it no primary any more?" if read_only else "the database is writable")
        return connection

    async def _look(self, connection: Connection) -> bool:
        """Asks a connection's server how it is; whether it is read-only."""
        await connection.query(_LOOK)
        ((read_only, packet_bytes),) = connection._result.rows  # noqa: SLF001  # see `_rows`
        connection.looked_at = time.monotonic()
        self._packet_bytes = min(PACKET_BYTES, int(packet_bytes) // 2)
        return str(read_only) not in _WRITABLE


def _compare_and_set(advances: Sequence[Advance]) -> str:
    """One UPDATE for all partitions; the guard behind it counts the rows found."""
    nexts = " ".join(f"WHEN {advance.partition:d} THEN {advance.next:d}" for advance in advances)
    claims = " ".join(f"WHEN {advance.partition:d} THEN {advance.claim:d}" for advance in advances)
    found = " OR ".join(
        f"(projection = {literal(advance.projection)} AND partition_no = {advance.partition:d}"
        f" AND next_offset = {advance.expected:d} AND claim <= {advance.claim:d})"
        for advance in advances
    )
    return (
        f"UPDATE projection_offset SET next_offset = CASE partition_no {nexts} END,"  # noqa: S608  # numbers
        f" claim = CASE partition_no {claims} END WHERE {found}"
    )


async def _rows(connection: Connection, text: bytes) -> list[Row]:
    try:
        await connection.query(text)
    except pymysql.MySQLError as error:
        if connection.closed or code_of(error) in LEFT:
            raise
        raise failure(error) from error
    # A cursor would ask for the warnings in a second round trip, and send them to Python's `warnings`.
    return list(connection._result.rows or ())  # noqa: SLF001  # where aiomysql's cursor looks


async def _send(connection: Connection, packet: bytes, count: int, advances: Sequence[Advance]) -> None:
    """Sends a transaction and reads its `count` results; on an SQL error rolls back before it raises."""
    result = 0
    try:
        await connection.query(packet)
        for result in range(1, count):  # noqa: B007  # an error says at which result we were
            await connection.next_result()
    except pymysql.MySQLError as error:
        if connection.closed or code_of(error) in LEFT:
            raise
        await connection.rollback()
        if advances and result == _GUARD_RESULT and code_of(error) == OUT_OF_RANGE:
            wanted = ", ".join(
                f"partition {a.partition} at {a.expected} with a claim of at most {a.claim}" for a in advances
            )
            raise PositionConflict(f"{advances[0].projection}: not found: {wanted}") from error
        raise failure(error) from error


async def _migrate(connection: Connection) -> list[str]:
    async def query(sql: str) -> list[Row]:
        return await _rows(connection, sql.encode())

    async def execute(statements: Sequence[str]) -> None:
        for statement in statements:
            await _rows(connection, statement.encode())

    # The lock goes with the connection.
    if (await query(f"SELECT GET_LOCK('ramal.migrate', {MIGRATION_SECONDS / 2:.0f})"))[0][0] != 1:
        raise DatabaseUnavailable("another migration is running")
    return await migrate("mysql", query, execute)


def _abort(connection: Connection) -> None:
    """Closes the socket at once, whatever is still to be sent."""
    writer = connection._writer  # noqa: SLF001  # close() alone waits for what is buffered
    if writer is not None:
        writer.transport.abort()
    connection.close()


def _encoded(sql: str) -> bytes:
    try:
        return sql.encode()
    except UnicodeEncodeError as error:
        # Not `from`: the exception holds all of the SQL.
        raise DatabaseRefused(f"not Unicode text: {error.reason}") from None


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Nothing of the driver's or the system's errors leaves this module unmapped."""
    try:
        yield
    except pymysql.MySQLError as error:
        raise failure(error) from error
    except TimeoutError as error:
        raise DatabaseUnavailable("the database did not answer in time") from error
    except OSError as error:
        raise DatabaseUnavailable(f"the database cannot be reached: {error.strerror or error}") from error
