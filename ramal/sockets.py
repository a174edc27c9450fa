"""The addresses of `ramal up`: where it listens, whether it can, and where it is reached."""

import contextlib
import errno
import socket
from collections.abc import Sequence

from edge.config import EdgeConfig, endpoint
from edge.core.flow import host_port
from ramal.processes import StartFailed
from runtime.config import Common

OPTIONS = {
    "udp": "--sip-port",
    "tcp": "--sip-port",
    "tls": "--sip-port",
    "ws": "--page-port",
    "wss": "--page-port",
    "http": "--http-port",
}
"""The option that chooses the port, by what listens there."""


def listening(port: int) -> list[str]:
    """All addresses of this host, `host:port` each; IPv6 where the host has it."""
    addresses = [f"0.0.0.0:{port}"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        addresses.append(f"[::]:{port}")
    return addresses


def check_ports(edge: EdgeConfig, common: Common) -> None:
    """Raises StartFailed that names the first address that cannot be listened on, its transport and its setting."""
    wanted = [
        (transport, text, f"RAMAL_EDGE_{transport.upper()}")
        for transport in ("udp", "tcp", "tls", "ws", "wss")
        for text in getattr(edge, transport)
    ]
    wanted.append(("http", host_port(common.http_host, common.http_port), "RAMAL_HTTP_PORT"))
    with contextlib.ExitStack() as held:  # at once: two of them may want the same address
        for transport, text, setting in wanted:
            try:
                held.enter_context(_listening(endpoint(text, setting), stream=transport != "udp"))
            except OSError as error:
                why = str(error.strerror) + ": ports below 1024 are root's" * isinstance(error, PermissionError)
                option = "--host" if error.errno == errno.EADDRNOTAVAIL else OPTIONS[transport]
                raise StartFailed(f"{transport} {text}: {why} ({setting}, {option} chooses another)") from error


def _listening(at: tuple[str, int], *, stream: bool) -> socket.socket:
    ipv6 = ":" in at[0]
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    try:
        if stream:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(at)
        if stream:
            probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def addresses(bound: Sequence[str]) -> list[str]:
    """The `host:port` under which phones reach these sockets: `0.0.0.0` is this host's own address."""
    reachable = []
    for text in bound:
        host, port = endpoint(text, "RAMAL_EDGE_UDP")
        if host == "0.0.0.0":  # noqa: S104  # compared with, not bound
            host = _own_address(socket.AF_INET, "192.0.2.1") or "127.0.0.1"
        elif host == "::":
            host = _own_address(socket.AF_INET6, "2001:db8::1")
        if host not in ("", "::"):
            reachable.append(host_port(host, port))
    return reachable


def _own_address(family: socket.AddressFamily, far: str) -> str:
    """The source address towards the network; empty where there is no route. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
