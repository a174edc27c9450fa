"""Connections that we open: what is for one that is being opened waits for it, all of it bounded.

A peer on WebSocket cannot be connected to: it has no server (RFC 7118 section 4).
"""

import asyncio

from edge.core.actions import Send
from edge.transport.connections import HANDSHAKE_SECONDS, Address, Streams
from edge.transport.proxy_protocol import Parties
from edge.transport.reading import UNSENT
from edge.transport.tcp import TcpConnection
from edge.transport.tls import Certificates
from runtime.tasks import Tasks

DIALS = 64
"""Connections that are being opened at one time."""
RESPONSE_DIALS = 16
"""When so many are, none is opened for a response: a sender that closes at once may name any port to be answered at."""
WAITING = 64
"""Messages for one of them."""
DIAL_SECONDS = {"tcp": 1.0, "tls": 2.0}
"""RFC 3261 section 18.1.1 goes from TCP back to UDP when there is no connection; the peer's caller waits for that."""


class Dials:
    """Opens connections to peers."""

    def __init__(self, streams: Streams, certificates: Certificates) -> None:
        self._streams, self._certificates = streams, certificates
        self._waiting: dict[Address, list[Send]] = {}
        self._tasks = Tasks()

    def send(self, send: Send, address: Address) -> None:
        """Sends by a new connection; a failure is told."""
        waiting = self._waiting.get(address)
        if waiting is not None:
            if len(waiting) >= WAITING or sum(len(each.data) for each in waiting) + len(send.data) > UNSENT:
                self._streams.fail(send, "dial-queue-full")
            else:
                waiting.append(send)
        elif address[0] not in DIAL_SECONDS or not address[2]:
            self._streams.fail(send, "cannot-dial")
        elif len(self._waiting) >= (RESPONSE_DIALS if send.data.startswith(b"SIP/") else DIALS):
            self._streams.fail(send, "too-many-dials")
        else:
            self._waiting[address] = [send]
            self._tasks.begin(self._dial(address), "dial")

    async def stop(self) -> None:
        """Opens nothing any more."""
        await self._tasks.stop()

    async def _dial(self, address: Address) -> None:
        try:
            connection = await self._connected(address)
        finally:
            waiting = self._waiting.pop(address)
        for send in waiting:
            if connection is not None and connection.open:
                connection.send(send)
            else:
                self._streams.fail(send, "dial-failed")
        self._streams.receiver.later()

    async def _connected(self, address: Address) -> TcpConnection | None:
        """The connection; None if there is no place for one, or nobody answers who should."""
        transport, host, port, name = address
        if not self._streams.take_place(host):
            return None
        parties = Parties(host, port, "", 0)
        connection = TcpConnection(self._streams, transport, host, parties, dialled=True, name=name)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_SECONDS[transport]):
                if transport == "tls":
                    context = self._certificates.client(loop.time())
                    await loop.create_connection(
                        lambda: connection,
                        host,
                        port,
                        ssl=context,
                        server_hostname=name or host,
                        ssl_shutdown_timeout=HANDSHAKE_SECONDS,
                    )
                else:
                    await loop.create_connection(lambda: connection, host, port)
        except (OSError, TimeoutError, ValueError):  # ValueError: a name that cannot be put into a TLS handshake
            return None
        else:
            return connection
        finally:
            if not connection.entered:
                connection.refused = True
                self._streams.leave_place(host)
