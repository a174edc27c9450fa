"""Batches of the truth into rows and positions, in one transaction; then the replies, all at once.

A reply leaves only after its transaction is on the database's disk: that is the promise of a 200. Whoever finds
another position than their own in the table writes nothing, answers nobody, and restores the partition.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from events.owners import owner_of
from events.registrations import BindingsRecorded, Claimed
from events.replies import CloseFlow, Registered
from events.topics import EDGE_REPLIES, REGISTRATIONS, partition_of
from events.wire import Poisoned, cloud_event, encode
from locator.config import Settings
from locator.decider import Decision, Truth
from locator.projection import Part, Partition, Projection
from locator.tables import LIVE
from locator.truths import read, truth_of
from runtime.database.port import Database
from runtime.database.positions import Position, Positions
from runtime.errors import DatabaseRefused, DatabaseUnavailable, LogRefused, PositionConflict
from runtime.log.apart import append_or_drop
from runtime.log.port import Append, Batch, Bounds, Log, PartitionFault, Record
from runtime.metrics import dropped
from runtime.tasks import all_of
from runtime.worker import Lost, dead_letter

log = logging.getLogger("ramal.locator")

GROUP = "locator"
STANDS_SECONDS = 30.0
"""How long after its last attempt a partition counts as standing still at an AOR: it may have moved away."""
REPLIES_AGAIN_MS = 5_000
"""On assignment, replies to records that are no older than this beside the last one are sent again."""
CLOSED_WITHIN_MS = 60_000
"""A kick, or a move to another edge, that gets into the tables later than this is not told."""

_APPLIED = Counter("ramal_locator_records", "Records of registrations read for the tables.")
_CONFLICTS = Counter("ramal_locator_conflicts", "Positions found moved by another writer.")
_POISONED = Counter("ramal_locator_poisoned", "Records of registrations that no registrar wrote: each one is an alarm.")
_STOPPED = Gauge("ramal_locator_stopped_aors", "AORs whose rows the database refuses; their partitions stand still.")
_AGE = Gauge("ramal_locator_age_seconds", "Time since the newest record that is in the tables was written.")
_SECONDS = Histogram(
    "ramal_locator_transaction_seconds",
    "Time of one transaction.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)


@dataclasses.dataclass(slots=True)
class _Work:
    """One partition's share of a batch, and what became of it."""

    partition: Partition
    end: int
    """The offset behind the share."""
    newest: int
    """When its last record was written, in the log's time."""
    truths: list[Truth] = dataclasses.field(default_factory=list)
    answered: list[BindingsRecorded] = dataclasses.field(default_factory=list)
    """Committed; their commands want a reply."""
    dead: list[Append] = dataclasses.field(default_factory=list)
    lost: bool = False
    unknown: str = ""
    """Why the truth at `end` cannot be read by this version, if there is one."""
    why: str = ""
    """It is lost, if the database did not take it: what that said."""

    def set_lost(self, why: str = "") -> None:
        """Not all was written: the records come again, and so do those nobody can read."""
        self.lost, self.why = True, why
        self.dead.clear()


class LocatorHandler:
    """`runtime.worker.Handler` of group `locator` on `registrations`; a truth is never a dead letter."""

    topic = REGISTRATIONS
    group = GROUP
    dead_letters = False

    def __init__(self, log: Log, database: Database, settings: Settings) -> None:
        self._log = log
        self.positions = Positions(database, LIVE.projection)
        self._projection = Projection(database, LIVE)
        self._remembered = settings.remembered
        self._partitions: dict[int, Partition] = {}
        self._answered: dict[int, int] = {}
        """By partition: records below this offset were answered, by us or whoever was before us."""
        self._edges: dict[str, tuple[int, bytes]] = {}
        self._stopped: dict[int, tuple[str, float]] = {}
        self._newest = 0
        self.replies_refused = ""
        """Why the log does not take our replies; the tables go on without them, phones hear 503."""
        _STOPPED.set_function(lambda: len(self.stopped()))
        _AGE.set_function(lambda: max(0.0, time.time() - self._newest / 1000) if self._newest else 0.0)

    def stopped(self) -> list[str]:
        """The AORs at which a partition stands still now."""
        since = time.monotonic() - STANDS_SECONDS
        return sorted(aor for aor, tried in self._stopped.values() if tried >= since)

    def owns(self, partition: int) -> bool:
        """Whether the partition is this process's now."""
        return partition in self._partitions

    def reached(self) -> dict[int, int]:
        """By partition that is ours, the offset behind what we have committed."""
        return {number: partition.at.next for number, partition in self._partitions.items()}

    async def restore(self, partition: int) -> int:
        """Where the table says that we are; sends once more the replies that may not have been sent.

        Raises PartitionFault where the log is not the one that the tables were made from.
        """
        at = await self.positions.find(partition, claim=-1)
        bounds = await self._log.bounds(REGISTRATIONS, partition)
        await self._check_claim(partition, at, bounds)
        await self._answer_again(partition, at, bounds)
        self._partitions[partition] = Partition(partition, at)
        return at.next

    def release(self, partition: int) -> None:
        """Forgets the partition; its rows and its position are in the tables."""
        self._partitions.pop(partition, None)

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Writes all partitions' rows, then answers; raises Lost."""
        begun = time.monotonic()
        work = [self._begin(p, records) for n, records in batch.items() if (p := self._partitions.get(n)) is not None]
        await self._apply(work)
        if letters := [letter for w in work for letter in w.dead]:
            await self._log.append(letters)
        if answered := [event for w in work for event in w.answered]:
            # It is no earlier than this, in the log's time.
            newest = max(w.newest for w in work)
            await self._answer(answered, newest + int((time.monotonic() - begun) * 1000))
        self._answered.update({w.partition.number: w.partition.at.next for w in work})
        lost = {w.partition.number for w in work if w.lost}
        stopped = {w.partition.number: w.unknown for w in work if w.unknown and not w.lost}
        offsets = {w.partition.number: w.partition.at.next for w in work if not w.lost}
        if lost or stopped:
            why = next((w.why for w in work if w.why), "")
            raise Lost(lost, offsets, stopped, f"the rows were not written: {why}" if why else "")
        return offsets

    def _begin(self, partition: Partition, records: Sequence[Record]) -> _Work:
        """The records that are not in the tables yet, read."""
        work = _Work(partition, records[-1].offset + 1, records[-1].timestamp)
        self._read(work, [r for r in records if r.offset >= partition.at.next])
        return work

    async def _apply(self, work: Sequence[_Work]) -> None:
        """All partitions in one transaction, which costs one packet and one fsync; apart, if one is to blame."""
        new = [w for w in work if w.end > w.partition.at.next]
        if len(new) > 1:
            try:
                with _SECONDS.time():
                    await all_of(self._projection.look_up(w.partition, w.truths) for w in new)
                    decisions = await self._projection.write([Part(w.partition, w.truths, w.end) for w in new])
            except DatabaseUnavailable as error:
                self._not_written(new, error)
            except (PositionConflict, DatabaseRefused):
                await all_of(self._apply_alone(w) for w in new)
            else:
                for w, decision in zip(new, decisions, strict=True):
                    self._written(w, decision)
        elif new:
            await self._apply_alone(new[0])
        for w in work:
            w.partition.forget(self._remembered)

    async def _apply_alone(self, work: _Work) -> None:
        """One partition's records; what goes wrong with the database is in the work."""
        try:
            with _SECONDS.time():
                await self._projection.look_up(work.partition, work.truths)
                await self._write(work, work.truths, work.end)
        except PositionConflict as error:
            _CONFLICTS.inc()
            log.warning("another locator wrote here", extra={"partition": work.partition.number, "cause": str(error)})
            work.set_lost()
        except (DatabaseUnavailable, DatabaseRefused) as error:
            self._not_written([work], error)

    def _not_written(self, work: Sequence[_Work], error: Exception) -> None:
        for w in work:
            w.set_lost(str(error))
        numbers = [w.partition.number for w in work]
        log.warning("the rows were not written", extra={"partitions": numbers, "cause": str(error)})

    def _written(self, work: _Work, decision: Decision) -> None:
        self._stopped.pop(work.partition.number, None)
        self._newest = max(self._newest, work.newest)
        work.answered += decision.answered
        if decision.void:
            dropped("older-claim", decision.void)
        if decision.repeated:
            dropped("repeated-truth", decision.repeated)

    def _read(self, work: _Work, records: Sequence[Record]) -> None:
        """Reads them into the work, up to a truth that this version cannot read: it is never skipped."""
        work.truths, strangers, void, unknown = read(records, work.partition.at.claim)
        for record, why in strangers:
            _POISONED.inc()
            dropped("poisoned-registration")
            log.error(
                "a record on registrations is no registrar's",
                extra={"partition": record.partition, "offset": record.offset, "cause": why[:200]},
            )
            work.dead.append(dead_letter(REGISTRATIONS, record, why))
        if void:
            dropped("older-claim", void)
        if unknown:
            record, why = unknown
            work.end, work.newest = record.offset, record.timestamp
            work.unknown = f"the truth at offset {record.offset} is not known: {why}"
        _APPLIED.inc(len(work.truths))

    async def _write(self, work: _Work, truths: Sequence[Truth], end: int) -> None:
        """Commits records up to the offset `end`; a refused batch in halves, until one record is to blame."""
        try:
            [decision] = await self._projection.write([Part(work.partition, truths, end)])
        except DatabaseRefused as error:
            if len(truths) <= 1:
                self._stand_still(work.partition, truths, error)
                raise
            middle = len(truths) // 2
            await self._write(work, truths[:middle], truths[middle].offset)
            await self._write(work, truths[middle:], end)
        else:
            self._written(work, decision)

    def _stand_still(self, partition: Partition, truths: Sequence[Truth], error: DatabaseRefused) -> None:
        event = truths[0].event if truths else None
        aor = event.aor if isinstance(event, BindingsRecorded) else ""
        offset = truths[0].offset if truths else partition.at.next
        self._stopped[partition.number] = (aor, time.monotonic())
        log.error(
            "the database refuses a truth: its partition stands still",
            extra={"aor": aor, "partition": partition.number, "offset": offset, "cause": str(error)},
        )

    async def _answer(self, events: Sequence[BindingsRecorded], now: int) -> None:
        """Sends replies; where the log will never take them (an ACL, no topic), nothing else waits for that.

        Raises LogUnavailable.
        """
        try:
            if replies := await self._replies(events, now):
                await append_or_drop(self._log, replies)
                self.replies_refused = ""
        except (LogRefused, KeyError) as error:
            dropped("reply-refused", len(events))
            why = str(error.args[0])
            if why != self.replies_refused:
                log.error("replies are refused; phones hear 503", extra={"topic": EDGE_REPLIES, "cause": why})
            self.replies_refused = why

    async def _replies(self, events: Iterable[BindingsRecorded], now: int) -> list[Append]:
        """A reply for each event whose command still waits at this time, and what its edges are to close."""
        appends = []
        for event in events:
            if event.closes:
                appends += await self._closings(event, now)
                if event.reply is None:
                    continue
            to = event.reply
            if to is None or to.deadline < now:
                dropped("late-reply")
                continue
            edge = self._edges.get(to.edge)
            if edge is None:
                edge = await self._edge(to.edge)
            reply = Registered(event.id, to.edge, to.boot, event.state.at, event.state.bindings)
            appends.append(
                Append(EDGE_REPLIES, edge[0], edge[1], encode(reply), cloud_event("ramal.Registered", GROUP, event.id))
            )
        return appends

    async def _closings(self, event: BindingsRecorded, now: int) -> list[Append]:
        """To each edge, which connections a kick closes there, or which flows on UDP phones have left.

        Long after it the phone is registered anew.
        """
        if event.state.at + CLOSED_WITHIN_MS < now:
            dropped("late-closing", len(event.closes))
            return []
        appends = []
        for number, path in enumerate(event.closes):
            if owner := owner_of(path):
                partition, key = await self._edge(owner.edge)
                closing = CloseFlow(event.id, owner.edge, owner.boot, path, event.aor)
                headers = cloud_event("ramal.CloseFlow", GROUP, f"{event.id}.{number}")
                appends.append(Append(EDGE_REPLIES, partition, key, encode(closing), headers))
        return appends

    async def _edge(self, name: str) -> tuple[int, bytes]:
        """The partition and the key of an edge's replies."""
        if len(self._edges) >= 1024:  # names come from records: bounded
            self._edges.clear()
        edge = partition_of(name, await self._log.partitions(EDGE_REPLIES)), name.encode("utf-8", "replace")
        self._edges[name] = edge
        return edge

    async def _check_claim(self, partition: int, at: Position, bounds: Bounds) -> None:
        """Raises PartitionFault where the claim in force does not stand in the log: it has lost its end and grown.

        All that is written now would be void for the tables until a claim comes that is higher.
        """
        if not bounds.begin <= at.claim < bounds.end:
            return
        async for records in self._log.read(REGISTRATIONS, partition, at.claim, at.claim + 1):
            for record in records:
                with contextlib.suppress(Poisoned):
                    if isinstance(truth_of(record).event, Claimed):
                        return
        raise PartitionFault(partition, f"the tables were made from another log: no claim at offset {at.claim}")

    async def _answer_again(self, partition: int, at: Position, bounds: Bounds) -> None:
        """Sends the replies of committed records of the last seconds: who committed them may have died before.

        Seconds before the last of them, not before now: no clock but the log's is asked. An edge drops what it
        does not wait for.
        """
        if not bounds.begin < at.next <= bounds.end:
            return
        last = 0
        async for records in self._log.read(REGISTRATIONS, partition, at.next - 1, at.next):
            last = records[-1].timestamp
        begin = await self._log.offset_at(REGISTRATIONS, partition, last - REPLIES_AGAIN_MS)
        # A partition that stands still is restored for ever: its replies were sent.
        begin = max(begin, self._answered.get(partition, 0))
        # Of records before `begin` nothing is known: under a claim from there, only the one still in force is good.
        claim = min(begin, at.claim)
        events: list[BindingsRecorded] = []
        async for records in self._log.read(REGISTRATIONS, partition, begin, at.next):
            for record in records:
                with contextlib.suppress(Poisoned):  # no registrar's, or of a newer version, whose locator answered
                    truth = truth_of(record)
                    if truth.claim >= claim:
                        claim = truth.claim
                        event = truth.event
                        if isinstance(event, BindingsRecorded) and (event.reply is not None or event.closes):
                            events.append(event)
        await self._answer(events, last)
        self._answered[partition] = at.next
