"""The map at the head of a package names every file in it, and nothing that is not there."""

import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PACKAGES = ("authsvc", "cdr", "console", "edge", "events", "locator", "ramal", "registrar", "runtime", "sipcore")
ENTRY = re.compile(r"( *)([a-z0-9_]+/?(?:, [a-z0-9_]+)*)(?: .*|$)")


def modules(package: str) -> set[str]:
    """Dotted names of all modules and folders below a package, without its own."""
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return {module.name.removeprefix(f"{package}.") for module in found} - {"__main__"}


def drawn(map_: str) -> Iterator[tuple[str, bool]]:
    """Dotted names of what a map says, by its indentation, and whether it says that they are pure."""
    folders: list[tuple[int, str]] = []
    for line in map_.splitlines():
        if entry := ENTRY.match(line):
            indent = len(entry[1])
            folders = [(depth, name) for depth, name in folders if depth < indent]
            pure = line[entry.end(2) :].strip().startswith("PURE")
            for name in entry[2].split(", "):
                yield ".".join([*(above for _, above in folders), name.rstrip("/")]), pure
            if entry[2].endswith("/"):
                folders.append((indent, entry[2].rstrip("/")))


def map_of(package: str) -> list[tuple[str, bool]]:
    """What the map at the head of a package says."""
    _, _, map_ = (import_module(package).__doc__ or "").partition("\n\n")
    return list(drawn(map_))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_of_a_package_is_its_folder(package: str) -> None:
    assert sorted(name for name, _ in map_of(package)) == sorted(modules(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_map_calls_pure_is_held_to_it_by_the_imports_contract(package: str) -> None:
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    held = next(contract["source_modules"] for contract in contracts if contract["name"].startswith("Pure code"))

    assert {f"{package}.{name}" for name, pure in map_of(package) if pure} <= set(held)


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


def test_a_file_of_more_than_400_lines_says_why() -> None:
    """In its docstring, in a sentence that begins with these words: whoever splits it knows what stands against it."""
    root = PYPROJECT.parent
    files = [file for folder in (*PACKAGES, "bench", "tests") for file in (root / folder).rglob("*.py")]

    long = [file for file in files if len(file.read_text().splitlines()) > 400]

    assert [str(file.relative_to(root)) for file in long if "\nOver 400 lines: " not in file.read_text()] == []
