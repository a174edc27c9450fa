"""`ramal export`: calls, their events and registrations as files for analysts.

What is exported is cut into parts of some thousand rows, each a file of its own beside the one that is wanted; a part
counts once it is renamed, and `state.json` says where the next one begins. So an export that was interrupted goes on
where it was when it is started again with the same arguments. At the end the parts become one file. What is no file
(`-`, a pipe, a device) is written to and never replaced, and cannot be gone on with.
"""

import contextlib
import csv
import io
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cdr.decider import record as record_of
from cdr.events import decode as decode_call
from cdr.state import Call, from_text
from events.calls import CallEvent, event_id, steps
from events.cdrs import CallRecord
from events.registrations import BindingsRecorded, RegistrationEvent
from events.topics import CALLS, REGISTRATIONS
from events.wire import Decoder, Poisoned, encode
from ramal.extras import installing
from ramal.system import System
from runtime.database.port import Database
from runtime.errors import ConfigError
from runtime.log.port import Log, Record

What = Literal["cdrs", "calls", "registrations"]
Format = Literal["jsonl", "csv", "parquet"]
PART = 50_000
"""Rows of one part."""
RECENT = 20_000
"""Steps among which a copy is looked for; copies are written in one batch or soon after."""
TOGETHER = 2_000
"""Rows asked of the database at one time."""

_decode_registration: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)
Row = dict[str, Any]


class Column(NamedTuple):
    """One column: `int`, `float`, `bool`, `str` or `list` (of texts)."""

    name: str
    kind: str


class At(NamedTuple):
    """Where the next row is: a partition and an offset; of `cdrs`, 0 and an id."""

    partition: int
    place: int


def _columns(*structs: type[msgspec.Struct]) -> tuple[Column, ...]:
    """The fields of these types, each once."""
    kinds: dict[str, str] = {}
    for struct in structs:
        for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]  # of a struct
            node = field.type.type if isinstance(field.type, msgspec.inspect.Metadata) else field.type
            kinds.setdefault(field.encode_name, _KINDS.get(type(node), "str"))
    return tuple(Column(name, kind) for name, kind in kinds.items())


_KINDS: dict[type[Any], str] = {
    msgspec.inspect.IntType: "int",
    msgspec.inspect.FloatType: "float",
    msgspec.inspect.BoolType: "bool",
    msgspec.inspect.VarTupleType: "list",
}
_TYPE = Column("type", "str")
REGISTRATION = tuple(
    Column(name, kind)
    for kind, names in (("str", "id aor by kind contact received socket user_agent instance call_id"),
                        ("int", "at binding expires granted created cseq"), ("list", "path"))
    for name in names.split()
)  # fmt: skip
COLUMNS: dict[str, tuple[Column, ...]] = {
    "cdrs": _columns(CallRecord),
    "calls": (Column("id", "str"), _TYPE, *(c for c in _columns(*CallEvent.__args__) if c.name != "first")),
    "registrations": REGISTRATION,
}


class Job(msgspec.Struct):
    """What was asked for, and how far it is; `state.json`."""

    what: str
    format: str
    since: int
    until: int
    parts: int = 0
    rows: int = 0
    partition: int = 0
    place: int = -1
    """-1: at the beginning."""


async def export(
    system: System, console: Console, what: What, format_: Format, output: Path, since: int, until: int
) -> int:
    """Writes what happened in [since, until), in milliseconds, to a file; how many rows. Raises ConfigError."""
    if format_ == "parquet":
        _pyarrow()
    with _folder(output) as folder:
        job = _resumed(folder, Job(what, format_, since, until))
        if job.parts:
            console.print(f"Going on after {job.rows} rows.", soft_wrap=True)
        writer = _Parts(folder, job, COLUMNS[what])
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        async with system.log() as log, system.tables() as tables:
            with Progress(*columns, console=console) as bar:
                task = bar.add_task(f"Rows of {what}", total=await _total(log, tables, what, since, until))
                rows = _cdrs(tables, job) if what == "cdrs" else _records(log, job)
                async with aclosing(rows):  # type: ignore[type-var]  # an async generator
                    async for found, at in rows:
                        writer.add(found, at)
                        bar.update(task, completed=writer.rows)
                bar.update(task, completed=writer.rows, total=writer.rows)
        _put(writer.whole(), output)
    return writer.rows


def is_stream(output: Path) -> bool:
    """Whether it is something that is written to and must not be replaced: `-`, a pipe, a device."""
    special = output.parts[:2] in (("/", "dev"), ("/", "proc"))  # /dev/stdout may lead to a file that others hold
    return str(output) == "-" or special or (output.exists() and not output.is_file())


@contextlib.contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """Where the parts are: beside the file, where they stay if this is interrupted. Raises ConfigError."""
    if output.is_dir():
        raise ConfigError(f"--output: {output} is a directory")
    if is_stream(output):
        with tempfile.TemporaryDirectory(prefix="ramal-export-") as made:
            yield Path(made)
        return
    folder = output.with_name(f"{output.name}.parts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: {folder} cannot be made: {error.strerror}") from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # there is something to go on from
            folder.rmdir()


def _put(whole: Path, output: Path) -> None:
    """Puts what was written where it was wanted."""
    if str(output) == "-":
        with whole.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    elif is_stream(output):
        with whole.open("rb") as file, output.open("wb") as stream:
            shutil.copyfileobj(file, stream)
    else:
        whole.replace(output)
        shutil.rmtree(whole.parent)


def _resumed(folder: Path, wanted: Job) -> Job:
    """The job as it was when it was interrupted. Raises ConfigError when another one was."""
    state = folder / "state.json"
    if not state.exists():
        return wanted
    job = msgspec.json.decode(state.read_bytes(), type=Job)
    if (job.what, job.format, job.since, job.until) != (wanted.what, wanted.format, wanted.since, wanted.until):
        raise ConfigError(f"--output: {folder} has another export that was interrupted; finish or remove it")
    return job


# --- where rows come from --------------------------------------------------------------------------------------------


async def _total(log: Log, tables: Database, what: str, since: int, until: int) -> int:
    """About how many rows there will be."""
    if what == "cdrs":
        sql = "SELECT COUNT(*) FROM cdrs WHERE attempted_ms >= %s AND attempted_ms < %s"
        return int((await tables.query(sql, (since, until)))[0][0])
    topic, total = _topic(what), 0
    for number in range(await log.partitions(topic)):
        total += await log.offset_at(topic, number, until) - await log.offset_at(topic, number, since)
    return total


def _topic(what: str) -> str:
    return CALLS if what == "calls" else REGISTRATIONS


async def _cdrs(tables: Database, job: Job) -> AsyncIterator[tuple[list[Row], At]]:
    """Calls that began in that time, from the table: each once, as it is now."""
    last = job.place
    while True:
        found = await tables.query(
            "SELECT id, call_id, from_tag, cseq, state FROM cdrs"
            " WHERE id > %s AND attempted_ms >= %s AND attempted_ms < %s ORDER BY id LIMIT %s",
            (last, job.since, job.until, TOGETHER),
        )
        if not found:
            return
        rows = [
            _of_record(record_of(Call(call_id, from_tag, int(cseq)), from_text(state)))
            for _, call_id, from_tag, cseq, state in found
        ]
        last = int(found[-1][0])
        yield rows, At(0, last)


async def _records(log: Log, job: Job) -> AsyncIterator[tuple[list[Row], At]]:
    """What was written in that time, from the log."""
    topic = _topic(job.what)
    flatten = _Steps().of if job.what == "calls" else _of_registration
    for number in range(job.partition, await log.partitions(topic)):
        begin = await log.offset_at(topic, number, job.since)
        end = await log.offset_at(topic, number, job.until)
        if number == job.partition:
            begin = max(begin, job.place)
        if begin >= end:
            continue
        async with aclosing(log.read(topic, number, begin, end)) as batches:
            async for batch in batches:
                yield [row for record in batch for row in flatten(record)], At(number, batch[-1].offset + 1)


def _of_record(told: CallRecord) -> Row:
    """All fields, absent ones with their default; what did not happen has no time."""
    row = _fields(told)
    return row | {name: row[name] or None for name in ("rang", "answered", "ended")}


def _fields(struct: msgspec.Struct) -> Row:
    """All fields, those with their default too."""
    row = msgspec.structs.asdict(struct)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


class _Steps:
    """Rows of call events, each step once: older edges told of a branch and of the call what is one step today."""

    def __init__(self) -> None:
        self._recent: dict[str, None] = {}

    def of(self, record: Record) -> Iterable[Row]:
        """A row for each step that is new: what one record says of a call and of its branch are two."""
        try:
            event = decode_call(record.value)
        except Poisoned:
            return  # in the dead letters
        for step in steps(event):
            id_ = event_id(step)
            if id_ in self._recent:
                continue
            self._recent[id_] = None
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
            row = {"id": id_, "type": f"ramal.{type(step).__name__}", **_fields(step)}
            row.pop("first", None)  # a step of its own
            yield row


def _of_registration(record: Record) -> Iterable[Row]:
    """A row for each change; a claim, and a truth that changed nothing, have none."""
    try:
        event = _decode_registration(record.value)
    except Poisoned:
        return
    if not isinstance(event, BindingsRecorded):
        return
    bindings = {binding.id: binding for binding in event.state.bindings}
    for change in event.changes:
        binding = bindings.get(change.id)
        row = {} if binding is None else _fields(binding)
        row |= {"id": event.id, "aor": event.aor, "by": event.by, "at": event.state.at, "binding": change.id}
        row |= {"kind": change.kind.value, "contact": change.contact}
        yield {column.name: row[column.name] for column in REGISTRATION if column.name in row}


# --- where they go ---------------------------------------------------------------------------------------------------


class _Parts:
    """Rows on their way into parts."""

    def __init__(self, folder: Path, job: Job, columns: Sequence[Column]) -> None:
        self._folder = folder
        self._job = job
        self._columns = columns
        self._waiting: list[Row] = []
        self._at = At(job.partition, job.place)

    @property
    def rows(self) -> int:
        """How many there are so far."""
        return self._job.rows + len(self._waiting)

    def add(self, rows: Sequence[Row], at: At) -> None:
        """Takes rows, and where the next ones are."""
        self._waiting += rows
        self._at = at
        if len(self._waiting) >= PART:
            self._write()

    def whole(self) -> Path:
        """One file of all parts, beside them."""
        if self._waiting or not self._job.parts:
            self._write()
        parts = [self._folder / f"{number:06}" for number in range(self._job.parts)]
        partial = self._folder / "whole"
        if self._job.format == "parquet":
            _join_parquet(parts, partial)
        else:
            with partial.open("wb") as whole:
                for number, part in enumerate(parts):
                    with part.open("rb") as some:
                        if number and self._job.format == "csv":
                            some.readline()  # its header
                        shutil.copyfileobj(some, whole)
        return partial

    def _write(self) -> None:
        job, rows = self._job, self._waiting
        part = self._folder / f"{job.parts:06}"
        partial = part.with_suffix(".new")
        if job.format == "jsonl":
            partial.write_bytes(b"".join(encode(row) + b"\n" for row in rows))
        elif job.format == "csv":
            partial.write_text(_csv(rows, self._columns), encoding="utf-8", newline="")
        else:
            _write_parquet(rows, self._columns, partial)
        partial.replace(part)
        job.parts += 1
        job.rows += len(rows)
        job.partition, job.place = self._at
        state = self._folder / "state.new"
        state.write_bytes(encode(job))
        state.replace(self._folder / "state.json")
        self._waiting = []


def _csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column.name for column in columns])
    for row in rows:
        writer.writerow([_cell(row.get(column.name)) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Lists with commas; a text that a spreadsheet would take for a formula has an apostrophe in front."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return f"'{value}"
    return value


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"--format parquet: needs pyarrow: {installing('analysts')}") from error
    return pyarrow


def _write_parquet(rows: Sequence[Row], columns: Sequence[Column], path: Path) -> None:
    arrow = _pyarrow()
    kinds = {
        "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_(), "str": arrow.string(),
        "list": arrow.list_(arrow.string()),
    }  # fmt: skip
    schema = arrow.schema([(column.name, kinds[column.kind]) for column in columns])
    arrow.parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    arrow = _pyarrow()
    with arrow.parquet.ParquetWriter(output, arrow.parquet.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            writer.write_table(arrow.parquet.read_table(part))
