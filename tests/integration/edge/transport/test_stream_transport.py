"""TCP and TLS of an edge on loopback, under a core that only notes what it hears."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from edge.core.actions import Send
from edge.transport import tls
from edge.transport.tls import Certificates
from runtime.metrics import drops
from sipcore.message import Response
from sipcore.parser import KEEPALIVE
from tests.kit.peer import Peer, client_context, new, octets
from tests.kit.transport import Authority, TestEdge, ok, options, running


def server_context(files: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


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
