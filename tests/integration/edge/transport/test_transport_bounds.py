"""Bounds of connections, the PROXY protocol and UDP on loopback, under a core that only notes what it hears."""

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest

from edge.core.actions import Forward, LookUp, Media, Resolve, Seek, Send
from edge.core.flow import Flow
from edge.transport.layer import Outside
from edge.transport.tls import Certificates
from runtime.metrics import drops
from sipcore.parser import StreamParser
from tests.kit.peer import Peer, client_context, new, octets
from tests.kit.transport import DEADLINE, Authority, drained, ok, options, running


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the peer has closed, after what it still had to say."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await asyncio.wait_for(reader.read(), DEADLINE)
    return True


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


async def test_a_tls_connection_that_is_closed_twice_can_still_be_cut(authority: Authority) -> None:
    certificates = Certificates(*authority.issue("127.0.0.1"))
    async with running("tls", certificates=certificates) as edge:
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port("tls"), ssl=client_context(authority), server_hostname="127.0.0.1"
        )
        writer.write(options())
        await edge.core.request()
        [connection] = edge.transports._streams._connections.values()
        connection.close()
        connection.close()
        connection.abort()
        await edge.core.closed_flow()
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
