"""The page that is served is the one that its sources make: built anew, with the packages of the lock file."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ramal.processes import PackageMissing, find, tail

pytestmark = pytest.mark.e2e

CONSOLE = Path(__file__).parents[3] / "console"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_committed_page_equals_a_fresh_build(tmp_path: Path) -> None:
    try:
        npm = find("npm", "npm")
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    web, log = tmp_path / "web", tmp_path / "npm.log"
    shutil.copytree(CONSOLE / "web", web, ignore=shutil.ignore_patterns("node_modules"))
    with log.open("wb") as out:
        # No package's own script runs: what they do is not in the lock file.
        for words in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build", "--", "../static"]):
            done = subprocess.run([npm, *words], cwd=web, stdout=out, stderr=out, timeout=240, check=False)
            assert done.returncode == 0, tail(log, 20)
    assert contents(tmp_path / "static") == contents(CONSOLE / "static")


def test_the_lock_file_names_every_package_by_its_digest_and_no_address_to_fetch_it_from() -> None:
    packages = json.loads((CONSOLE / "web" / "package-lock.json").read_text())["packages"]
    named = {name: package for name, package in packages.items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in named.values())
    assert not any("resolved" in package for package in named.values())


def test_the_licence_of_every_package_in_the_page_comes_with_it() -> None:
    text = (CONSOLE / "static" / "licences.txt").read_text()
    for name in ("jssip", "debug", "events", "ms", "sdp-transform", "uplot"):
        assert f"{name} " in text
    assert text.count("Permission is hereby granted") == 6
