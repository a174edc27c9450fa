"""Octets over a connection that ldap3 has opened: its socket may have TLS, which asyncio's own calls do not know.

The socket does not block; who waits for it waits on the loop.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

RECEIVED_AT_ONCE = 256 * 1024


async def send(connection: socket.socket, octets: bytes) -> None:
    """Sends all; with TLS too, which asyncio's own calls on sockets do not know."""
    loop = asyncio.get_running_loop()
    while octets:
        try:
            octets = octets[connection.send(octets) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            await _ready(connection, loop.add_writer, loop.remove_writer)
        except ssl.SSLWantReadError:
            await _ready(connection, loop.add_reader, loop.remove_reader)


async def receive(connection: socket.socket) -> bytes:
    """What has come; nothing at the connection's end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connection.recv(RECEIVED_AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError):
            await _ready(connection, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(connection, loop.add_writer, loop.remove_writer)


async def _ready(connection: socket.socket, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    ready = asyncio.get_running_loop().create_future()
    descriptor = connection.fileno()
    add(descriptor, _be_done, ready)
    try:
        await ready
    finally:
        remove(descriptor)


def _be_done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
