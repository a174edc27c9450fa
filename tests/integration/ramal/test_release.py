"""`make release`: one version, of which sdist and wheel are made, and the wheel works where there is nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest

from ramal.processes import free_port
from tests.kit.phone import Phone
from tests.kit.wire import UdpLink

ROOT = Path(__file__).parents[3]
DIST = os.environ.get("RAMAL_DIST", "")
"""Where `make release` has just made both."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
PACKAGES = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
NOT_IN_IT = re.compile(r"console/web/|\.md$|/tsconfig|package.*\.json$")
"""What of a package's folder serves only those who build it."""

COMPILED = (
    "tests/unit/sipcore",
    *(f"tests/unit/edge/{room}" for room in ("gateways", "media", "proxy", "registration")),
)
"""What tests the compiled core in short; whatever looks at the lines that run is elsewhere."""

# A minute's work; but beside other tests it gives way to them (tests/kit/rooms.py).
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def tracked() -> list[str]:
    said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in said.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both: of `make release`, or made of the tracked files as it makes them."""
    if DIST:
        return Path(DIST).resolve()
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def one(dist: Path, pattern: str) -> Path:
    [found] = dist.glob(pattern)
    return found


def test_there_is_one_version_and_whoever_states_it_states_this_one() -> None:
    assert f"ARG VERSION={VERSION} " in (ROOT / "Dockerfile").read_text()
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()
    stated = re.compile(r'^__version__ *=|(?<!xml )version *= *"\d+\.\d+', re.MULTILINE)
    assert [name for name in tracked() if name.endswith(".py") and stated.search((ROOT / name).read_text())] == []


def test_sdist_and_wheel_are_of_that_version_and_the_wheel_has_the_whole_program_and_nothing_else(dist: Path) -> None:
    with tarfile.open(one(dist, f"ramal-{VERSION}.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md"} <= names
    with zipfile.ZipFile(one(dist, f"ramal-{VERSION}-*.whl")) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = {
        name for name in tracked() if name.partition("/")[0] in PACKAGES and "/" in name and not NOT_IN_IT.search(name)
    }
    assert ours - inside == set()
    assert {name for name in inside if name.endswith(".py")} - ours == set()


def test_the_core_as_the_wheel_has_it_compiled_passes_its_unit_tests(dist: Path, tmp_path: Path) -> None:
    """`make test-compiled` in short, on what `test_sdist_and_wheel…` has compiled anyway."""
    with zipfile.ZipFile(one(dist, f"ramal-{VERSION}-*.whl")) as wheel:
        core = [name for name in wheel.namelist() if name.startswith(("sipcore/", "edge/")) or name.endswith(".so")]
        if not any(name.endswith(".so") for name in core):
            pytest.skip("nothing could be compiled here: there is no C compiler, or no Python.h")
        wheel.extractall(tmp_path, core)
    python = [sys.executable, "-P"]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    environ["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    where = "import sipcore.message as m, edge.core.dispatch as d; print(m.__file__, d.__file__)"
    found = subprocess.run([*python, "-c", where], env=environ, capture_output=True, text=True, check=True).stdout
    assert [Path(path).suffix for path in found.split()] == [".so", ".so"]
    quiet = ["-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*python, "-m", "pytest", *quiet, *COMPILED], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^\d{4} passed", done.stdout, re.MULTILINE), done.stdout[-200:]


@pytest.mark.skipif(not DIST, reason="a fresh environment is filled from the index by `make release`")
def test_the_wheel_serves_a_phone_in_a_fresh_environment(dist: Path, tmp_path: Path) -> None:
    """With its own dependencies, from the index; without the sources, tests and tools beside it."""
    wheel = one(dist, f"ramal-{VERSION}-*.whl")
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(fresh)], check=True, timeout=120)
    pip = [str(fresh / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    ramal = str(fresh / "bin" / "ramal")
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("RAMAL_", "PYTHON"))}

    def said(*words: str) -> str:
        return subprocess.run(
            [ramal, *words], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    assert re.fullmatch(rf"ramal {re.escape(VERSION)} \(core (not )?compiled\)\n", said("--version"))
    sip, http, page = (free_port() for _ in range(3))
    words = ["up", "--sip-port", str(sip), "--http-port", str(http), "--page-port", str(page), "--domain", "fresh.test"]
    log = tmp_path / "up.log"
    with (
        log.open("wb") as out,
        subprocess.Popen([ramal, *words], cwd=tmp_path, env=environ, stdout=out, stderr=out) as up,
    ):
        try:
            until = time.monotonic() + 60
            while "Ctrl-C" not in log.read_text():
                assert up.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            [password] = re.findall(r"User +alice +password (\S+)", log.read_text())
            with Phone(UdpLink(("127.0.0.1", sip)), "alice", password, "fresh.test") as alice:
                alice.register()
                shown = json.loads(said("show", "--json", "--data", "ramal-data"))
                assert [row["aor"] for row in shown] == ["alice@fresh.test"]
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/", timeout=5) as response:
                assert b"<html" in response.read()
        finally:
            up.terminate()
            assert up.wait(30) == 0
