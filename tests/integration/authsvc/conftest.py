"""The log and the tables that authsvc stands on: SQLite for both, or Kafka and MySQL."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ramal.backends import KafkaServer
from runtime.config import Kafka, MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Database
from runtime.database.sqlite import SQLiteDatabase
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Log
from runtime.store import EmbeddedStore

PARTITIONS = 4


@pytest.fixture(params=["embedded", "distributed"])
def kind(request: pytest.FixtureRequest) -> str:
    """SQLite for all, or Kafka and MySQL."""
    return str(request.param)


@pytest.fixture
async def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Empty tables."""
    async with contextlib.AsyncExitStack() as stack:
        opened: Database
        if kind == "distributed":
            server, name = request.getfixturevalue("mysql"), request.getfixturevalue("fresh_database")
            opened = MySQLDatabase(
                MySQL(
                    host=server.host,
                    port=server.port,
                    user=server.user,
                    password=Secret(server.password),
                    database=name,
                )
            )
        else:
            store = EmbeddedStore(tmp_path / "tables.db")
            stack.push_async_callback(store.stop)
            opened = SQLiteDatabase(store)
        await opened.start()
        stack.push_async_callback(opened.stop)
        await opened.migrate()
        yield opened


@pytest.fixture
async def log(kind: str, request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> AsyncIterator[Log]:
    """A log with all topics."""
    async with contextlib.AsyncExitStack() as stack:
        made: Log
        if kind == "distributed":
            server: KafkaServer = request.getfixturevalue("kafka")
            made = KafkaLog(Kafka(bootstrap=server.bootstrap), topic_prefix, PARTITIONS, "authsvc-test")
        else:
            store = EmbeddedStore(tmp_path / "log.db")
            stack.push_async_callback(store.stop)
            made = EmbeddedLog(store, PARTITIONS)
        await made.start()
        stack.push_async_callback(made.stop)
        await made.create_topics(PARTITIONS)
        yield made
