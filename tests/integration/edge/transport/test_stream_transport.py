"""TCP, TLS and UDP of an edge on loopback, under a core that only notes what it hears."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.actions import Forward, LookUp, Media, Resolve, Seek, Send
from edge.core.flow import Flow
from edge.transport import tls
from edge.transport.layer import Outside
from edge.transport.tls import Certificates
from runtime.metrics import drops
from sipcore.message import Response
from sipcore.parser import KEEPALIVE, StreamParser
from tests.kit.transport import DEADLINE, Authority, TestEdge, drained, ok, options, running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Peer:
    """A listener that notes who connects and what comes."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.accepted = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            self.writers.append(writer)
            self.connections.put_nowait((reader, writer))

        self.server = await asyncio.start_server(accept, host, 0, ssl=context)
        return int(self.server.sockets[0].getsockname()[1])

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(self.connections.get(), DEADLINE)

    async def stop(self) -> None:
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        if self.server:
            self.server.close()
            await self.server.wait_closed()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    yield peer
    await peer.stop()


async def octets(reader: asyncio.StreamReader, count: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(count), DEADLINE)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the peer has closed, after what it still had to say."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await asyncio.wait_for(reader.read(), DEADLINE)
    return True


def new(transport: str, port: int, host: str = "127.0.0.1") -> Flow:
    """A way to an address for which no connection is named."""
    return Flow(transport, "", 0, host, port)


def server_context(files: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


def spoil(certificates: Certificates) -> None:
    Path(certificates._certificate).write_text("half a file")


# --- connections that we open -----------------------------------------------------------------------------------------


async def test_a_message_to_an_address_opens_one_connection_and_what_follows_uses_it_again(peer: Peer) -> None:
    port = await peer.start()
    async with running("tcp") as edge:
        edge.send(new("tcp", port), options(1), id="1")
        edge.send(new("tcp", port), options(2), id="2")
        reader, writer = await peer.connection()
        assert await octets(reader, len(options(1) + options(2))) == options(1) + options(2)
        edge.send(new("tcp", port), options(3), id="3")
        assert await octets(reader, len(options(3))) == options(3)
        writer.write(ok(1) + options(9))
        response, flow = await edge.core.message()
        assert isinstance(response, Response)
        assert (flow.transport, flow.remote_host, flow.remote_port) == ("tcp", "127.0.0.1", port)
        assert (flow.local_host, flow.connection > 0) == ("127.0.0.1", True)
        # A request of the peer is treated as on any connection.
        assert (await edge.core.request())[0].cseq.number == 9
        assert await octets(reader, len(ok(9))) == ok(9)
        assert peer.accepted == 1
        assert edge.core.failures.empty()


async def test_a_connection_that_the_peer_opened_from_that_address_and_port_is_used_again(peer: Peer) -> None:
    async with running("tcp") as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(options())
        _, flow = await edge.core.request()
        await octets(reader, len(ok()))
        edge.send(new("tcp", flow.remote_port), options(5), id="5")
        assert await octets(reader, len(options(5))) == options(5)
        writer.close()


async def test_t13_a_connection_that_is_refused_is_told_as_503() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with running("tcp") as edge:
            edge.send(new("tcp", port), options(), id="a")
            edge.send(new("tcp", port), options(), id="b")
            assert {await edge.core.failure(), await edge.core.failure()} == {("a", 503), ("b", 503)}
            edge.send(new("tcp", port), options())
            assert edge.core.failures.empty()


async def test_n06_a_named_connection_that_is_gone_is_told_as_430() -> None:
    async with running("tcp") as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(options())
        _, flow = await edge.core.request()
        writer.close()
        assert await edge.core.closed_flow() == flow
        edge.send(flow, options(), id="x")
        assert await edge.core.failure() == ("x", 430)


async def test_t13_a_peer_that_ends_the_connection_instead_of_answering_is_told(peer: Peer) -> None:
    port = await peer.start()
    async with running("tcp") as edge:
        edge.send(new("tcp", port), options(1), id="1")
        reader, writer = await peer.connection()
        await octets(reader, len(options(1)))
        writer.write(ok(1))
        await edge.core.message()
        edge.send(new("tcp", port), options(2), id="2")
        await octets(reader, len(options(2)))
        writer.close()
        assert await edge.core.failure() == ("2", 503)
        assert edge.core.failures.empty()


async def test_n07_a_connection_of_an_earlier_life_is_never_another_of_the_same_number(peer: Peer) -> None:
    async with running("tcp") as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(options())
        _, flow = await edge.core.request()
        await octets(reader, len(ok()))
        edge.send(flow, b"not for you", edge="edge-1", boot="b0", id="x")
        assert await edge.core.failure() == ("x", 430)
        edge.send(flow, b"for you", edge="edge-1", boot="b1", id="y")
        assert await octets(reader, 7) == b"for you"
        writer.close()


async def test_nobody_can_be_connected_to_by_websocket() -> None:
    async with running("ws") as edge:
        edge.send(new("ws", 80), options(), id="x")
        assert await edge.core.failure() == ("x", 503)


async def test_what_waits_for_a_connection_and_connections_that_are_opened_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.transport.dial.WAITING", 2)
    monkeypatch.setattr("edge.transport.dial.DIALS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        port = silent.getsockname()[1]
        async with running("tcp") as edge:
            for number in range(3):
                edge.core.want(Send(new("tcp", port), options(), 0, id=f"same{number}"))
            edge.core.want(Send(new("tcp", port, "127.0.0.2"), options(), 0, id="other"))
            edge.transports.flush()
            assert {await edge.core.failure(), await edge.core.failure()} == {("same2", 503), ("other", 503)}


async def test_s04_responses_to_senders_that_are_gone_leave_requests_connections_to_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.transport.dial.RESPONSE_DIALS", 2)
    async with running("tcp") as edge:
        dials = edge.transports._dials

        async def never(address: object) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(dials, "_dial", never)
        for number in range(1, 5):
            dials.send(Send(new("tcp", number), b"SIP/2.0 403 Forbidden\r\n\r\n", 0), ("tcp", "127.0.0.1", number, ""))
        assert len(dials._waiting) == 2
        dials.send(Send(new("tcp", 9), options(), 0, id="x"), ("tcp", "127.0.0.1", 9, ""))
        assert len(dials._waiting) == 3


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_t01_a_phone_speaks_by_tls(authority: Authority) -> None:
    certificates = Certificates(*authority.issue("127.0.0.1"))
    async with running("tls", certificates=certificates) as edge:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port("tls"), ssl=client_context(authority), server_hostname="127.0.0.1"
        )
        writer.write(options()[:50])
        writer.write(options()[50:] + b"\r\n\r\n")
        assert (await edge.core.request())[1].transport == "tls"
        assert (await edge.core.message())[0] is KEEPALIVE
        assert await octets(reader, len(ok()) + 2) == ok() + b"\r\n"
        writer.close()
        assert (await edge.core.closed_flow()).transport == "tls"


@pytest.mark.parametrize(
    ("names", "asked", "reached"),
    [
        (["sip:example.test", "DNS:x"], "example.test", True),
        (["example.test"], "Example.test", True),
        (["other.test"], "example.test", False),
        (["*.example.test"], "a.example.test", False),
        (["127.0.0.1"], "", True),
    ],
)
async def test_t19_a_connection_is_used_only_if_the_peer_proves_its_domain(
    authority: Authority, peer: Peer, names: list[str], asked: str, reached: bool
) -> None:
    port = await peer.start(context=server_context(authority.issue(*names)))
    async with running("tcp", certificates=Certificates("", "", str(authority.file))) as edge:
        before = drops("tls-wrong-domain")
        edge.send(new("tls", port), options(), id="x", name=asked)
        if reached:
            reader, _ = await peer.connection()
            assert await octets(reader, len(options())) == options()
        else:
            assert await edge.core.failure() == ("x", 503)
            assert drops("tls-wrong-domain") == before + 1


async def test_t19_a_peer_of_an_unknown_authority_gets_nothing(
    authority: Authority, peer: Peer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    port = await peer.start(context=server_context(stranger.issue("example.test")))
    async with running("tcp", certificates=Certificates("", "", str(authority.file))) as edge:
        edge.send(new("tls", port), options(), id="x", name="example.test")
        assert await edge.core.failure() == ("x", 503)


async def test_t19_a_connection_proven_for_one_domain_is_not_used_for_another(authority: Authority, peer: Peer) -> None:
    port = await peer.start(context=server_context(authority.issue("a.test", "b.test")))
    async with running("tcp", certificates=Certificates("", "", str(authority.file))) as edge:
        for count, name in enumerate(("a.test", "b.test"), start=1):
            edge.send(new("tls", port), options(), id="x", name=name)
            reader, _ = await peer.connection()
            assert await octets(reader, len(options())) == options()
            assert peer.accepted == count
        edge.send(new("tls", port), options(), id="x", name="b.test")
        assert await octets(reader, len(options())) == options()
        edge.send(new("tls", port), options(), id="x", name="c.test")
        assert await edge.core.failure() == ("x", 503)


async def test_t20_new_certificate_files_are_used_for_new_connections_and_old_ones_stay(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    certificates = Certificates(*authority.issue("first.test", "127.0.0.1"))

    async def connect(edge: TestEdge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port("tls"), ssl=client_context(authority), server_hostname="127.0.0.1"
        )
        found = writer.get_extra_info("peercert")
        return reader, writer, dict(found["subjectAltName"])["DNS"]

    async with running("tls", certificates=certificates) as edge:
        reader, writer, name = await connect(edge)
        assert name == "first.test"
        spoil(certificates)
        _, second, name = await connect(edge)
        assert name == "first.test"
        authority.issue("second.test", "127.0.0.1")
        _, third, name = await connect(edge)
        assert name == "second.test"
        writer.write(options())
        assert await octets(reader, len(ok())) == ok()
        for each in (writer, second, third):
            each.close()


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_t12_a_tls_handshake_that_does_not_end_is_closed_and_holds_a_place_until_then(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.transport.listener.HANDSHAKE_SECONDS", 0.2)
    certificates = Certificates(*authority.issue("127.0.0.1"))
    async with running("tls", per_source=1, certificates=certificates) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tls"))
        before = drops("too-many-connections")
        second, closing = await asyncio.open_connection("127.0.0.1", edge.port("tls"))
        assert await ended(second)
        assert drops("too-many-connections") == before + 1
        assert await ended(reader)
        await drained(lambda: edge.transports._streams._places == 0)
        for each in (writer, closing):
            each.close()


async def test_t12_who_says_nothing_is_closed_and_who_keeps_alive_is_not() -> None:
    async with running("tcp", message_seconds=0.05, idle_seconds=0.4) as edge:
        before = drops("idle-connection")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        for _ in range(8):
            writer.write(b"\r\n\r\n")
            assert await octets(reader, 2) == b"\r\n"
            await asyncio.sleep(0.1)
        assert drops("idle-connection") == before
        assert await ended(reader)
        assert drops("idle-connection") == before + 1
        writer.close()


async def test_t12_a_flow_by_which_a_message_has_come_may_be_silent() -> None:
    async with running("tcp", message_seconds=0.05, idle_seconds=0.05) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(options())
        assert await octets(reader, len(ok())) == ok()
        await asyncio.sleep(0.3)
        writer.write(options())
        assert await octets(reader, len(ok())) == ok()
        writer.close()


async def test_t12_the_first_message_too_has_its_time_from_its_first_octet() -> None:
    async with running("tcp", message_seconds=0.1) as edge:
        before = drops("slow-message")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        await asyncio.sleep(0.3)
        writer.write(options()[:20])
        assert await ended(reader)
        assert drops("slow-message") == before + 1
        writer.close()


async def test_s02_all_stream_transports_share_their_bounds() -> None:
    async with running("tcp", "ws", connections=2) as edge:
        writers = [(await asyncio.open_connection("127.0.0.1", edge.port(t)))[1] for t in ("tcp", "ws")]
        await drained(lambda: len(edge.transports._streams) == 2)
        before = drops("too-many-connections")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        assert await ended(reader)
        assert drops("too-many-connections") == before + 1
        for each in (*writers, writer):
            each.close()


async def test_s02_a_peer_on_tls_that_does_not_read_is_cut_off(authority: Authority) -> None:
    certificates = Certificates(*authority.issue("127.0.0.1"))
    async with running("tls", certificates=certificates) as edge:
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port("tls"), ssl=client_context(authority), server_hostname="127.0.0.1", limit=1024
        )
        writer.write(options())
        _, flow = await edge.core.request()
        edge.core.answers = False
        before = drops("slow-reader")
        async with asyncio.timeout(DEADLINE):
            while edge.core.gone.empty():
                edge.send(flow, b"x" * 60_000)
                await asyncio.sleep(0)
        assert drops("slow-reader") > before
        writer.close()


async def test_a_connection_of_ours_that_is_unused_is_closed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.connections.UNUSED_SECONDS", 0.1)
    port = await peer.start()
    async with running("tcp") as edge:
        edge.send(new("tcp", port), options(), id="x")
        reader, writer = await peer.connection()
        writer.write(ok())
        assert await ended(reader)
        assert (await edge.core.closed_flow()).remote_port == port


# --- PROXY protocol ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_t14_a_listed_balancer_says_who_speaks(authority: Authority, transport: str) -> None:
    certificates = Certificates(*authority.issue("127.0.0.1"))
    async with running(transport, certificates=certificates, proxies=("127.0.0.0/8",)) as edge:
        raw = socket.socket()
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", edge.port(transport)))
        await loop.sock_sendall(raw, b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 5060\r\n")
        context = client_context(authority) if transport == "tls" else None
        reader, writer = await asyncio.open_connection(
            sock=raw, ssl=context, server_hostname="127.0.0.1" if context else None
        )
        writer.write(options())
        _, flow = await edge.core.request()
        assert (flow.remote_host, flow.remote_port) == ("203.0.113.9", 56324)
        assert (flow.local_host, flow.local_port) == ("192.0.2.1", 5060)
        assert await octets(reader, len(ok())) == ok()
        writer.close()
        assert await edge.core.closed_flow() == flow


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"]
)
async def test_t14_others_who_send_it_are_closed(header: bytes) -> None:
    async with running("tcp", proxies=("192.0.2.7",)) as edge:
        before = drops("proxy-protocol-refused")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(header + options())
        assert await ended(reader)
        assert drops("proxy-protocol-refused") == before + 1
        assert edge.core.heard.empty()
        writer.close()


async def test_t14_a_balancer_that_does_not_say_who_speaks_is_closed() -> None:
    async with running("tcp", proxies=("127.0.0.1",)) as edge:
        before = drops("proxy-protocol-bad")
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("tcp"))
        writer.write(options())
        assert await ended(reader)
        assert drops("proxy-protocol-bad") == before + 1
        await drained(lambda: edge.transports._streams._places == 0)
        writer.close()


# --- UDP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_t13_an_icmp_error_is_told_for_its_message_and_the_socket_goes_on(host: str) -> None:
    phone = "::1" if ":" in host else "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loop = asyncio.get_running_loop()
    async with running("udp", host=host) as edge:
        with socket.socket(family, socket.SOCK_DGRAM) as closed:
            closed.bind((phone, 0))
            nobody = closed.getsockname()[1]
        for local in (phone, ""):
            flow = Flow("udp", local, edge.port("udp"), phone, nobody)
            edge.send(flow, options(1), nobody, id="1")
            edge.send(flow, options(2), nobody)
            assert await edge.core.failure() == ("1", 503)
        with socket.socket(family, socket.SOCK_DGRAM) as raw:
            raw.bind((phone, 0))
            raw.setblocking(False)
            for number in range(20):
                edge.send(Flow("udp", phone, edge.port("udp"), phone, nobody), options(number), nobody)
                edge.send(
                    Flow("udp", phone, edge.port("udp"), phone, raw.getsockname()[1]), b"hello", raw.getsockname()[1]
                )
            for _ in range(20):
                assert await asyncio.wait_for(loop.sock_recv(raw, 100), DEADLINE) == b"hello"
            raw.sendto(options(7), (phone, edge.port("udp")))
            request, flow = await edge.core.request()
            assert (request.cseq.number, flow.local_host) == (7, phone)


async def test_t13_a_datagram_that_cannot_leave_is_told() -> None:
    async with running("udp", host="0.0.0.0") as edge:
        flow = Flow("udp", "127.0.0.1", edge.port("udp"), "127.0.0.1", 5060)
        edge.send(flow, b"x" * 70_000, 5060, id="long")
        assert await edge.core.failure() == ("long", 503)
        edge.send(Flow("udp", "192.0.2.250", edge.port("udp"), "127.0.0.1", 5060), b"x", 5060, id="foreign")
        assert await edge.core.failure() == ("foreign", 503)
        edge.send(Flow("udp", "127.0.0.1", 1, "127.0.0.1", 5060), b"x", 5060, id="no socket")
        assert await edge.core.failure() == ("no socket", 503)


async def test_t01_tcp_works_on_ipv6(peer: Peer) -> None:
    port = await peer.start("::1")
    async with running("tcp", host="::1") as edge:
        reader, writer = await asyncio.open_connection("::1", edge.port("tcp"))
        writer.write(options())
        _, flow = await edge.core.request()
        assert (flow.local_host, flow.remote_host) == ("::1", "::1")
        assert await octets(reader, len(ok())) == ok()
        edge.send(new("tcp", port, "::1"), options(2), id="2")
        served, _ = await peer.connection()
        assert await octets(served, len(options(2))) == options(2)
        writer.close()


# --- what is outside --------------------------------------------------------------------------------------------------


async def test_what_others_sent_by_a_connection_that_closed_is_told_to_them_as_gone() -> None:
    told: list[Any] = []

    def failed(id_: str, status: int) -> bool:
        told.append((id_, status))
        return True

    async with running("udp") as edge:
        edge.transports.outside = Outside(
            told.append, told.append, told.append, failed, told.append, told.append, told.append
        )
        edge.core.actions.gone += ["@1@one", "@1@two"]
        edge.transports.flush()
        await drained(lambda: len(told) == 2)
        assert edge.core.failures.empty()
    assert told == [("@1@one", 430), ("@1@two", 430)]


async def test_what_sockets_have_no_part_in_goes_outside_once_for_each_wake_up() -> None:
    told: list[Any] = []
    async with running("udp") as edge:
        edge.transports.outside = Outside(
            told.append, told.append, told.append, lambda id_, _: id_ == "theirs", told.append, told.append, told.append
        )
        flow = Flow("udp", "127.0.0.1", 1, "127.0.0.1", 1)
        away = Send(flow, b"x", 1, edge="edge-2", boot="b", id="1")
        forward, seek = Forward("edge-2", "b", flow, b""), Seek("s", flow, b"")
        edge.core.want(away)
        edge.core.actions.forwards.append(forward)
        edge.core.actions.seeks.append(seek)
        edge.core.actions.lookups += [LookUp(1, "a"), LookUp(2, "b")]
        edge.core.actions.resolves.append(Resolve(3, "sip:x"))
        edge.core.actions.media.append(Media(4, {}))
        edge.transports.flush()
        expected = [away, forward, seek, [LookUp(1, "a"), LookUp(2, "b")], [Resolve(3, "sip:x")], [Media(4, {})]]
        assert told == expected
        # T13: what another edge wanted sent is told to that edge.
        edge.send(flow, b"x", 1, id="theirs")
        edge.send(flow, b"x", 1, id="ours")
        assert await edge.core.failure() == ("ours", 503)


async def test_an_edge_by_itself_cannot_send_by_the_flows_of_others() -> None:
    async with running("udp") as edge:
        before = drops("edge-not-there")
        edge.send(Flow("udp", "127.0.0.1", 1, "127.0.0.1", 1), b"x", 1, edge="edge-2", boot="b", id="1")
        assert await edge.core.failure() == ("1", 503)
        assert drops("edge-not-there") == before + 1


def test_t09_the_parser_of_the_kit_takes_what_the_kit_makes() -> None:
    assert len(StreamParser().feed(options() + ok())) == 2
