"""The image as it is built: who it runs as, what it cannot do, what is in it and what is not."""

import io
import json
import re
import runpy
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ramal.system import SERVICES
from tests.containers.conftest import CANARY
from tests.containers.podman import BASE, ROOT, podman

LOCKED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")
MOST = 140_000_000
"""Octets on top of the base."""
SECRETS = re.compile(
    rb"-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----\n[A-Za-z0-9+/]"
    rb"|AKIA[0-9A-Z]{16}|\bk\d+:[0-9a-f]{32,}|ghp_\w{36}"
)
PURE = runpy.run_path(str(ROOT / "setup.py"), run_name="read")["pure"]()
"""The modules that setup.py compiles."""
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def inspected(image: str) -> Any:
    return json.loads(podman("image", "inspect", image))[0]


def inside(image: str, script: str) -> str:
    """What a shell script says in a container that may do nothing."""
    return podman("run", "--rm", *LOCKED, "--network", "none", "--entrypoint", "sh", image, "-c", script)


def test_it_says_what_it_is_and_runs_as_nobody(inspected: Any) -> None:
    config = inspected["Config"]
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert config["Labels"]["org.opencontainers.image.version"] == version[1]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["ramal"]
    assert set(config["ExposedPorts"]) == {"5060/udp", "5060/tcp", "8080/tcp"}
    assert inspected["Healthcheck"]["Test"] == ["CMD", "python", "-m", "ramal.probe", "/healthz"]
    # Only what it sets on purpose: nothing of the machine that built it.
    names = {each.partition("=")[0] for each in config["Env"]}
    ours = {"PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "RAMAL_HTTP_HOST", "RAMAL_HTTP_PORT"}
    assert names - {"LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"} == ours


def test_it_needs_no_capability_and_no_root_that_can_be_written_to(image: str) -> None:
    """S12."""
    said = inside(
        image, "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; touch /opt/x 2>&1; ramal --version"
    )
    assert said.splitlines()[0] == "10001"
    assert re.search(r"CapEff:\s*0+$", said, re.MULTILINE)
    assert re.search(r"CapBnd:\s*0+$", said, re.MULTILINE)
    assert re.search(r"NoNewPrivs:\s*1$", said, re.MULTILINE)
    assert "Read-only file system" in said
    assert re.search(r"^ramal \d", said, re.MULTILINE)


def test_it_is_all_commands(image: str) -> None:
    said = podman("run", "--rm", *LOCKED, "--network", "none", image, "--help")
    assert all(
        re.search(rf"\b{command}\b", said) for command in (*SERVICES, "topics", "migrate", "rebuild", "up", "run")
    )


def test_its_core_is_compiled(image: str) -> None:
    script = (
        "import importlib, pathlib, sys\n"
        "root = pathlib.Path(importlib.import_module('ramal').__file__).parents[1]\n"
        "made = [*root.glob('sipcore/**/*.so'), *root.glob('edge/core/**/*.so'), *root.glob('*__mypyc*.so')]\n"
        "print(sum(path.stat().st_size for path in made))\n"
        "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)\n"
        "print(sys.version.split()[0])\n"
    )
    modules = [name.removesuffix(".py").replace("/", ".") for name in PURE]
    said = podman(
        "run", "--rm", *LOCKED, "--network", "none", "--entrypoint", "python", image, "-c", script, *modules
    ).splitlines()
    size, files, python = int(said[0]), said[1:-1], said[-1]
    assert len(files) == len(modules) > 40
    assert [file for file in files if not file.endswith(".so")] == []
    sys.stdout.write(f"\n{len(files)} compiled modules, {size / 1e6:.1f} MB, on Python {python}\n")
    assert inside(image, "ramal --version").endswith("(core compiled)")


def test_any_user_can_run_it(image: str) -> None:
    assert podman("run", "--rm", *LOCKED, "--user", "4711:4711", "--network", "none", image, "--version")


def test_there_is_no_compiler_no_pip_and_nothing_that_gains_a_privilege(image: str) -> None:
    tools = "cc gcc g++ clang ld make pip pip3 rustc cargo go npm curl wget ssh"
    found = inside(image, f"for tool in {tools}; do command -v $tool; done; true")
    assert not found
    for module in ("pip", "ensurepip", "setuptools"):
        assert inside(image, f"python -c 'import {module}' 2>&1; true").endswith(f"No module named '{module}'")
    assert not inside(image, "find / -xdev -type f -perm /6000 2>/dev/null; true")
    assert not inside(image, "find / -xdev -name 'pip*.whl' 2>/dev/null; true")


def test_our_share_of_it_is_bounded(image: str) -> None:
    sizes = {name: int(podman("image", "inspect", "--format", "{{.Size}}", name)) for name in (image, BASE)}
    ours = sizes[image] - sizes[BASE]
    sys.stdout.write(f"\n{ours / 1e6:.0f} MB on a base of {sizes[BASE] / 1e6:.0f} MB\n")
    assert ours < MOST


def layers(image: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of every layer above the base, those that a later layer hides among them."""
    saved = subprocess.run(["podman", "save", image], capture_output=True, check=True, timeout=120).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        for layer in manifest["Layers"][1:]:
            member = archive.extractfile(layer)
            assert member
            with tarfile.open(fileobj=io.BytesIO(member.read())) as files:
                for file in files:
                    content = files.extractfile(file) if file.isreg() else None
                    yield file.name, content.read() if content else b""


def test_no_layer_holds_a_secret_or_anything_but_the_program(image: str) -> None:
    """S09."""
    seen = 0
    for path, content in layers(image):
        seen += 1
        assert CANARY.encode() not in content, path
        assert not SECRETS.search(content), path
        assert not re.search(
            r"(^|/)(\.git|\.env|tests|secrets|node_modules)(/|$)", path.partition("site-packages/")[0]
        ), path
    assert seen > 1000
    # What the search would find.
    assert SECRETS.search(b"RAMAL_KEYS=k1:" + b"ab" * 32)


def test_it_lists_what_is_in_it(image: str) -> None:
    listed = json.loads(
        podman("run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/opt/ramal/ramal.cdx.json")
    )
    assert listed["bomFormat"] == "CycloneDX"
    told = {each["name"].lower(): each["version"] for each in [*listed["components"], listed["metadata"]["component"]]}
    script = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    there = dict(each.lower().split("==") for each in inside(image, f'python -c "{script}"').split())
    assert there.keys() == told.keys()
    assert all(told[name] == version for name, version in there.items())


def test_the_embedded_system_runs_in_it_and_its_health_check_says_so(image: str) -> None:
    """Read-only, with one volume of its own."""
    volume = "ramal-tested-up"
    container = podman("run", "--detach", *LOCKED, "--volume", f"{volume}:/var/lib/ramal", image, "up")
    try:
        until = time.monotonic() + 60
        while "200" not in (said := podman("exec", container, "python", "-m", "ramal.probe", check=False)):
            assert time.monotonic() < until, podman("logs", container) + said
            time.sleep(0.5)
        assert podman("healthcheck", "run", container) == ""
        assert "alice" in podman("exec", container, "ramal", "user", "list", "--data", "/var/lib/ramal/ramal-data")
        # Process 1 hears SIGTERM and ends in order.
        podman("stop", "--time", "20", container)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        podman("rm", "--force", "--time", "0", container)
        podman("volume", "rm", volume)
