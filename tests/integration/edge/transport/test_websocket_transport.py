"""WebSocket on loopback (RFC 7118, RFC 6455; CHECKLIST W01-W10): who may open one."""

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.transport.websocket_frames import Opcode
from runtime.metrics import drops
from tests.kit.transport import DEADLINE, ok, options, running
from tests.kit.websocket import RawClient

# --- the handshake ----------------------------------------------------------------------------------------------------


async def test_w01_with_the_subprotocol_sip_the_handshake_succeeds_and_echoes_it() -> None:
    async with running("ws") as edge:
        client = await RawClient.connect(edge)
        status, rows = await client.shake(Sec_WebSocket_Protocol="xmpp, SIP")
        assert (status, rows["Sec-WebSocket-Protocol"]) == (101, "sip")
        assert rows["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
        client.send(Opcode.TEXT, options())
        assert (await edge.core.request())[1].transport == "ws"
        assert await client.frame() == (Opcode.TEXT, ok())
        client.writer.close()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"Sec_WebSocket_Protocol": None}, 400, id="W01 no subprotocol"),
        pytest.param({"Sec_WebSocket_Protocol": "xmpp"}, 400, id="W01 another subprotocol"),
        pytest.param({"Sec_WebSocket_Version": "8"}, 426, id="W02 another version"),
        pytest.param({"Sec_WebSocket_Version": None}, 426, id="W02 no version"),
        pytest.param({"Sec_WebSocket_Key": None}, 400, id="W02 no key"),
        pytest.param({"Sec_WebSocket_Key": "AAAA"}, 400, id="W02 a key of another length"),
        pytest.param({"Sec_WebSocket_Key": "ä" * 24}, 400, id="W02 a key that is not base64"),
        pytest.param({"start": "POST /sip HTTP/1.1"}, 400, id="W02 not GET"),
        pytest.param({"start": "GET /sip HTTP/1.0"}, 400, id="HTTP 1.0"),
        pytest.param({"start": "GET /other HTTP/1.1"}, 404, id="another path"),
        pytest.param({"start": "REGISTER sip:example.test SIP/2.0"}, 400, id="SIP"),
        pytest.param({"Upgrade": None}, 426, id="no upgrade"),
        pytest.param({"Connection": "close"}, 426, id="no upgrade of the connection"),
        pytest.param({"Origin": "https://evil.test"}, 403, id="W09 a page of another origin"),
        pytest.param({"Origin": "null"}, 403, id="W09 a page without an origin"),
    ],
)
async def test_a_handshake_that_breaks_a_rule_is_refused_and_closed(changes: dict[str, str], status: int) -> None:
    async with running("ws", origins=("https://phone.example.test",)) as edge:
        client = await RawClient.connect(edge)
        found, rows = await client.shake(**changes)  # type: ignore[arg-type]  # None leaves a row out
        assert found == status
        if "version" in str(changes).lower():
            assert rows["Sec-WebSocket-Version"] == "13"
        assert await client.ended()


@pytest.mark.parametrize("path", ["/", "/sip", "/sip?x=1", "/?x=1"])
async def test_a_websocket_opens_at_the_root_and_at_sip(path: str) -> None:
    async with running("ws") as edge:
        client = await RawClient.connect(edge)
        assert (await client.shake(f"GET {path} HTTP/1.1"))[0] == 101
        client.writer.close()


@pytest.mark.parametrize("origin", ["https://phone.example.test", "HTTPS://Phone.Example.Test", None])
async def test_w09_a_listed_page_and_what_is_no_browser_may_connect(origin: str | None) -> None:
    async with running("ws", origins=("https://Phone.example.test",)) as edge:
        client = await RawClient.connect(edge)
        assert (await client.shake(Origin=origin))[0] == 101
        client.writer.close()


async def test_w12_x_forwarded_for_is_not_believed() -> None:
    async with running("ws") as edge:
        client = await RawClient.connect(edge)
        assert (await client.shake(X_Forwarded_For="203.0.113.9", Forwarded="for=203.0.113.9"))[0] == 101
        client.send(Opcode.TEXT, options())
        assert (await edge.core.request())[1].remote_host == "127.0.0.1"
        client.writer.close()


async def test_t14_a_listed_balancer_says_who_speaks_by_websocket() -> None:
    async with running("ws", proxies=("127.0.0.1",)) as edge:
        client = await RawClient.connect(edge)
        client.writer.write(b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 80\r\n")
        assert (await client.shake())[0] == 101
        client.send(Opcode.TEXT, options())
        flow = (await edge.core.request())[1]
        assert (flow.remote_host, flow.remote_port, flow.local_host) == ("2001:db8::9", 56324, "2001:db8::1")
        client.writer.close()


async def test_w10_a_handshake_that_does_not_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.connections.HANDSHAKE_SECONDS", 0.2)
    async with running("ws") as edge:
        before = drops("slow-handshake")
        client = await RawClient.connect(edge)
        client.writer.write(b"GET /sip HTTP/1.1\r\nHost: x\r\n")
        assert await client.ended()
        assert drops("slow-handshake") == before + 1


async def test_a_handshake_without_end_is_refused_at_a_bound() -> None:
    async with running("ws") as edge:
        client = await RawClient.connect(edge)
        client.writer.write(b"GET /sip HTTP/1.1\r\nX: " + b"x" * 20_000)
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n"), DEADLINE)
        assert b"400" in head
        client.writer.close()


@given(st.binary(max_size=200))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_octets_for_a_handshake_are_refused_or_waited_for(octets: bytes) -> None:
    async with running("ws") as edge:
        before = drops("bug")
        client = await RawClient.connect(edge)
        client.writer.write(octets + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            head = await asyncio.wait_for(client.reader.readuntil(b"\r\n"), DEADLINE)
            assert head.startswith(b"HTTP/1.1 4")
        client.writer.close()
        assert drops("bug") == before
