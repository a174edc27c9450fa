"""The HTTP request by which a WebSocket begins, and what it is answered (RFC 6455 section 4.2, RFC 7118 section 4.1).

The request is read by aiohttp's parser.
"""

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Collection, Mapping
from hashlib import sha1

from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from runtime.pages import Page, Pages

PATHS = ("/sip", "/")
SUBPROTOCOL = "sip"
VERSION = "13"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
REQUEST_LIMIT = 16 * 1024
"""Octets of the HTTP request."""
REASONS = {
    101: "Switching Protocols",
    200: "OK",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    426: "Upgrade Required",
}


def request_of(head: bytes) -> RawRequestMessage | None:
    """The HTTP request; None if it is none."""
    try:
        parser = HttpRequestParser(None, asyncio.get_running_loop(), REQUEST_LIMIT)
        requests, _, _ = parser.feed_data(head)
    except HttpProcessingError:
        return None
    return requests[0][0] if requests else None


def answer(request: RawRequestMessage | None, origins: Collection[str]) -> tuple[int, dict[str, str]]:
    """Status and rows of the answer to a handshake; `origins`: whose pages may connect, in lower case; none: all."""
    refusal = {"Connection": "close", "Content-Length": "0"}
    if request is None or request.method != "GET" or request.version < HttpVersion11:
        return 400, refusal
    if request.path.partition("?")[0] not in PATHS:
        return 404, refusal
    rows = request.headers
    if not _upgrades(request):
        return 426, {**refusal, "Connection": "close, Upgrade", "Upgrade": "websocket"}
    key = rows.getall("Sec-WebSocket-Key", [])
    if len(key) != 1 or not _is_key(key[0]):
        return 400, refusal
    if rows.getall("Sec-WebSocket-Version", []) != [VERSION]:
        return 426, {**refusal, "Sec-WebSocket-Version": VERSION}
    if SUBPROTOCOL not in _tokens(rows.getall("Sec-WebSocket-Protocol", [])):
        return 400, refusal
    origin = rows.get("Origin")
    # Only browsers say where their page is from, and only they have a page that could be a stranger's.
    if origins and origin is not None and origin.lower() not in origins:
        return 403, refusal
    proof = b64encode(sha1(key[0].encode() + GUID, usedforsecurity=False).digest()).decode()
    return 101, {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": proof,
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }


def page_of(request: RawRequestMessage | None, pages: Pages) -> Page | None:
    """The page that a request is for; None if it is for none, or has a body, which no page is asked for with."""
    if request is None or request.method not in ("GET", "HEAD") or _upgrades(request):
        return None
    if request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in request.headers:
        return None
    return pages(request.path.partition("?")[0], request.headers)


def octets_of(page: Page, request: RawRequestMessage) -> bytes:
    """A page as it is sent; the connection is kept unless the request says that it will be closed."""
    rows = {**page.fields, "Connection": "close" if request.should_close else "keep-alive"}
    if page.status != 304:
        rows["Content-Length"] = str(len(page.body))
    return head_of(page.status, rows) + (b"" if request.method == "HEAD" else page.body)


def head_of(status: int, rows: Mapping[str, str]) -> bytes:
    """A status line with its header."""
    text = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"HTTP/1.1 {status} {REASONS[status]}\r\n{text}\r\n".encode()


def _upgrades(request: RawRequestMessage) -> bool:
    rows = request.headers
    return "websocket" in _tokens(rows.getall("Upgrade", [])) and "upgrade" in _tokens(rows.getall("Connection", []))


def _tokens(rows: list[str]) -> list[str]:
    return [token.strip().lower() for row in rows for token in row.split(",")]


def _is_key(key: str) -> bool:
    """Whether it is the base64 of 16 octets (RFC 6455 section 4.2.1, item 5)."""
    try:
        return len(b64decode(key, validate=True)) == 16
    except (BadBase64, ValueError):
        return False
