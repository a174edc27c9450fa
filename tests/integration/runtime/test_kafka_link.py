"""Our own connections to brokers, against one that answers as the test says."""

import asyncio
import contextlib
import math
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest
from aiokafka import errors

from runtime.config import Kafka
from runtime.log.kafka import link as kafka_link
from runtime.log.kafka.link import Links
from runtime.log.kafka.session import Client, Session, open_session
from runtime.log.kafka.wire import Request

TIMEOUT = 0.4
ASK = Request(0, 3, b"asked")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Outcome: TypeAlias = bytes | errors.KafkaError


class Cluster:
    """What Links wants of aiokafka's client: a broker's address, and to hear that what it knows may be old."""

    _client_id = "test"

    def __init__(self, port: int) -> None:
        self.port = port
        self.cluster = self
        self.updates = 0
        self.life = math.inf

    async def session(self, host: str, port: int, timeout: float) -> Session:
        session = await open_session(Kafka(), {}, "test", host, port, timeout)
        session.seconds = self.life
        return session

    def broker_metadata(self, node: int) -> SimpleNamespace | None:
        return SimpleNamespace(host="127.0.0.1", port=self.port) if node == 1 else None

    def force_metadata_update(self) -> None:
        self.updates += 1


class Broker:
    """Speaks the versions we want; everything else is the test's."""

    def __init__(self, serve: Serve, spoken: tuple[tuple[int, int, int], ...] = ((0, 0, 12), (1, 4, 17))) -> None:
        self._serve, self._spoken = serve, spoken
        self.connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            number, _ = await request(reader)
            table = b"".join(struct.pack(">hhh", *entry) for entry in self._spoken)
            writer.write(answer(number, struct.pack(">hi", 0, len(self._spoken)) + table))
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def request(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Its number and its content."""
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    octets = await reader.readexactly(size)
    _, _, number, name = struct.unpack_from(">hhih", octets)
    return number, octets[10 + name :]


def answer(number: int, content: bytes) -> bytes:
    return struct.pack(">ii", 4 + len(content), number) + content


@contextlib.asynccontextmanager
async def linked(broker: Broker) -> AsyncIterator[tuple[Links, Cluster]]:
    server = await asyncio.start_server(broker.connected, "127.0.0.1", 0)
    cluster = Cluster(server.sockets[0].getsockname()[1])
    links = Links(cast(Client, cluster), TIMEOUT)
    try:
        yield links, cluster
    finally:
        await links.close()
        server.close()
        await server.wait_closed()


def ask(links: Links, node: int = 1, request: Request = ASK) -> "asyncio.Future[Outcome]":
    asked: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    links.send(node, request, asked.set_result)
    return asked


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        number, content = await request(reader)
        writer.write(answer(number, content))


async def test_requests_before_and_after_the_connection_is_there_are_answered_in_order() -> None:
    broker = Broker(echo)
    async with linked(broker) as (links, _):
        contents = [str(n).encode() for n in range(20)]
        early = [ask(links, request=Request(0, 3, content)) for content in contents]
        assert await asyncio.gather(*early) == contents
        late = [ask(links, request=Request(1, 4, content)) for content in contents]
        assert await asyncio.gather(*late) == contents
        assert broker.connections == 1


async def test_answers_come_whole_however_they_are_cut() -> None:
    contents = [b"", b"x", b"y" * 300_000, b"z" * 5]

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        octets = b"".join([answer((await request(reader))[0], content) for content in contents])
        for at in (*range(40), *range(40, len(octets), 70_001)):
            writer.write(octets[at : at + 1] if at < 39 else octets[at : at + 70_001] if at > 39 else octets[39:40])
            await writer.drain()
            await asyncio.sleep(0)

    async with linked(Broker(in_pieces)) as (links, _):
        assert await asyncio.gather(*(ask(links) for _ in contents)) == contents


async def test_an_answer_that_does_not_come_in_time_ends_the_connection_for_all_who_wait() -> None:
    broker = Broker(silent)
    async with linked(broker) as (links, cluster):
        for outcome in await asyncio.gather(ask(links), ask(links)):
            assert isinstance(outcome, errors.RequestTimedOutError)
        assert cluster.updates == 1
        assert isinstance(await ask(links), errors.RequestTimedOutError)
        assert broker.connections == 2


async def close_on_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)


async def wrong_number(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number, _ = await request(reader)
    writer.write(answer(number + 1, b""))
    await reader.read(-1)


async def impossible_size(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    writer.write(b"\xff" * 12)
    await reader.read(-1)


@pytest.mark.parametrize("serve", [close_on_request, wrong_number, impossible_size])
async def test_a_connection_that_breaks_tells_who_waits_and_is_made_anew(serve: Serve) -> None:
    broker = Broker(serve)
    async with linked(broker) as (links, _):
        assert isinstance(await ask(links), errors.KafkaConnectionError)
        assert isinstance(await ask(links), errors.KafkaConnectionError)
        assert broker.connections == 2


async def test_a_broker_that_does_not_speak_our_versions_is_named() -> None:
    async with linked(Broker(silent, ((0, 4, 12), (1, 4, 17)))) as (links, _):
        outcome = await ask(links)
        assert isinstance(outcome, errors.IncompatibleBrokerVersion)
        assert "versions 4 to 12 of API 0, not 3" in str(outcome)


async def test_nobody_there_and_no_such_broker_are_errors_not_waits() -> None:
    async with linked(Broker(silent)) as (links, cluster):
        assert isinstance(await ask(links, node=2), errors.StaleMetadata)
        cluster.port = 1
        assert isinstance(await ask(links), errors.KafkaConnectionError)


async def test_who_waits_when_it_is_closed_hears_so() -> None:
    async with linked(Broker(silent)) as (links, _):
        waiting = ask(links)
        await asyncio.sleep(0)
        await links.close()
        assert isinstance(await waiting, errors.KafkaConnectionError)


@pytest.mark.parametrize("connected", [False, True])
async def test_what_is_called_off_hears_so_and_what_is_sent_next_is_answered(connected: bool) -> None:
    async def first_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (silent if connected and broker.connections == 1 else echo)(reader, writer)

    broker = Broker(first_silent)
    async with linked(broker) as (links, cluster):
        called_off = ask(links)
        if connected:
            await asyncio.sleep(0.1)
        links.hang_up(1)
        after = ask(links)
        assert isinstance(await called_off, errors.KafkaConnectionError)
        assert await after == b"asked"
        assert cluster.updates == 0


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(echo)
    async with linked(broker) as (links, cluster):
        assert await ask(links) == b"asked"
        monkeypatch.setattr(kafka_link, "IDLE_SECONDS", 0.0)
        assert await ask(links) == b"asked"
        assert broker.connections == 2
        assert cluster.updates == 0


async def test_a_session_is_left_before_the_broker_ends_it_and_what_is_under_way_is_answered() -> None:
    go = asyncio.Event()

    async def when_told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number, content = await request(reader)
            await go.wait()
            writer.write(answer(number, content))

    broker = Broker(when_told)
    async with linked(broker) as (links, cluster):
        cluster.life = 0.1
        early = ask(links)
        await asyncio.sleep(0.1)
        late = ask(links)
        go.set()
        assert await asyncio.gather(early, late) == [b"asked", b"asked"]
        assert broker.connections == 2
        assert cluster.updates == 0
