"""A channel: one connection between two edges, on either side, from the first octet to the last."""

import asyncio
import time
from typing import Protocol, cast

from edge.mesh.frames import Frame, Hello, decode, decode_hello, encode
from edge.mesh.sealing import RECORD, BadRecord, Sealing
from runtime.metrics import dropped

UNSENT = 4 * 1024 * 1024
"""Octets that wait for the other edge, in all; what comes beyond is not sent."""
BATCH = RECORD // 2
"""Octets after which a record is ended and another begun; a frame is less than that."""
FRAME = RECORD // 4
"""The most octets of a message in a frame."""
OVERHEAD = 256
"""Octets of a frame beside its message, about."""


def size(frame: Frame) -> int:
    """About how many octets a frame takes."""
    return OVERHEAD + len(getattr(frame, "data", b""))


class End(Protocol):
    """Who has the channel."""

    def proved(self, channel: "Channel") -> None:
        """The other side has proved the key: `channel.peer` says who it is."""

    def heard(self, channel: "Channel", frames: list[Frame], now: float) -> None:
        """Frames have come."""

    def lost(self, channel: "Channel") -> None:
        """The connection is closed."""


class Channel(asyncio.Protocol):
    """One side of one connection. The dialler says first who it is, and asks; the acceptor answers."""

    def __init__(self, end: End, sealing: Sealing, hello: Hello, *, dials: bool) -> None:
        self._end = end
        self._sealing = sealing
        self._hello = encode(hello)
        self._dials = dials
        self._said = self._ended = False
        self._transport: asyncio.Transport | None = None
        self.peer: Hello | None = None
        """Who the other side has proved to be."""
        self.heard_at = time.monotonic()
        """When octets came last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._ended:
            self.abort()
            return
        self._transport.write(self._sealing.head)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self.heard_at = time.monotonic()
        try:
            records = self._sealing.feed(data)
        except BadRecord as broken:
            dropped(broken.name)
            self.abort()
            return
        if self._dials and self._sealing.agreed:
            self._say()
        for record in records:
            if self._ended:
                return  # by what the last one led to
            if self.peer is None:
                self._meet(record)
            else:
                frames, unreadable = decode(record)
                if unreadable:
                    dropped("edge-frame-unreadable", unreadable)
                self._end.heard(self, frames, self.heard_at)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._end.lost(self)

    def eof_received(self) -> bool:
        return False  # half a connection is none

    @property
    def open(self) -> bool:
        """Whether frames can be written."""
        return self.peer is not None and self._transport is not None

    @property
    def waiting(self) -> int:
        """Octets that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def write(self, frames: list[Frame], octets: int) -> None:
        """Writes frames of about so many octets at once, in as few records as that allows."""
        if self._transport is None:
            return
        seal = self._sealing.seal
        if octets <= BATCH:
            self._transport.write(seal(encode(frames)))
            return
        records, begin, total = [], 0, 0
        for at, frame in enumerate(frames):
            total += size(frame)
            if total > BATCH:  # no frame alone is as large as that
                records.append(seal(encode(frames[begin:at])))
                begin, total = at, size(frame)
        records.append(seal(encode(frames[begin:])))
        self._transport.write(b"".join(records))

    def close(self) -> None:
        """Closes it when all is written."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Closes it now, or as soon as it is there."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
            self._transport = None  # nothing more is read from it: `connection_lost` comes later

    def _say(self) -> None:
        if not self._said and self._transport is not None:
            self._said = True
            self._transport.write(self._sealing.seal(self._hello))

    def _meet(self, record: bytes) -> None:
        peer = decode_hello(record)
        if peer is None:
            dropped("edge-hello-unreadable")
            self.abort()
            return
        self.peer = peer
        if not self._dials:
            self._say()
        self._end.proved(self)
