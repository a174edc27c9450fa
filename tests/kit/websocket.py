"""A WebSocket by octets of our own."""

import asyncio
import contextlib
import os

from edge.transport.websocket_frames import Opcode, unmask
from tests.kit.transport import DEADLINE, TestEdge

HEAD = {
    "Host": "example.test",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "sip",
}


class RawClient:
    """A WebSocket client that can break every rule."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, edge: TestEdge) -> "RawClient":
        return cls(*await asyncio.open_connection("127.0.0.1", edge.port("ws")))

    @classmethod
    async def shaken(cls, edge: TestEdge) -> "RawClient":
        client = await cls.connect(edge)
        assert (await client.shake())[0] == 101
        return client

    async def shake(self, start: str = "GET /sip HTTP/1.1", **changes: str | None) -> tuple[int, dict[str, str]]:
        rows = {**HEAD, **{name.replace("_", "-"): value for name, value in changes.items()}}
        text = "".join(f"{name}: {value}\r\n" for name, value in rows.items() if value is not None)
        self.writer.write(f"{start}\r\n{text}\r\n".encode())
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)).decode()
        lines = head.strip().split("\r\n")
        return int(lines[0].split(" ")[1]), dict(line.split(": ", 1) for line in lines[1:])

    def send(self, opcode: int, data: bytes, *, fin: bool = True, masked: bool = True) -> None:
        first = bytes(((0x80 if fin else 0) | opcode,))
        bit = 0x80 if masked else 0
        size = bytes((bit | len(data),)) if len(data) < 126 else bytes((bit | 126,)) + len(data).to_bytes(2, "big")
        key = os.urandom(4)
        self.writer.write(first + size + (key + unmask(key, data) if masked else data))

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which must not be masked (W04)."""
        head = await asyncio.wait_for(self.reader.readexactly(2), DEADLINE)
        assert head[0] & 0xF0 == 0x80
        assert not head[1] & 0x80
        size = head[1]
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        return head[0] & 0x0F, await asyncio.wait_for(self.reader.readexactly(size), DEADLINE)

    async def close_status(self) -> int:
        """The status of the Close that comes next."""
        opcode, payload = await self.frame()
        assert opcode == Opcode.CLOSE
        return int.from_bytes(payload[:2], "big")

    async def ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self.reader.read(), DEADLINE) == b""
        self.writer.close()
        return True
