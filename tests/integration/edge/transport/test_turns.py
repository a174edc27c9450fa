"""CHECKLIST S01: whoever sends without end waits for himself. Through sockets, under a core that notes what it hears.

What is sent here is sent before the loop looks at its sockets again: all of it is there at one wake-up.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.transport import listener, turns
from edge.transport.reading import UNREAD, UNSENT
from edge.transport.tls import Certificates
from edge.transport.websocket_frames import Opcode, unmask
from runtime.metrics import drops
from sipcore.message import Request
from sipcore.parser import KEEPALIVE
from tests.kit.transport import DEADLINE, Authority, TestEdge, drained, ok, options, running

MANY = 1000
SECOND = "127.0.0.2"
"""Another source."""
SEVERAL = 6 * turns.BUDGET
"""Messages of a few turns: the others have theirs long before a flood has ended."""


@contextlib.contextmanager
def udp(edge: TestEdge, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as phone:
        phone.bind((host, 0))
        phone.connect(("127.0.0.1", edge.port("udp")))
        yield phone


async def connected(
    edge: TestEdge, transport: str = "tcp", host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection by which a message has come."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", edge.port(transport), ssl=context, local_addr=(host, 0), limit=2**22
    )
    if transport == "ws":
        writer.write(
            b"GET /sip HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: sip\r\n\r\n"
        )
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
    writer.write(framed(transport, options()))
    await edge.core.request()
    return reader, writer


def framed(transport: str, message: bytes) -> bytes:
    if transport != "ws":
        return message
    size = len(message)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    return bytes((0x80 | Opcode.TEXT,)) + length + b"abcd" + unmask(b"abcd", message)


def flood(transport: str, count: int = MANY, message: bytes = b"") -> bytes:
    return framed(transport, message or options(7)) * count


async def numbers(edge: TestEdge, until: int, most: int) -> list[int]:
    """The CSeq numbers of the requests heard up to this one, of which there are not more than `most`."""
    heard: list[int] = []
    while not heard or heard[-1] != until:
        request, _ = await edge.core.request()
        heard.append(request.cseq.number)
        assert len(heard) <= most
    return heard


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws"])
async def test_s01_a_connection_full_of_requests_holds_up_neither_datagrams_nor_other_connections(
    transport: str, tmp_path: Path
) -> None:
    certificates = Certificates(*Authority(tmp_path).issue("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with running("udp", "tcp", transport, certificates=certificates) as edge:
        edge.core.answers = False
        _, writer = await connected(edge, transport, context=context if transport == "tls" else None)
        _, other = await connected(edge, host=SECOND)
        with udp(edge, SECOND) as phone:
            writer.write(flood(transport, 400 if transport == "ws" else MANY))
            await numbers(edge, 7, 1)  # it has begun
            other.write(options(8))
            phone.send(options(9))
            heard = await numbers(edge, 8, SEVERAL)
            if 9 not in heard:
                heard += await numbers(edge, 9, SEVERAL)
            assert len(heard) < SEVERAL
        writer.close()
        other.close()


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_all_that_a_connection_sent_is_heard_in_its_order_however_many_turns_it_takes(transport: str) -> None:
    count = 450  # a WebSocket may send 500 frames at once
    async with running(transport) as edge:
        reader, writer = await connected(edge, transport)
        writer.write(b"".join([framed(transport, options(n)) for n in range(10, 10 + count)]))
        for number in range(10, 10 + count):
            request, _ = await edge.core.request()
            assert request.cseq.number == number
        writer.write(framed(transport, options(5)))  # and it is read on
        assert (await edge.core.request())[0].cseq.number == 5
        answer = await asyncio.wait_for(reader.readuntil(b"CSeq: 5 OPTIONS"), DEADLINE)
        assert answer.count(b"SIP/2.0 200 OK") == count + 2
        writer.close()


async def test_s01_many_connections_of_one_source_have_one_sources_share() -> None:
    async with running("tcp") as edge:
        edge.core.answers = False
        crowd = [await connected(edge) for _ in range(20)]
        _, other = await connected(edge, host=SECOND)
        for _, writer in crowd:
            writer.write(flood("tcp", 100))
        other.write(options(8) + options(9))
        heard = await numbers(edge, 9, 20 * 100)
        assert len(heard) < SEVERAL
        other.close()
        for _, writer in crowd:
            writer.close()


async def test_s01_a_source_that_fills_the_socket_holds_up_no_other_one() -> None:
    async with running("udp") as edge:
        with udp(edge) as stranger, udp(edge, SECOND) as phone:
            for _ in range(MANY):
                stranger.send(options(7))
            phone.send(options(9))
            assert len(await numbers(edge, 9, MANY + 1)) < SEVERAL


async def test_s01_what_waits_of_one_source_is_bounded_in_messages_and_in_octets() -> None:
    async with running("udp") as edge:
        before = drops("udp-flood")
        with udp(edge) as stranger, udp(edge, SECOND) as phone:
            for size, count in ((1, 2 * turns.HELD), (60_000, 40)):
                for _ in range(count):
                    stranger.send(options(7, body="x" * size))
                phone.send(options(9))
                await numbers(edge, 9, 2 * turns.HELD + 1)
                await drained(lambda: not edge.transports._turns._queues)
                assert drops("udp-flood") > before
                before = drops("udp-flood")
                assert edge.transports._turns._held == 0


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_t10_keepalives_without_end_are_answered_once_for_each_time_that_is_read(transport: str) -> None:
    async with running(transport) as edge:
        _, writer = await connected(edge, transport)
        writer.write(flood(transport, 400, b"\r\n\r\n") + framed(transport, options(9)))
        pongs = 0
        while (item := (await edge.core.message())[0]) is KEEPALIVE:
            pongs += 1
        assert isinstance(item, Request)
        assert 1 <= pongs <= 400 // turns.SHARE
        writer.close()


async def test_only_the_last_of_the_pings_that_come_together_is_answered() -> None:
    async with running("ws") as edge:
        reader, writer = await connected(edge, "ws")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)  # the 200
        pings = [bytes((0x80 | Opcode.PING, 0x81)) + b"abcd" + unmask(b"abcd", bytes((n,))) for n in range(8)]
        writer.write(b"".join(pings) + framed("ws", options(9)))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
        assert answer[:3] == bytes((0x80 | Opcode.PONG, 1, 7))
        writer.close()


# --- those who do not read ----------------------------------------------------------------------------------------


async def clog(edge: TestEdge, phone: socket.socket) -> int:
    """Asks until nothing more is taken, without reading: how many octets were sent."""
    phone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    phone.setblocking(False)
    await asyncio.get_running_loop().sock_connect(phone, ("127.0.0.1", edge.port("tcp")))
    sent, data, idle = 0, flood("tcp", 100), 0
    while idle < 20:
        try:
            sent += phone.send(data[sent % len(data) :])
            idle = 0
        except BlockingIOError:
            idle += 1
            await asyncio.sleep(0.01)
    return sent


async def test_who_does_not_read_is_not_read_from_and_gets_all_answers_once_he_does() -> None:
    async with running("tcp") as edge:
        phone = socket.socket()
        sent = await clog(edge, phone)
        (connection,) = edge.transports._streams._connections.values()
        assert connection._transport is not None
        assert connection._clogged
        assert UNREAD < connection._transport.get_write_buffer_size() < UNSENT
        heard = edge.core.heard.qsize()
        assert heard < sent // len(options(7))
        await asyncio.sleep(0.05)
        assert edge.core.heard.qsize() == heard
        expected, got = ok(7) * (sent // len(options(7))), bytearray()
        async with asyncio.timeout(4 * DEADLINE):
            while len(got) < len(expected):
                got += await asyncio.get_running_loop().sock_recv(phone, 2**20)
        assert got == expected
        assert edge.core.gone.empty()
        phone.close()


async def test_who_does_not_read_for_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.connections.UNREAD_SECONDS", 0.3)
    async with running("tcp") as edge:
        phone = socket.socket()
        before = drops("slow-reader")
        with contextlib.suppress(ConnectionError):
            await clog(edge, phone)
        await edge.core.closed_flow()
        assert drops("slow-reader") == before + 1
        phone.close()


# --- what the kernel keeps out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "stranger", "phone"), [("127.0.0.1", "127.0.0.3", SECOND), ("::1", "::1", "")])
async def test_s01_the_kernel_lets_in_a_share_of_a_flood_and_all_of_others_and_later_all_again(
    host: str, stranger: str, phone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    monkeypatch.setattr("edge.transport.floods.LOOK_SECONDS", 0.05)
    async with running("udp", host=host) as edge:
        edge.transports._gate.floods.steps[turns.network(stranger)] = 2
        edge.transports._gate.narrow(turns.network(stranger))

        async def arrived(source: str) -> int:
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.bind((source, 0))
                for _ in range(500):
                    sender.sendto(options(7), (host, edge.port("udp")))
            await asyncio.sleep(0.1)
            count = edge.core.heard.qsize()
            while not edge.core.heard.empty():
                edge.core.heard.get_nowait()
            return count

        assert await arrived(stranger) < 50
        if phone:
            assert await arrived(phone) == 500
        edge.transports._gate.floods._last[turns.network(stranger)] = -1e9
        monkeypatch.setattr("edge.transport.floods.LASTS", 0.0)
        await drained(lambda: not edge.transports._gate.floods.steps)
        await drained(lambda: edge.transports._gate._timer is None)
        assert await arrived(stranger) == 500


async def test_s01_who_has_thousands_refused_is_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.floods.REFUSED", 100)
    async with running("udp") as edge:
        with udp(edge) as stranger:
            while not edge.transports._gate.floods.steps:
                for _ in range(500):
                    stranger.send(options(7))
                await asyncio.sleep(0)
        assert list(edge.transports._gate.floods.steps) == ["127.0.0.1"]


# --- handshakes ---------------------------------------------------------------------------------------------------


async def test_s01_a_source_shakes_few_hands_at_a_time_and_the_others_wait_for_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.transport.listener.HANDSHAKE_SECONDS", 1.0)
    certificates = Certificates(*Authority(tmp_path).issue("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with running("tls", certificates=certificates) as edge:
        entrance = edge.transports._entrance
        silent = [
            await asyncio.open_connection("127.0.0.1", edge.port("tls"), local_addr=("127.0.0.1", 0))
            for _ in range(listener.HANDSHAKES + 4)
        ]
        await drained(lambda: entrance._shaking["127.0.0.1"] == listener.HANDSHAKES + 4)
        assert entrance._gates["127.0.0.1"].locked()
        _, writer = await connected(edge, "tls", SECOND, context)  # nobody else waits
        writer.close()
        await drained(lambda: not entrance._shaking and not entrance._gates)
        many = await asyncio.gather(*[connected_tls(edge, context) for _ in range(3 * listener.HANDSHAKES)])
        assert not entrance._shaking
        for _, each in (*silent, *many):
            each.close()


async def connected_tls(edge: TestEdge, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", edge.port("tls"), ssl=context, local_addr=("127.0.0.1", 0)), DEADLINE
    )
