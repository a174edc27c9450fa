"""`ramal topics` and `ramal migrate` when everything is started at once: they wait for what starts last."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ramal.backends import KafkaServer, MySQLServer
from ramal.processes import free_port

pytestmark = pytest.mark.integration


async def command(directory: Path, *words: str, **environ: str) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAMAL_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ramal", *words,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[3]), **environ}, cwd=directory,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def led(port: int, host: str, there: int) -> AsyncIterator[None]:
    """What connects to this port of loopback comes out there."""

    async def pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await source.read(65536):
                target.write(octets)
                await target.drain()
        target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(host, there)
        await asyncio.gather(pour(reader, behind_writer), pour(behind_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_migrate_waits_for_a_database_that_is_started_after_it(
    mysql: MySQLServer, fresh_database: str, tmp_path: Path
) -> None:
    port = free_port()
    settings = {"PORT": str(port), "USER": mysql.user, "PASSWORD": mysql.password, "DATABASE": fresh_database}
    migrate = await command(tmp_path, "migrate", **{f"RAMAL_MYSQL_{name}": text for name, text in settings.items()})
    assert migrate.stdout
    assert migrate.stderr
    said = (await migrate.stderr.readline()).decode()
    assert said.startswith("ramal: waiting for up to 60 s (RAMAL_SETUP_SECONDS): Can't connect to MySQL server on")
    async with led(port, mysql.host, mysql.port), asyncio.timeout(30):
        out, more = await migrate.communicate()
    assert (migrate.returncode, more) == (0, b"")
    assert b"applied 001_location" in out


async def test_topics_waits_for_a_broker_that_is_started_after_it(
    kafka: KafkaServer, topic_prefix: str, tmp_path: Path
) -> None:
    port = free_port()
    settings = {"KAFKA_BOOTSTRAP": f"127.0.0.1:{port}", "TOPIC_PREFIX": topic_prefix}
    topics = await command(tmp_path, "topics", **{f"RAMAL_{name}": text for name, text in settings.items()})
    assert topics.stderr
    async with asyncio.timeout(30):
        said = (await topics.stderr.readline()).decode()
    assert said.startswith("ramal: waiting for up to ")
    assert "(RAMAL_SETUP_SECONDS): Kafka does not answer within 10 s (RAMAL_KAFKA_BOOTSTRAP)" in said
    host, there = kafka.bootstrap.split(":")
    async with led(port, host, int(there)), asyncio.timeout(40):
        out, more = await topics.communicate()
    assert (topics.returncode, more) == (0, b"")
    assert b"made registrations" in out


async def test_neither_waits_longer_than_it_is_told(tmp_path: Path) -> None:
    environ = {"RAMAL_MYSQL_PORT": "1", "RAMAL_SETUP_SECONDS": "1.5"}
    migrate = await command(tmp_path, "migrate", **environ)
    async with asyncio.timeout(20):
        _, said = await migrate.communicate()
    first, last = said.decode().splitlines()
    assert migrate.returncode == 1
    assert "waiting for up to" in first
    assert last.startswith("ramal: Can't connect to MySQL server on '127.0.0.1'")
