"""What the core wants done: octets to send, commands to publish, counts. The shell takes it after each wake-up."""

from typing import NamedTuple

from edge.flow import Flow


class Send(NamedTuple):
    """Octets for the remote end of a flow."""

    flow: Flow
    data: bytes
    port: int
    """On UDP, the port at the remote address; on a stream whose connection is gone, that of a new one (0: none)."""


class Publish(NamedTuple):
    """A command for `auth.commands`, encoded."""

    id: str
    key: str
    value: bytes

    def __repr__(self) -> str:
        return f"Publish({self.id!r})"  # the value has the digest's response in it


class Actions:
    """What is to be done, in order."""

    __slots__ = ("drops", "publishes", "sends", "statuses")

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.publishes: list[Publish] = []
        self.drops: dict[str, int] = {}
        """How many messages were dropped or refused, by name."""
        self.statuses: dict[int, int] = {}
        """How many responses were made, by status."""
