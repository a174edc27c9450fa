"""Which Python `make install` takes, of Pythons that say of themselves what these tests have them say."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.compose_file import ROOT

OPTIMISED = "'--enable-optimizations' '--with-lto'"
DEBIAN = "'--with-wheel-pkg-dir=/usr/share/python-wheels/'"
DOCTORED = """\
import importlib.util, sys, sysconfig
from collections import namedtuple
probe, version, args, prefix, include, lacks = sys.argv[1:]
sys.version_info = namedtuple("V", "major minor micro")(*map(int, version.split(".")))
sys.base_prefix, sys.executable = prefix, FAKE
said = {"CONFIG_ARGS": args, "CC": "sh", "Py_GIL_DISABLED": 0}
sysconfig.get_config_var, sysconfig.get_path = said.get, lambda name: include
importlib.util.find_spec = lambda name: None if name in lacks else 1
exec(probe)
"""
"""A real Python that runs what it is asked as one of another version, built in another way."""


class Machine:
    """A machine with some Pythons, and none of the real one's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (self.root / "include").mkdir()
        (self.root / "include" / "Python.h").touch()

    def has(self, path: str, version: str, args: str = "", *, headers: bool = True, lacks: str = "") -> None:
        fake = self.root / path
        fake.parent.mkdir(parents=True, exist_ok=True)
        include = self.root / ("include" if headers else "nothing")
        prefix = "/usr" if path.startswith("usr/") else str(fake.parent.parent)
        code = DOCTORED.replace("FAKE", repr(str(fake)))
        said = shlex.join([version, args, prefix, str(include), lacks])
        fake.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)} "$2" {said}\n')
        fake.chmod(0o755)

    def chosen(self, **environ: str) -> tuple[str, str]:
        """The path that is chosen, below this machine's root, and what is said."""
        path = f"{self.root}/usr/bin:{self.root}/opt:/usr/bin:/bin"
        script = (ROOT / ".ci" / "python").read_text().replace('/usr/bin "', f'"{self.root}/usr/bin" "')
        script = script.replace(' "${folders[@]}" /usr/local/bin', f' "{self.root}/opt"')
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": path, "HOME": str(self.root / "home"), **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip().removeprefix(f"{self.root}/"), done.stderr.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_optimised_one_comes_before_a_newer_one_that_is_not_and_it_is_said_why(machine: Machine) -> None:
    machine.has("usr/bin/python3.11", "3.11.2", DEBIAN)
    machine.has("home/.pyenv/versions/3.13.0/bin/python3.13", "3.13.0")
    path, said = machine.chosen()
    assert path == "usr/bin/python3.11"
    assert said.count("\n") == 0
    assert said.startswith(f"Python 3.11.2, {machine.root}/usr/bin/python3.11: built with PGO and LTO; ")
    assert "(3.13.0): built without PGO and LTO" in said


def test_of_optimised_ones_the_newest_that_is_supported_is_taken(machine: Machine) -> None:
    machine.has("opt/python3.12", "3.12.9", OPTIMISED)
    machine.has("opt/python3.13", "3.13.1", OPTIMISED)
    machine.has("opt/python3.14", "3.14.0", OPTIMISED)
    machine.has("usr/bin/python3", "3.11.2", DEBIAN)
    assert machine.chosen()[0] == "opt/python3.13"


def test_one_that_can_compile_the_core_comes_before_an_optimised_one_that_cannot(machine: Machine) -> None:
    machine.has("usr/bin/python3", "3.11.2", DEBIAN, headers=False)
    machine.has("opt/python3.12", "3.12.9")
    path, said = machine.chosen()
    assert path == "opt/python3.12"
    assert "built with PGO and LTO, cannot compile the core" in said


def test_one_without_venv_is_no_use_and_is_named_if_there_is_no_other(machine: Machine) -> None:
    machine.has("usr/bin/python3", "3.11.2", DEBIAN, lacks="ensurepip")
    path, said = machine.chosen()
    assert (path, said) == ("", f"{machine.root}/usr/bin/python3 has no venv: apt-get install python3-venv")
    machine.has("opt/python3.12", "3.12.9")
    assert machine.chosen()[0] == "opt/python3.12"


def test_older_ones_count_for_nothing(machine: Machine) -> None:
    machine.has("usr/bin/python3", "3.10.9", OPTIMISED)
    assert machine.chosen() == ("", "Ramal needs Python 3.11 or later: apt-get install python3 python3-venv")


def test_whoever_names_one_gets_it(machine: Machine) -> None:
    machine.has("usr/bin/python3.11", "3.11.2", DEBIAN)
    machine.has("opt/python3.12", "3.12.9")
    assert machine.chosen(PYTHON="python3.12")[0] == "opt/python3.12"
    assert machine.chosen(PYTHON="python3.9")[1].startswith("Ramal needs Python 3.11 or later, which python3.9 is not")


def test_of_the_real_ones_here_one_is_chosen() -> None:
    done = subprocess.run([ROOT / ".ci" / "python"], capture_output=True, text=True, check=True)
    assert os.access(done.stdout.strip(), os.X_OK)
