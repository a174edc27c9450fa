"""A batch of commands in, truths and refusals out (DESIGN section 7).

In one batch: decide everything on a tentative state, write all truths at once, wait once; only when they
are acknowledged under our claim do the states become what is remembered, and only then are the refusals
sent, because they rest on those states. A repeated command that was refused is decided again: nothing of a
refusal need be remembered or restored, and the answer is that of a serial order all the same.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from events.commands import ExpireContacts, RegisterContacts, RegistrarCommand
from events.limits import STATE_BYTES
from events.registrations import AorState, BindingsRecorded, Kind
from events.replies import Refused
from events.topics import EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS, partition_of
from events.wire import Decoder, Poisoned, cloud_event, encode
from registrar import metrics
from registrar.config import Policy
from registrar.decider import Refusal, decide
from registrar.expiry import expire
from registrar.partition import Partition
from registrar.restore import restore
from registrar.snapshot import has_news, snapshots_id, write_snapshots
from registrar.truths import SOURCE, claim_of, decode_state, truth
from registrar.unknown import carry
from runtime.errors import Fenced, LogRefused, LogUnavailable
from runtime.log.apart import append_apart, append_or_drop
from runtime.log.clock import LogTime
from runtime.log.port import Append, Batch, Log, PartitionFault, Position, Record
from runtime.metrics import dropped
from runtime.worker import Lost, dead_letter

log = logging.getLogger("ramal.registrar")

_decode_command: Decoder[RegistrarCommand] = Decoder(RegistrarCommand)
_NO_STATE = AorState()
_TOO_LARGE = Refusal(403, "Registration Too Large", "state-too-large")
_ELSEWHERE = Refusal(503, "Service Unavailable", "wrong-partition", (("Retry-After", "30"),))
_NOT_RECORDABLE = Refusal(500, "Registration Cannot Be Recorded", "record-refused")


_GOES_ON = (Kind.REFRESHED, Kind.SHORTENED)


def _tell(decision: BindingsRecorded) -> None:
    """One line for each registration that begins or ends."""
    for change in decision.changes:
        if change.kind not in _GOES_ON:
            told = {"aor": decision.aor, "contact": change.contact, "by": decision.by}
            log.info("registered" if change.kind is Kind.CREATED else change.kind.value, extra=told)


class _Work:
    """One partition's share of a batch: decided, not yet true."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.handled, self.time = partition.handled, partition.time
        self.next = partition.next
        self.states: dict[str, AorState] = {}
        """The tentative states of AORs that this batch changes."""
        self.truths: list[Append] = []
        self.kept: list[tuple[RegistrarCommand, bytes, AorState, AorState]] = []
        """Per truth: its command, the state encoded, the state, and the one before it."""
        self.newer: dict[str, bytes] = {}
        """The tentative states, encoded, of AORs with fields that this version does not know."""
        self.told: list[BindingsRecorded] = []
        """Those by which a registration begins or ends, which is worth a line in the log; a refresh is not."""
        self.refused: list[tuple[RegistrarCommand, Refusal]] = []
        self.dead: list[Append] = []


class RegistrarHandler:
    """Decides for every partition that is ours. `clock` is monotonic, in seconds."""

    topic = REGISTRAR_COMMANDS
    group = "registrar"
    dead_letters = True

    def __init__(
        self, source: Log, policy: Policy, writer: str, count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`count`: the partitions among which AORs have their places, whatever Kafka's topics have by now."""
        self._count = count
        self._misled: set[int] = set()
        """Partitions of which it was said that commands come to the wrong one."""
        self.partitions: dict[int, Partition] = {}
        self._log = source
        self._policy = policy
        self._writer = writer
        self._time = LogTime(clock)
        self._reply_partitions = 0
        self._singly_through: dict[int, int] = {}
        """By partition, the offset up to which commands go to the log one by one: it refused one of them."""

    async def restore(self, partition: int) -> int | None:
        """Claims and restores; raises LogUnavailable, and PartitionFault for one that no AOR has its place in."""
        if partition >= self._count:
            raise PartitionFault(partition, f"no AOR belongs there: RAMAL_PARTITIONS is {self._count}")
        if not self._reply_partitions:
            try:
                self._reply_partitions = await self._log.partitions(EDGE_REPLIES)
            except KeyError as error:
                raise LogUnavailable(f"there is no topic {EDGE_REPLIES} yet (`ramal topics` makes it)") from error
        grace_ms = self._policy.grace * 1000
        restored = await restore(self._log, partition, self._writer, grace_ms, self._time.learn)
        self.partitions[partition] = restored
        return restored.handled + 1

    def release(self, partition: int) -> None:
        """Forgets the partition; what its snapshots lack will be replayed by the next owner."""
        self.partitions.pop(partition, None)

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Deals with commands; raises Lost and LogUnavailable."""
        singly = {
            number: records
            for number, records in batch.items()
            if records[0].offset <= self._singly_through.get(number, -1)
        }
        parts: list[Batch] = [{number: [record]} for number, records in singly.items() for record in records]
        parts.append({number: records for number, records in batch.items() if number not in singly})
        offsets: dict[int, int] = {}
        lost: set[int] = set()
        for part in parts:
            try:
                if lost.isdisjoint(part):
                    offsets.update(await self._handle(part))
            except Lost as error:
                offsets.update(error.offsets)
                lost |= error.partitions
        if lost:
            metrics.LOSSES.inc(len(lost))
            raise Lost(lost, {number: offset for number, offset in offsets.items() if number not in lost})
        return offsets

    async def _handle(self, batch: Batch) -> dict[int, int]:
        lost = {number for number in batch if (p := self.partitions.get(number)) and p.lost}
        works = [
            self._decide_all(self.partitions[number], records)
            for number, records in batch.items()
            if number in self.partitions and number not in lost
        ]
        for work, positions in await self._write(works, batch):
            if await self._is_still_ours(work, positions):
                self._keep(work)
            else:
                lost.add(work.partition.number)
        await self._refuse([work for work in works if work.partition.number not in lost])
        offsets = {work.partition.number: work.handled + 1 for work in works if work.partition.number not in lost}
        if lost:
            raise Lost(lost, offsets)
        return offsets

    # Deciding

    def _decide_all(self, partition: Partition, records: Sequence[Record]) -> _Work:
        work = _Work(partition)
        for record in records:
            if record.offset <= work.handled:
                continue
            work.handled, work.time = record.offset, record.timestamp
            try:
                command = _decode_command(record.value)
            except Poisoned as error:
                work.dead.append(dead_letter(self.topic, record, str(error)))
                continue
            if isinstance(command, RegisterContacts) and record.timestamp > command.reply.deadline:
                dropped("late-command")
                continue
            # Its state is another partition's: to decide without it would undo nothing and say that it did. Only what
            # has its place here by an older count still ends here.
            if partition_of(command.aor, self._count) != partition.number and not isinstance(command, ExpireContacts):
                self._misplaced(work, command)
                continue
            self._decide(work, command, record)
        metrics.COMMANDS.inc(len(records))
        return work

    def _misplaced(self, work: _Work, command: RegistrarCommand) -> None:
        work.refused.append((command, _ELSEWHERE))
        dropped("wrong-partition")
        number = work.partition.number
        if number not in self._misled:
            self._misled.add(number)
            log.error(
                "commands come to the wrong partition: were partitions added, or has another process another count?",
                extra={"aor": command.aor, "partition": number, "right": partition_of(command.aor, self._count)},
            )

    def _decide(self, work: _Work, command: RegistrarCommand, record: Record) -> None:
        partition = work.partition
        before = work.states.get(command.aor)
        if before is None:
            stored = partition.states.get(command.aor)
            before = _NO_STATE if stored is None else decode_state(stored)
        decision = decide(before, command, record.timestamp, partition.number, record.offset, self._policy)
        if isinstance(decision, BindingsRecorded):
            encoded = encode(decision.state)
            if command.aor in partition.newer:
                encoded = carry(work.newer.get(command.aor, partition.states[command.aor]), encoded)
            if len(encoded) <= STATE_BYTES or not isinstance(command, RegisterContacts):
                work.states[command.aor] = decision.state
                if command.aor in partition.newer:
                    work.newer[command.aor] = encoded
                work.kept.append((command, encoded, decision.state, before))
                if any(change.kind not in _GOES_ON for change in decision.changes):
                    work.told.append(decision)
                work.truths.append(truth(decision, encoded, partition.number, record.offset, partition.claim))
                return
            decision = _TOO_LARGE
        if decision is not None:
            work.refused.append((command, decision))

    # Writing

    async def _write(self, works: Sequence[_Work], batch: Batch) -> list[tuple[_Work, Sequence[Position]]]:
        """Appends the truths and dead letters of all; the positions of each one's truths."""
        records = [record for work in works for record in work.truths]
        records += [record for work in works for record in work.dead]
        if not records:
            return [(work, ()) for work in works]
        try:
            positions = await self._log.append(records)
        except LogRefused as error:
            return self._not_written(works, batch, error)
        self._time.learn(positions[-1].timestamp)
        dead = sum(len(work.dead) for work in works)
        if dead:
            dropped("dead-letter", dead)
        metrics.RECORDS.inc(len(records) - dead)
        written: list[tuple[_Work, Sequence[Position]]] = []
        start = 0
        for work in works:
            end = start + len(work.truths)
            written.append((work, positions[start:end]))
            start = end
        return written

    def _not_written(
        self, works: Sequence[_Work], batch: Batch, error: LogRefused
    ) -> list[tuple[_Work, Sequence[Position]]]:
        """The log will never take one of the records: alone, it is refused by name; else it has to be found."""
        if sum(len(records) for records in batch.values()) > 1:
            self._singly_through.update((number, records[-1].offset) for number, records in batch.items())
            raise Lost(batch) from error
        [work] = works
        log.error(
            "the log refuses a record",
            extra={"partition": work.partition.number, "offset": work.handled, "cause": str(error)},
        )
        if work.dead:
            dropped("dead-letter-refused")
        work.refused += [(command, _NOT_RECORDABLE) for command, *_ in work.kept]
        work.kept.clear()
        return [(work, ())]

    async def _is_still_ours(self, work: _Work, positions: Sequence[Position]) -> bool:
        """Whether no higher claim came before what we wrote, or before what we are about to refuse.

        Offsets that follow each other prove it; a gap is read. Without truths, refusals ask for the end of
        the partition: a writer that slept must not answer anybody from what it remembers (CHECKLIST E18).
        """
        partition = work.partition
        for position in positions:
            if position.offset <= partition.claim:  # the topic was made anew: our claim does not stand there
                return False
            if position.offset != work.next and await self._is_claimed(partition, work.next, position.offset):
                return False
            work.next = position.offset + 1
        if work.refused and not positions:
            end = (await self._log.bounds(REGISTRATIONS, partition.number)).end
            if end > work.next:
                if await self._is_claimed(partition, work.next, end):
                    return False
                work.next = end
        return True

    async def _is_claimed(self, partition: Partition, begin: int, end: int) -> bool:
        """Whether another writer's claim lies in this gap."""
        async with aclosing(self._log.read(REGISTRATIONS, partition.number, begin, end)) as reading:
            async for records in reading:
                for record in records:
                    try:
                        if claim_of(record) > partition.claim:
                            return True
                    except Poisoned:
                        dropped("unreadable-truth")
        return False

    def _keep(self, work: _Work) -> None:
        """What was decided is true now."""
        partition = work.partition
        for command, encoded, new, old in work.kept:
            partition.keep(command.aor, encoded, new, old)
        partition.next = work.next
        partition.handled, partition.time = work.handled, work.time
        for decision in work.told:
            _tell(decision)

    async def _refuse(self, works: Sequence[_Work]) -> None:
        """Sends refusals; one that cannot be sent becomes the edge's 503 at its deadline."""
        replies: list[Append] = []
        for work in works:
            for command, refusal in work.refused:
                metrics.refused(refusal.status, refusal.name)
                if isinstance(command, RegisterContacts):
                    replies.append(self._reply(command, refusal))
        if not replies:
            return
        try:
            await append_or_drop(self._log, replies)
        except (LogUnavailable, LogRefused) as error:
            dropped("refusal-not-sent", len(replies))
            log.warning("refusals could not be sent", extra={"count": len(replies), "cause": str(error)})

    def _reply(self, command: RegisterContacts, refusal: Refusal) -> Append:
        to = command.reply
        return Append(
            EDGE_REPLIES,
            partition_of(to.edge, self._reply_partitions),
            to.edge.encode(),
            encode(Refused(command.id, to.edge, to.boot, refusal.status, refusal.reason, refusal.headers)),
            cloud_event("ramal.Refused", SOURCE, command.id),
        )

    # Off the hot path

    async def tick(self) -> None:
        """Asks for the end of what is over; raises LogUnavailable, LogRefused."""
        now = self._time.now()
        if now is None:
            return
        requests: list[Append] = []
        for partition in self.partitions.values():
            if not partition.lost:
                requests += expire(partition, now)
        if requests:
            self._time.acknowledged(await append_apart(self._log, requests))

    async def snapshot(self) -> None:
        """Writes what changed to `bindings`, partition by partition, and those behind one that fails, too.

        Raises LogUnavailable, LogRefused.
        """
        failed: Exception | None = None
        for partition in tuple(self.partitions.values()):
            try:
                await self._snapshot(partition)
            except Fenced:  # twice in a row: then the next turn writes
                log.info("snapshots were fenced again", extra={"partition": partition.number})
            except (LogUnavailable, LogRefused) as error:
                failed = error
        if failed is not None:
            raise failed

    async def _snapshot(self, partition: Partition) -> None:
        """Writes one partition's; raises Fenced, LogUnavailable, LogRefused.

        An owner may be fenced by one who owned the partition before it, slept, and gave up when it had read the
        owner's claim: then the owner fences once more and writes.
        """
        try:
            await self._write_snapshots(partition)
        except Fenced:
            end = (await self._log.bounds(REGISTRATIONS, partition.number)).end
            partition.lost = await self._is_claimed(partition, partition.next, end)
            log.info("snapshots were fenced", extra={"partition": partition.number, "lost": partition.lost})
            await self._write_snapshots(partition)

    async def _write_snapshots(self, partition: Partition) -> None:
        """Fence, then look for a higher claim, then write.

        Once we have fenced, whoever takes the partition over has still to fence us, and does so only behind a claim of
        its own. So if no claim is to be seen after our fence, then all that is written before the next owner's fence is
        older than its claim, and known to it; and nothing of ours is written behind that fence. The other way round, a
        sleeper that has not written yet fences the owner by its first write, and puts old states below the owner's
        next watermark. A write that failed may leave the log without a memory of our fence: the next begins anew.
        """
        if partition.lost or not self._is_current(partition) or not has_news(partition):
            return
        fenced, partition.fenced = partition.fenced, False
        if not fenced:
            await self._log.append_transaction(snapshots_id(partition.number), ())
            end = (await self._log.bounds(REGISTRATIONS, partition.number)).end
            partition.lost = await self._is_claimed(partition, partition.next, end)
            if partition.lost:
                log.info("the partition has another owner", extra={"partition": partition.number})
                return
        await write_snapshots(self._log, partition, partial(self._is_current, partition))
        partition.fenced = True

    def _is_current(self, partition: Partition) -> bool:
        """Whether this is still what we remember of the partition: not released, not restored anew."""
        return self.partitions.get(partition.number) is partition
