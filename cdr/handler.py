"""Batches of call events into rows and positions, in one transaction; then the records of calls that have ended.

A record leaves only after its row is on the database's disk, with `published` 0; once `cdrs` has it, `published` is
set, under the same compare-and-set of the position as the rows. Whoever dies in between leaves rows that say so, and
the next one publishes them. Whoever finds another position than their own writes nothing more.

A partition of `cdrs` that is away holds up nobody: the rows go on, and its records wait in them until a look finds the
partition back.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter as Counted
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from cdr.config import Settings
from cdr.decider import Limits, record
from cdr.events import call_record, read
from cdr.projection import Part, Partition, Projection
from cdr.state import NO_CALLS
from cdr.tables import LIVE, Finished, published, unpublished
from events.calls import CallEvent
from events.cdrs import CallRecord
from events.people import PersonForgotten
from events.topics import CALLS, CDRS
from events.wire import Poisoned
from runtime.database.port import Advance, Database
from runtime.database.positions import Positions
from runtime.errors import DatabaseUnavailable, PositionConflict
from runtime.log.apart import append_apart
from runtime.log.clock import LogTime
from runtime.log.port import Append, Batch, Log, Record
from runtime.logs import EACH
from runtime.metrics import dropped
from runtime.tasks import all_of
from runtime.worker import Lost, dead_letter

log = logging.getLogger("ramal.cdr")

GROUP = "cdr"
CLAIM = 0
"""Of the positions: the topic has no claims, and a rebuild's hold is above."""
TOGETHER = 500
"""Records published at one time on assignment."""

_EVENTS = Counter("ramal_cdr_events", "Call events read for the tables.")
_RECORDS = Counter("ramal_cdr_records", "Records of calls published on cdrs.")
_CALLS = Counter("ramal_cdr_calls", "Calls that have ended, by outcome.", ["outcome"])
_CONFLICTS = Counter("ramal_cdr_conflicts", "Positions found moved by another writer.")
_AGE = Gauge("ramal_cdr_age_seconds", "Time since the newest call event that is in the tables was written.")
_SECONDS = Histogram(
    "ramal_cdr_transaction_seconds",
    "Time of one transaction.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)


def limits(settings: Settings) -> Limits:
    """When a call without an end is closed, in milliseconds."""
    return Limits(settings.longest_setup * 1000, settings.longest_call * 1000, settings.grace * 1000)


def _tell(records: Sequence[CallRecord]) -> None:
    """One line for each call, once it has ended."""
    for outcome, count in Counted(each.outcome for each in records).items():
        _CALLS.labels(outcome).inc(count)
    if records and log.isEnabledFor(logging.INFO):
        log.info("call", extra={EACH: [_told(each) for each in records]})


def _told(record: CallRecord) -> dict[str, object]:
    return {
        "caller": record.caller, "callee": record.callee, "outcome": record.outcome, "code": record.code,
        "seconds": record.talk_ms // 1000, "call_id": record.call_id,
    }  # fmt: skip


@dataclasses.dataclass(slots=True)
class _Work:
    """One partition's share of a batch, and what became of it."""

    partition: Partition
    end: int
    """The offset behind the share."""
    newest: int
    """When its last record was written, in the log's time."""
    events: list[tuple[int, CallEvent | PersonForgotten]] = dataclasses.field(default_factory=list)
    finished: list[Finished] = dataclasses.field(default_factory=list)
    """Committed; not published yet."""
    dead: list[Append] = dataclasses.field(default_factory=list)
    lost: bool = False


class CdrHandler:
    """`runtime.worker.Handler` of group `cdr` on `calls`."""

    topic = CALLS
    group = GROUP
    dead_letters = True

    def __init__(self, log: Log, database: Database, settings: Settings) -> None:
        self._log = log
        self._database = database
        self.positions = Positions(database, LIVE.projection)
        self._projection = Projection(database, LIVE, limits(settings))
        self._remembered = settings.remembered
        self._partitions: dict[int, Partition] = {}
        self._away: set[int] = set()
        """Partitions of `cdrs` that took nothing when they were last tried."""
        self._newest = 0
        self._writing = asyncio.Lock()
        self.time = LogTime(time.monotonic)
        _AGE.set_function(lambda: max(0.0, time.time() - self._newest / 1000) if self._newest else 0.0)

    def partitions(self) -> list[int]:
        """Those that are ours and restored."""
        return sorted(self._partitions)

    def reached(self) -> dict[int, int]:
        """By partition that is ours, the offset behind what we have committed."""
        return {number: partition.at.next for number, partition in self._partitions.items()}

    async def restore(self, partition: int) -> int:
        """Where the table says that we are; publishes what may not have been."""
        place = Partition(partition, await self.positions.find(partition, CLAIM))
        try:
            await self._publish_rest(place)
        except PositionConflict as error:
            raise DatabaseUnavailable(str(error)) from error  # another one was faster: ask again where we are
        self._partitions[partition] = place
        return place.at.next

    async def publish_rest(self) -> None:
        """Publishes what a rebuild has found that nobody had published, and what a partition was away for."""
        for partition in self.partitions():
            async with self._writing:
                if (place := self._partitions.get(partition)) is not None:
                    with contextlib.suppress(PositionConflict):  # the next batch finds that, too
                        await self._publish_rest(place)

    async def _publish_rest(self, place: Partition) -> None:
        """Publishes what it can; what cannot be now is left for the next look."""
        after, written = -1, True
        while written and (rest := await unpublished(self._database, place.number, after, TOGETHER)):
            after = rest[-1][0]
            found = [Finished(id_, record(call, known.state)) for id_, call, known in rest]
            written = await self._publish(found, [place])

    def release(self, partition: int) -> None:
        """Forgets the partition; its rows and its position are in the tables."""
        self._partitions.pop(partition, None)

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Writes all partitions' rows, then publishes what has ended; raises Lost."""
        async with self._writing:
            return await self._handle(batch)

    async def _handle(self, batch: Batch) -> Mapping[int, int]:
        work = [self._begin(p, records) for n, records in batch.items() if (p := self._partitions.get(n)) is not None]
        if dead := [letter for w in work for letter in w.dead]:
            await self._log.append(dead)  # before the position moves on: perhaps twice, but never lost
        await self._apply(work)
        written = [w for w in work if not w.lost]
        if finished := [each for w in written for each in w.finished]:
            try:
                await self._publish(finished, [w.partition for w in written if w.finished])
            except PositionConflict as error:
                self._conflict([w for w in written if w.finished], error)
        offsets = {w.partition.number: w.partition.at.next for w in work if not w.lost}
        if lost := {w.partition.number for w in work if w.lost}:
            raise Lost(lost, offsets)
        return offsets

    def _begin(self, partition: Partition, records: Sequence[Record]) -> _Work:
        """The events that are not in the tables yet, read."""
        work = _Work(partition, records[-1].offset + 1, records[-1].timestamp)
        self.time.heard(work.newest)
        for each in records:
            if each.offset < partition.at.next:
                continue
            try:
                event = read(each.value)
            except Poisoned as error:
                dropped("poisoned-call-event")
                work.dead.append(dead_letter(CALLS, each, str(error)))
            else:
                if not isinstance(event, NO_CALLS):
                    work.events.append((each.offset, event))
        _EVENTS.inc(len(work.events))
        return work

    async def _apply(self, work: Sequence[_Work]) -> None:
        """All partitions in one transaction, which costs one packet and one fsync; apart, if one has moved."""
        new = [w for w in work if w.end > w.partition.at.next]
        try:
            if new:
                await self._write(new)
        except PositionConflict as error:
            if len(new) > 1:
                await all_of(self._apply([w]) for w in new)
            else:
                self._conflict(new, error)
        for w in work:
            w.partition.forget(self._remembered)

    async def _write(self, work: Sequence[_Work]) -> None:
        """One transaction. DatabaseRefused goes to the worker, which finds the record that is to blame."""
        with _SECONDS.time():
            finished = await self._projection.write([Part(w.partition, w.events, w.end) for w in work])
        by_partition = {w.partition.number: w for w in work}
        for each in finished:
            by_partition[each.id & 1023].finished.append(each)
        self._newest = max(self._newest, *(w.newest for w in work))

    def _conflict(self, work: Sequence[_Work], error: PositionConflict) -> None:
        _CONFLICTS.inc()
        numbers = [w.partition.number for w in work]
        log.warning("another cdr wrote here", extra={"partitions": numbers, "cause": str(error)})
        for w in work:
            w.lost = True

    async def _publish(self, finished: Sequence[Finished], partitions: Iterable[Partition]) -> bool:
        """Appends the records, then notes that they are there, unless somebody else has gone on meanwhile.

        Returns whether there were any: those whose partition is away stay unpublished.
        """
        count = await self._log.partitions(CDRS)
        records = [call_record(each.record, count) for each in finished]
        positions = await append_apart(self._log, records)
        self.time.acknowledged(positions)
        away = {each.partition for each, position in zip(records, positions, strict=True) if position is None}
        self._learn_away(away, {each.partition for each in records})
        if away:
            finished = [each for each, position in zip(finished, positions, strict=True) if position is not None]
        if not finished:
            return False
        _RECORDS.inc(len(finished))
        _tell([each.record for each in finished if not each.again])
        stays = [
            Advance(LIVE.projection, place.number, place.at.next, place.at.next, place.at.claim) for place in partitions
        ]
        await self._database.transact([published([each.id for each in finished])], *stays)
        return True

    def _learn_away(self, away: set[int], tried: set[int]) -> None:
        """Which partitions of `cdrs`, of those just tried, have taken nothing; each is told once."""
        if new := sorted(away - self._away):
            log.warning("records wait in the tables for their partitions of cdrs", extra={"partitions": new})
        self._away = (self._away - tried) | away

    def lacks(self) -> str:
        """Which partitions of `cdrs` take nothing; "" while all that were tried do."""
        numbers = ", ".join(map(str, sorted(self._away)))
        return f"cdrs takes nothing in partitions {numbers}: their records wait in the tables" if numbers else ""
