"""The cluster of `tests/kube/cluster`, with Ramal in it: what tests ask of it, and what a balancer does for phones."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

from tests.kube.netns import inside
from tests.kube.phones import users_file

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
NAMESPACE = "ramal"
SERVICE = ("10.77.1.1", 5060)
"""The address of the Service `sip`, as k8s/overlays/dev names it."""
IMAGES = ("localhost/ramal:kube", "docker.io/apache/kafka:4.3.1", "docker.io/library/mysql:8.4")
USERS = [f"u{number:02d}" for number in range(80)]
WORKERS = ("authsvc", "registrar", "locator", "cdr")


def until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Waits until it is true; returns how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - began


class Kube:
    """A started cluster."""

    def command(self, *words: str) -> list[str]:
        """The script with these words."""
        return [str(HERE / "cluster"), *words]

    def script(self, *words: str, check: bool = True, given: str = "") -> str:
        """What the script says; fails with its error."""
        done = subprocess.run(
            [HERE / "cluster", *words], input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, (
            f"cluster {' '.join(words)}: {done.stderr[-2000:]}{done.stdout[-500:]}"
        )
        return done.stdout if done.returncode == 0 else done.stderr

    def warnings(self, *words: str) -> str:
        """What kubectl says beside its answer."""
        done = subprocess.run(
            [HERE / "cluster", "kubectl", *words], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stderr

    def kubectl(self, *words: str, check: bool = True, given: str = "") -> str:
        """What kubectl says, in our namespace."""
        return self.script("kubectl", "-n", NAMESPACE, *words, check=check, given=given)

    def get(self, *words: str) -> Any:
        """What the API server has, as JSON."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, directory: Path) -> None:
        """`kubectl apply -k`."""
        self.script("kubectl", "apply", "-k", str(directory))

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a service."""
        found: list[dict[str, Any]] = self.get("pods", "-l", f"app.kubernetes.io/name={name}")["items"]
        return found

    def ready(self, name: str) -> int:
        """How many pods of a service are ready and not ending."""
        return sum(is_ready(pod) for pod in self.pods(name) if "deletionTimestamp" not in pod["metadata"])

    def wait_ready(self, name: str, count: int, seconds: float = 90.0) -> float:
        """Waits until a service has just so many pods, all ready."""
        return until(
            lambda: len(self.pods(name)) == count and self.ready(name) == count, f"{count} {name} are ready", seconds
        )

    def rolled_out(self, kind: str, name: str, seconds: int = 180) -> float:
        """Restarts all pods of a service one after the other; returns how long it took."""
        began = time.monotonic()
        self.kubectl("rollout", "restart", f"{kind}/{name}")
        self.kubectl("rollout", "status", f"{kind}/{name}", f"--timeout={seconds}s")
        return time.monotonic() - began

    def node_of(self, pod: str) -> str:
        """The node that a pod runs on."""
        return str(self.get("pod", pod)["spec"]["nodeName"])

    def kill(self, pod: str) -> None:
        """kill -9 of the process in a pod, from outside."""
        self.signal(str(self.process(pod)), "KILL")

    def signal(self, process: str, name: str) -> None:
        """Sends a signal to a process of this machine, such as a pod's."""
        subprocess.run(["kill", f"-{name}", process], check=True)

    def process(self, pod: str) -> int:
        """The number of a pod's first process on this machine."""
        found = self.get("pod", pod)
        container = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        socket_ = f"/run/ramal-kube/{found['spec']['nodeName']}/containerd.sock"
        tasks = subprocess.run(
            ["ctr", "-a", socket_, "-n", "k8s.io", "tasks", "ls"], capture_output=True, text=True, check=True
        ).stdout
        (line,) = [line for line in tasks.splitlines() if line.startswith(container)]
        return int(line.split()[1])

    def http(self, pod: str, path: str) -> tuple[int, str]:
        """Status and body of a page of a pod, asked from its own node's network."""
        found = self.get("pod", pod)
        return _get(f"kube-{found['spec']['nodeName']}", (found["status"]["podIP"], 8080), path, 3.0)

    def save_logs(self, directory: Path) -> None:
        """What all pods have written, and what the cluster says of them."""
        directory.mkdir(parents=True, exist_ok=True)
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            (directory / f"{name}.log").write_text(self.kubectl("logs", name, check=False))
            (directory / f"{name}.before.log").write_text(self.kubectl("logs", name, "--previous", check=False))
        (directory / "events.txt").write_text(self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False))


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether its readiness probe succeeds."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def _get(namespace: str, address: tuple[str, int], path: str, seconds: float) -> tuple[int, str]:
    status, _, body = ask(namespace, address, "GET", path, seconds=seconds)
    return status, body


def ask(
    namespace: str, address: tuple[str, int], method: str, path: str, body: str | None = None, *, seconds: float = 10.0,
    **fields: str,
) -> tuple[int, HTTPMessage, str]:  # fmt: skip
    """Status, fields and body that are answered to an HTTP request from another network namespace."""
    with inside(namespace):
        asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with asking, contextlib.closing(HTTPConnection(*address)) as connection:
        asking.settimeout(seconds)
        asking.connect(address)
        connection.sock = asking
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


class Balancer:
    """What a balancer does with externalTrafficPolicy Local: it asks each node's health-check port, and sends flows
    to those that have an endpoint. As a router with BGP does, by flow."""

    def __init__(self, kube: Kube, address: str, service: str = "sip") -> None:
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        kube.kubectl("patch", "service", service, "--subresource=status", "--type=merge", "-p", json.dumps(status))
        self._kube, self._address = kube, address
        self._port = kube.get("service", service)["spec"]["healthCheckNodePort"]
        self.nodes: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(0.5)

    def look(self) -> None:
        """Routes anew where that is needed."""
        nodes = [n for n in self._all() if self._well(n)]
        if nodes and nodes != self.nodes:
            with contextlib.suppress(AssertionError):  # the cluster is being stopped
                self._kube.script("lb", self._address, *nodes)
                self.nodes = nodes

    def _all(self) -> list[str]:
        return sorted(path.name.removeprefix("kube-n") for path in Path("/run/netns").glob("kube-n*"))

    def _well(self, node: str) -> bool:
        try:
            return _get("kube-ctl", (f"10.77.0.1{node}", self._port), "/healthz", 0.3)[0] == 200
        except (OSError, ValueError, IndexError):
            return False

    def stop(self) -> None:
        """Routes no more."""
        self._ended.set()
        self._thread.join()


def manifests(directory: Path) -> Path:
    """A copy of k8s/ with secrets and users; the overlay for the tests."""
    shutil.copytree(PROJECT / "k8s", directory / "k8s")
    overlays = directory / "k8s" / "overlays"
    subprocess.run([directory / "k8s" / "make-secrets", overlays], check=True, capture_output=True, timeout=30)
    (overlays / "dev" / "secrets" / "users.htdigest").write_text(users_file(USERS))
    return overlays / "here"
