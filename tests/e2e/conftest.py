"""The two systems that every scenario runs on: `ramal up` and `ramal stack`, each as a user starts it."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from authsvc.users.file import add_user
from ramal.certificate import self_signed
from ramal.processes import free_port, tail
from tests.kit.phone import Phone
from tests.kit.ports import sip_port
from tests.kit.wire import TRANSPORTS, Address, link

FULL = os.environ.get("RAMAL_E2E") == "full"
"""Whether what counts thousands does so in full (`make e2e`)."""
DOMAIN = "example.test"
RAMAL = [sys.executable, "-m", "ramal"]
CALLERS = range(1120, 1180)
"""Numbers of users who call and are called; the others register only."""
ORIGIN = "https://phone.example.test"
"""Whose pages may open a WebSocket at the three edges."""
PEER = "127.0.1.1"
"""The address of the stack's one peer: nobody else in the tests sends from there."""
REDIRECTED = "redirect.test"
"""A domain of the embedded system, with the same users, that answers calls with 302."""


def user(number: int) -> str:
    """The same users as in the stack's directory."""
    return f"u{number:05d}"


@dataclasses.dataclass(frozen=True)
class System:
    """A running system and how to reach it."""

    kind: str
    edges: list[Address]
    """The same address for UDP and TCP."""
    http: list[str]
    """Base URL of each edge, for operators."""
    page: str
    """URL of the softphone."""
    environ: Mapping[str, str]
    """What the command line needs to ask it, beside `where`."""
    where: tuple[str, ...]
    at: list[dict[str, Address]]
    """Of each edge, the address by transport."""
    authority: Path
    """By what the edges' certificates are verified."""
    run_dir: Path | None = None
    """Of a stack: where `stack.json` is."""

    def phone(
        self, number: int, *, edge: int = 0, transport: str = "udp", domain: str = DOMAIN, password: str = ""
    ) -> Phone:
        """A phone of a user at an edge, with the user's password or another."""
        name = user(number)
        way = link(transport, self.at[edge][transport], self.authority)
        return Phone(way, name, password or f"secret-{name}", domain)

    def line(self, number: int, phone: Phone) -> Phone:
        """Another line of this telephone: of a user, by the same link."""
        name = user(number)
        return Phone(phone.link, name, f"secret-{name}", DOMAIN)

    def described(self) -> dict[str, Any]:
        """A stack's `stack.json` as it is now."""
        assert self.run_dir is not None
        content: dict[str, Any] = json.loads((self.run_dir / "stack.json").read_text())
        return content

    def metric(self, name: str, *, edge: int = 0) -> float:
        """The sum of a metric of one edge over its labels."""
        with urllib.request.urlopen(f"{self.http[edge]}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}(\{{|\s)", line))

    def located(self, number: int, *, edge: int = 0) -> list[str]:
        """The contacts by which an edge would route to a user."""
        with urllib.request.urlopen(f"{self.http[edge]}/location/{user(number)}@{DOMAIN}", timeout=5) as response:
            return [target["contact"] for target in json.load(response)]

    def wait_located(self, number: int, phones: int = 1) -> None:
        """Waits until a user is registered with so many phones."""
        deadline = time.monotonic() + 20
        while len(self.located(number)) < phones:
            assert time.monotonic() < deadline, f"{user(number)} does not register"
            time.sleep(0.05)

    def ramal(self, *words: str, check: bool = True, given: str = "") -> "subprocess.CompletedProcess[str]":
        """A command about this system."""
        done = subprocess.run(
            [*RAMAL, *words, *self.where],
            env={**os.environ, **self.environ},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    @contextlib.contextmanager
    def following(self, *words: str, seconds: float = 30) -> Iterator[Iterator[str]]:
        """The lines of a command that does not end by itself; they end after these seconds, and it with the block."""
        with subprocess.Popen(
            [*RAMAL, *words, *self.where],
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            watch = threading.Timer(seconds, process.kill)
            watch.start()
            try:
                yield iter(process.stdout or ())
            finally:
                watch.cancel()
                process.kill()


class Running:
    """`ramal …` in the foreground of a shell of its own; ended with the test."""

    def __init__(self, words: list[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*RAMAL, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environ or {})},
            )

    def output(self) -> str:
        """All it has said."""
        return self.log.read_text()

    def wait_for(self, ready: "Any", seconds: float = 90) -> None:
        """Waits until `ready()` is true; fails when the process ends or is late."""
        deadline = time.monotonic() + seconds
        try:
            while not ready():
                assert self.process.poll() is None, f"ramal ended with {self.process.returncode}: {tail(self.log, 20)}"
                assert time.monotonic() < deadline, f"not ready within {seconds} s: {tail(self.log, 20)}"
                time.sleep(0.05)
        except AssertionError:
            self.end()
            raise

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Sends a signal and returns the exit code; kills what does not end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def is_ready(base: str) -> bool:
    """Whether it is ready, and nothing that it needs is away."""
    try:
        with urllib.request.urlopen(f"{base}/status", timeout=2) as response:
            said = json.load(response)
    except OSError:
        return False
    return bool(said["ready"] and not said["reasons"])


def start_up(data: Path, *options: str, encrypted: bool = False, **environ: str) -> tuple[Running, System]:
    """`ramal up` on free ports with this directory, ready; `encrypted`: with TLS and WSS, too."""
    sip, http, ws, tls, wss = (free_port() for _ in range(5))
    words = ["up", "--data", str(data), "--sip-port", str(sip), "--http-port", str(http), "--page-port", str(ws)]
    words += ["--domain", DOMAIN, *options]
    ports = {"udp": sip, "tcp": sip, "ws": ws}
    authority = data.parent / "certificate.pem"
    if encrypted:
        _, key = self_signed(data.parent, DOMAIN, ["127.0.0.1"])
        ports |= {"tls": tls, "wss": wss}
        environ |= {"RAMAL_EDGE_TLS": f"127.0.0.1:{tls}", "RAMAL_EDGE_WSS": f"127.0.0.1:{wss}"}
        environ |= {"RAMAL_EDGE_CERTIFICATE": str(authority), "RAMAL_EDGE_PRIVATE_KEY": str(key)}
    running = Running(words, data.parent / "up.log", environ)
    base = f"http://127.0.0.1:{http}"
    running.wait_for(lambda: is_ready(base))
    at = {transport: ("127.0.0.1", port) for transport, port in ports.items()}
    return running, System(
        "up", [at["udp"]], [base], f"http://127.0.0.1:{ws}/", {}, ("--data", str(data)), [at], authority
    )


def start_stack(directory: Path, **environ: str) -> tuple[Running, System]:
    """`ramal stack` on a free SIP port, its files below this directory; ready. Without statistics, unless asked."""
    run_dir = directory / "run"
    port = str(sip_port(int(environ.get("EDGES", "2"))))
    words = ["stack", "--run-dir", str(run_dir), "--sip-port", port, "--domain", DOMAIN]
    words += ["--warm-up", "100"]  # nobody measures here
    # Path leads to the first edge, whosever the phone is.
    environ = {"ANALYTICS": "0", "RAMAL_EDGE_SERVICE_NAME": f"127.0.0.1:{port}"} | environ
    running = Running(words, directory / "stack.log", environ)
    described = run_dir / "stack.json"
    running.wait_for(described.exists, 120)
    running.wait_for(lambda: "All is ready" in running.output())
    told = json.loads(described.read_text())
    edges = told["edges"]
    at = [{transport: _address(edge[transport]) for transport in TRANSPORTS} for edge in edges]
    return running, System(
        "stack",
        [addresses["udp"] for addresses in at],
        [f"http://{edge['http']}" for edge in edges],
        told["page"],
        _exported(run_dir / "env"),
        (),
        at,
        run_dir / "certificate.pem",
        run_dir,
    )


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _exported(path: Path) -> dict[str, str]:
    """What `. env` would put into a shell."""
    shown = subprocess.run(
        ["env", "-i", "sh", "-c", f". {path}; env"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pairs = (line.partition("=") for line in shown)
    return {name: value for name, _, value in pairs if name.startswith("RAMAL_")}


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The embedded system with a few of the stack's users, on all transports."""
    directory = tmp_path_factory.mktemp("up")
    for number in (*range(40), *CALLERS):
        for domain in (DOMAIN, REDIRECTED):
            add_user(directory / "data" / "users.htdigest", user(number), domain, f"secret-{user(number)}")
    domains = json.dumps({REDIRECTED: {"redirect": True}})
    running, system = start_up(directory / "data", encrypted=True, RAMAL_DOMAINS=domains)
    yield system
    assert running.end(signal.SIGINT) == 0


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The distributed system with two edges."""
    running, system = start_stack(
        tmp_path_factory.mktemp("stack"), EDGES="2", USERS="1200", ANALYTICS="1", RAMAL_EDGE_PEERS=PEER
    )
    yield system
    assert running.end() == 0


@pytest.fixture(scope="package")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A distributed system with three edges, for the tests that kill and stop them; each leaves it whole."""
    running, system = start_stack(
        tmp_path_factory.mktemp("edges"),
        EDGES="3",
        USERS="1200",
        RAMAL_EDGE_KEEPALIVE_SECONDS="1",
        RAMAL_EDGE_ORIGINS=ORIGIN,
    )
    yield system
    assert running.end() == 0


@pytest.fixture(params=["up", "stack"])
def system(request: pytest.FixtureRequest) -> System:
    """Both systems, one after the other."""
    found: System = request.getfixturevalue(request.param)
    return found
