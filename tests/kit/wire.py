"""SIP on the wire for tests: one message at a time over UDP, TCP, TLS, WS and WSS, each of them blocking.

Independent of sipcore and of the edge's own WebSocket, so that a mistake there is not made twice.
"""

import base64
import contextlib
import copy
import hashlib
import os
import secrets
import socket
import ssl
import struct
import time
from pathlib import Path

from tests.kit.sip import parse

Address = tuple[str, int]

TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
DEADLINE = 20.0
"""Seconds of any wait for a message: more than a slow machine needs."""
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
"""Opcodes of WebSocket frames."""
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Silent(AssertionError):
    """Nothing came within the deadline."""


class Closed(ConnectionError):
    """The other side has closed the connection."""


class Link:
    """A way to one edge. `receive` gives the octets of one message and where they came from."""

    def __init__(self, transport: str, edge: Address) -> None:
        self.transport, self.edge = transport, edge
        self.local: Address = ("", 0)

    def send(self, octets: bytes) -> None:
        """Sends one message."""
        raise NotImplementedError

    def receive(self, until: float) -> tuple[bytes, Address]:
        """The next message by this moment of the monotonic clock; raises Silent, or Closed."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes it."""
        raise NotImplementedError


class UdpLink(Link):
    """A socket that hears from anybody, and remembers from whom."""

    def __init__(self, edge: Address, own: str = "127.0.0.1") -> None:
        super().__init__("udp", edge)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((own, 0))
        self.local = self._socket.getsockname()

    def through(self, edge: Address) -> "UdpLink":
        """The same socket towards another edge, as behind a balancer without affinity."""
        other = copy.copy(self)
        other.edge = edge
        return other

    def send(self, octets: bytes) -> None:
        self._socket.sendto(octets, self.edge)

    def receive(self, until: float) -> tuple[bytes, Address]:
        self._socket.settimeout(max(0.001, until - time.monotonic()))
        try:
            octets, source = self._socket.recvfrom(65536)
        except TimeoutError:
            raise Silent("nothing came by UDP") from None
        return octets, source

    def close(self) -> None:
        self._socket.close()


class StreamLink(Link):
    """TCP or TLS."""

    def __init__(self, transport: str, edge: Address, authority: Path | None = None) -> None:
        super().__init__(transport, edge)
        self.socket = connect(transport, edge, authority)
        self.local = self.socket.getsockname()
        self._octets = b""

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def receive(self, until: float) -> tuple[bytes, Address]:
        while (end := self._whole()) < 0:
            self._octets += self._more(until)
        message, self._octets = self._octets[:end], self._octets[end:]
        return message, self.edge

    def _whole(self) -> int:
        """Where the first message ends; -1 while it is not whole."""
        self._octets = self._octets.lstrip(b"\r\n")
        head, found, _ = self._octets.partition(b"\r\n\r\n")
        if not found:
            return -1
        end = len(head) + 4 + int(parse(head).first("content-length"))
        return end if len(self._octets) >= end else -1

    def _more(self, until: float) -> bytes:
        self.socket.settimeout(max(0.001, until - time.monotonic()))
        try:
            octets = self.socket.recv(65536)
        except TimeoutError:
            raise Silent(f"nothing came by {self.transport.upper()}") from None
        if not octets:
            raise Closed(f"the edge has closed the {self.transport.upper()} connection")
        return octets

    def close(self) -> None:
        self.socket.close()


class WebSocketLink(StreamLink):
    """WS or WSS: one SIP message is one text message (RFC 7118)."""

    def __init__(self, transport: str, edge: Address, authority: Path | None = None) -> None:
        super().__init__(transport, edge, authority)
        status, rows = self.shake()
        assert status == 101, (status, rows)
        assert rows["sec-websocket-protocol"] == "sip"

    def shake(self, *, path: str = "/sip", drop: str = "", **changes: str) -> tuple[int, dict[str, str]]:
        """The handshake: status and rows of the answer. `changes` by row, with `_` for `-`; `drop` leaves one out."""
        status, rows, self._octets = shake(self.socket, self.edge, path=path, drop=drop, **changes)
        return status, rows

    def send(self, octets: bytes) -> None:
        self.frame(TEXT, octets)

    def frame(self, opcode: int, octets: bytes, *, masked: bool = True, final: bool = True) -> None:
        """Sends one frame."""
        size = len(octets)
        head = bytes([opcode | (0x80 if final else 0)])
        flag = 0x80 if masked else 0
        if size < 126:
            head += bytes([flag | size])
        else:
            head += struct.pack("!BH", flag | 126, size) if size < 65536 else struct.pack("!BQ", flag | 127, size)
        key = os.urandom(4) if masked else b""
        if masked:
            octets = bytes(octet ^ key[index % 4] for index, octet in enumerate(octets))
        self.socket.sendall(head + key + octets)

    def receive(self, until: float) -> tuple[bytes, Address]:
        while True:
            opcode, octets = self.next_frame(until)
            if opcode == PING:
                self.frame(PONG, octets)
            elif opcode == CLOSE:
                raise Closed(f"the edge has said goodbye: {octets!r}")
            elif opcode in (TEXT, BINARY):
                return octets, self.edge

    def next_frame(self, until: float) -> tuple[int, bytes]:
        """The next frame: opcode and octets; never masked, always whole."""
        while True:
            found = _frame_of(self._octets)
            if found is not None:
                opcode, octets, self._octets = found
                return opcode, octets
            self._octets += self._more(until)


def _frame_of(octets: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of these octets, and what follows; None while it is not whole."""
    if len(octets) < 2:
        return None
    assert octets[0] & 0x80, "the edge does not cut its messages"
    assert not octets[1] & 0x80, "a server's frame is not masked (RFC 6455 section 5.1)"
    size, at = octets[1], 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(octets) < 2 + width:
            return None
        size, at = int.from_bytes(octets[2 : 2 + width], "big"), 2 + width
    if len(octets) < at + size:
        return None
    return octets[0] & 15, octets[at : at + size], octets[at + size :]


def shake(
    to: socket.socket, edge: Address, *, path: str = "/sip", drop: str = "", **changes: str
) -> tuple[int, dict[str, str], bytes]:
    """A WebSocket handshake: status and rows of the answer, and what came behind it."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    rows = {
        "Host": f"{edge[0]}:{edge[1]}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "sip",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    rows.pop(drop, None)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in rows.items())]
    to.sendall("\r\n".join([*lines, "\r\n"]).encode())
    octets = b""
    while b"\r\n\r\n" not in octets:
        more = to.recv(65536)
        assert more, "the edge closed instead of answering the handshake"
        octets += more
    head, _, rest = octets.partition(b"\r\n\r\n")
    start, *answered = head.decode().split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in answered)}
    status = int(start.split()[1])
    if status == 101:
        proof = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        assert found["sec-websocket-accept"] == proof
    return status, found, rest


def connect(transport: str, edge: Address, authority: Path | None = None) -> socket.socket:
    """A connection to an edge; with TLS the edge must prove to be that address by this certificate."""
    plain = socket.create_connection(edge, timeout=DEADLINE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if transport not in ("tls", "wss"):
        return plain
    try:
        return ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname=edge[0])
    except BaseException:
        with contextlib.suppress(OSError):
            plain.close()
        raise


def link(transport: str, edge: Address, authority: Path | None = None) -> Link:
    """A new way to an edge."""
    if transport == "udp":
        return UdpLink(edge)
    if transport in ("tcp", "tls"):
        return StreamLink(transport, edge, authority)
    return WebSocketLink(transport, edge, authority)
