"""The port's implementations, each with topics of its own: every test of the suite runs on all of them."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ramal.backends import KafkaServer
from runtime.config import Kafka
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Log
from runtime.store import EmbeddedStore

Logs = Callable[[], Awaitable[Log]]
PARTITIONS = 4


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
async def logs(request: pytest.FixtureRequest, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Logs]:
    """Makes started logs on one fresh set of topics."""
    async with contextlib.AsyncExitStack() as stack:
        new: Callable[[], Log]
        if request.param == "kafka":
            server: KafkaServer = request.getfixturevalue("kafka")
            settings = Kafka(bootstrap=server.bootstrap, session_timeout=6.0)

            def new() -> Log:
                return KafkaLog(settings, topic_prefix, PARTITIONS, "test")
        else:
            store = EmbeddedStore(tmp_path / "ramal.db")
            stack.push_async_callback(store.stop)

            def new() -> Log:
                return EmbeddedLog(store, PARTITIONS)

        async def make() -> Log:
            log = new()
            await log.start()
            stack.push_async_callback(log.stop)
            await log.create_topics(PARTITIONS)
            return log

        yield make


@pytest.fixture
async def log(logs: Logs) -> Log:
    """One log with all topics."""
    return await logs()
