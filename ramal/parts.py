"""The file that an export becomes: parts beside it while it is written, so that one that was interrupted goes on.

A part is some thousand rows and a file of its own; it counts once it is renamed, and `state.json` says where the next
one begins. At the end the parts become one file. What is no file (`-`, a pipe, a device) is written to and never
replaced, and cannot be gone on with.
"""

import contextlib
import csv
import errno
import fcntl
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from events.wire import encode
from ramal.extras import installing
from runtime.errors import ConfigError

PART = 50_000
"""Rows of one part."""
Row = dict[str, Any]


class Column(NamedTuple):
    """One column: `int`, `float`, `bool`, `str` or `list` (of texts)."""

    name: str
    kind: str


class At(NamedTuple):
    """Where the next row is: a partition and an offset; of `cdrs`, 0 and an id."""

    partition: int
    place: int


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


def is_stream(output: Path) -> bool:
    """Whether it is something that is written to and must not be replaced: `-`, a pipe, a device."""
    special = output.parts[:2] in (("/", "dev"), ("/", "proc"))  # /dev/stdout may lead to a file that others hold
    return str(output) == "-" or special or (output.exists() and not output.is_file())


@contextlib.contextmanager
def folder_of(output: Path) -> Iterator[Path]:
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
        held = os.open(folder, os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"--output: {folder} cannot be made: {error.strerror}") from error
    try:
        _claim(held, output)
    except ConfigError:
        os.close(held)
        raise
    try:
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # there is something to go on from
            folder.rmdir()
        os.close(held)


def _claim(folder: int, output: Path) -> None:
    """Until the end of this process, however it ends, the folder is ours. Raises ConfigError when it is another's."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"--output: another export is writing {output} now") from error


def put(whole: Path, output: Path) -> None:
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


def resumed(folder: Path, wanted: Job) -> Job:
    """The job as it was when it was interrupted. Raises ConfigError when another one was."""
    state = folder / "state.json"
    if not state.exists():
        return wanted
    try:
        job = msgspec.json.decode(state.read_bytes(), type=Job)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--output: {state} cannot be read, so nothing goes on from there; remove {folder}"
        ) from error
    if (job.what, job.format, job.since, job.until) != (wanted.what, wanted.format, wanted.since, wanted.until):
        raise ConfigError(f"--output: {folder} has another export that was interrupted; finish or remove it")
    return job


# --- where they go ---------------------------------------------------------------------------------------------------


class Parts:
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


def load_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"--format parquet: needs pyarrow: {installing('analysts')}") from error
    return pyarrow


def _write_parquet(rows: Sequence[Row], columns: Sequence[Column], path: Path) -> None:
    arrow = load_pyarrow()
    kinds = {
        "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_(), "str": arrow.string(),
        "list": arrow.list_(arrow.string()),
    }  # fmt: skip
    schema = arrow.schema([(column.name, kinds[column.kind]) for column in columns])
    arrow.parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def _join_parquet(parts: Sequence[Path], output: Path) -> None:
    arrow = load_pyarrow()
    with arrow.parquet.ParquetWriter(output, arrow.parquet.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            writer.write_table(arrow.parquet.read_table(part))
