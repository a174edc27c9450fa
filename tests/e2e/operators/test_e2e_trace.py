"""`ramal trace` beside a running system: a REGISTER and a call are one trace each, at a real OpenTelemetry collector.

The collector is built from the Go module proxy by `make collector`; where it was not, a server that takes the same
requests stands for it.
"""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ramal.processes import free_port
from tests.e2e.conftest import CALLERS, DOMAIN, Running, System, user
from tests.kit.phone import SDP

pytestmark = pytest.mark.e2e
CACHE = Path(os.environ.get("OTEL_CACHE", Path.home() / ".cache" / "ramal-otel"))
Said = Callable[[], dict[str, list[tuple[str, str]]]]
"""By trace, its spans: service and name."""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[str, Said]]:
    """A real one, which prints what it gets; its address, and what it got."""
    program = CACHE / "collector"
    if not program.exists():
        pytest.skip("there is no OpenTelemetry collector: `make collector` builds it, with Go")
    port, log = free_port(), tmp_path / "collector.log"
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"debug": {"verbosity": "detailed"}},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }

    def said() -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        service = trace = ""
        for line in log.read_text().splitlines():
            if match := re.search(r"service\.name: Str\(ramal-(\w+)\)", line):
                service = match[1]
            elif match := re.search(r"Trace ID\s*: ([0-9a-f]{32})", line):
                trace = match[1]
            elif match := re.search(r"^\s*Name\s*: (.+)$", line):
                found.setdefault(trace, []).append((service, match[1]))
        return found

    with log.open("wb") as out, subprocess.Popen(
        [program, "--config", f"yaml:{json.dumps(config)}"], stdout=out, stderr=out
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + 30
            while "Everything is ready" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", said
        finally:
            process.terminate()


@pytest.fixture
def stand_in() -> Iterator[tuple[str, Said]]:
    """A server that takes the same requests."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    def said() -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for resource in (each for body in bodies for each in json.loads(body)["resourceSpans"]):
            service = resource["resource"]["attributes"][0]["value"]["stringValue"].removeprefix("ramal-")
            for span in resource["scopeSpans"][0]["spans"]:
                found.setdefault(span["traceId"], []).append((service, span["name"]))
        assert not any(user(number).encode() in body for number in CALLERS for body in bodies)
        return found

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", said
        server.shutdown()


@pytest.mark.parametrize("kind", ["stand_in", "collector"])
def test_a_register_and_a_call_are_one_trace_each(
    kind: str, up: System, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, said = request.getfixturevalue(kind)
    tracing = Running(["trace", url, *up.where], tmp_path / "trace.log")
    try:
        tracing.wait_for(lambda: f"traces go to {url}" in tracing.output())
        time.sleep(0.5)  # the readers begin at the topics' ends
        with up.phone(CALLERS[10]) as alice, up.phone(CALLERS[11]) as bob:
            alice.register()
            bob.register()
            call = alice.invite(f"sip:{user(CALLERS[11])}@{DOMAIN}")
            incoming = bob.incoming()
            incoming.respond(180)
            call.hears(180)
            incoming.respond(200, body=SDP)
            call.hears(200)
            call.ack()
            incoming.gets("ACK")
            call.request("BYE")
            incoming.gets("BYE")
            incoming.respond(200)
            call.hears(200)
        until = time.monotonic() + 30
        wanted_register = [("authsvc", "authenticate"), ("edge", "REGISTER"), ("locator", "project and reply")]
        wanted_register.append(("registrar", "decide"))
        wanted_call = {("edge", "INVITE"), ("edge", "setup"), ("edge", "talk"), ("edge", "branch")}
        while True:
            traces = [sorted(spans) for spans in said().values()]
            if wanted_register in traces and any(wanted_call <= {*spans} for spans in traces):
                break
            assert time.monotonic() < until, (traces, tracing.output())
            time.sleep(0.2)
    finally:
        tracing.end()


def test_a_collector_that_is_away_is_told_of_once_and_is_no_end(up: System, tmp_path: Path) -> None:
    tracing = Running(["trace", f"http://127.0.0.1:{free_port()}", *up.where], tmp_path / "trace.log")
    try:
        tracing.wait_for(lambda: "traces go to" in tracing.output())
        time.sleep(0.5)
        with up.phone(CALLERS[12]) as phone:
            phone.register()
        tracing.wait_for(lambda: "is away" in tracing.output(), 30)
        time.sleep(2.5)
        assert tracing.output().count("is away") == 1
        assert tracing.process.poll() is None
    finally:
        tracing.end()
