"""The way to rtpengine: its ng protocol over UDP, to several servers.

A command is a cookie, a space and a bencoded dictionary; the reply brings the same cookie. A copy of a command is
answered by rtpengine with the reply to the first, so what is not answered is simply sent again. All of a call goes
to one server, chosen by its Call-ID among those that answer pings, so that every edge chooses the same one. If that
server falls silent, its media is gone with it: what comes next of the call goes to another.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b

from edge.config import endpoint
from edge.core.actions import Media
from edge.outside import bencode
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

DEADLINE = 1.0
"""Seconds after which a command is answered with None."""
AGAIN = 0.25
"""Seconds between two copies of a command."""
TICK = 0.1
"""Seconds between two looks at what is not answered yet."""
PING = 1.0
"""Seconds between two pings of a server."""
MOST = 10_000
"""Commands without an answer; above that they are answered with None at once."""

Reply = dict[str, object]
Relayed = Callable[[int, Reply | None], None]


class _Command:
    """A command that is on its way."""

    __slots__ = ("again", "at", "call_id", "id", "octets", "server")

    def __init__(self, id_: int, call_id: bytes, octets: bytes, server: "_Server", now: float) -> None:
        self.id = id_
        self.call_id = call_id
        self.octets = octets
        self.server = server
        self.at = now
        self.again = now + AGAIN


class _Server(asyncio.DatagramProtocol):
    """One rtpengine."""

    def __init__(self, name: str, received: Callable[[bytes], None], lost: Callable[["_Server"], None]) -> None:
        self.name = name
        self.host, self.port = endpoint(name, "RAMAL_EDGE_RTPENGINE")
        self.up = True
        """Until it is known to be away: the first call need not wait for the first pong."""
        self._received, self._lost = received, lost
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """Resolves its name and connects the socket, if there is none; raises OSError or TimeoutError."""
        if self._transport is None:
            async with asyncio.timeout(DEADLINE):
                self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: self, remote_addr=(self.host, self.port)
                )

    def close(self) -> None:
        if self._transport:
            self._transport.close()
            self._transport = None

    def send(self, octets: bytes) -> None:
        if self._transport:
            self._transport.sendto(octets)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._received(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, ConnectionRefusedError):
            self._lost(self)
        else:
            dropped("media-send-failed")


class Rtpengine:
    """Sends commands and tells the replies; owns one connected socket per server."""

    def __init__(self, servers: Sequence[str], relayed: Relayed) -> None:
        """`servers` are `host:port` each (ConfigError if not). `relayed` gets each command's id with its reply.

        A reply's keys are str, its strings bytes; None means no answer within DEADLINE. `relayed` is never called
        from within `media`.
        """
        self._servers = [_Server(name, self._received, self._lost) for name in servers]
        self._relayed = relayed
        self._asked: dict[bytes, _Command] = {}
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        # Who cannot see our datagrams cannot answer in rtpengine's name.
        self._cookies = (f"{secrets.token_hex(6)}_{number}".encode() for number in itertools.count(1))
        self._watches: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Opens the sockets and begins to ping; a server that is not there is waited for in the background."""
        self._loop = asyncio.get_running_loop()
        for server in self._servers:
            with contextlib.suppress(OSError, TimeoutError):  # its watch tries again and says so
                await server.open()
            self._watches.append(asyncio.create_task(self._watch(server), name=f"rtpengine {server.name}"))

    async def stop(self) -> None:
        """Closes everything; commands without an answer get none."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for server in self._servers:
            server.close()
        self._asked.clear()

    def media(self, commands: Sequence[Media]) -> None:
        """Sends all commands of one wake-up."""
        if self._loop is None:
            return
        now = self._loop.time()
        for id_, command in commands:
            call_id = str(command["call-id"]).encode("utf-8", "surrogateescape")
            server = self._serving(call_id)
            if server is None or len(self._asked) >= MOST:
                dropped("media-queue-full" if server else "media-away")
                self._loop.call_soon(self._relayed, id_, None)
                continue
            cookie = next(self._cookies)
            asked = _Command(id_, call_id, cookie + b" " + bencode.encode(command), server, now)
            self._asked[cookie] = asked
            server.send(asked.octets)
        self._set_timer()

    def _serving(self, call_id: bytes) -> _Server | None:
        """The server of this call; every edge that sees the same servers answer chooses the same one."""
        up = [server for server in self._servers if server.up]
        if len(up) < 2:
            return up[0] if up else None
        return max(up, key=lambda server: blake2b(call_id, key=server.name.encode()[:64], digest_size=8).digest())

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _received(self, octets: bytes) -> None:
        cookie, _, text = octets.partition(b" ")
        ping = self._pings.pop(cookie, None)
        if ping is not None:
            if not ping.done():
                ping.set_result(None)
            return
        asked = self._asked.get(cookie)
        if asked is None:
            dropped("media-reply-unknown")  # the reply to a copy, or one that came too late
            return
        try:
            reply = bencode.decode(text)
        except bencode.BadBencode:
            reply = b""
        if not isinstance(reply, dict):
            dropped("media-reply-bad")
            return
        del self._asked[cookie]
        if reply.get("result") != b"ok":
            dropped("media-refused")
            log.debug("rtpengine refused", extra={"call_id": repr(asked.call_id), "cause": repr(reply)})
        self._relayed(asked.id, {**reply})

    # --- time --------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._asked and self._timer is None and self._loop:
            self._timer = self._loop.call_later(TICK, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._loop is None:
            return
        now = self._loop.time()
        late = [cookie for cookie, asked in self._asked.items() if now >= asked.at + DEADLINE]
        unanswered = [self._asked.pop(cookie) for cookie in late]
        for asked in self._asked.values():
            if now >= asked.again:
                asked.again += AGAIN
                asked.server.send(asked.octets)
        for asked in unanswered:
            dropped("media-timeout")
            self._relayed(asked.id, None)
        self._set_timer()

    # --- health ------------------------------------------------------------------------------------------------------

    async def _watch(self, server: _Server) -> None:
        """Pings for ever. A server that does not answer is resolved anew: a container has moved."""
        while True:
            try:
                await server.open()
                answered = await self._ping(server) or await self._ping(server)
            except (OSError, TimeoutError):
                answered = False
            if answered:
                self._found(server)
            else:
                self._lost(server)
                server.close()
            await asyncio.sleep(PING)

    async def _ping(self, server: _Server) -> bool:
        cookie = next(self._cookies)
        pong = self._pings[cookie] = asyncio.get_running_loop().create_future()
        server.send(cookie + b" " + bencode.encode({"command": "ping"}))
        try:
            async with asyncio.timeout(DEADLINE / 2):
                await pong
        except TimeoutError:
            return False
        finally:
            self._pings.pop(cookie, None)
        return True

    def _found(self, server: _Server) -> None:
        if not server.up:
            server.up = True
            log.warning("rtpengine answers again", extra={"server": server.name})

    def _lost(self, server: _Server) -> None:
        """No call begins there until it answers a ping; what waits for it goes to another, if there is one."""
        if not server.up:
            return
        server.up = False
        log.warning("rtpengine is away", extra={"server": server.name})
        for asked in self._asked.values():
            other = self._serving(asked.call_id) if asked.server is server else None
            if other:
                asked.server = other
                other.send(asked.octets)
