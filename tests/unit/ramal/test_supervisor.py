"""What a supervisor makes of a health page."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from ramal.supervisor import _not_ready


@pytest.fixture
def stranger() -> Iterator[str]:
    """`host:port` of a server that knows no `/readyz`, as one of another program's that has our port."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_a_stranger_at_a_services_port_is_a_reason_and_no_traceback(stranger: str) -> None:
    assert _not_ready(stranger) == [f"{stranger} answers 404 Not Found, as no service of ours does"]
