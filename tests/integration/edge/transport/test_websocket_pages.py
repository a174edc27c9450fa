"""Pages where the WebSocket is: one port for a browser's telephone and for what it says."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from edge.transport.reading import UNREAD
from edge.transport.tls import Certificates
from edge.transport.websocket import PIECE
from runtime.pages import Page
from tests.kit.transport import DEADLINE, Authority, TestEdge, ok, options, running

BIG = bytes(range(256)) * 16 * 1024
FIELDS = {"Content-Type": "text/html"}
PAGES = {"/": Page(200, FIELDS, b"front"), "/big": Page(200, FIELDS, BIG), "/old": Page(302, {"Location": "/"})}


def pages(path: str, asked: Mapping[str, str]) -> Page | None:
    """A front page, one that is kept, and one of 4 MB."""
    if path == "/" and asked.get("if-none-match") == "1":
        return Page(304, {"ETag": "1"})
    return {"/": Page(200, FIELDS, b"front"), "/big": Page(200, FIELDS, BIG), "/old": Page(302, {"Location": "/"})}.get(
        path
    )


async def asked(edge: TestEdge, *requests: str) -> bytes:
    """All that is answered to these requests on one connection, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("ws"))
    writer.write("".join(f"{request}\r\n\r\n" for request in requests).encode())
    async with asyncio.timeout(DEADLINE):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("transport", ["ws", "wss"])
async def test_a_browser_gets_its_pages_and_speaks_sip_at_one_port(transport: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates(*authority.issue("127.0.0.1"))
    secure = {"ws": "", "wss": "s"}[transport]
    async with (
        running(transport, certificates=certificates, pages=pages) as edge,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1, ssl=False)) as session,
    ):
        base = f"http{secure}://127.0.0.1:{edge.port(transport)}"
        for path, status, body in (
            ("/", 200, b"front"),
            ("/big", 200, BIG),
            ("/old", 200, b"front"),
            ("/", 200, b"front"),
        ):
            async with session.get(base + path) as response:
                assert (response.status, await response.read()) == (status, body)
        async with session.get(base, headers={"If-None-Match": "1"}) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with session.head(base + "/big") as response:
            assert (response.status, int(response.headers["Content-Length"])) == (200, len(BIG))
        assert len(edge.transports._streams) == 1  # one connection served them all
        async with session.ws_connect(f"{base}/sip", protocols=("sip",)) as socket:
            await socket.send_bytes(options())
            assert (await edge.core.request())[1].transport == transport
            assert (await socket.receive()).data.encode() == ok()


async def test_where_there_are_no_pages_none_is_given() -> None:
    async with running("ws") as edge:
        assert (await asked(edge, "GET / HTTP/1.1\r\nHost: a")).startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /none HTTP/1.1\r\nHost: a", 404),
        ("GET /sip HTTP/1.1\r\nHost: a", 426),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 426),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", 426),
        ("GET /" + "a" * 20_000 + " HTTP/1.1\r\nHost: a", 400),
        ("REGISTER sip:example.test SIP/2.0", 400),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_no_page_is_refused_and_the_connection_closed(request_: str, status: int) -> None:
    async with running("ws", pages=pages) as edge:
        answer = await asked(edge, request_, "GET / HTTP/1.1\r\nHost: a")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"front" not in answer


async def test_requests_that_come_together_are_answered_in_turn_and_the_last_ends_it() -> None:
    async with running("ws", pages=pages) as edge:
        answer = await asked(
            edge, "GET /big HTTP/1.1\r\nHost: a", "GET /old HTTP/1.1\r\nHost: a", "GET / HTTP/1.0", "GET / HTTP/1.0"
        )
    big, old, front = answer.index(BIG), answer.index(b"302 Found"), answer.index(b"front")
    assert big < old < front
    assert answer.count(b"front") == 1


async def test_who_does_not_read_has_little_made_ready_for_him_and_is_cut_off() -> None:
    async with running("ws", pages=pages) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port("ws"), limit=1)
        writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        await asyncio.sleep(0.3)
        (connection,) = edge.transports._streams._connections.values()
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() <= UNREAD + PIECE
        assert connection in edge.transports._streams.unread._since
        connection.cut_unread()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE):
                while await reader.read(65536):
                    pass
        writer.close()


async def test_a_connection_that_asks_for_nothing_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.transport.connections.HANDSHAKE_SECONDS", 0.3)
    async with running("ws", pages=pages) as edge:
        answer = await asked(edge, "GET / HTTP/1.1\r\nHost: a")
        assert answer.endswith(b"front")
