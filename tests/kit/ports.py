"""Ports of whole systems: those that lie beside the one which is named must be free, too."""

from ramal.processes import free_port, port_is_free
from ramal.stack import PORTS


def sip_port(edges: int) -> int:
    """A `--sip-port` for `ramal stack`: free with all that go with it, at the addresses of all edges."""
    hosts = [f"127.0.0.{number}" for number in range(1, edges + 1)]
    while True:
        port = free_port()
        if all(port_is_free(host, port + beyond) for host in hosts for beyond in set(PORTS.values())):
            return port
