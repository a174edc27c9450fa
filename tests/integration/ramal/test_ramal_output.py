"""What the command line writes where somebody reads it, and where nobody does any more."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from authsvc.users.file import add_user
from ramal.cli import app
from ramal.directory import USERS
from ramal.help import PANELS
from ramal.system import embedded
from runtime.config import Sources
from runtime.log.port import Append
from sipcore import message

RAMAL = [sys.executable, "-m", "ramal"]
MANY = 5_000


def commands() -> list[tuple[str, ...]]:
    """Every command and group, by its words."""
    found: list[tuple[str, ...]] = [()]
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # a group
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", ())]
    return found


def test_every_command_says_by_h_what_it_does_as_by_help() -> None:
    runner = CliRunner()
    assert len(commands()) > 20
    for words in commands():
        short, long = (runner.invoke(app, [*words, option]) for option in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output)
        assert "Usage:" in short.output


def test_every_command_has_help_with_an_example() -> None:
    for words in commands():
        text = " ".join(CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output.split())
        example = text.rpartition("Example: ")[2]
        assert f"ramal {' '.join(words)}".rstrip() in example, words


def test_no_flag_reads_as_if_it_took_a_value_and_every_parameter_says_what_it_is() -> None:
    faults = []
    for words in commands():
        text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
        assert "<bool>" not in text, words
        assert "<int range>" not in text, words
        rows = re.findall(r"^│ +(?:\*? +)?((?:--|[A-Z]).*?) *│$", text, re.MULTILINE)
        faults += [(*words, row) for row in rows if len(row.split()) < 4]
    assert faults == []


def test_the_first_command_is_the_one_to_begin_with_and_each_has_its_place() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    names = re.findall(r"^│ ([a-z][a-z-]*) ", text, re.MULTILINE)
    assert names[0] == "up"
    assert set(names) == {name for names in PANELS.values() for name in names}
    assert "─ Commands ─" not in text, "one that stands in no panel"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_stream_breaks_nothing(data: Path, closed: int) -> None:
    script = f'exec "$@" {closed}{"<" if closed == 0 else ">"}&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *RAMAL, "show", "--data", str(data)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout


def test_ctrl_c_while_the_program_is_still_being_loaded_ends_it_without_a_word() -> None:
    with subprocess.Popen([*RAMAL, "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        modules = Path(f"/proc/{process.pid}/maps")
        while "msgspec" not in modules.read_text():  # a third of all imports are done
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)
    assert (process.returncode, said[1]) == (130, b"")


def test_the_version_is_that_of_the_package_and_says_whether_the_core_is_compiled() -> None:
    said = subprocess.run([*RAMAL, "--version"], capture_output=True, text=True, check=True).stdout
    compiled = "compiled" if message.__file__.endswith(".so") else "not compiled"
    assert said == f"ramal {metadata('ramal')['Version']} (core {compiled})\n"


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """An embedded system with a user, whose topic `audit` has many records."""
    add_user(tmp_path / USERS, "alice", "example.test", "secret")
    system = embedded(tmp_path, Sources({}, {}))
    async with system.log() as log:
        await log.append([Append("audit", 0, b"key", b'{"type":"ramal.Unknown"}') for _ in range(MANY)])
    return tmp_path


@pytest.mark.parametrize("count", [[], ["--count", str(MANY)]], ids=["following", "to its end"])
def test_tail_ends_without_a_word_when_nobody_reads_it(data: Path, count: list[str]) -> None:
    assert cut_off("tail", "audit", "--from-beginning", *count, "--data", str(data)) == (1, b"")


@pytest.mark.parametrize("words", [["config"], ["--help"], ["user", "list"]])
def test_a_command_that_nobody_reads_ends_without_a_word(data: Path, words: list[str]) -> None:
    """Also where its output is written at its end alone."""
    assert cut_off(*words, *(["--data", str(data)] if "list" in words else []), lines=0)[1] == b""


def cut_off(*words: str, lines: int = 1) -> tuple[int, bytes]:
    """Exit code and errors of a command of whose output so many lines are read."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen([*RAMAL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        try:
            return process.wait(20), process.stderr.read()
        finally:
            process.kill()
