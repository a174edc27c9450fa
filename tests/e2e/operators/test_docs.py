"""The documents say what is so: every command in a ```console block is run, every name stands in the code.

What runs for long (a service, `make test`) is not run here: its target or its options must exist, and the test
that does run it is named in `ELSEWHERE`.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ramal.cli import app
from ramal.system import sections
from runtime.config import Sources, masked, toml
from tests.e2e.conftest import DOMAIN, Running, start_up
from tests.kit.phone import Phone
from tests.kit.wire import UdpLink

ROOT = Path(__file__).parents[3]
ENGLISH = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PORTUGUESE = sorted((ROOT / "docs" / "pt").glob("*.md"))
DOCUMENTS = [*ENGLISH, *PORTUGUESE]
TRANSLATED = {
    ROOT / "README.md": ROOT / "docs" / "pt" / "README.md",
    ROOT / "docs" / "operating.md": ROOT / "docs" / "pt" / "operacao.md",
    ROOT / "docs" / "configuration.md": ROOT / "docs" / "pt" / "configuracao.md",
    ROOT / "docs" / "tutorial.md": ROOT / "docs" / "pt" / "tutorial.md",
    ROOT / "docs" / "security.md": ROOT / "docs" / "pt" / "seguranca.md",
    ROOT / "docs" / "containers.md": ROOT / "docs" / "pt" / "conteineres.md",
    ROOT / "docs" / "kubernetes.md": ROOT / "docs" / "pt" / "kubernetes.md",
    ROOT / "docs" / "migration.md": ROOT / "docs" / "pt" / "migracao.md",
    ROOT / "docs" / "console.md": ROOT / "docs" / "pt" / "console.md",
}
OPERATING = list(TRANSLATED.items())[1]
SETTINGS = list(TRANSLATED.items())[2]

ELSEWHERE = {
    "make install": ".ci/run",
    "make up": "tests/e2e/operators/test_e2e_up.py",
    "make stack": "tests/e2e/cluster/test_e2e_stack.py",
    "make test": ".ci/run",
    "make check": ".ci/run",
    "make chaos": "tests/chaos/test_chaos_stack.py",
    "make e2e": "tests/e2e/calls/test_e2e_abandoned.py",
    "make fuzz": "tests/fuzz/test_fuzz_parser.py",
    "make bench": "bench/ramal.json",
    "make bench-restore": "bench/restore.py",
    "make image": "tests/containers/test_image.py",
    "make secrets": "tests/unit/ramal/test_compose_file.py",
    "make test-containers": "tests/containers/run",
    "docker compose": "tests/containers/test_compose.py",
    "ramal import": "tests/e2e/operators/test_e2e_import.py",
    "ramal trace": "tests/e2e/operators/test_e2e_trace.py",
    "ramal up": "tests/e2e/operators/test_e2e_up.py",
    "ramal stack": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal edge": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal authsvc": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal registrar": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal locator": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal cdr": "tests/e2e/cluster/test_e2e_stack.py",
    "ramal analytics": "tests/integration/cdr/test_analytics.py",
    "ramal run": "tests/e2e/operators/test_docs.py",
}
"""What runs for long, and the file that runs it."""

VARIABLES = {
    "EDGES",
    "AUTHSVCS",
    "REGISTRARS",
    "LOCATORS",
    "CDRS",
    "ANALYTICS",
    "USERS",
    "SIP_PORT",
    "BENCH",
    "ROUNDS",
    "FUZZ_CASES",
}
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(RAMAL_\w+)` \| `(.*?)` \|", re.MULTILINE)


def commands(document: Path) -> list[str]:
    """The lines of its console blocks that begin with `$`."""
    lines = [line for block in _BLOCK.findall(document.read_text()) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def bare(command: str) -> tuple[str, list[str]]:
    """`make stack` and the other words of `EDGES=3 make stack`; `ramal up` of `.venv/bin/ramal up --data x`."""
    words = shlex.split(command.split("|")[-1])
    while "=" in words[0]:
        words.pop(0)
    return f"{Path(words[0]).name} {words[1]}", words[2:]


ALL = list(dict.fromkeys(command for document in DOCUMENTS for command in commands(document)))
RUN = [command for command in ALL if bare(command)[0] not in ELSEWHERE]
NOT_RUN = [command for command in ALL if bare(command)[0] in ELSEWHERE]


def subcommand(name: str) -> Any:
    """A subcommand of `ramal`, as its parser has it; KeyError when there is none."""
    group: Any = typer.main.get_command(app)
    return group.commands[name]


# --- commands ------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory with a running system in `ramal-data` where alice is registered, and the way to `ramal`."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / ".venv" / "bin").mkdir(parents=True)
    ramal = directory / ".venv" / "bin" / "ramal"
    ramal.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ramal "$@"\n')
    ramal.chmod(0o755)
    (directory / "bench").symlink_to(ROOT / "bench")
    python = ramal.with_name("python")
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    running, system = start_up(directory / "ramal-data")
    try:
        _register_alice(running, system.edges[0])
        host, port = system.edges[0]
        yield (
            directory,
            {
                **os.environ,
                "EDGE": f"{host}:{port}",
                "PATH": f"{ramal.parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
            },
        )
    finally:
        running.end()


def _register_alice(running: Running, edge: tuple[str, int]) -> None:
    running.wait_for(lambda: "Ctrl-C" in running.output())
    password = re.findall(r"User +alice +password (\S+)", running.output())[0]
    with Phone(UdpLink(edge), "alice", password, DOMAIN) as phone:
        assert phone.register("<sip:alice@192.0.2.4:5062>").status == 200


@pytest.mark.e2e
@pytest.mark.parametrize("command", RUN)
def test_every_command_in_the_documents_works(site: tuple[Path, dict[str, str]], command: str) -> None:
    """As it stands; one that would ask Kafka is asked of the embedded system (on the stack: test_e2e_questions.py).

    Its edge is not at port 5060, since somebody else's may be.
    """
    directory, environ = site
    command = command.replace("127.0.0.1:5060", "$EDGE")
    if "--data" not in command and "--data" in _known_options(command):
        command += " --data ramal-data"
    done = subprocess.run(
        ["sh", "-c", command], cwd=directory, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def _known_options(command: str) -> set[str]:
    program, name = bare(command)[0].split()
    if program != "ramal":
        return set()
    return {option for parameter in subcommand(name).params for option in parameter.opts}


@pytest.mark.parametrize("command", NOT_RUN)
def test_what_runs_for_long_exists_with_these_options_and_is_run_by_another_test(command: str) -> None:
    name, words = bare(command)
    program, what = name.split()
    given = {word.partition("=")[0] for word in command.split(program)[0].split() if "=" in word}
    if program == "make":
        assert re.search(rf"^{what}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert given <= VARIABLES
    elif program == "docker":
        assert words[0] == "up", "another command of compose's needs a test of its own"
    else:
        # Raises on an option or a value that there is not.
        subcommand(what).make_context(what, list(words)).close()
        assert all(variable.startswith("RAMAL_") for variable in given)
    where = ELSEWHERE[name]
    assert (ROOT / where).exists()


@pytest.mark.e2e
def test_several_services_run_in_one_process(tmp_path: Path) -> None:
    """`ramal run` begins, says that Kafka is away, and ends in order."""
    environ = {"RAMAL_KAFKA_BOOTSTRAP": "127.0.0.1:9", "RAMAL_KEYS": f"k1:{'ab' * 16}"}
    running = Running(["run", "registrar"], tmp_path / "run.log", environ)
    try:
        running.wait_for(lambda: "the log is away" in running.output())
    finally:
        assert running.end() == 0


@pytest.mark.parametrize("pair", TRANSLATED.items(), ids=lambda pair: pair[1].name)
def test_the_portuguese_documents_name_the_same_commands(pair: tuple[Path, Path]) -> None:
    english, portuguese = pair
    assert commands(portuguese) == commands(english)


def parts(document: Path) -> tuple[list[int], list[list[str]]]:
    """The levels of its headings in order, and of each table the words in code of each row's first cell."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    names = [[" ".join(re.findall(r"`([A-Za-z_{}.]+)`", row.split("|")[1])) for row in table] for table in tables]
    return [len(hashes) for hashes in re.findall(r"^(#+) ", text, re.MULTILINE)], names


@pytest.mark.parametrize("pair", TRANSLATED.items(), ids=lambda pair: pair[1].name)
def test_the_portuguese_documents_have_every_heading_and_every_row_of_the_english_ones(pair: tuple[Path, Path]) -> None:
    english, portuguese = map(parts, pair)
    assert portuguese[0] == english[0]
    assert [len(table) for table in portuguese[1]] == [len(table) for table in english[1]]
    assert portuguese[1] == english[1]


# --- settings ------------------------------------------------------------------


@pytest.mark.parametrize("document", SETTINGS, ids=lambda document: document.name)
def test_every_setting_stands_in_the_table_with_its_default(document: Path) -> None:
    expected = {
        f"RAMAL_{name.upper()}_{key.upper()}" if name else f"RAMAL_{key.upper()}": toml(value)
        for name, settings in sections(Sources({}, {})).items()
        for key, value in masked(settings).items()
    }
    assert dict(_ROW.findall(document.read_text())) == expected


def meanings(document: Path) -> dict[str, tuple[int, list[str], list[str]]]:
    """By setting, what is the same in all languages: how much is quoted, its RFCs and its figures."""
    rows = re.findall(r"^\| `(RAMAL_\w+)` \|[^|]*\| (.*) \|$", document.read_text(), re.MULTILINE)
    return {
        name: (
            len(re.findall("`[^`]+`", text)),
            sorted(re.findall(r"RFC \d+", text)),
            sorted(re.findall(r"\d+", re.sub(r"(?<=\d)[.,](?=\d{3}\b)", "", text))),
        )
        for name, text in rows
    }


def test_every_setting_is_explained_in_portuguese_with_the_values_rfcs_and_figures_of_the_english_text() -> None:
    english, portuguese = map(meanings, SETTINGS)
    assert portuguese == english
    assert len(english) > 100


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_variable_that_a_document_names_is_a_setting(document: Path) -> None:
    settings = {name for name, _ in _ROW.findall(SETTINGS[0].read_text())}
    secrets = {f"{name}_FILE" for name in settings}
    named = set(re.findall(r"\bRAMAL_[A-Z_]*[A-Z]\b", document.read_text()))
    # The two that no section has: which file is read, and what `make install` compiles.
    assert named <= settings | secrets | {"RAMAL_CONFIG", "RAMAL_COMPILE"}


# --- names ---------------------------------------------------------------------


def source() -> str:
    """All of the code that runs in services, strings of several lines joined."""
    packages = ("edge", "authsvc", "registrar", "locator", "cdr", "console", "runtime", "ramal", "events", "sipcore")
    return "\n".join(path.read_text() for package in packages for path in sorted((ROOT / package).rglob("*.py")))


@pytest.mark.parametrize("document", OPERATING, ids=lambda document: document.name)
def test_c19_every_metric_is_told_and_every_metric_told_exists(document: Path) -> None:
    made = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(ramal_\w+)"', source())) - {"ramal_http"}
    told = {name.removesuffix("_total") for name in re.findall(r"`(ramal_[a-z_]+)", document.read_text())}
    assert told == made


def test_every_drop_and_every_log_message_that_is_told_exists() -> None:
    text, code = OPERATING[0].read_text(), source()
    drops = re.search(r"^\| name \| what was dropped \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert drops
    for name in re.findall(r"`([a-z_-]+)`", " ".join(row.split("|")[1] for row in drops[1].splitlines()[1:])):
        assert f'"{name}"' in code, name
    outages = re.search(r"^\| outage \|.*?\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert outages
    quoted = re.findall(r"`([^`]+)`", " ".join(row.split("|")[3] for row in outages[1].splitlines()[1:]))
    messages = [text for text in quoted if not text.startswith("/")]
    assert len(messages) > 8
    for message in messages:
        assert f'"{message}"' in code, message


def test_the_checklists_lines_that_are_said_to_be_covered_have_a_test() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    here = {*(f"{letter}{number}" for letter, number in re.findall(r"\b([A-Z])(\d\d)\b", tests))}
    for letter, first, last in re.findall(r"\b([A-Z])(\d\d)(?:–| to )[A-Z]?(\d\d)\b", tests):
        here |= {f"{letter}{number:02d}" for number in range(int(first), int(last) + 1)}
    for name in re.findall(r"def test_((?:[a-z]\d\d_)+)", tests):
        here |= {part.upper() for part in name.strip("_").split("_")}
    covered = set()
    for row in re.findall(r"^\| [A-Z] .*?\| (.*?) \|.*$", text, re.MULTILINE):
        for letter, first, last in re.findall(r"\b([A-Z])(\d\d)(?:–(\d\d))?\b", row):
            covered |= {f"{letter}{number:02d}" for number in range(int(first), int(last or first) + 1)}
    assert covered
    assert covered <= here, sorted(covered - here)
