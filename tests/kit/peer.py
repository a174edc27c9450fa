"""A peer that an edge sends to, over TCP or TLS."""

import asyncio
import ssl

from edge.core.flow import Flow
from tests.kit.transport import DEADLINE, Authority


class Peer:
    """A listener that notes who connects and what comes."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.accepted = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            self.writers.append(writer)
            self.connections.put_nowait((reader, writer))

        self.server = await asyncio.start_server(accept, host, 0, ssl=context)
        return int(self.server.sockets[0].getsockname()[1])

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(self.connections.get(), DEADLINE)

    async def stop(self) -> None:
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        if self.server:
            self.server.close()
            await self.server.wait_closed()


async def octets(reader: asyncio.StreamReader, count: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(count), DEADLINE)


def new(transport: str, port: int, host: str = "127.0.0.1") -> Flow:
    """A way to an address for which no connection is named."""
    return Flow(transport, "", 0, host, port)


def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))
