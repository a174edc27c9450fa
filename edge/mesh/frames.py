"""Frames: what edges say to each other, many in one record. PURE.

An edge is a transport for the others: the INVITE's edge holds the one transaction, and asks the owner of a flow to
send for it (`SendFrame`); what comes back there is handed to the edge that the branch names (`ForwardFrame`). All
frames that one wake-up brings for an edge are one record: a msgpack array of arrays, each with its tag first. A later
version may add fields at a frame's end, and frames: who does not know a frame drops it alone.
"""

from collections.abc import Sequence

import msgspec

from edge.core.flow import Flow


class SendFrame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Send this by that flow of yours (`edge.core.actions.Send`)."""

    flow: Flow
    data: bytes
    port: int
    id: str = ""
    """If not "", an `Unsent` is awaited when it cannot be sent."""
    name: str = ""


class Unsent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """What you sent by this id did not leave: 430, its connection is gone; 503, anything else.

    408: it did, by a flow whose phone answers pings no more.
    """

    id: str
    status: int


class ForwardFrame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """This came by that flow of mine, and is yours."""

    flow: Flow
    data: bytes


class SeekFrame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """This came by that flow of mine: is its INVITE yours? If so, answered by `ClaimFrame`."""

    id: str
    """"": nobody waits for the answer."""
    flow: Flow
    data: bytes


class ClaimFrame(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """It is mine, and I have taken it."""

    id: str
    yes: bool = True


class Ping(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Do you live? Answered by `Pong`, when all frames before it have been taken."""


class Pong(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """I live."""


Frame = SendFrame | Unsent | ForwardFrame | SeekFrame | ClaimFrame | Ping | Pong


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who speaks: the first record of each side."""

    edge: str
    boot: str


encode = msgspec.msgpack.Encoder().encode
"""The octets of a list of frames, or of a Hello."""

_decode_all = msgspec.msgpack.Decoder(list[Frame]).decode
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.msgpack.Decoder(Frame).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode


def decode(record: bytes) -> tuple[list[Frame], int]:
    """The frames of a record, and how many more in it could not be read. Never raises."""
    try:
        return _decode_all(record), 0
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # one that cannot be read must not cost the others: each by itself
    try:
        parts = _decode_raw(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return [], 1
    frames = _readable(parts)
    return frames, len(parts) - len(frames)


def _readable(parts: Sequence[msgspec.Raw]) -> list[Frame]:
    frames: list[Frame] = []
    for part in parts:
        try:
            frames.append(_decode_one(part))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # counted by the caller
    return frames


def decode_hello(record: bytes) -> Hello | None:
    """Who speaks; None if the record does not say."""
    try:
        return _decode_hello(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
