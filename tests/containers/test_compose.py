"""compose.yaml on a real engine: from nothing to a call, the phones' addresses, more processes, killed processes.

Kafka and Prometheus are stand-ins of the same names (no registry is reached from here), OpenLDAP is built as anybody
builds it; MySQL is a real one, 9.x of Debian sid, where that can be had, else MariaDB by its name. Grafana has no
stand-in and is left out by its profile.

Over 400 lines: what must hold of one system that takes a minute to start.
"""

import contextlib
import http.cookiejar
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ramal.processes import free_port
from tests.containers.podman import FULL, OWN, ROOT, podman
from tests.kit.compose_file import ours, program, read
from tests.kit.phone import Phone
from tests.kit.waiting import until
from tests.kit.wire import Silent, UdpLink

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FULL, reason="whole systems in containers are tried by `make test-containers`"),
]
PROJECT = "ramaltest"
NAMESPACE, OUTSIDE, PHONES = "ramal-phones", "10.231.77.1", "10.231.77.2"
PORTS = ("SIP_PORT", "SIP_PORT_2", "WS_PORT", "WS_PORT_2", "CONSOLE_PORT", "OPERATORS_PORT", "PROMETHEUS_PORT")
DOMAIN = "example.test"
DOCUMENT = read()
LEFT_OUT = ("topics", "migrate", "grafana")
"""Of it, in a machine that starts again: what has ended, and what has no image here."""
CROWD = [f"u{number:02d}" for number in range(20)]
VARIABLES = {"HOST_ADDRESS", "COMPOSE_PROFILES"}
"""Of .env, that are others here."""
REAL_MYSQL = "localhost/mysql-of-sid:9"
OVERRIDE = f"""\
services:
  mysql:
    image: {REAL_MYSQL}
    healthcheck: {{test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/3306"]}}
"""
"""It has no client in it."""
SECRET = "correct horse"
"""The operator's password."""
AT_ONCE = 300.0
"""Seconds that `up --wait` may take on a machine that does other work, too."""


class Running:
    """The system of a copy of the tree, and how to ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {name: free_port() for name in PORTS}
        self.seconds = 0.0
        """How long `up --wait` took."""
        users = (directory / "secrets" / "ldap.users").read_text().splitlines()
        self.passwords = {line.split()[0]: line.split()[3] for line in users}

    def compose(self, *arguments: str, given: str = "", seconds: float = AT_ONCE) -> str:
        command = [str(OWN / "compose"), "--project-name", PROJECT, *arguments]
        done = subprocess.run(
            command, input=given, cwd=self.directory, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--wait", "--pull", "never", "--no-build", *arguments)

    def ramal(self, *arguments: str) -> str:
        return podman("exec", f"{PROJECT}-edge-1-1", "ramal", *arguments)

    @property
    def edges(self) -> list[str]:
        return [f"{OUTSIDE}:{self.ports[name]}" for name in ("SIP_PORT", "SIP_PORT_2")]


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture(scope="module")
def namespace() -> Iterator[None]:
    """Where phones are: at the other end of a cable."""
    ip("netns", "delete", NAMESPACE, check=False)
    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", "ramal-ph0", "type", "veth", "peer", "name", "ramal-ph1", "netns", NAMESPACE)
        ip("address", "add", f"{OUTSIDE}/24", "dev", "ramal-ph0")
        ip("link", "set", "ramal-ph0", "up")
        for command in (
            ["address", "add", f"{PHONES}/24", "dev", "ramal-ph1"],
            ["link", "set", "ramal-ph1", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", OUTSIDE],
        ):
            ip("-n", NAMESPACE, *command)
        yield
    finally:
        ip("netns", "delete", NAMESPACE)


@pytest.fixture(scope="module")
def running(image: str, namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All of it, ready, with a crowd of users beside alice and bob."""
    directory = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "compose.yaml", directory)
    shutil.copytree(ROOT / "deploy", directory / "deploy")
    subprocess.run(["sh", "deploy/make-secrets", "."], cwd=directory, check=True, capture_output=True)
    with (directory / "secrets" / "ldap.users").open("a") as users:
        users.writelines(f"{name} clear {2900 + number} secret-{name}\n" for number, name in enumerate(CROWD))
    system = Running(directory)
    lines = [line for line in (directory / ".env").read_text().splitlines() if line.split("=")[0] not in VARIABLES]
    lines += [f"HOST_ADDRESS={OUTSIDE}", f"IMAGE={image}", *(f"{name}={port}" for name, port in system.ports.items())]
    lines += ["HOST_NETWORK=172.31.254.0/24", "HOST_GATEWAY=172.31.254.1", "CONTAINER_NETWORK=172.31.254.128/25"]
    (directory / ".env").write_text("\n".join(lines) + "\n")
    if podman("images", "--quiet", REAL_MYSQL):
        (directory / "compose.override.yaml").write_text(OVERRIDE)
    system.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")
    try:
        begun = time.monotonic()
        system.up()
        system.seconds = time.monotonic() - begun
        yield system
    finally:
        (directory / "logs.txt").write_text(system.compose("logs", "--no-color"))
        system.compose("down", "--volumes", "--timeout", "1")


def test_t15_from_nothing_to_a_call_between_two_edges_and_no_containers_address_on_the_wire(running: Running) -> None:
    """Phones behind a cable: the edge sees their own address, they see the edge's published one and no other."""
    begun = time.monotonic()
    users = [f"{name}:{running.passwords[name]}" for name in ("alice", "bob")]
    command = [sys.executable, "-m", "tests.containers.phones", PHONES, *running.edges, *users]
    done = subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    first = running.seconds + time.monotonic() - begun
    sys.stdout.write(f"\nup --wait: {running.seconds:.1f} s; the first call ended after {first:.1f} s\n")
    seen = json.loads(done.stdout)
    assert seen["from"] == sorted(running.edges)
    assert seen["rows"]
    assert not [row for row in [*seen["rows"], seen["uri"]] if "172.31." in row]
    registered = json.loads(running.ramal("show", "--json"))
    for phone, name in zip(seen["phones"], ("alice", "bob"), strict=True):
        mine = [row for row in registered if row["aor"].removeprefix("sip:").startswith(f"{name}@")]
        assert len(mine) == 1
        assert f"{phone[0]}:{phone[1]}" in json.dumps(mine), mine


def test_who_is_kept_as_ssha_registers_once_he_has_enrolled(running: Running) -> None:
    host, port = running.edges[0].split(":")
    password = running.passwords["carol"]
    with Phone(UdpLink((host, int(port))), "carol", password, DOMAIN) as phone:
        rows = (f"Contact: <{phone.contact}>", "Expires: 300")
        assert phone.registers(*rows).status == 401
        # As docs/containers.md says.
        enroll = ("exec", "-T", "authsvc", "ramal", "enroll", "carol", "--password-file", "-")
        assert "Phones may log in as carol@example.test" in running.compose(*enroll, given=password)
        until(lambda: phone.registers(*rows).status == 200, "her phone registers")


def test_prometheus_hears_from_every_process(running: Running) -> None:
    wanted = {program(service) for service in ours(read()).values()} - {"topics", "migrate"}
    query = 'up{job="ramal"}'
    address = f"http://127.0.0.1:9090/api/v1/query?query={query}"
    script = f"import urllib.request as u, urllib.parse as p; print(u.urlopen('{address}').read().decode())"
    until = time.monotonic() + 60
    while True:
        # From our image, by name: its port is open to this machine alone.
        said = podman("exec", f"{PROJECT}-console-1", "python", "-c", script.replace("127.0.0.1", "prometheus").replace(
            query, query.replace("{", "%7B").replace("}", "%7D").replace('"', "%22")))  # fmt: skip
        up = {each["metric"]["service"] for each in json.loads(said)["data"]["result"] if each["value"][1] == "1"}
        if up == wanted:
            return
        assert time.monotonic() < until, (up, wanted)
        time.sleep(1)


class Operator:
    """A browser at the operators' published port."""

    def __init__(self, running: Running) -> None:
        self.base = f"http://127.0.0.1:{running.ports['OPERATORS_PORT']}/console/"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def asks(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of a page; a body is posted."""
        request = urllib.request.Request(f"{self.base}api/{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def logs_in(self) -> int:
        return self.asks("log-in", {"name": "maria", "password": SECRET})[0]


def add_operator(running: Running) -> None:
    """As docs/containers.md says."""
    add = ("exec", "-T", "console", "ramal", "operator", "add", "maria", "--role", "operator", "--password-stdin")
    running.compose(*add, given=SECRET)


def test_an_operator_logs_in_by_the_published_port_and_sees_every_process(running: Running) -> None:
    operator = Operator(running)
    assert operator.asks("health")[0] == 401
    assert operator.logs_in() == 401, "nobody is an operator yet"
    add_operator(running)
    file = running.directory / "secrets" / "console" / "operators"
    assert file.stat().st_mode & 0o777 == 0o600
    assert SECRET not in file.read_text()
    assert operator.logs_in() == 200

    def all_are_ready() -> bool:
        processes = operator.asks("health")[1]["processes"]
        names = {each["name"] for each in processes if each["ready"]}
        return names == ours(read()).keys() - {"topics", "migrate"}

    until(all_are_ready, "the console sees every process")
    # What analytics counts, it shows.
    assert operator.asks("statistics")[0] == 200


def test_the_softphones_page_is_at_the_published_port_and_knows_the_way_to_an_edge(running: Running) -> None:
    base = f"http://127.0.0.1:{running.ports['CONSOLE_PORT']}/"
    with urllib.request.urlopen(base, timeout=10) as answer:
        assert answer.status == 200
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert str(running.ports["WS_PORT"]) in answer.headers["Content-Security-Policy"] + answer.read().decode()


def test_its_containers_take_little_memory_at_rest(running: Running) -> None:
    del running
    said = podman("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
    used = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith(PROJECT))
    sys.stdout.write("".join(f"\n{name}: {memory}" for name, memory in sorted(used.items())))
    for name, memory in used.items():
        if program_of(name) in ("edge", "authsvc", "registrar", "locator", "cdr", "console"):
            assert float(memory.partition("MB")[0]) < 150, (name, memory)


def program_of(container: str) -> str:
    return container.removeprefix(f"{PROJECT}-").partition("-")[0]


class Refreshing:
    """A crowd of phones, each of which refreshes by both edges in turn until it is told to stop."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._over = threading.Event()
        self.answered: list[tuple[float, int]] = []
        """Seconds and status of each."""
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._refresh, args=(name,), daemon=True) for name in CROWD]

    def __enter__(self) -> "Refreshing":
        for thread in self._threads:
            thread.start()
        self.wait(len(CROWD) * 2)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def wait(self, more: int, seconds: float = 120) -> None:
        """Returns when so many more have been answered 200."""
        wanted, until = self.good + more, time.monotonic() + seconds
        while self.good < wanted:
            assert time.monotonic() < until, (self.good, wanted, self.failed[-3:])
            time.sleep(0.1)

    @property
    def good(self) -> int:
        return sum(status == 200 for _, status in list(self.answered))

    @property
    def refused(self) -> int:
        return len(self.answered) - self.good

    def told(self) -> str:
        longest = max(self.answered)[0]
        return f"{self.good} refreshed, {self.refused} heard 503, {len(self.failed)} nothing; at most {longest:.2f} s"

    def _refresh(self, name: str) -> None:
        with contextlib.ExitStack() as stack:
            addresses = [edge.split(":") for edge in self._running.edges]
            phones = [
                stack.enter_context(Phone(UdpLink((host, int(port))), name, f"secret-{name}", DOMAIN))
                for host, port in addresses
            ]
            while not self._over.is_set():
                for phone in phones:
                    begun = time.monotonic()
                    try:
                        status = phone.registers(f"Contact: <sip:{name}@192.0.2.9:5060>", "Expires: 300").status
                    except Silent as error:
                        self.failed.append(str(error))
                    else:
                        self.answered.append((time.monotonic() - begun, status))
                    self._over.wait(0.5)


def all_are_registered(running: Running) -> None:
    """Whoever was answered 200 is there."""
    registered = {
        row["aor"].removeprefix("sip:").partition("@")[0] for row in json.loads(running.ramal("show", "--json"))
    }
    assert registered >= set(CROWD)


def test_two_registrars_instead_of_one_and_one_again_under_refreshes_lose_none(running: Running) -> None:
    """Each change of members is a rebalance: whose partition moves just then may hear 503, nobody hears nothing."""
    with Refreshing(running) as crowd:
        running.up("--no-recreate", "--scale", "registrar=2")
        crowd.wait(100)
        assert len(podman("ps", "--quiet", "--filter", f"name={PROJECT}-registrar").split()) == 2
        running.up("--no-recreate", "--scale", "registrar=1")
        crowd.wait(100)
    sys.stdout.write(f"\n{crowd.told()}\n")
    assert not crowd.failed
    assert {status for _, status in crowd.answered} <= {200, 503}
    assert crowd.refused < crowd.good / 10
    all_are_registered(running)


@pytest.mark.parametrize(
    "service", ["authsvc-1", "registrar-1", "locator-1", "cdr-1", "edge-2-1", "kafka-1", "mysql-1", "ldap-1"]
)
def test_a_container_that_is_killed_comes_back_and_nothing_acknowledged_is_lost(running: Running, service: str) -> None:
    """What dies is started again by the engine; meanwhile phones are answered late, or 503, and never falsely."""
    container = f"{PROJECT}-{service}"
    with Refreshing(running) as crowd:
        before = podman("inspect", "--format", "{{.State.Pid}}", container)
        os.kill(int(before), signal.SIGKILL)
        crowd.wait(200)
        until = time.monotonic() + 60
        while podman("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", container) in (f"running {before}", ""):
            assert time.monotonic() < until
            time.sleep(0.2)
    sys.stdout.write(f"\n{service}: {crowd.told()}\n")
    assert {status for _, status in crowd.answered} <= {200, 503}
    if service in ("cdr-1", "ldap-1"):
        assert {status for _, status in crowd.answered} == {200}, "no phone waits for it"
    all_are_registered(running)


def registers(running: Running, edge: int, name: str) -> int:
    """The status that a phone of the crowd hears; 0 for nothing."""
    host, port = running.edges[edge].split(":")
    with Phone(UdpLink((host, int(port))), name, f"secret-{name}", DOMAIN) as phone:
        try:
            return phone.registers(f"Contact: <{phone.contact}>", "Expires: 300").status
        except Silent:
            return 0


def test_all_comes_back_in_whatever_order_as_after_a_restart_of_the_machine(running: Running) -> None:
    """An engine that starts again knows of no order: what needs Kafka and MySQL is there before they are."""
    containers = [f"{PROJECT}-{name}-1" for name in DOCUMENT["services"] if name not in LEFT_OUT]
    running.compose("stop", "--timeout", "20")
    last = [container for container in containers if program_of(container) in ("kafka", "mysql", "ldap")]
    for container in [*(each for each in containers if each not in last), *last]:
        podman("start", container)
    begun = time.monotonic()
    until(lambda: registers(running, 0, CROWD[0]) == 200 == registers(running, 1, CROWD[1]), "phones register", 120)
    sys.stdout.write(f"\na phone registers again {time.monotonic() - begun:.1f} s after the machine\n")
    running.up("--no-recreate")
    all_are_registered(running)


def audited(running: Running) -> int:
    """How many calls the log and the tables have today; they agree."""
    found = json.loads(running.ramal("audit-cdrs", "--json"))
    assert found["differences"] == 0
    return int(found["calls"])


def test_down_and_up_again_keep_users_registrations_calls_and_operators(running: Running) -> None:
    before = {row["aor"] for row in json.loads(running.ramal("show", "--json"))}
    calls = audited(running)
    assert calls
    add_operator(running)
    running.compose("config", "--quiet")
    running.compose("down", "--timeout", "20")
    assert not podman("ps", "--all", "--quiet", "--filter", f"name={PROJECT}-")
    running.up()
    assert {row["aor"] for row in json.loads(running.ramal("show", "--json"))} >= before - set(CROWD)
    assert audited(running) == calls
    assert registers(running, 0, CROWD[2]) == 200
    assert Operator(running).logs_in() == 200
    all_are_registered(running)
