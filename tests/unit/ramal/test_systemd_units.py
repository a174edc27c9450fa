"""deploy/systemd, by systemd itself where it is installed, and by reading."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ramal.system import SERVICES, section_kinds, sections
from runtime.config import Sources
from tests.kit.compose_file import ROOT

UNITS = ROOT / "deploy" / "systemd"
PROGRAM = "/opt/ramal/bin/ramal"
EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts; a service without any protection has 9.6."""

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, each service a file of its own, with a program that is there."""
    for path in [*UNITS.glob("*.service"), UNITS / "ramal.target"]:
        text = path.read_text().replace(PROGRAM, sys.executable)
        names = [path.name.replace("@", f"@{service}") for service in SERVICES] if "@" in path.name else [path.name]
        for name in names:
            (tmp_path / name).write_text(text)
    for folder in ("ramal@authsvc.service.d",):
        (tmp_path / folder).mkdir()
        shutil.copy(UNITS / "ramal@authsvc.service.d.conf", tmp_path / folder / "ldap.conf")
    return tmp_path


@needs_systemd
def test_systemd_takes_every_unit(units: Path) -> None:
    files = [str(path) for path in sorted(units.glob("ramal*")) if path.is_file()]
    assert len(files) == len(SERVICES) + 2
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "ramal" in line]


@needs_systemd
@pytest.mark.parametrize("name", ["ramal@edge.service", "ramal@authsvc.service", "ramal-setup.service"])
def test_systemd_finds_little_that_a_service_could_do_harm_with(units: Path, name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(units / name)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    level = re.search(r"Overall exposure level for .*?: ([\d.]+)", said)
    assert level, said
    assert float(level[1]) < EXPOSURE, said


def test_every_setting_in_the_units_and_their_files_exists(tmp_path: Path) -> None:
    environ = {}
    for path in (UNITS / "env", UNITS / "edge.env"):
        environ |= dict(line.split("=", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    secret = tmp_path / "secret"
    secret.write_text("k1:" + "ab" * 16)
    for path in UNITS.iterdir():
        for name, value in re.findall(r"^Environment=(\w+)=(.*)$", path.read_text(), re.MULTILINE):
            environ[name] = value.replace("%i-%l", "edge-host")
            if name.endswith("_FILE"):
                credential = value.removeprefix("%d/")
                assert f"LoadCredential={credential}:/etc/ramal/secrets/{credential}" in path.read_text()
                environ[name] = str(secret)
    environ |= {"RAMAL_LDAP_BIND_DN": "cn=ramal"}
    sources = Sources(environ, {})
    assert not sources.check_names(section_kinds())
    assert sections(sources)


def test_a_unit_waits_longer_than_an_edge_drains() -> None:
    drain = sections(Sources({}, {}))["edge"].drain_seconds  # type: ignore[attr-defined]
    stop = re.search(r"^TimeoutStopSec=(\d+)$", (UNITS / "ramal@.service").read_text(), re.MULTILINE)
    assert stop
    assert int(stop[1]) >= drain + 8
