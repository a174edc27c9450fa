"""WebSocket: one message of it is one SIP message (RFC 7118; RFC 6455 on the server's side).

Whoever asks for a page before it, where there are pages, is given that by the same connection: a browser may then
get its telephone and speak SIP at one port. What proxies say about who speaks (X-Forwarded-For) is not believed; a
balancer may use the PROXY protocol (`edge.transport.proxy_protocol`).
"""

import asyncio
from collections.abc import Collection

from aiohttp.http import RawRequestMessage

from edge.transport.connections import Connection, Streams
from edge.transport.handshake import REQUEST_LIMIT, answer, head_of, octets_of, page_of, request_of
from edge.transport.proxy_protocol import Parties
from edge.transport.turns import cost
from edge.transport.websocket_frames import (
    BadFrame,
    FrameReader,
    Opcode,
    Status,
    WebSocketMessage,
    close_status,
    closing,
    frame,
)
from runtime.metrics import dropped
from runtime.pages import Pages
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import KEEPALIVE, Item, parse_datagram

FRAMES_PER_SECOND = 500
"""Of one connection, with bursts of as many; a browser's calls are some ten messages each."""
CRLF2 = b"\r\n\r\n"
PIECE = 16 * 1024
"""Octets of a page that are written at once: of what a peer does not read, no more than this is made ready."""


class WebSocketConnection(Connection):
    """One connection: HTTP requests, then frames."""

    def __init__(
        self,
        streams: Streams,
        transport: str,
        place: str,
        parties: Parties,
        *,
        origins: Collection[str],
        pages: Pages | None = None,
    ) -> None:
        """`origins`: whose pages may connect, in lower case; none: all. `pages`: what else is served."""
        super().__init__(streams, transport, place, parties, dialled=False)
        self._origins = origins
        self._pages = pages
        self._page = memoryview(b"")
        """What is not written yet of the page that was asked for last; the peer does not read meanwhile."""
        self._request: bytearray | None = bytearray()
        """What came of the HTTP request; None once that for a WebSocket is answered."""
        self._frames = FrameReader()
        self._last = False
        """Whether this page is the last one that is asked for."""
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
        request = request_of(bytes(self._request[: end + 4]) if 0 <= end <= REQUEST_LIMIT else b"")
        rest = bytes(self._request[end + 4 :])
        if self._pages is not None and request is not None and (page := page_of(request, self._pages)) is not None:
            self._request = bytearray(rest)
            self.more = bool(rest)
            return self._give(octets_of(page, request), close=request.should_close)
        self._request = None
        if self._shake(request):
            self.streams.silent.keep(self)
            self.streams.idle.keep(self)
            if rest:
                self._read(rest, most)
        return 1

    def _give(self, octets: bytes, *, close: bool) -> int:
        """Begins with a page: what it costs."""
        self._page = memoryview(octets)
        self._last = close
        self.streams.shaking.end(self)
        self._write_page()
        return cost(len(octets))

    def _write_page(self) -> None:
        """Writes of a page what the peer reads; once that is all, waits for the next request."""
        while self._page and self._alive and not self._clogged:
            piece, self._page = self._page[:PIECE], self._page[PIECE:]
            self.put(bytes(piece))
        if not self._page and self._last:
            self._closing = True
            self.close()
        elif not self._page:
            self.streams.shaking.begin(self)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._request is not None and self._page:
            self._write_page()

    def _shake(self, request: RawRequestMessage | None) -> bool:
        """Answers the HTTP request; whether this is a WebSocket now."""
        status, rows = answer(request, self._origins)
        self.put(head_of(status, rows))
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
                    broken = BadFrame("websocket-not-one-message", Status.PROTOCOL_ERROR)
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

    def _item(self, message: WebSocketMessage) -> Item | None:
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

    def end(self, reason: str = "the edge ends") -> None:
        """Says that we go away, and why, and does."""
        if self._request is not None:
            self.close()
            return
        self._say_goodbye(closing(Status.GOING_AWAY, reason), at_once=True)

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
