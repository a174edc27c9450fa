"""A broker with a door: a second listener, where requests of some kinds do not pass while it is shut for them."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramal import backends
from ramal.processes import free_port

HOST = backends.HOST
GROUP = frozenset({8, 11, 12, 13, 14})
"""API keys: OffsetCommit, JoinGroup, Heartbeat, LeaveGroup, SyncGroup."""
TRANSACTIONS = frozenset({22, 24, 26})
"""InitProducerId with a transactional id, AddPartitionsToTxn, EndTxn."""


class Door:
    """Passes on what goes to and from the broker; of requests only those that are not `shut`, by API key."""

    def __init__(self) -> None:
        self.port, self._inner = free_port(), free_port()
        self.shut: frozenset[int] = frozenset()
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    def properties(self, text: str) -> str:
        """A broker's properties with this listener: who comes through it is told no other."""
        text = text.replace(",CONTROLLER://", f",DOOR://{HOST}:{self._inner},CONTROLLER://", 1)
        text = text.replace("advertised.listeners=", f"advertised.listeners=DOOR://{HOST}:{self.port},", 1)
        text = text.replace("protocol.map=", "protocol.map=DOOR:PLAINTEXT,", 1)
        return text + "inter.broker.listener.name=PLAINTEXT\n"

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    broker = socket.create_connection((HOST, self._inner))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._pass_requests, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._pass_answers, args=(broker, client), daemon=True).start()

    def _pass_requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), client, broker, client.makefile("rb") as requests:
            while size := requests.read(4):
                request = requests.read(int.from_bytes(size, "big"))
                if _kind(request) not in self.shut:
                    broker.sendall(size + request)
            broker.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pass_answers(broker: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := broker.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def _kind(request: bytes) -> int:
    """Its API key; -1 for an InitProducerId that has nothing to do with transactions."""
    key = int.from_bytes(request[:2], "big")
    client_id = 10 + max(0, int.from_bytes(request[8:10], "big", signed=True))
    return -1 if key == 22 and request[client_id : client_id + 2] == b"\xff\xff" else key


@contextlib.contextmanager
def broker_behind(door: Door, directory: Path) -> Iterator[backends.KafkaServer]:
    """A broker that can be reached directly and through the door."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "_KAFKA_PROPERTIES", door.properties(backends._KAFKA_PROPERTIES))
        server = backends.start_kafka(directory)
    try:
        yield server
    finally:
        server.child.kill()
        door.close()
