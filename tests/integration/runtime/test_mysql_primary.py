"""MySQL's primary changes behind one address while the old one lives: whoever holds connections follows it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pymysql
import pytest

from ramal.backends import ACCOUNT, MySQLServer, start_mysql
from runtime.config import MySQL, Secret
from runtime.database.mysql import LOOK_SECONDS, MySQLDatabase
from runtime.database.port import Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable

pytestmark = pytest.mark.integration
PATIENCE = 10.0
PASSWORD = "of-the-account"  # of a server that lives for seconds


def execute(server: MySQLServer, *statements: str) -> None:
    """As an administrator, whom `read_only` does not stop."""
    admin = pymysql.connect(host=server.host, port=server.port, user=server.user, password=PASSWORD, autocommit=True)
    with admin, admin.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MySQLServer, MySQLServer]]:
    """Two servers that know the account of the documents: rights on its database alone."""
    account = tmp_path_factory.mktemp("account") / "account.sql"
    account.write_text(
        ACCOUNT.format(password=PASSWORD)
        + f"CREATE USER IF NOT EXISTS 'phones'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON ramal.* TO 'phones'@'%';\n"
    )
    more = f"init-file={account}\n"
    both = (
        start_mysql(tmp_path_factory.mktemp("first"), more=more),
        start_mysql(tmp_path_factory.mktemp("second"), more=more),
    )
    for server in both:
        execute(server, "CREATE TABLE ramal.place (name VARCHAR(20))")
    yield both
    for server in both:
        server.child.kill()


class Door:
    """One address for both: a new connection comes to the primary of the moment, and stays where it is."""

    def __init__(self, primary: MySQLServer) -> None:
        self.primary = primary
        self.came: list[str] = []
        """The primaries that connections came to."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self.primary.host, self.primary.port)
        self.came.append(str(self.primary.port))
        for task in (
            asyncio.create_task(self._pass_on(reader, there[1])),
            asyncio.create_task(self._pass_on(there[0], writer)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while octets := await reader.read(65536):
                    writer.write(octets)
                    await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def door(pair: tuple[MySQLServer, MySQLServer]) -> AsyncIterator[Door]:
    first, second = pair
    for server in pair:
        execute(server, "SET GLOBAL read_only = 0", "DELETE FROM ramal.place")
    execute(first, "INSERT INTO ramal.place VALUES ('first')")
    execute(second, "INSERT INTO ramal.place VALUES ('second')")
    opened = Door(first)
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def entered(door: Door) -> AsyncIterator[MySQLDatabase]:
    """A pool whose connections have all been used."""
    settings = MySQL("127.0.0.1", await door.open(), "phones", Secret(PASSWORD), "ramal", pool=3)
    database = MySQLDatabase(settings)
    await database.start()
    await asyncio.gather(*(database.query("SELECT SLEEP(0.05)") for _ in range(3)))
    try:
        yield database
    finally:
        await database.stop()


async def test_e13_edges_read_where_locators_write_soon_after_the_primary_has_changed(
    pair: tuple[MySQLServer, MySQLServer], door: Door
) -> None:
    first, second = pair
    async with entered(door) as database:
        assert await database.query("SELECT name FROM place") == [("first",)]
        execute(first, "SET GLOBAL read_only = 1")  # it lives, and keeps its connections: a planned switch-over
        door.primary = second
        await asyncio.sleep(LOOK_SECONDS)
        read = await asyncio.gather(*(database.query("SELECT name FROM place") for _ in range(6)))
        assert read == [[("second",)]] * 6


async def test_e13_a_write_that_the_old_primary_refuses_finds_the_new_one(
    pair: tuple[MySQLServer, MySQLServer], door: Door
) -> None:
    first, second = pair
    async with entered(door) as database:
        await database.query("SELECT 1")
        execute(first, "SET GLOBAL read_only = 1")
        door.primary = second
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(DatabaseUnavailable):
                    await database.transact([Statement("INSERT INTO place VALUES ('written')")])
                    break
        assert await database.query("SELECT name FROM place ORDER BY name") == [("second",), ("written",)]


async def test_where_every_server_is_read_only_edges_go_on_reading(
    pair: tuple[MySQLServer, MySQLServer], door: Door
) -> None:
    async with entered(door) as database:
        for server in pair:
            execute(server, "SET GLOBAL read_only = 1")
        await asyncio.sleep(LOOK_SECONDS)
        for _ in range(2):
            assert await database.query("SELECT name FROM place") == [("first",)]
        with pytest.raises(DatabaseUnavailable):
            await database.transact([Statement("INSERT INTO place VALUES ('written')")])


async def test_a_server_that_takes_smaller_packets_is_sent_smaller_ones(
    pair: tuple[MySQLServer, MySQLServer], door: Door
) -> None:
    execute(pair[0], "SET GLOBAL max_allowed_packet = 1048576")
    try:
        async with entered(door) as database:
            with pytest.raises(DatabaseRefused):  # so the locator halves its batch, and gets on
                await database.transact([Statement("SELECT %s", ("x" * 1_048_576,))])
            await database.transact([Statement("SELECT %s", ("x" * 500_000,))])
    finally:
        execute(pair[0], "SET GLOBAL max_allowed_packet = 16777216")
