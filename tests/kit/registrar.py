"""A registrar over a log in one file, and clocks that only the test moves."""

import itertools

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import AorState, BindingsRecorded
from events.replies import Refused
from events.topics import BINDINGS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Decoder, cloud_event, encode
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.partition import Partition
from registrar.truths import claim_of, is_claim
from runtime.errors import LogUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, PartitionFault
from runtime.store import EmbeddedStore

AOR = "alice@example.test"
DESK = "sip:alice@192.0.2.4:5062"
MOBILE = "sip:alice@192.0.2.9"
START = 1_700_000_000.0
read_truth: Decoder[BindingsRecorded] = Decoder(BindingsRecorded)
read_reply: Decoder[Refused] = Decoder(Refused)
read_state: Decoder[AorState] = Decoder(AorState)


class Clock:
    """The log's clock and everybody's, in seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Site:
    """One log of one partition, and the registrars on it."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self.clock = Clock()
        self.log = EmbeddedLog(store, 1, now=self.clock)
        self.logs: list[EmbeddedLog] = []
        self.sent = 0

    def registrar(self, policy: Policy | None = None, log: EmbeddedLog | None = None) -> "Registrar":
        return Registrar(self, policy or Policy(), log or EmbeddedLog(self.store, 1, now=self.clock))

    async def send(self, *values: object) -> None:
        """Puts commands on the registrar's topic; bytes go as they are."""
        await self.log.append(
            [
                Append(
                    REGISTRAR_COMMANDS,
                    0,
                    AOR.encode(),
                    v if isinstance(v, bytes) else encode(v),
                    cloud_event("c", "t", "i"),
                )
                for v in values
            ]
        )

    def register(self, *contacts: str | Contact, aor: str = AOR, deadline: float = 2.0, **more) -> RegisterContacts:
        self.sent += 1
        more = {"call_id": "call-1", "cseq": self.sent, "branch": f"z9hG4bK{self.sent}", **more}
        return RegisterContacts(
            f"id-{self.sent}",
            ReplyTo("edge-1", "boot", int((self.clock.now + deadline) * 1000)),
            aor,
            aor,
            Registration(contacts=tuple(Contact(c) if isinstance(c, str) else c for c in contacts), **more),
        )

    async def records(self, topic: str) -> list:
        bounds = await self.log.bounds(topic, 0)
        found = []
        async for batch in self.log.read(topic, 0, bounds.begin, bounds.end, committed=topic == BINDINGS):
            found += batch
        return found

    async def truths(self) -> list[BindingsRecorded]:
        """What every reader takes as true: records of an older claim are skipped."""
        highest, found = -1, []
        for record in await self.records(REGISTRATIONS):
            claim = claim_of(record)
            if claim >= highest:
                highest = claim
                if not is_claim(record.headers):
                    found.append(read_truth(record.value))
        return found

    async def refusals(self) -> list[Refused]:
        return [read_reply(record.value) for record in await self.records(EDGE_REPLIES)]

    async def changes(self) -> list[str]:
        return [str(change.kind) for truth in await self.truths() for change in truth.changes]


class Registrar:
    """One instance, driven by hand: what a worker would do, step by step."""

    def __init__(self, site: Site, policy: Policy, log: EmbeddedLog) -> None:
        self.site = site
        self.log = log
        self.handler = RegistrarHandler(log, policy, "registrar-under-test", 1, site.clock)
        self.offset = 0
        self.fault = ""

    async def start(self) -> "Registrar":
        if self.log not in self.site.logs:
            self.site.logs.append(self.log)
            await self.log.start()
        try:
            self.offset = await self.handler.restore(0) or 0
        except PartitionFault as fault:  # a worker stops the partition
            self.fault = str(fault)
        return self

    async def fetch(self) -> list:
        """The commands that are waiting."""
        return [r for r in await self.site.records(REGISTRAR_COMMANDS) if r.offset >= self.offset]

    async def work(self) -> "Registrar":
        if records := await self.fetch():
            self.offset = (await self.handler.handle({0: records}))[0]
        return self

    @property
    def partition(self) -> Partition:
        return self.handler.partitions[0]

    @property
    def contacts(self) -> dict[str, list[str]]:
        states = {aor: read_state(value) for aor, value in self.partition.states.items()}
        return {aor: [b.contact for b in state.bindings] for aor, state in states.items()}


def fail_transactions(registrar: "Registrar", monkeypatch, failing: set[int]) -> None:
    """Transactions with these numbers, from 1 and fences included, have an outcome that nobody knows."""
    original, numbers = registrar.log.append_transaction, itertools.count(1)

    async def failing_some(transactional_id, records):
        if next(numbers) in failing:
            registrar.log._epochs.pop(transactional_id, None)  # as after a real failure: the next is a first one
            raise LogUnavailable("gone")
        await original(transactional_id, records)

    monkeypatch.setattr(registrar.log, "append_transaction", failing_some)
