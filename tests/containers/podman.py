"""The container engine of the tests: podman, and whether what they need of it is on this machine."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = Path(__file__).parent
BASE = "docker.io/library/python:3.13-slim"
IMAGE = "localhost/ramal:tested"
FULL = os.environ.get("RAMAL_CONTAINERS") == "full"
"""Whether `make test-containers` runs: it has made what is missing."""
_OF_THIS_MACHINE = ("/etc/ssl/certs", "/etc/pip.conf")
"""By which pip finds its way out."""


def podman(*arguments: str, seconds: float = 60, check: bool = True) -> str:
    """Standard output of a command of podman's."""
    command = ["podman", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@cache
def why_not() -> str:
    """Why no image can be built and run here; empty where one can."""
    if os.geteuid() != 0:
        return "containers are tried by root only"
    for program in ("podman", "runc"):
        if not shutil.which(program):
            return f"{program} is not installed: `make test-containers` does it"
    if subprocess.run(["podman", "image", "exists", BASE], capture_output=True, check=False).returncode:
        return f"there is no base image {BASE}: `make test-containers` makes it"
    return ""


def build(context: Path, name: str = IMAGE) -> None:
    """Builds the image of a tree; packages are fetched by way of this machine."""
    # Mounted while it is built: as a variable it would stand in the image.
    mount = [f"--volume={path}:{path}:ro" for path in _OF_THIS_MACHINE if Path(path).exists()]
    podman(
        "build", "--quiet", "--format", "docker", "--network", "host", *mount, "--tag", name, str(context), seconds=800
    )
