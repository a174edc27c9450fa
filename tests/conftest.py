"""Real Kafka, MariaDB, MySQL 9 and OpenLDAP, once a test run; each test has its own topics and database in them."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pymysql
import pytest
from hypothesis import settings
from xdist.remote import Producer

from ramal.backends import (
    KafkaServer,
    LdapServer,
    MySQLServer,
    Server,
    start_kafka,
    start_ldap,
    start_mysql,
)
from ramal.processes import PackageMissing
from tests.kit import mysql9 as mysql9_kit
from tests.kit import rooms

# How long an example takes on a busy machine says nothing of the code.
settings.register_profile("ramal", deadline=None)
settings.load_profile("ramal")


def pytest_configure() -> None:
    """Brokers of tests live for seconds: the second compiler of the JVM would take half of their processor time."""
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    rooms.move_in()


def pytest_collection_finish() -> None:
    """Of several workers one may give way to the others from now on."""
    rooms.give_way()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> rooms.ByRoom:
    """Workers take rooms, not single tests."""
    return rooms.ByRoom(config, log)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that a test runs in this process sets up logging; the next test hears warnings all the same."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


S = TypeVar("S", bound=Server)
_numbers = itertools.count(1)


def _serve(start: Callable[[Path], S], directory: Path) -> Iterator[S]:
    try:
        server = start(directory)
    except PackageMissing as error:
        # Not a skip: a run without the real servers has tested less than it says.
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    yield server
    server.child.kill()  # its directory is thrown away: an orderly end would only take time


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for the run; who stops or kills one starts their own with `start_kafka`."""
    yield from _serve(start_kafka, tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQLServer]:
    """One MariaDB for the run; see `fresh_database`."""
    yield from _serve(start_mysql, tmp_path_factory.mktemp("mysql"))


@pytest.fixture(scope="session")
def mysql9(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQLServer]:
    """One MySQL 9 for the run, where `make mysql9` has unpacked it; see `fresh_mysql9_database`."""
    if reason := mysql9_kit.why_not():
        pytest.skip(reason)
    yield from _serve(mysql9_kit.start_mysql9, tmp_path_factory.mktemp("mysql9"))


@pytest.fixture(scope="session")
def ldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LdapServer]:
    """One OpenLDAP with the users u00000 to u00999 of example.test."""
    yield from _serve(start_ldap, tmp_path_factory.mktemp("ldap"))


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics that no other test of this run has."""
    return f"test{next(_numbers)}."


@pytest.fixture
def fresh_database(mysql: MySQLServer) -> Iterator[str]:
    """The name of an empty database on `mysql`, dropped after the test."""
    yield from _fresh_database(mysql)


@pytest.fixture
def fresh_mysql9_database(mysql9: MySQLServer) -> Iterator[str]:
    """The name of an empty database on `mysql9`, dropped after the test."""
    yield from _fresh_database(mysql9)


def _fresh_database(server: MySQLServer) -> Iterator[str]:
    name = f"test{next(_numbers)}"
    _execute(server, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield name
    _execute(server, f"DROP DATABASE {name}")


def _execute(server: MySQLServer, statement: str) -> None:
    admin = pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, autocommit=True
    )
    with admin, admin.cursor() as cursor:
        cursor.execute(statement)
