"""WebSocket on loopback (RFC 7118, RFC 6455; CHECKLIST W01-W10): messages, frames and bounds."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import aiohttp
import pytest

from edge.transport.tls import Certificates
from edge.transport.websocket import FRAMES_PER_SECOND
from edge.transport.websocket_frames import Opcode
from runtime.metrics import drops
from sipcore.errors import ParseError
from sipcore.parser import KEEPALIVE
from tests.kit.transport import DEADLINE, Authority, ok, options, running
from tests.kit.websocket import RawClient

# --- messages ---------------------------------------------------------------------------------------------------------


async def test_w06_w07_w08_a_phone_of_a_known_library_registers_its_flow_and_its_close_is_told() -> None:
    async with running("ws") as edge, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{edge.port('ws')}/sip"
        async with session.ws_connect(url, protocols=("sip",)) as client:
            await client.send_str(options(1, length=False).decode())
            request, flow = await edge.core.request()
            assert (request.via.host, request.body) == ("a.invalid", b"")
            assert (await client.receive(DEADLINE)).data == ok(1).decode()
            await client.send_bytes(options(2, length=False, body="a body without a length"))
            assert (await edge.core.request())[0].body == b"a body without a length"
            assert (await client.receive(DEADLINE)).data == ok(2).decode()
            # A request of ours goes by the same connection.
            edge.send(flow, options(3), id="3")
            assert (await client.receive(DEADLINE)).data == options(3).decode()
        assert await edge.core.closed_flow() == flow
        assert await edge.core.failure() == ("3", 430)  # it was never answered
        # W06: replies go by the connection only, whatever Via says.
        edge.send(flow, ok(), 5060)
        edge.send(flow, options(4), 5060, id="4")
        assert await edge.core.failure() == ("4", 430)


async def test_wss_speaks_by_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates(*authority.issue("127.0.0.1"))
    context = ssl.create_default_context(cafile=str(authority.file))
    async with running("wss", certificates=certificates) as edge, aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{edge.port('wss')}/sip"
        async with session.ws_connect(url, protocols=("sip",), ssl=context) as client:
            await client.send_str(options().decode())
            assert (await edge.core.request())[1].transport == "wss"
            assert (await client.receive(DEADLINE)).data == ok().decode()


async def test_w03_a_message_in_fragments_and_one_with_octets_that_are_no_text() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        data = options(body="\N{SNOWMAN}")
        client.send(Opcode.BINARY, data[:10], fin=False)
        client.send(Opcode.PING, b"between")
        client.send(Opcode.CONTINUATION, data[10:-1], fin=False)
        client.send(Opcode.CONTINUATION, data[-1:])
        assert await client.frame() == (Opcode.PONG, b"between")
        _, flow = await edge.core.message()
        await client.frame()
        edge.send(flow, "ü".encode())
        assert await client.frame() == (Opcode.TEXT, "ü".encode())
        edge.send(flow, b"\xff")
        assert await client.frame() == (Opcode.BINARY, b"\xff")
        client.writer.close()


@pytest.mark.parametrize(
    "behind", [options(2), b"\r\n" + options(2), ok(), b"\0\r\n" + ok()], ids=["request", "CRLF", "response", "NUL"]
)
async def test_w03_two_messages_in_one_get_400_and_the_end(behind: bytes) -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options(1) + behind)
        error, _ = await edge.core.message()
        assert isinstance(error, ParseError)
        assert error.name == "second-message"
        assert (await client.frame())[1].startswith(b"SIP/2.0 400")
        assert await client.close_status() == 1002
        client.send(Opcode.TEXT, options())  # counts for nothing any more
        client.send(Opcode.CLOSE, b"")
        client.writer.close()
        await edge.core.closed_flow()
        assert edge.core.heard.empty()


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b"\r\n"),
        (b"", b"\0"),
        (b"", b"\r\n\r\n\0 rest"),
        (b"", "ção".encode()),
        (b"", b"OPTIONS is a word"),
        (b"\r\n\r\n\r\n", b"\r\n"),
    ],
)
async def test_w03_octets_behind_the_body_are_discarded(
    opcode: Opcode, fragments: int, before: bytes, behind: bytes
) -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        data = before + options(1, body="a body") + behind
        at = [len(data) * n // fragments for n in range(fragments + 1)]
        for n in range(fragments):
            part = data[at[n] : at[n + 1]]
            client.send(opcode if not n else Opcode.CONTINUATION, part, fin=n == fragments - 1)
        request, _ = await edge.core.request()
        assert request.body == b"a body"
        assert (await client.frame())[1] == ok()
        client.send(Opcode.TEXT, options())
        assert (await client.frame())[1] == ok()
        client.writer.close()


@pytest.mark.parametrize(
    ("data", "name"), [(options(body="a body")[:-3], "short-body"), (options()[:60], "no-header-end")]
)
async def test_w03_a_half_gets_400_and_the_connection_stays(data: bytes, name: str) -> None:
    """RFC 3261 section 18.3; where the next message begins, the frames tell."""
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, data)
        error, _ = await edge.core.message()
        assert isinstance(error, ParseError)
        assert error.name == name
        assert (await client.frame())[1].startswith(b"SIP/2.0 400")
        client.send(Opcode.TEXT, options())
        assert (await client.frame())[1] == ok()
        client.writer.close()


async def test_w03_a_message_that_is_bad_otherwise_does_not_end_the_connection() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options().replace(b"CSeq: 1 OPTIONS", b"CSeq: x"))
        assert (await client.frame())[1].startswith(b"SIP/2.0 400")
        client.send(Opcode.TEXT, options())
        assert await client.frame() == (Opcode.TEXT, ok())
        client.writer.close()


async def test_t10_crlfcrlf_gets_crlf_and_crlf_or_nothing_gets_nothing() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        for data in (b"\r\n", b"", b"\r\n\r\n"):
            client.send(Opcode.TEXT, data)
        assert (await edge.core.message())[0] is KEEPALIVE
        assert await client.frame() == (Opcode.TEXT, b"\r\n")
        assert edge.core.heard.empty()
        client.writer.close()


# --- frames and bounds ------------------------------------------------------------------------------------------------


async def test_w04_an_unmasked_frame_closes_with_1002() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options(), masked=False)
        assert await client.close_status() == 1002
        client.send(Opcode.CLOSE, b"")
        client.writer.close()
        assert edge.core.heard.empty()


async def test_w05_ping_gets_pong_and_close_is_answered() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.PING, b"hello")
        assert await client.frame() == (Opcode.PONG, b"hello")
        client.send(Opcode.CLOSE, (1000).to_bytes(2, "big"))
        assert await client.close_status() == 1000
        assert await client.ended()


async def test_w05_an_idle_flow_is_pinged_and_closed_when_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.connections.IDLE_SECONDS", 0.1)
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        before = drops("websocket-silent")
        for _ in range(3):
            assert await client.frame() == (Opcode.PING, b"")
            client.send(Opcode.PONG, b"")
        assert await client.frame() == (Opcode.PING, b"")
        assert await client.frame() == (Opcode.CLOSE, (1008).to_bytes(2, "big") + b"no Pong came")
        assert await client.ended()
        assert drops("websocket-silent") == before + 1


async def test_w10_a_message_above_64_kib_closes_with_1009() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.BINARY, b"x" * 40_000, fin=False)
        client.send(Opcode.CONTINUATION, b"x" * 40_000)
        assert await client.close_status() == 1009
        client.writer.close()


async def test_w10_a_flood_of_frames_closes_with_1008() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        before = drops("websocket-frame-flood")
        for _ in range(FRAMES_PER_SECOND * 3):
            client.send(Opcode.PONG, b"")
        assert await client.close_status() == 1008
        assert drops("websocket-frame-flood") == before + 1
        client.writer.close()


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.TEXT])
async def test_t12_a_websocket_that_says_nothing_is_told_why_it_is_closed_and_who_keeps_alive_stays(
    opcode: Opcode,
) -> None:
    async with running("ws", message_seconds=0.05, idle_seconds=0.4) as edge:
        before = drops("idle-connection")
        client = await RawClient.shaken(edge)
        for _ in range(8):
            client.send(opcode, b"\r\n\r\n")
            await client.frame()
            await asyncio.sleep(0.1)
        assert drops("idle-connection") == before
        assert await client.frame() == (Opcode.CLOSE, (1008).to_bytes(2, "big") + b"idle connection")
        assert await client.ended()
        assert drops("idle-connection") == before + 1


async def test_t12_a_fragmented_message_that_does_not_end_closes_it() -> None:
    async with running("ws", message_seconds=0.2) as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options())
        await client.frame()
        client.send(Opcode.TEXT, options(), fin=False)
        assert await client.frame() == (Opcode.CLOSE, (1008).to_bytes(2, "big") + b"slow message")
        assert await client.ended()


async def test_t12_pings_within_a_fragmented_message_give_it_no_more_time() -> None:
    async with running("ws", message_seconds=0.4) as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options(), fin=False)
        seen = []
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                client.send(Opcode.PING, b"")
                seen.append((await client.frame())[0])
                if seen[-1] == Opcode.CLOSE:
                    break
                await asyncio.sleep(0.05)
        assert seen[-1] == Opcode.CLOSE
        client.writer.close()


async def test_when_the_edge_ends_it_says_so() -> None:
    async with running("ws") as edge:
        client = await RawClient.shaken(edge)
        client.send(Opcode.TEXT, options())
        await client.frame()
    assert await client.close_status() == 1001
    assert await client.ended()
