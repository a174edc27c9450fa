"""The edge on loopback sockets over the embedded log, with a responder in the place of the other services.

Over 400 lines: one edge between real sockets and a log, and what each of them does to it.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY

from edge.core.actions import Send
from edge.core.flow import Flow
from edge.outside.location import look_up
from edge.service import EdgeService, build
from events.commands import Authenticate
from events.leases import EdgeLease
from events.registrations import Binding
from events.replies import Registered
from events.topics import AUTH_COMMANDS, EDGE_LEASES, EDGE_REPLIES, partition_of
from events.wire import Decoder, encode
from runtime.config import MySQL, Secret, Sources
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Database, Row
from runtime.database.sqlite import SQLiteDatabase
from runtime.errors import DatabaseUnavailable, LogUnavailable
from runtime.http import HttpServer
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Position
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from sipcore import digest
from sipcore.message import Response
from sipcore.parser import parse_datagram
from tests.kit.edge import challenge_nonce
from tests.kit.secure import Authority

PARTITIONS = 2
KEYS = "k1:" + "0f" * 32
DEADLINE = 5.0
decode: Decoder[Authenticate] = Decoder(Authenticate)
decode_lease: Decoder[EdgeLease] = Decoder(EdgeLease)


class Tables:
    """A database that knows what time it is, wrong by some seconds, and the rows it was given."""

    def __init__(self) -> None:
        self.away = False
        self.ahead = 0.0
        self.rows: list[Row] = []

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        if self.away:
            raise DatabaseUnavailable("gone")
        now = datetime.fromtimestamp(time.time() + self.ahead, UTC)
        return self.rows if values else [(json.dumps([f"{now:%Y-%m-%d %H:%M:%S}"]),)]


class TestLog(EmbeddedLog):
    """The embedded log, whose appends to `auth.commands` can be made to fail, and are counted."""

    __test__ = False
    failing = False
    appends = 0
    apart = 0
    """Milliseconds by which the clock is ahead of whoever stamps every second append."""
    ahead = False

    async def append(self, records: Sequence[Append]) -> list[Position]:
        if records and records[0].topic == AUTH_COMMANDS:
            self.appends += 1
            if self.failing:
                raise LogUnavailable("gone")
        self.ahead = not self.ahead
        written = await super().append(records)
        return [at._replace(timestamp=at.timestamp + self.apart * self.ahead) for at in written]


class Phone:
    """A UDP socket that waits for answers."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]

    def send(self, data: bytes, host: str, port: int) -> None:
        self.socket.sendto(data, (host, port))

    async def heard(self) -> tuple[Response, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        data, source = await asyncio.wait_for(loop.sock_recvfrom(self.socket, 65535), DEADLINE)
        message = parse_datagram(data)
        assert isinstance(message, Response)
        return message, (source[0], source[1])

    async def pinged(self) -> None:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65535), DEADLINE)
        assert data.startswith(b"OPTIONS ")

    def waits(self) -> bool:
        """Whether something has come that was not read; then it is, now."""
        try:
            return bool(self.socket.recv(65535))
        except BlockingIOError:
            return False


@pytest.fixture
def phones() -> Iterator[Callable[..., Phone]]:
    """Makes phones, and closes them."""
    made: list[Phone] = []

    def make(host: str = "127.0.0.1") -> Phone:
        made.append(Phone(host))
        return made[-1]

    yield make
    for phone in made:
        phone.socket.close()


def register(number: int, *, transport: str = "UDP", nonce: str = "", port: int = 5099) -> bytes:
    """REGISTER of user u0, u1, …; with credentials once there is a nonce."""
    user, row = f"u{number}", ""
    if nonce:
        ha1 = digest.ha1("MD5", user, "example.test", "x")
        answer = digest.expected_response("MD5", ha1, "REGISTER", "sip:example.test", nonce, "auth", 1, "c")
        row = (
            f'Authorization: Digest username="{user}", realm="example.test", nonce="{nonce}", '
            f'uri="sip:example.test", response="{answer}", qop=auth, nc=00000001, cnonce="c"\r\n'
        )
    return (
        "REGISTER sip:example.test SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} 127.0.0.1:{port};rport;branch=z9hG4bK{number}x{len(row)}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:{user}@example.test>;tag=1\r\nTo: <sip:{user}@example.test>\r\n"
        f"Call-ID: c{number}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{user}@127.0.0.1:{port}>\r\n{row}"
        "User-Agent: a phone with a name\r\nContent-Length: 0\r\n\r\n"
    ).encode()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[TestLog]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = TestLog(store, PARTITIONS)
    await log.start()
    yield log
    await log.stop()
    await store.stop()


@pytest.fixture
def tables() -> Tables:
    return Tables()


def settings(**changes: str) -> Sources:
    environ = {
        "RAMAL_KEYS": KEYS,
        "RAMAL_EDGE_NAME": "edge-1",
        "RAMAL_EDGE_UDP": "0.0.0.0:0",
        "RAMAL_EDGE_TCP": "127.0.0.1:0",
        "RAMAL_EDGE_MESSAGE_SECONDS": "0.3",
        "RAMAL_EDGE_IDLE_SECONDS": "0.6",
        **{f"RAMAL_EDGE_{name.upper()}": value for name, value in changes.items()},
    }
    return Sources(environ, {})


async def ready(service: EdgeService) -> None:
    async with asyncio.timeout(DEADLINE):
        while service.not_ready() or not service.core.serving:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)


@pytest.fixture
async def edge(log: TestLog, tables: Tables) -> AsyncIterator[EdgeService]:
    service = build(settings(), log, tables)  # type: ignore[arg-type]  # as much of a Database as an edge needs
    await service.start()
    await ready(service)
    yield service
    await service.stop(2.0)


@pytest.fixture
async def responder(log: TestLog) -> AsyncIterator[list[Authenticate]]:
    """Answers every command with one binding; the commands seen, in order."""
    seen: list[Authenticate] = []

    async def answer(partition: int) -> None:
        async for records in log.read(AUTH_COMMANDS, partition, 0):
            for record in records:
                command = decode(record.value)
                seen.append(command)
                at = record.timestamp
                register = command.register
                path = register.contacts[0].path or register.path
                binding = Binding(1, register.contacts[0].uri, "c", 1, at + 60_000, 60, at, at, path=path)
                reply = Registered(command.id, command.reply.edge, command.reply.boot, at, (binding,))
                key = command.reply.edge
                await log.append([Append(EDGE_REPLIES, partition_of(key, PARTITIONS), key.encode(), encode(reply))])

    tasks = [asyncio.create_task(answer(partition)) for partition in range(PARTITIONS)]
    yield seen
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def udp_port(edge: EdgeService) -> int:
    return edge.transports.bound("udp")[0][1]


def tcp_port(edge: EdgeService) -> int:
    return edge.transports.bound("tcp")[0][1]


async def test_a_phone_registers_over_udp(
    edge: EdgeService, responder: list[Authenticate], phones: Callable[..., Phone]
) -> None:
    phone = phones()
    phone.send(register(0), "127.0.0.1", udp_port(edge))
    challenge, _ = await phone.heard()
    assert challenge.status == 401
    phone.send(register(0, nonce=challenge_nonce(challenge)), "127.0.0.1", udp_port(edge))
    answer, _ = await phone.heard()
    assert answer.status == 200
    assert answer.values("contact") == ["<sip:u0@127.0.0.1:5099>;expires=60"]
    (command,) = responder
    assert command.register.received == f"sip:127.0.0.1:{phone.port};transport=udp"
    assert command.register.socket == f"udp:127.0.0.1:{udp_port(edge)}"


async def registers(phone: Phone, port: int, cseq: int) -> int:
    """The status that u0 hears at this edge, once it has answered the challenge."""

    def numbered(octets: bytes) -> bytes:
        return octets.replace(b"CSeq: 1", b"CSeq: %d" % cseq).replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % cseq)

    phone.send(numbered(register(0)), "127.0.0.1", port)
    challenge, _ = await phone.heard()
    phone.send(numbered(register(0, nonce=challenge_nonce(challenge))), "127.0.0.1", port)
    return (await phone.heard())[0].status


async def pinged_alone(new: Phone, old: Phone) -> None:
    """Whoever moved is pinged where he is, and not where he was."""
    while old.waits():
        pass
    for _ in range(5):
        await new.pinged()
    assert not old.waits()


async def test_n02_a_phone_that_moves_to_another_port_is_pinged_there_alone(
    log: TestLog, tables: Tables, responder: list[Authenticate], phones: Callable[..., Phone]
) -> None:
    service = build(settings(keepalive_seconds="0.2"), log, tables)  # type: ignore[arg-type]  # as much as an edge needs
    await service.start()
    await ready(service)
    old, new = phones(), phones()
    try:
        for number, phone in enumerate((old, new), 1):
            assert await registers(phone, udp_port(service), number) == 200
            await phone.pinged()
        await pinged_alone(new, old)
    finally:
        await service.stop(2.0)


async def test_s01_acks_that_belong_nowhere_are_sought_at_the_other_edge_at_a_bounded_rate(
    log: TestLog, tables: Tables, phones: Callable[..., Phone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.core.proxy.cancel.SOUGHT_PER_SOURCE", 5.0)
    names = ("edge-1", "edge-2")
    both = [build(settings(name=name, edges="127.0.0.1:0"), log, tables) for name in names]  # type: ignore[arg-type]
    stranger, before, strays = phones(), drops("not-sought"), drops("unexpected-ack")
    try:
        for service in both:
            await service.start()
        async with asyncio.timeout(DEADLINE):
            while not all(service.core.reach.neighbours for service in both):  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.01)
        for number in range(50):
            ack = register(number).replace(b"REGISTER", b"ACK").replace(b"sip:example.test", b"sip:u@example.test")
            stranger.send(ack, "127.0.0.1", udp_port(both[0]))
        async with asyncio.timeout(DEADLINE):
            while drops("unexpected-ack") < strays + 50:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0.01)
        assert drops("not-sought") - before > 25
    finally:
        for service in both:
            await service.stop(2.0)


async def test_r01_a_phone_with_a_domain_of_nobodys_stands_in_the_log(
    edge: EdgeService, phones: Callable[..., Phone], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ramal.edge")
    phone = phones()
    for n in range(3):
        phone.send(register(n).replace(b"example.test", b"elsewhere.test"), "127.0.0.1", udp_port(edge))
        refused, _ = await phone.heard()
        assert (refused.status, refused.reason) == (403, "Domain Not Served Here")
    (told,) = [record for record in caplog.records if "domain that is not served" in record.message]
    found = vars(told)
    assert (found["source"], found["domain"], found["aor"]) == ("127.0.0.1", "elsewhere.test", "u0@elsewhere.test")


async def test_t20_an_expired_certificate_stands_in_status_and_leaves_the_edge_ready(
    log: TestLog, tables: Tables, tmp_path: Path
) -> None:
    """Phones on UDP and TCP need none."""
    issued = Authority(tmp_path, "authority").issue("example.test", ["127.0.0.1"], ends=-1)
    sources = settings(tls="127.0.0.1:0", certificate=str(issued.certificate), private_key=str(issued.key))
    service = build(sources, log, tables)  # type: ignore[arg-type]  # as much of a Database as an edge needs
    await service.start()
    await ready(service)
    assert service.status()["certificate"].startswith("RAMAL_EDGE_CERTIFICATE has expired")
    await service.stop(2.0)


async def test_t03_on_the_wildcard_address_answers_leave_from_the_address_written_to(
    edge: EdgeService, responder: list[Authenticate], phones: Callable[..., Phone]
) -> None:
    phone = phones("127.0.0.9")
    for host in ("127.0.0.2", "127.0.0.3"):
        phone.send(register(1), host, udp_port(edge))
        challenge, source = await phone.heard()
        assert source == (host, udp_port(edge))
        phone.send(register(int(host[-1]), nonce=challenge_nonce(challenge)), host, udp_port(edge))
        answer, source = await phone.heard()
        assert (answer.status, source) == (200, (host, udp_port(edge)))


async def test_commands_of_one_wake_up_go_out_in_few_appends(
    edge: EdgeService, log: TestLog, responder: list[Authenticate], phones: Callable[..., Phone]
) -> None:
    phone = phones()
    phone.send(register(0), "127.0.0.1", udp_port(edge))
    nonce = challenge_nonce((await phone.heard())[0])
    for number in range(40):
        phone.send(register(number, nonce=nonce), "127.0.0.1", udp_port(edge))
    answers = [await phone.heard() for _ in range(40)]
    assert {answer.status for answer, _ in answers} == {200}
    assert len(responder) == 40
    assert log.appends <= 8


async def test_r21_a_log_that_is_away_gives_503_with_retry_after(
    edge: EdgeService, log: TestLog, responder: list[Authenticate], phones: Callable[..., Phone]
) -> None:
    phone = phones()
    phone.send(register(0), "127.0.0.1", udp_port(edge))
    nonce = challenge_nonce((await phone.heard())[0])
    log.failing = True
    phone.send(register(0, nonce=nonce), "127.0.0.1", udp_port(edge))
    answer, _ = await phone.heard()
    assert (answer.status, bool(answer.first("retry-after"))) == (503, True)
    assert edge.status()["commands"] == "commands are not appended"
    assert edge.not_ready() == []  # it speaks SIP, and says 503
    log.failing = False
    phone.send(register(5, nonce=nonce), "127.0.0.1", udp_port(edge))
    assert (await phone.heard())[0].status == 200
    assert not edge.status()["commands"]


async def test_e02_without_a_reply_503_after_the_deadline(
    log: TestLog, tables: Tables, phones: Callable[..., Phone]
) -> None:
    edge = build(settings(reply_seconds="0.2"), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    await ready(edge)
    phone = phones()
    phone.send(register(0), "127.0.0.1", udp_port(edge))
    nonce = challenge_nonce((await phone.heard())[0])
    phone.send(register(0, nonce=nonce), "127.0.0.1", udp_port(edge))
    assert (await phone.heard())[0].status == 503
    await edge.stop(2.0)


async def test_t09_a_phone_registers_over_tcp_in_any_segments(edge: EdgeService, responder: list[Authenticate]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    for octet in register(0, transport="TCP"):
        writer.write(bytes([octet]))
        await writer.drain()
    challenge = await read_response(reader)
    nonce = challenge_nonce(challenge)
    writer.write(register(0, transport="TCP", nonce=nonce) + b"\r\n\r\n" + register(1, transport="TCP", nonce=nonce))
    # T10: the CRLF for the keep-alive comes at once, the answers through the log.
    assert await asyncio.wait_for(reader.readexactly(2), DEADLINE) == b"\r\n"
    assert {(await read_response(reader)).status for _ in range(2)} == {200}
    assert responder[0].register.received.endswith(";transport=tcp")
    writer.close()
    await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader) -> Response:
    message = parse_datagram(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE))
    assert isinstance(message, Response)
    return message


async def test_t04_when_the_connection_is_gone_the_answer_comes_by_a_new_one(
    edge: EdgeService, responder: list[Authenticate], log: TestLog
) -> None:
    came: asyncio.Queue[Response] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(await read_response(reader))
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    writer.write(register(0, transport="TCP", port=port))
    nonce = challenge_nonce(await read_response(reader))
    writer.write(register(0, transport="TCP", nonce=nonce, port=port))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await asyncio.wait_for(came.get(), DEADLINE)).status == 200
    server.close()
    await server.wait_closed()


async def test_t12_a_message_that_does_not_end_closes_the_connection_and_an_idle_one_stays(edge: EdgeService) -> None:
    idle = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    idle[1].write(register(0, transport="TCP"))
    assert (await read_response(idle[0])).status == 401
    before = drops("slow-message")
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    writer.write(b"REGISTER sip:example.test SIP/2.0\r\n")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), DEADLINE)
    assert drops("slow-message") == before + 1
    idle[1].write(register(0, transport="TCP"))
    assert (await read_response(idle[0])).status == 401
    for each in (writer, idle[1]):
        each.close()


async def test_t12_a_connection_that_says_nothing_is_closed(edge: EdgeService) -> None:
    before = drops("idle-connection")
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), DEADLINE)
    assert drops("idle-connection") == before + 1
    writer.close()


async def test_p12_octets_that_cannot_be_cut_get_400_and_the_end(edge: EdgeService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    writer.write(register(0, transport="TCP").replace(b"Content-Length: 0\r\n", b""))
    assert (await read_response(reader)).status == 400
    assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
    writer.close()


async def test_connections_are_bounded_per_source(log: TestLog, tables: Tables) -> None:
    edge = build(settings(connections_per_source="1"), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    first = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    first[1].write(b"\r\n\r\n")
    assert await asyncio.wait_for(first[0].readexactly(2), DEADLINE) == b"\r\n"
    second = await asyncio.open_connection("127.0.0.1", tcp_port(edge))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(second[0].readexactly(1), DEADLINE)
    for each in (first[1], second[1]):
        each.close()
    await edge.stop(2.0)


async def test_s02_a_peer_that_does_not_read_is_cut_off(edge: EdgeService) -> None:
    before = drops("slow-reader")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", tcp_port(edge)))
    data = register(0, transport="TCP") * 50

    async def pour() -> None:
        while True:
            await loop.sock_sendall(raw, data)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(pour(), 30)
    assert drops("slow-reader") == before + 1
    raw.close()


async def test_e09_the_lease_says_where_and_ends_with_a_tombstone(log: TestLog, tables: Tables) -> None:
    edge = build(settings(advertised='{"udp": "sip.example.net"}'), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    await ready(edge)
    port = udp_port(edge)
    await edge.stop(2.0)
    end = (await log.bounds(EDGE_LEASES, 0)).end
    records = [record async for batch in log.read(EDGE_LEASES, 0, 0, end) for record in batch]
    lease = decode_lease(records[0].value)
    assert (lease.edge, lease.boot, lease.addresses["udp"]) == ("edge-1", edge.boot, f"sip.example.net:{port}")
    assert (records[-1].key, records[-1].value) == (f"edge-1/{edge.boot}".encode(), None)


@pytest.mark.parametrize(
    ("bound", "there", "gone"), [("0.0.0.0", "127.0.0.1", "192.0.2.77"), ("::", "::1", "2001:db8::7")]
)
async def test_e11_a_flow_whose_address_of_ours_is_gone_is_still_sent_by(
    log: TestLog, tables: Tables, phones: Callable[..., Phone], bound: str, there: str, gone: str
) -> None:
    """An edge that comes back in another pod has its name and its phones' flows, but another address."""
    edge = build(settings(udp=f"{f'[{bound}]' if ':' in bound else bound}:0"), log, tables)  # type: ignore[arg-type]  # as below
    await edge.start()
    phone = phones(there)
    flow = Flow("udp", gone, udp_port(edge), there, phone.port)
    edge.transports.deliver(Send(flow, b"OPTIONS", phone.port))
    loop = asyncio.get_running_loop()
    data, source = await asyncio.wait_for(loop.sock_recvfrom(phone.socket, 100), DEADLINE)
    assert (data, source[1]) == (b"OPTIONS", udp_port(edge))
    await edge.stop(2.0)


async def test_e10_an_edge_begins_with_its_database_and_later_is_ready_without_it(log: TestLog, tables: Tables) -> None:
    tables.away = True
    edge = build(settings(lease_seconds="1"), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    assert edge.not_ready()
    async with asyncio.timeout(DEADLINE):
        while edge.not_ready() != ["the database is away: gone"]:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)
    tables.away = False
    await ready(edge)
    tables.away = True
    async with asyncio.timeout(DEADLINE):
        while not edge.status()["database"]:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)
    assert edge.status()["database"] == "the database is away: gone"
    assert edge.not_ready() == []
    await edge.stop(2.0)


@pytest.mark.parametrize(("ahead", "told"), [(60.0, "60 s ahead of the log's"), (-3600.0, "3600 s behind the log's")])
async def test_who_runs_it_is_told_that_the_clocks_of_database_and_log_are_apart(
    log: TestLog, tables: Tables, ahead: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Bindings end by the log's clock, and are looked for by the database's."""
    edge = build(settings(lease_seconds="1"), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    await ready(edge)
    assert edge.status()["clocks"] == ""
    tables.ahead = ahead
    async with asyncio.timeout(DEADLINE):
        while not edge.status()["clocks"]:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)
    assert told in edge.status()["clocks"]
    assert edge.not_ready() == []
    assert REGISTRY.get_sample_value("ramal_edge_database_clock_seconds") == pytest.approx(ahead, abs=1.5)
    await asyncio.sleep(1.5)  # one more look, which says nothing new
    assert [told in record.cause for record in caplog.records if "apart" in record.message] == [True]  # type: ignore[attr-defined]
    tables.ahead = 0.0
    async with asyncio.timeout(DEADLINE):
        while edge.status()["clocks"]:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)
    await edge.stop(2.0)


async def test_who_runs_it_is_told_that_the_clocks_of_brokers_are_apart(
    log: TestLog, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Each stamps what it leads: commands are late where one is ahead, and nonces stale where one is behind."""
    edge = build(settings(lease_seconds="1"), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    await ready(edge)
    assert edge.status()["clocks"] == ""
    log.apart = 3_600_000
    async with asyncio.timeout(DEADLINE):
        while "the brokers' clocks are 3600 s apart" not in edge.status()["clocks"]:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
    assert edge.not_ready() == []
    await asyncio.sleep(1.5)  # one more look, which says nothing new
    assert [r.message for r in caplog.records if "brokers" in r.message] == ["the clocks of brokers are apart"]
    await edge.stop(2.0)


async def test_location_page_is_503_while_the_database_is_away(edge: EdgeService, tables: Tables) -> None:
    received, now = "sip:192.0.2.1:5;transport=udp", "1970-01-01 00:01:40"
    row = ["u0", "example.test", None, None, "sip:u0@h", received, None, "udp:h:1", 0.5, None, 99, 7, None, now]
    tables.rows = [(json.dumps(row),)]
    server = HttpServer("127.0.0.1", 0, edge.not_ready, edge.routes)
    await server.start()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/location/u0@example.test"
        async with session.get(url) as response:
            (target,) = await response.json()
            assert (target["received"], target["path"], target["id"]) == (received, "", 7)
        tables.away = True
        async with session.get(url) as response:
            assert response.status == 503
    await server.stop()


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.integration)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with contextlib.AsyncExitStack() as stack:
        opened: Database
        if request.param == "mysql":
            server, name = request.getfixturevalue("mysql"), request.getfixturevalue("fresh_database")
            secret = Secret(server.password)
            opened = MySQLDatabase(
                MySQL(host=server.host, port=server.port, user=server.user, password=secret, database=name)
            )
        else:
            store = EmbeddedStore(tmp_path / "tables.db")
            stack.push_async_callback(store.stop)
            opened = SQLiteDatabase(store)
        await opened.start()
        stack.push_async_callback(opened.stop)
        await opened.migrate()
        yield opened


async def test_look_up_goes_by_the_databases_clock_plus_grace(database: Database) -> None:
    now = int(time.time())
    columns = [
        "contact_id",
        "username",
        "domain",
        "contact",
        "received",
        "path",
        "expires",
        "q",
        "socket",
        "sip_instance",
    ]
    live = ("sip:a@live", "sip:h:1;transport=udp", "<sip:t@x;lr>", now + 60, 0.5, "udp:h:1", "<i>")
    rows = [
        (1, "alice", "example.test", "sip:a@over", None, None, now - 60, 1.0, None, None),
        (2, "alice", "example.test", "sip:a@grace", None, None, now - 5, 1.0, None, None),
        (3, "alice", "example.test", *live),
        (4, "Alice", "example.test", "sip:another@user", None, None, now + 60, 1.0, None, None),
    ]
    await database.transact([database.upsert("location", columns, ("contact_id",), rows)])
    found = await look_up(database, "alice@example.test", grace=30)
    assert [target.contact for target in found] == ["sip:a@grace", "sip:a@live"]
    assert (found[1].received, found[1].path, found[1].socket) == ("sip:h:1;transport=udp", "<sip:t@x;lr>", "udp:h:1")
    assert (found[1].q, found[1].instance, found[1].expires, found[1].id) == (0.5, "<i>", now + 60, 3)
    assert not await look_up(database, "nobody@example.test")


async def test_ipv6(log: TestLog, tables: Tables, responder: list[Authenticate], phones: Callable[..., Phone]) -> None:
    edge = build(settings(udp='["[::]:0"]', tcp=""), log, tables)  # type: ignore[arg-type]  # as above
    await edge.start()
    await ready(edge)
    phone = phones("::1")
    phone.send(register(0), "::1", udp_port(edge))
    nonce = challenge_nonce((await phone.heard())[0])
    phone.send(register(0, nonce=nonce), "::1", udp_port(edge))
    assert (await phone.heard())[0].status == 200
    assert responder[0].register.received == f"sip:[::1]:{phone.port};transport=udp"
    await edge.stop(2.0)
