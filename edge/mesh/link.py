"""A link: the way from this edge to one life of another, kept open by dialling, and what is on its way there.

The other edge lives until its connection is refused, is closed and does not open again, or is silent for a second
while something is outstanding (CHECKLIST N12). What it has not been seen to take (by a pong) is said again on a
connection that is opened anew: SIP absorbs repetitions, and on a stream nobody else would repeat it.
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Protocol

from edge.mesh.channel import UNSENT, Channel, End, size
from edge.mesh.frames import Frame, Hello, Ping
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

SILENT = 1.0
"""Seconds that an edge may owe a sign of life, a new connection included."""
IDLE = 0.75
"""Seconds without a sign after which one is asked for though nothing is outstanding."""
SETTLED = 1.0
"""Seconds that a connection must have lasted to be opened again at once."""
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds between two attempts to reach a dead edge; doubled each time."""
UNPROVED = 2 * 1024 * 1024
"""Octets kept until they are seen to have been taken; the oldest are then taken for granted."""


class LinkOwner(Protocol):
    """Who has the links."""

    def channel(self, end: End) -> Channel:
        """A channel that dials."""

    def answered(self, link: "Link", frames: list[Frame]) -> None:
        """The other edge has said these."""

    def opened(self, link: "Link") -> None:
        """The link can be written to; it may have been dead before."""

    def died(self, link: "Link", unsent: list[Frame]) -> None:
        """The other edge is dead: once for each time that it lived; what was never written is given back."""


class Link:
    """The way to one life of another edge."""

    def __init__(self, owner: LinkOwner, edge: str, boot: str, host: str, port: int) -> None:
        self._owner = owner
        self.edge, self.boot = edge, boot
        self.host, self.port = host, port
        self.live = True
        """Whether frames for it are taken: from its lease until it is found dead, and when it is back."""
        self.leased_at = 0.0
        """When its lease was last heard of."""
        self._channel: Channel | None = None
        self._queue: list[Frame] = []
        self._queued = 0
        """Octets in it, about."""
        self._unproved: list[Frame] = []
        self._kept = 0
        """Octets in it, about."""
        self._pinged = -1
        """How many of the unproved went before the ping that is out; -1 when none is."""
        self._owes_since = 0.0
        """Since when a sign of life is owed; 0: none is."""
        self._waker = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Dials, and goes on doing so."""
        self._task = asyncio.create_task(self._keep(), name=f"link to {self.edge}")

    async def stop(self) -> None:
        """Ends it: what was written leaves, what was not is dropped."""
        self.live = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def end(self) -> None:
        """That life of the edge is over."""
        self._die("its lease has ended", logging.INFO)
        if self._task is not None:
            self._task.cancel()

    def dial_now(self) -> None:
        """There is news of it: a pause between two attempts ends."""
        self._waker.set()

    # --- frames ---------------------------------------------------------------------------------------------------

    def put(self, frame: Frame) -> bool:
        """Takes a frame for the next `write`; False if too much waits already, or the edge is dead."""
        octets = size(frame)
        waiting = self._channel.waiting if self._channel is not None else 0
        if not self.live or self._queued + waiting + octets > UNSENT:
            return False
        self._queue.append(frame)
        self._queued += octets
        return True

    def write(self, now: float) -> None:
        """Writes what was put, once the connection is there."""
        if self._queue and self._channel is not None and self._channel.open:
            self._write(self._channel, now)

    def _write(self, channel: Channel, now: float) -> None:
        queue, octets = self._queue, self._queued
        self._queue, self._queued = [], 0
        self._unproved += queue
        self._kept += octets
        if not self._owes_since:
            self._owes_since = now
        channel.write(queue, octets)
        if self._kept > UNPROVED:
            self._prove(len(self._unproved) - len(queue))

    def _prove(self, count: int) -> None:
        """So many of the oldest unproved frames have been taken, or are taken for granted."""
        del self._unproved[:count]
        self._kept = sum(map(size, self._unproved))
        if self._pinged > 0:
            self._pinged = max(0, self._pinged - count)

    # --- life -----------------------------------------------------------------------------------------------------

    def beat(self, now: float, late: float) -> None:
        """Asks for a sign of life where one is due, and gives up on an edge that owes one for too long.

        `late` is how long this process itself was not there: that time is nobody's silence.
        """
        channel = self._channel
        if channel is None or not channel.open:
            return
        if self._owes_since:
            self._owes_since += late
            if now - self._owes_since >= SILENT:
                self._die("it is silent")
                channel.abort()
                return
        if self._pinged < 0 and (self._unproved or now - channel.heard_at >= IDLE):
            self._pinged = len(self._unproved)
            if not self._owes_since:
                self._owes_since = now
            channel.write([Ping()], 0)

    def _die(self, why: str, level: int = logging.WARNING) -> None:
        if not self.live:
            return
        self.live = False
        unsent, self._queue, self._queued = self._queue, [], 0
        self._unproved, self._kept = [], 0
        log.log(level, "another edge is lost", extra={"edge": self.edge, "boot": self.boot, "cause": why})
        self._owner.died(self, unsent)

    async def _keep(self) -> None:
        """Dials for ever: at once when a connection that had settled is closed, else after a pause."""
        pause = 0.0
        while True:
            began = time.monotonic()
            why = await self._connect()
            if why:
                self._die(why)
                pause = min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)
            else:
                pause = 0.0 if self.live and time.monotonic() - began >= SETTLED else FIRST_PAUSE
            self._waker.clear()
            with suppress(TimeoutError):  # the pause is over
                async with asyncio.timeout(pause):
                    await self._waker.wait()

    async def _connect(self) -> str:
        """Opens a connection and waits until it is closed; why there was none, or "" if there was one."""
        attempt = _Attempt(self)
        channel = self._owner.channel(attempt)
        self._pinged, self._owes_since = -1, 0.0
        try:
            why = await self._meet(attempt, channel)
            if not why:
                self._open(channel)
                await attempt.closed.wait()
        except asyncio.CancelledError:
            channel.close()  # what was written still leaves
            raise
        finally:
            if self._channel is channel:
                self._channel = None
        channel.abort()
        return why

    async def _meet(self, attempt: "_Attempt", channel: Channel) -> str:
        """Why the edge was not met; "" if it was."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SILENT):
                await loop.create_connection(lambda: channel, self.host, self.port)
                await attempt.settled.wait()
        except TimeoutError:
            return "it says nothing"
        except (OSError, UnicodeError) as error:  # refused, unreachable, no such name
            return str(error) or type(error).__name__
        except Exception as error:  # a bug costs this attempt, not the link
            log.exception("dialling another edge broke")
            dropped("bug")
            return str(error) or "a bug"
        if channel.peer is None:
            return "it does not prove our key"
        if channel.peer != Hello(self.edge, self.boot):
            dropped("edge-other-life")
            return "another life is where it was"
        return "" if channel.open else "it closed at once"

    def _open(self, channel: Channel) -> None:
        self._channel = channel
        # What may not have arrived goes first, in its order.
        self._queue[:0] = self._unproved
        self._queued += self._kept
        self._unproved, self._kept = [], 0
        self.live = True
        self._owner.opened(self)

    def answered(self, frames: list[Frame], now: float) -> None:
        """Frames came from there: it lives."""
        if self._owes_since:
            self._owes_since = now
        self._owner.answered(self, frames)

    def pong(self) -> None:
        """All that was written before the last ping has been taken."""
        self._prove(max(0, self._pinged))
        self._pinged = -1
        if not self._unproved:
            self._owes_since = 0.0


class _Attempt:
    """One dialled connection's news, so that an old one never speaks for a new one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.settled = asyncio.Event()
        """Met, or closed before."""
        self.closed = asyncio.Event()

    def proved(self, _: Channel) -> None:
        self.settled.set()

    def heard(self, _: Channel, frames: list[Frame], now: float) -> None:
        self._link.answered(frames, now)

    def lost(self, _: Channel) -> None:
        self.settled.set()
        self.closed.set()
