"""The port to the tables: reads with autocommit, and transactions sent as one packet.

Two implementations, `runtime.database.mysql` (aiomysql) and `runtime.database.sqlite`.
SQL is written once, with `%s` placeholders; where the dialects differ (upsert), a method
of the port builds the statement. Times in columns are UTC.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

Row = tuple[Any, ...]


class Statement(NamedTuple):
    """One SQL statement with `%s` placeholders and its values."""

    sql: str
    values: Sequence[Any] = ()


class Advance(NamedTuple):
    """The compare-and-set of a projection's position, first in its transaction.

    Succeeds only if the stored next offset is `expected` and the stored claim is not above `claim`.
    """

    projection: str
    """`location`, or a state of its rebuild: see `locator.rebuild`."""
    partition: int
    expected: int
    next: int
    claim: int


class Database(Protocol):
    """A pool of connections, or the one SQLite file."""

    async def start(self) -> None:
        """Opens; raises DatabaseUnavailable when it cannot within its deadline."""
        ...

    async def stop(self, deadline: float = 3.0) -> None: ...

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a SELECT, always of the newest committed state; within the deadline or DatabaseUnavailable."""
        ...

    async def transact(self, statements: Sequence[Statement], *advances: Advance) -> None:
        """All statements and advances (of one projection) or none, durable on return (fsync), sent as one packet.

        Raises PositionConflict, DatabaseRefused or DatabaseUnavailable.
        """
        ...

    def upsert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Row]) -> Statement:
        """One multi-row INSERT that overwrites all but the key columns of rows that are there.

        With no column left to overwrite (`key` names all), rows that are there stay as they are.
        """
        ...

    def checksum(self, columns: Sequence[str]) -> str:
        """An SQL aggregate, an integer that is equal for equal sets of rows in any order; 0 of none."""
        ...

    def shadow(self, table: str) -> list[Statement]:
        """Makes `{table}_shadow` as an empty table with the columns and keys of `table`; drops an older one."""
        ...

    def swap(self, tables: Sequence[str]) -> list[Statement]:
        """Gives each table the rows of its shadow, all at once for every other session, and drops the shadows.

        To be sent as the only statements of one `transact`, with the Advance that allows it: on MySQL it ends
        their transaction. Raises DatabaseUnavailable when somebody reads the tables for too long.
        """
        ...

    def alone(self, what: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """While it lasts, nobody else is in it under this name on these tables; it ends with its process.

        Raises DatabaseUnavailable at once where somebody is. What it gives returns while that is certain, and raises
        PositionConflict once it is not.
        """
        ...

    async def migrate(self) -> list[str]:
        """Brings the schema up to date; returns what was applied. Idempotent."""
        ...
