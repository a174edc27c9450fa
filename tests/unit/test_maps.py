"""The map at the head of a package names every file in it, and nothing that is not there."""

import pkgutil
import re
import subprocess
import sys
from importlib import import_module

import pytest


def modules(package: str) -> set[str]:
    """Names of all modules and folders below a package."""
    path = import_module(package).__path__
    return {module.name.rpartition(".")[2] for module in pkgutil.walk_packages(path, f"{package}.")}


@pytest.mark.parametrize("package", ["edge", "authsvc"])
def test_the_map_of_a_package_is_its_folder(package: str) -> None:
    _, _, drawn = (import_module(package).__doc__ or "").partition("\n\n")
    named = set()
    for line in drawn.splitlines():
        if entry := re.match(r" *([a-z0-9_]+/?(?:, [a-z0-9_]+)*)(?: .*|$)", line):
            named |= {name.strip("/ ") for name in entry[1].split(",")}

    assert named == modules(package)


def test_the_core_of_the_edge_loads_no_network() -> None:
    """In a process of its own: what its imports import counts."""
    loads = (
        "import edge.core, importlib, pkgutil, sys\n"
        "for module in pkgutil.walk_packages(edge.core.__path__, 'edge.core.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted({'asyncio', 'socket', 'ssl', 'aiohttp', 'aiokafka', 'random', 'secrets'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
