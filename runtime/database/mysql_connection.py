"""One connection of aiomysql's with our settings: never without TLS where TLS is set, and with reasons in words."""

import ssl

import aiomysql
import pymysql
from pymysql.constants import CLIENT

from runtime.config import MySQL
from runtime.errors import DatabaseUnavailable
from runtime.tls import tls_fault


class Connection(aiomysql.Connection):  # type: ignore[misc]  # aiomysql ships no types
    """Not connected yet."""

    def __init__(self, settings: MySQL, context: ssl.SSLContext | None) -> None:
        super().__init__(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=str(settings.password),
            db=settings.database,
            charset="utf8mb4",
            autocommit=None,  # set with the rest of the session, in one round trip
            # ROW_COUNT() is then the number of rows found, not of those changed.
            client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            program_name="ramal",
            ssl=context,
        )
        self._settings = settings
        self.looked_at = 0.0
        """When its server was last asked whether it is read-only (monotonic)."""

    async def open(self) -> None:
        """Connects and logs in; raises DatabaseUnavailable, pymysql.MySQLError or OSError."""
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            # Not `aiomysql.connect`: when it is cancelled, nobody has the socket any more to close it.
            await self._connect()
        except (OSError, pymysql.MySQLError) as error:
            if sentence := tls_fault(error, "MYSQL", self._settings, "the database", address):
                raise DatabaseUnavailable(sentence) from error
            if isinstance(error.__cause__, OSError) and (reason := error.__cause__.strerror):
                # aiomysql's own words, and why.
                raise DatabaseUnavailable(f"{error.args[-1]}: {reason}") from error
            raise

    async def leave(self) -> None:
        """Says goodbye and closes the socket; TLS would wait for the server's goodbye."""
        transport = self._writer.transport
        try:
            await self.ensure_closed()
        finally:
            transport.abort()

    async def _request_authentication(self) -> None:
        # aiomysql would log in without TLS, to whoever says that the server has none.
        if self._settings.tls and not self.server_capabilities & CLIENT.SSL:
            address = f"{self._settings.host}:{self._settings.port}"
            raise DatabaseUnavailable(f"the database at {address} offers no TLS, but RAMAL_MYSQL_TLS is true")
        await super()._request_authentication()
