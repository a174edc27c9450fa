"""The truth as any reader must understand it: `registrations` read from its start, void records skipped.

The ledger knows the rules of DESIGN section 7: records of a lower claim are void, commands are answered in order,
once, and what a record says changed is the difference of the states around it. Since `decide` is deterministic,
every decision is also made again, on the log's states: no valid record may differ, no command may be passed over.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from events.commands import RegisterContacts, RegistrarCommand
from events.registrations import AorState, BindingsRecorded, Claimed, Kind, RegistrationEvent
from events.topics import REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import CLAIM, COMMAND_OFFSET, Decoder, int_header
from registrar.config import Policy
from registrar.decider import decide

ENDED = frozenset({Kind.UNREGISTERED, Kind.EXPIRED, Kind.DEACTIVATED})
KEPT = 40
"""Records of an AOR that are kept for a report."""

decode: Decoder[RegistrationEvent] = Decoder(RegistrationEvent)
decode_command: Decoder[RegistrarCommand] = Decoder(RegistrarCommand)


class LogRecord(Protocol):
    """As aiokafka gives it."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclasses.dataclass(slots=True)
class Page:
    """What is known of one partition."""

    next: int = 0
    claim: int = -1
    command: int = -1
    """The last `s`."""
    writer: str = ""
    """The name of the registrar whose claim it is."""


class Ledger:
    """The valid records folded into the state of every AOR; what broke a rule is in `violations`."""

    def __init__(self, policy: Policy | None = None) -> None:
        """`policy` is that of all registrars whose name is not in `policies`; without one no decision is repeated."""
        self.policy = policy
        self.policies: dict[str, Policy] = {}
        self.commands: dict[tuple[int, int], LogRecord] = {}
        """Records of `registrar.commands` by partition and offset, which are dropped once they are judged."""
        self.late = 0
        """Commands that came after their deadline."""
        self.repeated = 0
        """Commands with an id that an earlier one had."""
        self._asked: set[str] = set()
        self.pages: dict[int, Page] = {}
        self.states: dict[str, AorState] = {}
        self.violations: list[str] = []
        self.void = 0
        """Records skipped for their claim."""
        self.claims = 0
        self.valid = 0
        self._changed_by: Counter[str] = Counter()
        self._registered_by: dict[tuple[str, str, int], str] = {}
        self._lines: dict[str, deque[str]] = {}

    def take(self, records: Iterable[LogRecord]) -> None:
        """Folds further records, in offset order within each partition."""
        for record in records:
            page = self.pages.setdefault(record.partition, Page())
            page.next = record.offset + 1
            event = decode(record.value)
            if isinstance(event, Claimed):
                page.claim, page.writer = record.offset, event.registrar.rpartition(":")[0]
                self.claims += 1
                continue
            command, claim = int_header(record.headers, COMMAND_OFFSET), int_header(record.headers, CLAIM)
            if claim < page.claim:
                self.void += 1
                self._note(event, record, command, claim, "VOID ")
                continue
            page.claim = claim
            self.valid += 1
            self._note(event, record, command, claim, "")
            self._judge(event, record, command, page)
            self.states[event.aor] = event.state

    def report(self, aor: str) -> str:
        """The AOR's last records, for people."""
        return "\n".join([f"{aor} on the log:", *(f"    {line}" for line in self._lines.get(aor, ()))])

    def _judge(self, event: BindingsRecorded, record: LogRecord, command: int, page: Page) -> None:
        where = f"{record.partition}/{record.offset} of {event.aor}"
        if command <= page.command:
            self.violations.append(f"{where}: answers command {command} after {page.command}")
        elif self.policy is not None:
            self._decide_again(event, command, page, record.partition, where)
        page.command = max(page.command, command)
        if record.key != event.aor.encode():
            self.violations.append(f"{where}: has the key {record.key!r}")
        self._judge_changes(event, where)
        if not event.changes:
            return
        self._changed_by[event.id] += 1
        if self._changed_by[event.id] > 1:
            self.violations.append(f"{where}: command {event.id} changed something twice")
        for seen in event.state.seen:
            if seen.id == event.id:
                key = event.aor, seen.call_id, seen.cseq
                first = self._registered_by.setdefault(key, where)
                if first != where:
                    self.violations.append(f"{where}: {key} changed something before, at {first}")

    def _decide_again(self, event: BindingsRecorded, command: int, page: Page, partition: int, where: str) -> None:
        """Every command up to this one, on the states as they are before this record."""
        for offset in range(page.command + 1, command + 1):
            asked = self.commands.pop((partition, offset), None)
            if asked is None:
                continue  # a control record, or older than this ledger
            wanted = self._decision(asked, page)
            if offset < command and isinstance(wanted, BindingsRecorded):
                self.violations.append(f"{where}: command {offset} of {wanted.aor} was passed over")
            elif offset == command and wanted != event:
                self.violations.append(f"{where}: is not what its command leads to, but {event}; that is {wanted}")

    def _decision(self, asked: LogRecord, page: Page) -> object:
        """What the command must lead to; a name where it is dropped."""
        command = decode_command(asked.value)
        self.repeated += command.id in self._asked
        self._asked.add(command.id)
        if isinstance(command, RegisterContacts) and asked.timestamp > command.reply.deadline:
            self.late += 1
            return "late"
        policy = self.policies.get(page.writer) or self.policy or Policy()
        state = self.states.get(command.aor, AorState())
        return decide(state, command, asked.timestamp, asked.partition, asked.offset, policy)

    def _judge_changes(self, event: BindingsRecorded, where: str) -> None:
        """The state after must be the state before and the changes, nothing lost and nothing revived."""
        before_state = self.states.get(event.aor, AorState())
        before = {binding.id: binding for binding in before_state.bindings}
        after = {binding.id: binding for binding in event.state.bindings}
        expected = dict(before)
        for change in event.changes:
            if change.kind is Kind.CREATED:
                if change.id in before:
                    self.violations.append(f"{where}: creates {change.id}, which was there")
                if change.id in after:
                    expected[change.id] = after[change.id]
                continue
            if change.id not in before:
                self.violations.append(f"{where}: {change.kind} {change.id}, which was not there")
            if change.kind in ENDED:
                expected.pop(change.id, None)
            elif change.id in after:
                expected[change.id] = after[change.id]
        if expected != after:
            self.violations.append(
                f"{where}: decided on another state than the log's: {sorted(before)} before,"
                f" {[(str(c.kind), c.id) for c in event.changes]}, {sorted(after)} after"
            )
        if event.state.at < before_state.at:
            self.violations.append(f"{where}: time went back from {before_state.at} to {event.state.at}")

    def _note(self, event: BindingsRecorded, record: LogRecord, command: int, claim: int, void: str) -> None:
        lines = self._lines.setdefault(event.aor, deque(maxlen=KEPT))
        changes = ", ".join(f"{c.kind} {c.contact}" for c in event.changes) or "no change"
        by = next((f" for {s.call_id} CSeq {s.cseq}" for s in event.state.seen if s.id == event.id), f" by {event.by}")
        lines.append(
            f"{void}{record.partition}/{record.offset} s={command} c={claim} at {event.state.at / 1000:.3f}:"
            f" {changes}{by} -> {[b.contact for b in event.state.bindings]}"
        )


class LedgerReader:
    """Brings a ledger up to the log's end; with consumers of its own each time, outside any group."""

    def __init__(self, bootstrap: str, policy: Policy, prefix: str = "ramal.") -> None:
        self.ledger = Ledger(policy)
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._commands: dict[int, int] = {}

    async def read(self) -> dict[int, int]:
        """Reads to the end as it is now; returns the end offset of each partition."""
        positions = {number: page.next for number, page in self.ledger.pages.items()}
        records, ends = await self._records(REGISTRATIONS, positions)
        # Read after the answers: so every answer's command is there.
        commands, self._commands = await self._records(REGISTRAR_COMMANDS, self._commands)
        self.ledger.commands.update(((record.partition, record.offset), record) for record in commands)
        for number in ends:
            self.ledger.pages.setdefault(number, Page())
        self.ledger.take(records)
        return ends

    async def _records(self, topic: str, positions: Mapping[int, int]) -> tuple[list[LogRecord], dict[int, int]]:
        """All records from these offsets (else from the beginning), and the end of each partition."""
        consumer = AIOKafkaConsumer(self._prefix + topic, bootstrap_servers=self._bootstrap)
        await consumer.start()
        try:
            partitions: set[TopicPartition] = consumer.assignment()  # without a group: all of them
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            at = {partition: positions.get(partition.partition, 0) for partition in partitions}
            for partition, offset in at.items():
                consumer.seek(partition, offset)
            records: list[LogRecord] = []
            while any(at[partition] < end for partition, end in ends.items()):
                for partition, batch in (await consumer.getmany(timeout_ms=1000)).items():
                    at[partition] = batch[-1].offset + 1
                    records += batch
        finally:
            await consumer.stop()
        return records, {partition.partition: offset for partition, offset in at.items()}
