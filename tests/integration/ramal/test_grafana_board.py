"""The board is what Grafana's published schema (the types of its Foundation SDK) says a board is.

Grafana itself cannot be had from the registries that the tests reach.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BOARD = ROOT / "deploy" / "grafana" / "dashboards" / "ramal.json"
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/board."""
    if not shutil.which("go"):
        pytest.skip("nothing reads Grafana's schema here: no Go")
    program = tmp_path_factory.mktemp("board") / "board"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."], cwd=ROOT / "tests" / "board", capture_output=True, text=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}, timeout=280, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"nothing reads Grafana's schema here: {done.stderr.strip()[-300:]}")
    return program


def read(reader: Path, board: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(reader), str(board)], capture_output=True, text=True, timeout=30, check=False)


def test_the_board_is_what_the_schema_says(reader: Path) -> None:
    said = read(reader, BOARD)
    assert said.returncode == 0, said.stdout
    assert said.stdout.split() == ["Ramal", str(len(json.loads(BOARD.read_text())["panels"]))]


@pytest.mark.parametrize("field", ["gridPos", "surprise"])
def test_what_is_wrong_with_a_board_is_found(reader: Path, tmp_path: Path, field: str) -> None:
    board = json.loads(BOARD.read_text())
    board["panels"][1][field] = "nowhere"
    (tmp_path / "board.json").write_text(json.dumps(board))
    said = read(reader, tmp_path / "board.json")
    assert said.returncode == 1
    assert field in said.stdout
