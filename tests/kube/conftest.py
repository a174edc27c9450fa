"""One cluster with Ramal in it, for all tests that need one."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kube.kube import IMAGES, PROJECT, SERVICE, WORKERS, Balancer, Kube, manifests, until

CACHE = Path(os.environ.get("KUBE_CACHE", Path.home() / ".cache" / "ramal-kube"))
KUSTOMIZE = "v5.7.1"
FIGURES = PROJECT / ".run" / "kube" / "figures.txt"


@pytest.fixture(scope="session")
def kustomize() -> list[str]:
    """The command that renders a directory: of the cluster's programs, of the path, or built once where Go is there."""
    kubectl = CACHE / "bin" / "kubectl"
    if kubectl.exists():
        return [str(kubectl), "kustomize"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    program = CACHE / "bin" / "kustomize"
    if not program.exists():
        if not shutil.which("go"):
            pytest.skip("nothing renders the manifests here: no kubectl, and no Go to build kustomize with")
        environ = {**os.environ, "GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
        done = subprocess.run(
            ["go", "install", f"sigs.k8s.io/kustomize/kustomize/v5@{KUSTOMIZE}"],
            env=environ, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"nothing renders the manifests here: kustomize cannot be built: {done.stderr.strip()[-300:]}")
    return [str(program), "build"]


@pytest.fixture(scope="session")
def figure() -> Callable[[int, str], None]:
    """Notes what was measured, by the number of the rule, in .run/kube/figures.txt."""
    FIGURES.parent.mkdir(parents=True, exist_ok=True)

    def note(number: int, text: str) -> None:
        with FIGURES.open("a") as out:
            out.write(f"{number:2}  {text}\n")

    return note


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """A cluster of two nodes with DNS and our images, and nothing of ours in it."""
    if os.environ.get("RAMAL_KUBE") != "full":
        pytest.skip("a whole cluster is `make kube`'s")
    found = Kube()
    FIGURES.unlink(missing_ok=True)
    try:
        found.script("start", "2")
        found.script("load", *IMAGES)
        found.script("dns")
        yield found
    finally:
        if not os.environ.get("RAMAL_KUBE_KEEP"):
            found.script("stop")


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """k8s/overlays/here with secrets."""
    return manifests(tmp_path_factory.mktemp("kube"))


@pytest.fixture(scope="session")
def applied(kube: Kube, overlay: Path, figure: Callable[[int, str], None]) -> float:
    """Everything, backends last; returns the seconds from then until all pods were ready."""
    rendered = kube.script("kubectl", "kustomize", str(overlay))
    documents = rendered.split("\n---\n")
    last = [d for d in documents if "app.kubernetes.io/part-of: ramal-backends" in d and "kind: NetworkPolicy" not in d]
    kube.script("kubectl", "apply", "-f", "-", given="\n---\n".join(d for d in documents if d not in last))
    until(lambda: all(kube.pods(name) for name in ("edge", *WORKERS)), "the pods are made")
    waiting = [pod for name in ("edge", *WORKERS) for pod in kube.pods(name)]
    assert len(waiting) == 10
    kube.script("kubectl", "apply", "-f", "-", given="\n---\n".join(last))
    took = until(
        lambda: all(kube.ready(name) == 2 for name in ("edge", *WORKERS)) and kube.ready("console") == 1,
        "all pods are ready",
        150,
    )
    figure(7, f"all pods ready {took:.0f} s after the backends were applied, which came last")
    return took


@pytest.fixture(scope="session")
def balancer(kube: Kube, applied: float) -> Iterator[Balancer]:
    """Phones reach the Service's address by the nodes that have an edge."""
    found = Balancer(kube, SERVICE[0])
    until(lambda: len(found.nodes) == 2, "both nodes have an edge")
    yield found
    found.stop()


@pytest.fixture
def site(kube: Kube, balancer: Balancer, request: pytest.FixtureRequest) -> Iterator[Kube]:
    """Ramal, whole: every pod ready, both nodes reached. The pods' logs are in .run/kube, by test."""
    del balancer
    for name in ("edge", *WORKERS):
        kube.wait_ready(name, 2, 120)
    yield kube
    kube.save_logs(FIGURES.parent / request.node.name)
