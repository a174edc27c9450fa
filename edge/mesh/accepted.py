"""Accepted: the connections that other edges have dialled, and what we answer there.

Who has not proved the key gets a second, and place is kept for few of them: a stranger costs little, whatever he does.
"""

import os
from collections.abc import Mapping
from typing import Protocol

from edge.core import actions
from edge.mesh import frames
from edge.mesh.channel import UNSENT, Channel, size
from edge.mesh.frames import Frame, Hello
from edge.mesh.link import IDLE, SILENT
from edge.mesh.sealing import NONCE, Sealing
from runtime.metrics import dropped

STRANGERS = 64
"""Connections that have not proved the key; the oldest goes first, since an edge needs but a moment."""
ACCEPTED = 1000
"""Connections that have."""
DEAF = 5 * (IDLE + SILENT)
"""Seconds of silence after which a connection is closed: its dialler has given it up long ago."""
MARK = "@"
"""What ids begin with that are not the core's: then our number of the connection, again this, and the id there."""


class AcceptedOwner(Protocol):
    """Who does what is asked."""

    def deliver(self, send: actions.Send) -> None: ...
    def receive_forward(self, forward: frames.ForwardFrame, peer: Hello, now: float) -> None: ...
    def claims(self, seek: frames.SeekFrame, peer: Hello, now: float) -> bool: ...
    def back(self, edge: str) -> None: ...
    def soon(self) -> None: ...


class Accepted:
    """The accepted connections of one edge (the `End` of their channels)."""

    def __init__(self, hello: Hello, keys: Mapping[str, bytes], owner: AcceptedOwner) -> None:
        self._hello = hello
        self._keys = keys
        self._owner = owner
        self._strangers: dict[Channel, float] = {}
        """Since when, the oldest first."""
        self._accepted: dict[int, Channel] = {}
        """By our number of the connection."""
        self._numbers: dict[Channel, int] = {}
        self._number = 0
        self._answers: dict[Channel, list[Frame]] = {}
        """What is to be written after this wake-up."""

    def accept(self) -> Channel:
        """A channel for a connection that comes in."""
        if len(self._strangers) >= STRANGERS:
            dropped("edge-too-many-strangers")
            self._turn_away(next(iter(self._strangers)))
        channel = Channel(self, Sealing(self._keys, os.urandom(NONCE), dials=False), self._hello, dials=False)
        self._strangers[channel] = channel.heard_at
        return channel

    def stop(self) -> None:
        """Closes all; what was written still leaves."""
        for channel in (*self._strangers, *self._accepted.values()):
            channel.close()

    def failed(self, id_: str, status: int) -> bool:
        """Whether an id is another edge's, which is then told that it was not sent."""
        if not id_.startswith(MARK):
            return False
        number, _, theirs = id_[len(MARK) :].partition(MARK)
        channel = self._accepted.get(int(number))
        if channel is None:
            dropped("edge-unsent-late")
        else:
            self._answer(channel, frames.Unsent(theirs, status))
        return True

    def write(self) -> None:
        """Writes the answers."""
        answers, self._answers = self._answers, {}
        for channel, said in answers.items():
            channel.write(said, sum(map(size, said)))

    def beat(self, now: float, late: float) -> None:
        """Closes those who say nothing; `late` is how long this process itself was not there."""
        for channel, since in list(self._strangers.items()):
            if since + late > now - SILENT:
                break
            dropped("edge-stranger")
            self._turn_away(channel)
        for number, channel in list(self._accepted.items()):
            if channel.heard_at + late < now - DEAF:
                dropped("edge-deaf")
                self._leave(number, channel)

    def _turn_away(self, channel: Channel) -> None:
        del self._strangers[channel]
        channel.abort()

    def _leave(self, number: int, channel: Channel) -> None:
        del self._accepted[number], self._numbers[channel]
        self._answers.pop(channel, None)
        channel.abort()

    def _answer(self, channel: Channel, frame: Frame) -> None:
        if channel.waiting > UNSENT:
            dropped("edge-unread")
            self._leave(self._numbers[channel], channel)
            return
        self._answers.setdefault(channel, []).append(frame)
        self._owner.soon()

    # --- called by channels ---------------------------------------------------------------------------------------

    def proved(self, channel: Channel) -> None:
        """A connection has proved the key; the same edge's others are what it has left behind."""
        del self._strangers[channel]
        for number, other in list(self._accepted.items()):
            if other.peer == channel.peer:
                self._leave(number, other)
        if len(self._accepted) >= ACCEPTED:
            dropped("edge-too-many")
            channel.abort()
            return
        self._number += 1
        self._accepted[self._number] = channel
        self._numbers[channel] = self._number
        if channel.peer is not None:
            self._owner.back(channel.peer.edge)

    def lost(self, channel: Channel) -> None:
        """A connection is closed."""
        self._strangers.pop(channel, None)
        self._answers.pop(channel, None)
        self._accepted.pop(self._numbers.pop(channel, 0), None)

    def heard(self, channel: Channel, asked: list[Frame], now: float) -> None:
        """Another edge asks these of us."""
        owner, peer = self._owner, channel.peer
        for frame in asked:
            number = self._numbers.get(channel)
            if number is None or peer is None:
                return  # closed meanwhile
            if isinstance(frame, frames.SendFrame):
                id_ = f"{MARK}{number}{MARK}{frame.id}" if frame.id else ""
                owner.deliver(actions.Send(frame.flow, frame.data, frame.port, "", "", id_, frame.name))
            elif isinstance(frame, frames.ForwardFrame):
                owner.receive_forward(frame, peer, now)
            elif isinstance(frame, frames.SeekFrame):
                if owner.claims(frame, peer, now) and frame.id:
                    self._answer(channel, frames.ClaimFrame(frame.id))
            elif isinstance(frame, frames.Ping):
                self._answer(channel, frames.Pong())
            else:
                dropped("edge-frame-unexpected")
