"""TLS to a real MariaDB and a real MySQL: verified, never left out, and each failure in one sentence."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from ramal.backends import MySQLServer, start_mysql
from runtime.config import MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Statement
from runtime.errors import ConfigError, DatabaseUnavailable
from tests.kit import mysql9 as mysql9_kit
from tests.kit.locator import mysql_settings
from tests.kit.secure import Authority

pytestmark = pytest.mark.integration

RAMAL = str(Path(sys.executable).with_name("ramal"))


class Site:
    """A server with a certificate, and who vouches for it."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.authority, self.stranger = Authority(directory, "authority"), Authority(directory, "stranger")
        self._own = self.authority.issue("server", ["127.0.0.1"])
        lines = f"ssl-ca={self.authority.file}\nssl-cert={self._own.certificate}\nssl-key={self._own.key}\n"
        self.kind = kind
        self.reload = "FLUSH SSL" if kind == "mysql" else "ALTER INSTANCE RELOAD TLS"
        start = start_mysql if kind == "mysql" else mysql9_kit.start_mysql9
        self.server: MySQLServer = start(directory, more=lines)

    def execute(self, *statements: str) -> None:
        """As somebody who may do all, without TLS."""
        with pymysql.connect(
            host=self.server.host, port=self.server.port, user=self.server.user, password=self.server.password
        ) as admin:
            for statement in statements:
                with admin.cursor() as cursor:
                    cursor.execute(statement)

    def show(self, name: str, hosts: list[str], ends: float = 5.0) -> None:
        """From here on the server shows another certificate."""
        issued = self.authority.issue(name, hosts, ends)
        self._own.certificate.write_bytes(issued.certificate.read_bytes())
        self._own.key.write_bytes(issued.key.read_bytes())
        self.execute(self.reload)

    def settings(self, **more: Any) -> MySQL:
        """Right ones, but for `more`."""
        right = {"tls": True, "ca_file": str(self.authority.file)}
        plain = mysql_settings(self.server, "ramal")
        return MySQL(**{name: getattr(plain, name) for name in MySQL.__struct_fields__} | right | more)


@pytest.fixture(scope="module", params=["mysql", "mysql9"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "mysql9" and (reason := mysql9_kit.why_not()):
        pytest.skip(reason)
    made = Site(tmp_path_factory.mktemp(f"tls-{request.param}"), request.param)
    yield made
    made.server.child.kill()


@pytest.fixture
async def opened() -> AsyncIterator[list[MySQLDatabase]]:
    """Closed after the test."""
    databases: list[MySQLDatabase] = []
    yield databases
    for database in databases:
        await database.stop()


async def why(database: MySQLDatabase) -> str:
    with pytest.raises(DatabaseUnavailable) as raised:
        await database.start()
    assert "\n" not in str(raised.value)
    assert str(database._settings.password) not in str(raised.value)
    return str(raised.value)


async def test_queries_and_transactions_are_encrypted(site: Site, opened: list[MySQLDatabase]) -> None:
    database = MySQLDatabase(site.settings())
    opened.append(database)
    await database.start()
    await database.migrate()
    rows = [(1, "u", "sip:a@x", 5)]
    columns = ["contact_id", "username", "contact", "expires"]
    await database.transact([database.upsert("location", columns, ["contact_id"], rows)])
    for _ in range(3):  # over the connection that is there
        assert await database.query(f"SELECT {', '.join(columns)} FROM location") == rows
        ((_, cipher),) = await database.query("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cipher
    await database.transact([Statement("DELETE FROM location")])


async def test_accounts_that_ask_for_tls_or_for_a_certificate_are_served(
    site: Site, opened: list[MySQLDatabase]
) -> None:
    for name, needs in (("tlsuser", "SSL"), ("certuser", "X509")):
        site.execute(f"CREATE USER IF NOT EXISTS '{name}'@'%' IDENTIFIED BY 'a-password' REQUIRE {needs}")
    mine = site.authority.issue("certuser")
    account = {"user": "tlsuser", "password": Secret("a-password"), "database": "information_schema"}
    opened.append(MySQLDatabase(site.settings(**account)))
    await opened[-1].start()
    account["user"] = "certuser"
    files = {"certificate": str(mine.certificate), "private_key": str(mine.key)}
    opened.append(MySQLDatabase(site.settings(**account, **files)))
    await opened[-1].start()
    opened.append(MySQLDatabase(site.settings(**account)))
    assert "Access denied for user 'certuser'" in await why(opened[-1])
    opened.append(MySQLDatabase(site.settings(**account, tls=False, ca_file="")))
    assert "Access denied for user 'certuser'" in await why(opened[-1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ca_file": "stranger.pem"}, "shows a certificate that none of RAMAL_MYSQL_CA_FILE vouches for"),
        ({"ca_file": ""}, "none of the system's authorities (RAMAL_MYSQL_CA_FILE is not set) vouches for"),
        ({"host": "localhost"}, "shows a certificate that is for another host"),
        ({"password": Secret("not-this-one")}, "Access denied for user 'ramal'"),
    ],
)
async def test_who_does_not_get_in_is_told_why_in_one_sentence(
    site: Site, opened: list[MySQLDatabase], wrong: dict[str, Any], sentence: str
) -> None:
    if wrong.get("ca_file"):
        wrong = {"ca_file": str(site.stranger.file)}
    opened.append(MySQLDatabase(site.settings(**wrong)))
    assert sentence in await why(opened[-1])


async def test_an_expired_certificate_and_one_for_another_host_are_named(
    site: Site, opened: list[MySQLDatabase]
) -> None:
    opened.append(MySQLDatabase(site.settings()))
    try:
        if site.kind == "mysql":  # MySQL itself does not load one
            site.show("old", ["127.0.0.1"], ends=-1.0)
            assert "shows a certificate that has expired" in await why(opened[-1])
        site.show("strange", ["mysql.example.test"])
        assert "shows a certificate that is for another host" in await why(opened[-1])
    finally:
        site.show("new", ["127.0.0.1"])
    await opened[-1].start()


async def test_a_server_without_tls_is_told_nothing(mysql: MySQLServer, opened: list[MySQLDatabase]) -> None:
    plain = mysql_settings(mysql, "ramal")
    settings = MySQL(plain.host, plain.port, plain.user, plain.password, plain.database, tls=True)
    opened.append(MySQLDatabase(settings))
    said = await why(opened[-1])
    assert said == f"the database at {plain.host}:{plain.port} offers no TLS, but RAMAL_MYSQL_TLS is true"


def test_files_that_cannot_be_used_are_named(site: Site) -> None:
    for wrong, says in (
        ({"ca_file": "/nowhere/ca.pem"}, "RAMAL_MYSQL_CA_FILE: /nowhere/ca.pem: No such file or directory"),
        ({"certificate": "/nowhere/me.pem"}, "RAMAL_MYSQL_CERTIFICATE, RAMAL_MYSQL_PRIVATE_KEY: /nowhere/me.pem"),
    ):
        with pytest.raises(ConfigError, match=says):
            MySQLDatabase(site.settings(**wrong))


def test_a25_a_command_goes_in_and_says_why_it_does_not_without_the_secret(site: Site, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(site.server.password)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAMAL_")}
    right = kept | {
        "RAMAL_MYSQL_HOST": site.server.host,
        "RAMAL_MYSQL_PORT": str(site.server.port),
        "RAMAL_MYSQL_PASSWORD_FILE": str(password),
        "RAMAL_MYSQL_TLS": "true",
        "RAMAL_MYSQL_CA_FILE": str(site.authority.file),
        "RAMAL_LOG_LEVEL": "DEBUG",
        "RAMAL_SETUP_SECONDS": "0",
    }

    def migrate(**more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [RAMAL, "migrate"], env=right | more, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    assert migrate().returncode == 0
    done = migrate(RAMAL_MYSQL_CA_FILE=str(site.stranger.file))
    *_, last = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert last.startswith("ramal: the database at 127.0.0.1:")
    assert "none of RAMAL_MYSQL_CA_FILE vouches for" in last
    assert "Traceback" not in done.stderr
    assert site.server.password not in done.stderr
