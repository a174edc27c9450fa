"""WebSocket frames of the server's side (RFC 6455 section 5): octets to messages, and messages to octets.

PURE. aiohttp's reader is not used: it takes unmasked frames from clients, which section 5.1 forbids
(CHECKLIST W04), and does not say how many frames it saw, so that no flood could be limited (W10).
No extension is ever negotiated, so a reserved bit is an error.
"""

import enum
from typing import NamedTuple

MESSAGE = 64 * 1024
"""Octets of a message, all its fragments together."""
CONTROL = 125
"""Octets of a control frame (section 5.5)."""

FIN, RESERVED, OPCODE = 0x80, 0x70, 0x0F
MASKED, LENGTH = 0x80, 0x7F
LENGTH16, LENGTH64 = 126, 127


class Opcode(enum.IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Status(enum.IntEnum):
    """Why a connection is closed (RFC 6455 section 7.4.1)."""

    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_PAYLOAD = 1007
    POLICY = 1008
    TOO_BIG = 1009


OPCODES = {int(opcode): opcode for opcode in Opcode}


class BadFrame(Exception):
    """The peer broke the protocol; `status` is what the connection is closed with."""

    def __init__(self, name: str, status: Status) -> None:
        super().__init__(name)
        self.name, self.status = name, status


class WebSocketMessage(NamedTuple):
    """A whole message, or a control frame."""

    opcode: Opcode
    data: bytes


class FrameReader:
    """Cuts a client's octets into messages and control frames."""

    def __init__(self, limit: int = MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._parts = bytearray()
        """What came of a fragmented message."""
        self._opcode: Opcode | None = None
        """Of the fragmented message; None between messages."""
        self.frames = 0
        """Frames read so far."""
        self.more = False
        """Whether `feed` stopped at its bound, and may give more without more octets."""
        self.spent = 0
        """What the last call cost: frames, and 1,024 octets for each further one."""
        self._most = 0

    @property
    def pending(self) -> bool:
        """Whether a part of a message or frame is held."""
        return bool(self._buffer) or self._opcode is not None

    def feed(self, data: bytes, most: int, turn: int = 2**31) -> tuple[list[WebSocketMessage], BadFrame | None]:
        """What these octets and those held complete, in order, and what is wrong with what follows.

        Nothing may be fed after that. It stops at a cost of about `turn`; more than `most` frames are a flood.
        """
        self._buffer += data
        self._most = self.frames + most
        messages: list[WebSocketMessage] = []
        self.more, self.spent = False, 0
        before = self.frames
        at = 0
        try:
            while self.spent < turn:
                after = self._frame(at, messages)
                if after is None:
                    break
                at = after
                self.spent = self.frames - before + (at >> 10)
            else:
                self.more = at < len(self._buffer)
        except BadFrame as broken:
            return messages, broken
        if at:
            del self._buffer[:at]
        return messages, None

    def _frame(self, at: int, messages: list[WebSocketMessage]) -> int | None:
        """Reads one frame at `at` and returns where the next begins; None if it is not whole yet."""
        buffer = self._buffer
        if len(buffer) < at + 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        opcode = self._opcode_of(first, second)
        length, start = second & LENGTH, at + 2
        if length == LENGTH16:
            length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
        elif length == LENGTH64:
            length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
        if len(buffer) < start:
            return None
        if length > self._limit or (opcode < Opcode.CLOSE and len(self._parts) + length > self._limit):
            raise BadFrame("websocket-too-large", Status.TOO_BIG)
        end = start + 4 + length
        if len(buffer) < end:
            return None
        if self.frames >= self._most:
            raise BadFrame("websocket-frame-flood", Status.POLICY)
        self.frames += 1
        payload = unmask(bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : end]))
        self._take(opcode, bool(first & FIN), payload, messages)
        return end

    def _opcode_of(self, first: int, second: int) -> Opcode:
        """The opcode, and the rules that a frame's first two octets can break."""
        opcode = OPCODES.get(first & OPCODE)
        if not second & MASKED:
            raise BadFrame("websocket-unmasked", Status.PROTOCOL_ERROR)
        if first & RESERVED or opcode is None:
            raise BadFrame("websocket-bad-frame", Status.PROTOCOL_ERROR)
        if opcode >= Opcode.CLOSE:
            if second & LENGTH > CONTROL or not first & FIN:
                raise BadFrame("websocket-bad-frame", Status.PROTOCOL_ERROR)
        elif (opcode is Opcode.CONTINUATION) != (self._opcode is not None):
            raise BadFrame("websocket-bad-frame", Status.PROTOCOL_ERROR)
        return opcode

    def _take(self, opcode: Opcode, fin: bool, payload: bytes, messages: list[WebSocketMessage]) -> None:
        if opcode >= Opcode.CLOSE:
            messages.append(WebSocketMessage(opcode, payload))
            return
        if opcode is not Opcode.CONTINUATION:
            if fin:
                messages.append(WebSocketMessage(opcode, _whole(opcode, payload)))
                return
            self._opcode = opcode
        self._parts += payload
        if fin and self._opcode is not None:
            messages.append(WebSocketMessage(self._opcode, _whole(self._opcode, bytes(self._parts))))
            self._opcode = None
            self._parts.clear()


def _whole(opcode: Opcode, data: bytes) -> bytes:
    """The message's octets; text must be UTF-8 (RFC 6455 section 8.1)."""
    if opcode is Opcode.TEXT and not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            raise BadFrame("websocket-not-utf8", Status.INVALID_PAYLOAD) from None
    return data


def unmask(key: bytes, data: bytes) -> bytes:
    """Octets of a client without their mask (RFC 6455 section 5.3); masks them too."""
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


def frame(opcode: Opcode, data: bytes) -> bytes:
    """A frame of the server, never masked (RFC 6455 section 5.1)."""
    size = len(data)
    if size <= CONTROL:
        return bytes((FIN | opcode, size)) + data
    if size < 65536:
        return bytes((FIN | opcode, LENGTH16)) + size.to_bytes(2, "big") + data
    return bytes((FIN | opcode, LENGTH64)) + size.to_bytes(8, "big") + data


def closing(status: int | None, reason: str = "") -> bytes:
    """A Close frame; without a status where the peer's had none. `reason` is for people, and short (section 5.5.1)."""
    return frame(Opcode.CLOSE, b"" if status is None else status.to_bytes(2, "big") + reason.encode())


def close_status(payload: bytes) -> int | None:
    """The status that answers a peer's Close: its own, or 1002 where that breaks the rules (section 7.4)."""
    if not payload:
        return None
    status = int.from_bytes(payload[:2], "big")
    known = 1000 <= status <= 1014 and status not in (1004, 1005, 1006)
    if len(payload) == 1 or not (known or 3000 <= status <= 4999):
        return Status.PROTOCOL_ERROR
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return Status.PROTOCOL_ERROR
    return status
