"""Files for analysts: all formats read back, exports go on where they were, the documents' examples tell the truth."""

import asyncio
import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from cdr.config import Settings
from cdr.events import call_record
from cdr.handler import CdrHandler
from events.calls import CallEvent
from events.cdrs import CallRecord
from events.registrations import Claimed
from events.topics import CALLS, CDRS
from ramal import export as export_module
from ramal import parts
from ramal.backends import KafkaServer
from ramal.cli import app
from ramal.export import COLUMNS
from runtime.config import Kafka
from runtime.database.sqlite import SQLiteDatabase
from runtime.errors import ConfigError
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from runtime.store import EmbeddedStore
from tests.kit.call_stories import Story, append, missed, talk
from tests.kit.locator import Scribe, claim

PARTITIONS = 4
HOUR = 3_600_000
BEGIN = 1_790_000_000_000 // HOUR * HOUR
ROOT = Path(__file__).parents[3]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "analysts.md").read_text(), re.MULTILINE | re.DOTALL)


def generated() -> list[Story]:
    """Calls whose answers are known: see `ANSWERS`."""
    stories = []
    for number, (hour, callee, ring) in enumerate(
        [(0, "bob", 1000), (0, "bob", 0), (1, "bob", 3000), (1, "carol", 5000), (1, "carol", 7000), (3, "bob", 0)]
    ):
        more: dict[str, Any] = {"call_id": f"c{number}", "now": BEGIN + hour * HOUR + number}
        stories.append(talk("alice", callee, ring=ring - 50, **more) if ring else missed("alice", callee, **more))
    return stories


FIRST = BEGIN // HOUR
ANSWERS = {
    "per_hour": {FIRST: 2, FIRST + 1: 3, FIRST + 3: 1},
    "busiest": FIRST + 1,
    "missed_rate": {"bob@example.test": 0.5, "carol@example.test": 0.0},
    "median_ms": 4000,
}


async def filled(directory: Path, events: list[CallEvent]) -> None:
    """A system's file with calls and registrations."""
    store = EmbeddedStore(directory / "ramal.db")
    log, database = EmbeddedLog(store, PARTITIONS), SQLiteDatabase(store)
    await log.start()
    await database.start()
    await database.migrate()
    handler = CdrHandler(log, database, Settings())
    starts = {number: await handler.restore(number) for number in range(PARTITIONS)}
    await log.append([append(event, PARTITIONS) for event in events])
    batch: dict[int, list[Any]] = {}
    for number, start in starts.items():
        if (end := (await log.bounds(CALLS, number)).end) > start:
            batch[number] = [r async for records in log.read(CALLS, number, start, end) for r in records]
    await handler.handle(batch)
    scribe = Scribe()
    await claim(log, scribe)
    registered = [
        scribe.register("alice@example.test", "sip:a@192.0.2.4"),
        scribe.end("alice@example.test", "sip:a@192.0.2.4"),
    ]
    await log.append([scribe.append(event) for event in (*registered, Claimed("x"))])
    await log.stop()
    await database.stop()
    await store.stop()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    asyncio.run(filled(tmp_path, [event for story in generated() for event in story.events]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data", str(directory)], catch_exceptions=False)


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
    "csv": lambda path: list(csv.DictReader(io.StringIO(path.read_text(), newline=""))),
    "parquet": lambda path: pyarrow.parquet.read_table(path).to_pylist(),
}


@pytest.mark.parametrize("format_", READERS)
@pytest.mark.parametrize(("what", "count"), [("cdrs", 6), ("calls", 38), ("registrations", 2)])
def test_every_format_reads_back(directory: Path, what: str, count: int, format_: str) -> None:
    path = directory / f"out.{format_}"
    done = ask(directory, "export", what, "--format", format_, "--output", str(path))
    assert done.exit_code == 0
    assert f"{count} rows in" in done.stdout
    rows = READERS[format_](path)
    assert len(rows) == count
    assert set(rows[0]) <= {column.name for column in COLUMNS[what]}
    if what == "cdrs":
        assert {row["call_id"] for row in rows} == {f"c{n}" for n in range(6)}
        assert sum(int(row["talk_ms"]) for row in rows) == 4 * 60_000
        assert {str(row["missed"]) for row in rows} <= {"True", "False", "0", "1"}
        by_call = {row["call_id"]: row for row in rows}
        assert by_call["c0"]["codecs"] in (["opus"], "opus")
        assert by_call["c1"]["answered"] in (None, "")
    elif what == "calls":
        assert len({row["id"] for row in rows}) == count
    else:
        assert [row["kind"] for row in rows] == ["created", "unregistered"]
    assert not (directory / f"out.{format_}.parts").exists()


def test_only_what_began_in_that_time_is_exported(directory: Path) -> None:
    since = datetime.fromtimestamp((BEGIN + HOUR) / 1000, UTC).isoformat()
    until = datetime.fromtimestamp((BEGIN + 2 * HOUR) / 1000, UTC).isoformat()
    ask(directory, "export", "cdrs", "--since", since, "--until", until, "--output", "some.jsonl")
    assert {row["call_id"] for row in READERS["jsonl"](directory / "some.jsonl")} == {"c2", "c3", "c4"}


def test_nothing_is_an_empty_file(directory: Path) -> None:
    for format_, read in READERS.items():
        ask(
            directory, "export", "cdrs", "--until", "2000-01-01 00:00", "--format", format_, "--output", f"no.{format_}"
        )
        assert read(directory / f"no.{format_}") == []


@pytest.mark.parametrize("what", ["cdrs", "calls", "registrations"])
@pytest.mark.parametrize("format_", READERS)
def test_an_export_that_was_interrupted_goes_on_and_the_file_is_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch, what: str, format_: str
) -> None:
    whole, resumed = directory / f"whole.{format_}", directory / f"resumed.{format_}"
    ask(directory, "export", what, "--format", format_, "--output", str(whole))
    monkeypatch.setattr(parts, "PART", 1)
    monkeypatch.setattr(export_module, "TOGETHER", 2)
    real, written = parts.Parts._write, [0]

    def dies(self: Any) -> None:
        written[0] += 1
        if written[0] == 3:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(parts.Parts, "_write", dies)
    arguments = ("export", what, "--format", format_, "--output", str(resumed))
    outcomes = [ask(directory, *arguments) for _ in range(2)]
    if what != "registrations":
        assert outcomes[0].exit_code != 0
        assert "Going on after" in outcomes[1].stdout
    assert sorted(map(str, READERS[format_](resumed))) == sorted(map(str, READERS[format_](whole)))


def test_what_is_no_file_is_written_to_and_never_replaced(directory: Path) -> None:
    """As root, `--output /dev/null` would otherwise leave the machine with a file of that name."""
    command = [sys.executable, "-m", "ramal", "export", "cdrs", "--data", str(directory), "--output"]
    piped = subprocess.run([*command, "-"], capture_output=True, text=True, cwd=directory, check=True)
    device = subprocess.run([*command, "/dev/stdout"], capture_output=True, text=True, cwd=directory, check=True)
    for done in (piped, device):
        assert {json.loads(line)["call_id"] for line in done.stdout.splitlines()} == {f"c{n}" for n in range(6)}
        assert "6 rows in" in done.stderr
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*command, str(pipe)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as writer:
        assert len(pipe.read_text().splitlines()) == 6
        assert writer.wait(30) == 0
    assert pipe.is_fifo()
    assert sorted(path.name for path in directory.iterdir() if not path.name.startswith("ramal.db")) == ["pipe"]


def test_a_place_where_no_file_can_be_is_said_before_anything_is_read(directory: Path) -> None:
    for wrong, why in ((directory, "is a directory"), (directory / "none" / "x", "there is no directory")):
        with pytest.raises(ConfigError, match=why):
            ask(directory, "export", "cdrs", "--output", str(wrong))
    assert not directory.with_name(f"{directory.name}.parts").exists()


def test_an_export_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "ramal.db").write_text("no database")
    with pytest.raises(ConfigError):
        ask(tmp_path, "export", "cdrs", "--output", str(tmp_path / "x.jsonl"))
    assert not (tmp_path / "x.jsonl.parts").exists()


def test_another_export_to_the_same_file_is_refused_while_one_is_unfinished(directory: Path) -> None:
    folder = directory / "x.jsonl.parts"
    folder.mkdir()
    (folder / "state.json").write_text('{"what":"calls","format":"jsonl","since":0,"until":1}')
    with pytest.raises(Exception, match="interrupted"):
        ask(directory, "export", "cdrs", "--output", "x.jsonl")


@pytest.mark.parametrize("state", ["", '{"what":"cdrs"'])
def test_a_state_that_cannot_be_read_is_said_and_left(directory: Path, state: str) -> None:
    """As a machine leaves it that lost its power."""
    folder = directory / "x.jsonl.parts"
    folder.mkdir()
    (folder / "state.json").write_text(state)
    with pytest.raises(ConfigError, match=r"state\.json cannot be read"):
        ask(directory, "export", "cdrs", "--output", "x.jsonl")
    assert (folder / "state.json").read_text() == state


def test_two_exports_never_write_the_same_file_at_a_time(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "ramal", "export", "cdrs", "--data", str(directory), "--output", "x.jsonl"]
    others: list[subprocess.CompletedProcess[str]] = []
    real = parts.Parts._write

    def meanwhile(self: Any) -> None:
        others.append(subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False))
        real(self)

    monkeypatch.setattr(parts.Parts, "_write", meanwhile)
    assert "6 rows in" in ask(directory, "export", "cdrs", "--output", "x.jsonl").stdout
    [other] = others
    assert (other.returncode, "another export is writing x.jsonl now" in other.stderr) == (2, True)
    assert len(READERS["jsonl"](directory / "x.jsonl")) == 6
    assert not (directory / "x.jsonl.parts").exists()


@pytest.mark.parametrize("format_", READERS)
def test_a_full_disk_is_said_and_the_export_goes_on_when_there_is_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    path = directory / f"x.{format_}"
    words = ("export", "calls", "--format", format_, "--output", str(path))
    monkeypatch.setattr(parts, "PART", 10)
    real, written = parts.Parts._write, [0]

    def full(self: Any) -> None:
        written[0] += 1
        if written[0] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self)

    monkeypatch.setattr(parts.Parts, "_write", full)
    with pytest.raises(OSError, match=rf"No space left on device: '.*x\.{format_}\.parts'"):
        ask(directory, *words)
    assert not path.exists()
    assert "Going on after" in ask(directory, *words).stdout
    assert len(READERS[format_](path)) == 38


def test_a_text_that_a_spreadsheet_would_run_is_a_text(tmp_path: Path) -> None:
    story = Story(call_id="=HYPERLINK(1)").attempted(agent="@SUM(1)").failed(404)
    asyncio.run(filled(tmp_path, story.events))
    ask(tmp_path, "export", "cdrs", "--format", "csv", "--output", str(tmp_path / "x.csv"))
    (row,) = READERS["csv"](tmp_path / "x.csv")
    assert (row["call_id"], row["caller_agent"]) == ("'=HYPERLINK(1)", "'@SUM(1)")


def test_tail_follows_one_call_from_a_time(directory: Path) -> None:
    lines = ask(directory, "tail", "calls", "--since", "00:00", "--key", "c2", "--count", "4").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert {each["key"] for each in told} == {"c2"}
    assert told[0]["type"] == "ramal.CallAttempted"
    assert told[0]["value"]["call_id"] == "c2"


# --- the documents ---------------------------------------------------------------------------------------------------


def run_example(number: int) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLES[number], f"docs/analysts.md example {number + 1}", "exec"), names)  # our own document
    return {name: names[name] for name in ANSWERS}


def test_there_are_three_worked_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("number", [0, 1], ids=["duckdb", "polars"])
def test_c21_the_examples_on_parquet_give_the_known_answers(directory: Path, number: int) -> None:
    ask(directory, "export", "cdrs", "--format", "parquet", "--output", "cdrs.parquet")
    assert run_example(number) == ANSWERS


@pytest.mark.integration
def test_c21_the_example_of_a_consumer_gives_the_known_answers(
    directory: Path, kafka: KafkaServer, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the stream alone, in which records stand twice and are corrected."""

    async def copied() -> None:
        store = EmbeddedStore(directory / "ramal.db")
        source = EmbeddedLog(store, PARTITIONS)
        await source.start()
        log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, PARTITIONS, "test")
        await log.start()
        await log.create_topics(PARTITIONS)
        wrong = CallRecord(call_id="c0", from_tag="ft", cseq=1, outcome="failed", attempted=BEGIN, incomplete=True)
        await log.append([call_record(wrong, PARTITIONS)])
        for number in range(PARTITIONS):
            end = (await source.bounds(CDRS, number)).end
            records = [r async for batch in source.read(CDRS, number, 0, end) for r in batch] if end else []
            for _ in range(2):
                appended = [Append(CDRS, number, record.key, record.value, record.headers) for record in records]
                if appended:
                    await log.append(appended)
        await log.stop()
        await source.stop()
        await store.stop()

    asyncio.run(copied())
    monkeypatch.setenv("RAMAL_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("RAMAL_TOPIC_PREFIX", topic_prefix)
    assert run_example(2) == ANSWERS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "2026-03-02 00:00", "--until", "2026-03-01 00:00"), "--until"),
        (("--since", "2026-03-02 00:00", "--until", "2026-03-02 00:00"), "--until"),
        (("--since", "soon"), "--since"),
        (("--output", "no/such/place.jsonl"), "--output"),
    ],
)
def test_an_export_that_cannot_be_is_said_and_leaves_nothing(
    directory: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(directory, "export", "cdrs", *words)
    assert not (directory / "no").exists()
    assert not list(directory.glob("*.parts"))
