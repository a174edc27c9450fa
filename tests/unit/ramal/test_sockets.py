"""Why `ramal up` cannot listen, and which option helps."""

import socket

import pytest

from edge.config import EdgeConfig
from ramal.processes import StartFailed
from ramal.sockets import check_ports
from runtime.config import Common


def refused(edge: EdgeConfig) -> str:
    with pytest.raises(StartFailed) as found:
        check_ports(edge, Common(http_host="127.0.0.1", http_port=0))
    return str(found.value)


def test_a_port_that_is_taken_is_changed_by_the_option_for_ports():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused(EdgeConfig(udp=(), tcp=(), tls=(), ws=(at,), wss=()))
    assert said.startswith(f"ws {at}: Address already in use (RAMAL_EDGE_WS, --page-port chooses another")


def test_an_address_of_another_machine_is_changed_by_the_option_for_addresses():
    said = refused(EdgeConfig(udp=(), tcp=(), tls=(), ws=("192.0.2.1:5062",), wss=()))
    assert said.endswith("(RAMAL_EDGE_WS, --host chooses another)")
