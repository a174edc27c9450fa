"""A real rtpengine on loopback, without its kernel module."""

import secrets
import socket
from pathlib import Path

from edge.outside import bencode
from ramal.processes import Child, find, free_port, spawn, wait_ready

ADDRESS = "127.0.0.1"


class RtpengineServer:
    """The daemon and what it has in memory."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port
        self.name = f"{ADDRESS}:{port}"

    def ask(self, command: dict[str, object]) -> dict[str, bencode.Value]:
        """One command by a socket of its own; raises OSError (TimeoutError too) where nobody answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(2)
            asking.connect((ADDRESS, self.port))
            cookie = secrets.token_hex(8).encode() + b" "  # a known one is answered as it was before
            asking.send(cookie + bencode.encode(command))
            reply = bencode.decode(asking.recv(65_535).removeprefix(cookie))
        assert isinstance(reply, dict)
        return reply

    def calls(self) -> object:
        """The Call-IDs that it knows."""
        return self.ask({"command": "list"})["calls"]

    def answers(self) -> bool:
        try:
            return self.ask({"command": "ping"})["result"] == b"pong"
        except OSError:
            return False

    def stop(self) -> None:
        self.child.stop(5)


def start_rtpengine(directory: Path, port: int | None = None) -> RtpengineServer:
    """Raises PackageMissing where it is not installed."""
    port = port or free_port()
    command = [
        find("rtpengine", "rtpengine-daemon"),
        "--config-file=none",  # Debian's own is for its service
        "--table=-1",
        f"--interface={ADDRESS}",
        f"--listen-ng={ADDRESS}:{port}",
        "--foreground",
        "--log-stderr",
        "--log-level=6",
        "--port-min=40000",
        "--port-max=50000",
    ]
    server = RtpengineServer(spawn("rtpengine", command, directory / "rtpengine.log"), port)
    wait_ready(server.child, server.answers, 20)
    return server
