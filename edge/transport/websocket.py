"""WebSocket: one message of it is one SIP message (RFC 7118; RFC 6455 on the server's side).

The HTTP request is read by aiohttp's parser. What proxies say about who speaks (X-Forwarded-For) is not
believed; a balancer may use the PROXY protocol (`edge.transport.proxy_protocol`).
"""

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Collection
from hashlib import sha1

from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from edge.transport.connections import Connection, Streams
from edge.transport.proxy_protocol import Parties
from edge.transport.websocket_frames import Broken, FrameReader, Message, Opcode, Status, close_status, closing, frame
from runtime.metrics import dropped
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import KEEPALIVE, Item, parse_datagram

PATHS = ("/sip", "/")
SUBPROTOCOL = "sip"
VERSION = "13"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
REQUEST_LIMIT = 16 * 1024
"""Octets of the HTTP request."""
FRAMES_PER_SECOND = 500
"""Of one connection, with bursts of as many; a browser's calls are some ten messages each."""
CRLF2 = b"\r\n\r\n"
REASONS = {
    101: "Switching Protocols",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    426: "Upgrade Required",
}


class WebSocketConnection(Connection):
    """One connection: the HTTP request, then frames."""

    def __init__(
        self, streams: Streams, transport: str, place: str, parties: Parties, *, origins: Collection[str]
    ) -> None:
        """`origins`: whose pages may connect, in lower case; none: all."""
        super().__init__(streams, transport, place, parties, dialled=False)
        self._origins = origins
        self._request: bytearray | None = bytearray()
        """What came of the HTTP request; None once it is answered."""
        self._frames = FrameReader()
        self._closing = False
        """Whether we have sent Close: all that comes then counts for nothing."""
        self._pinged = False
        self._allowed, self._allowed_at = float(FRAMES_PER_SECOND), 0.0

    def begun(self) -> None:
        """Sets the deadline of the handshake."""
        self.streams.shaking.keep(self)

    def read(self, data: bytes, most: int) -> int:
        """Reads the HTTP request, then frames."""
        self._pinged = False
        self.more = False
        if self._closing or self.flow is None:
            return 1
        if self._request is None:
            return self._read(data, most)
        self._request += data
        if not most:
            self.more = True
            return 0
        end = self._request.find(CRLF2)
        if end < 0 and len(self._request) <= REQUEST_LIMIT:
            return 1
        head, rest = bytes(self._request[: end + 4]), bytes(self._request[end + 4 :])
        self._request = None
        if self._shake(head if 0 <= end <= REQUEST_LIMIT else b""):
            self.streams.silent.keep(self)
            self.streams.idle.keep(self)
            if rest:
                self._read(rest, most)
        return 1

    def _shake(self, head: bytes) -> bool:
        """Answers the HTTP request; whether this is a WebSocket now."""
        status, rows = _answer(_request_of(head), self._origins)
        text = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
        self.put(f"HTTP/1.1 {status} {REASONS[status]}\r\n{text}\r\n".encode())
        self.streams.shaking.end(self)
        if status == 101:
            return True
        dropped("websocket-refused")
        self._closing = True
        self.close()
        return False

    # --- frames ---------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, most: int) -> int:
        frames = self._frames
        before = frames.frames
        messages, broken = frames.feed(data, self._allowance(), most)
        self.more = frames.more
        self._allowed -= frames.frames - before
        items: list[Item] = []
        ping: bytes | None = None
        for message in messages:
            if message.opcode is Opcode.CLOSE:
                self._deliver(items)
                self._say_goodbye(closing(close_status(message.data)), at_once=True)
                return frames.spent
            if message.opcode is Opcode.PING:
                ping = message.data
            elif (item := self._item(message)) is not None and not (item is KEEPALIVE and item in items):
                items.append(item)
                if isinstance(item, ParseError) and item.name == "second-message":  # W03
                    broken = Broken("websocket-not-one-message", Status.PROTOCOL_ERROR)
                    break
        if ping is not None:  # the last one stands for those before it (RFC 6455 section 5.5.3)
            self.put(frame(Opcode.PONG, ping))
        self._deliver(items)
        if broken is not None:
            dropped(broken.name)
            self.streams.receiver.flush()  # the 400 comes before the Close
            self._say_goodbye(closing(broken.status, broken.name), at_once=False)
        else:
            # A Ping within a fragmented message gives that no more time.
            whole = any(message.opcode < Opcode.CLOSE for message in messages)
            self.wait(pending=frames.pending, new=whole)
        return frames.spent

    def _allowance(self) -> int:
        """How many frames may come now."""
        now = asyncio.get_running_loop().time()
        self._allowed = min(FRAMES_PER_SECOND, self._allowed + (now - self._allowed_at) * FRAMES_PER_SECOND)
        self._allowed_at = now
        return int(self._allowed)

    def _item(self, message: Message) -> Item | None:
        """What a message is to the core; None for what is between us and the peer."""
        if message.opcode is Opcode.PONG or message.data == b"\r\n" or not message.data:
            return None
        if message.data == CRLF2:
            return KEEPALIVE
        try:
            return parse_datagram(message.data, alone=True)
        except ParseError as error:
            return error

    def _deliver(self, items: list[Item]) -> None:
        if items:
            self.take(items, message=self.heard or any(isinstance(item, Request | Response) for item in items))

    def _say_goodbye(self, octets: bytes, *, at_once: bool) -> None:
        """Sends Close; the peer then has time for its own, unless that is what came (RFC 6455 section 7.1.1)."""
        self.put(octets)
        self._closing = True
        if at_once:
            self.close()
        else:
            self.streams.slow.end(self)
            self.streams.closing.keep(self)

    def end(self) -> None:
        """Says that we go away, and does."""
        self._say_goodbye(closing(Status.GOING_AWAY, "the edge ends"), at_once=True)

    def cut(self, reason: str) -> None:
        """Closes it and, once it is a WebSocket, says why."""
        if self._request is not None or self._closing:
            self.abort()
        else:
            self._say_goodbye(closing(Status.POLICY, reason), at_once=True)

    # --- out ------------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether a message can be sent by it."""
        return self._request is None and not self._closing and super().open

    def write(self, data: bytes) -> None:
        """Writes a message as text, which is what browsers' libraries expect, unless it cannot be text."""
        self.put(frame(Opcode.TEXT if _is_text(data) else Opcode.BINARY, data))

    def look_alive(self) -> None:
        """Pings a peer that was silent; closes one that did not answer the last ping (CHECKLIST W05)."""
        if self._pinged:
            dropped("websocket-silent")
            self.cut("no Pong came")
            return
        self._pinged = True
        self.put(frame(Opcode.PING, b""))
        self.streams.idle.begin(self)


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _request_of(head: bytes) -> RawRequestMessage | None:
    """The HTTP request; None if it is none."""
    try:
        parser = HttpRequestParser(None, asyncio.get_running_loop(), REQUEST_LIMIT)
        requests, _, _ = parser.feed_data(head)
    except HttpProcessingError:
        return None
    return requests[0][0] if requests else None


def _answer(request: RawRequestMessage | None, origins: Collection[str]) -> tuple[int, dict[str, str]]:
    """Status and rows of the answer to a handshake (RFC 6455 section 4.2, RFC 7118 section 4.1)."""
    refusal = {"Connection": "close", "Content-Length": "0"}
    if request is None or request.method != "GET" or request.version < HttpVersion11:
        return 400, refusal
    if request.path.partition("?")[0] not in PATHS:
        return 404, refusal
    rows = request.headers
    if "websocket" not in _tokens(rows.getall("Upgrade", [])) or "upgrade" not in _tokens(
        rows.getall("Connection", [])
    ):
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


def _tokens(rows: list[str]) -> list[str]:
    return [token.strip().lower() for row in rows for token in row.split(",")]


def _is_key(key: str) -> bool:
    """Whether it is the base64 of 16 octets (RFC 6455 section 4.2.1, item 5)."""
    try:
        return len(b64decode(key, validate=True)) == 16
    except (BadBase64, ValueError):
        return False
