"""What the process that has started this one has left it (`ramal.workers`): sockets, and how to end with the others.

So several processes share one listening socket, a socket outlives the process that reads it, and none of them is gone
while another one still needs it.
"""

import json
import os
import select
import socket
from collections.abc import Mapping

VARIABLE = "INHERITED_SOCKETS"
"""Names descriptors, as JSON: those of sockets by `key`, and the two ends of a pipe."""
READING, WRITING = "together, reading", "together, writing"


def key(use: str, host: str, port: int) -> str:
    """What a socket is known by: `udp`, `tcp`, …, `http`, and the address that was asked for."""
    return f"{use} {host} {port}"


def inherited(use: str, host: str, port: int, environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The socket that was opened for this use and address, bound already; None if none was."""
    descriptor = _left(key(use, host, port), environ)
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _left(name: str, environ: Mapping[str, str]) -> int | None:
    descriptor: int | None = json.loads(environ.get(VARIABLE, "{}")).get(name)
    if descriptor is not None:
        os.set_inheritable(descriptor, False)
    return descriptor


class Together:
    """Those who were started with us, and end with us.

    A pipe whose writing end all have: who has nothing left to do closes his, as does the kernel for who dies. Nobody
    reads: octets in it say that all are to end.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._reading = _left(READING, environ)
        self._writing = _left(WRITING, environ)

    def done(self) -> None:
        """We have nothing left to do."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    @property
    def waits(self) -> bool:
        """Whether all are to end, and one of them still has something to do."""
        if self._reading is None:
            return False
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        events = sum(event for _, event in poll.poll(0))
        return bool(events & select.POLLIN) and not events & select.POLLHUP
