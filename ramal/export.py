"""`ramal export`: calls, their events and registrations as files for analysts."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

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
from events.wire import Decoder, Poisoned
from ramal.parts import At, Column, Job, Parts, Row, folder_of, load_pyarrow, put, resumed
from ramal.system import System
from runtime.database.port import Database
from runtime.log.port import Log, Record

What = Literal["cdrs", "calls", "registrations"]
Format = Literal["jsonl", "csv", "parquet"]
RECENT = 20_000
"""Steps among which a copy is looked for; copies are written in one batch or soon after."""
TOGETHER = 2_000
"""Rows asked of the database at one time."""

_decode_registration: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)


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


async def export(
    system: System, console: Console, what: What, format_: Format, output: Path, since: int, until: int
) -> int:
    """Writes what happened in [since, until), in milliseconds, to a file; how many rows. Raises ConfigError."""
    if format_ == "parquet":
        load_pyarrow()
    with folder_of(output) as folder:
        job = resumed(folder, Job(what, format_, since, until))
        if job.parts:
            console.print(f"Going on after {job.rows} rows.", soft_wrap=True)
        writer = Parts(folder, job, COLUMNS[what])
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
        put(writer.whole(), output)
    return writer.rows


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
