"""The registrar over a real log: claims, zombies, crashes, snapshots, refusals, expiry."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

import pytest

from events.commands import Contact, ExpireContacts, RegisterContacts, Registration, RemoveContacts, ReplyTo
from events.limits import RECORD_BYTES
from events.registrations import WATERMARK_KEY, AorState, BindingsRecorded
from events.replies import Refused
from events.topics import BINDINGS, DEAD, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Decoder, cloud_event, encode
from registrar import snapshot
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.partition import Partition
from registrar.truths import claim_of, is_claim
from runtime.errors import LogUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, PartitionFault
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from runtime.worker import Lost

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
        self.handler = RegistrarHandler(log, policy, "registrar-under-test", site.clock)
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


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "ramal.sqlite")
    await store.start()
    site = Site(store)
    await site.log.start()
    yield site
    for log in (*site.logs, site.log):
        await log.stop()
    await store.stop()


async def test_every_accepted_command_leaves_one_truth_with_its_offset_and_claim(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), site.register(), site.register(MOBILE))
    await registrar.work()
    claim, *truths = await site.records(REGISTRATIONS)
    assert is_claim(claim.headers)
    assert [(dict(t.headers)["s"], dict(t.headers)["c"]) for t in truths] == [(b"0", b"0"), (b"1", b"0"), (b"2", b"0")]
    assert [len(t.state.bindings) for t in await site.truths()] == [1, 1, 2]
    assert registrar.contacts == {AOR: [DESK, MOBILE]}
    assert await site.refusals() == []


async def test_a_restart_goes_on_where_the_last_truth_was(site: Site):
    await site.send(site.register(DESK))
    await (await site.registrar().start()).work()
    await site.send(site.register(MOBILE))
    second = await site.registrar().start()
    assert second.offset == 1
    await second.work()
    assert await site.changes() == ["created", "created"]
    assert second.contacts == {AOR: [DESK, MOBILE]}


async def test_refusals_go_to_the_edge_and_leave_no_truth(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=1)), site.register(DESK), site.register(DESK, cseq=1))
    await registrar.work()
    assert [(r.id, r.edge, r.boot, r.status, r.headers) for r in await site.refusals()] == [
        ("id-1", "edge-1", "boot", 423, (("Min-Expires", "60"),)),
        ("id-3", "edge-1", "boot", 500, ()),
    ]
    assert await site.changes() == ["created"]


async def test_e22_a_command_appended_past_its_deadline_changes_nothing(site: Site):
    registrar = await site.registrar().start()
    late = site.register(Contact(DESK, expires=0), call_id="elsewhere", deadline=2.0)
    await site.send(site.register(DESK))
    before = drops("late-command")
    site.clock.now += 2.001
    await site.send(late)
    await registrar.work()
    assert registrar.contacts == {AOR: [DESK]}
    assert drops("late-command") == before + 1
    assert await site.refusals() == []


async def test_a_poisoned_command_is_put_aside_and_the_rest_goes_on(site: Site):
    registrar = await site.registrar().start()
    await site.send(b"{", b'{"type":"ramal.Unknown"}', site.register(DESK))
    await registrar.work()
    assert [record.value for record in await site.records(DEAD)] == [b"{", b'{"type":"ramal.Unknown"}']
    assert registrar.contacts == {AOR: [DESK]}


# E16, E18: zombies


async def test_e18_a_registrar_that_slept_changes_nothing_and_is_told(site: Site):
    zombie = await site.registrar(Policy(max_contacts=1, overflow="refuse")).start()
    await site.send(site.register(DESK))
    await zombie.work()
    await site.send(site.register(MOBILE))
    fetched = await zombie.fetch()
    owner = await (await site.registrar().start()).work()
    await site.send(site.register(Contact(DESK, expires=0)))
    await owner.work()

    zombie.handler._policy = Policy()  # as if it accepted what it fetched
    with pytest.raises(Lost) as lost:
        await zombie.handler.handle({0: fetched})
    assert lost.value.partitions == {0}
    assert await site.changes() == ["created", "created", "unregistered"]
    third = await site.registrar().start()
    assert third.contacts == {AOR: [MOBILE]}


async def test_e18_a_registrar_that_slept_refuses_nobody(site: Site):
    zombie = await site.registrar(Policy(max_contacts=1, overflow="refuse")).start()
    await site.send(site.register(DESK))
    await zombie.work()
    await site.send(site.register(MOBILE))
    fetched = await zombie.fetch()
    await (await site.registrar().start()).work()
    with pytest.raises(Lost):
        await zombie.handler.handle({0: fetched})
    assert await site.refusals() == []
    assert (await site.truths())[-1].state.bindings[1].contact == MOBILE


async def test_e16_the_owner_reads_over_what_a_zombie_wrote(site: Site):
    zombie = await site.registrar().start()
    owner = await site.registrar().start()
    await site.send(site.register(DESK))
    with pytest.raises(Lost):
        await zombie.work()
    await owner.work()
    await site.send(site.register(MOBILE))
    await owner.work()
    assert owner.contacts == {AOR: [DESK, MOBILE]}
    assert await site.changes() == ["created", "created"]
    assert (await site.registrar().start()).contacts == owner.contacts


async def test_e16_snapshots_of_a_zombie_are_fenced(site: Site):
    zombie = await site.registrar().start()
    await site.send(site.register(DESK))
    await zombie.work()
    await zombie.handler.snapshot()
    owner = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=0)))
    await owner.work()
    await owner.handler.snapshot()
    zombie.partition.changed.add(AOR)
    await zombie.handler.snapshot()
    assert zombie.partition.lost
    assert (await site.registrar().start()).contacts == {AOR: []}


async def test_a_partition_that_came_back_writes_its_snapshots_after_all(site: Site):
    one, two = await site.registrar().start(), await site.registrar().start()
    for owner in (one, two, one):
        await owner.start()
        await site.send(site.register(DESK))
        await owner.work()
        await owner.handler.snapshot()
    assert not one.partition.lost
    await one.handler.snapshot()
    assert one.partition.changed == set()
    assert (await site.registrar().start()).partition.changed == set()


async def test_e16_a_zombies_snapshot_before_the_owners_first_loses_nothing(site: Site):
    zombie = await site.registrar().start()
    await site.send(site.register(DESK))
    await zombie.work()
    owner = await site.registrar().start()
    await site.send(site.register(MOBILE))
    await owner.work()
    await zombie.handler.snapshot()
    assert (await site.registrar().start()).contacts == {AOR: [DESK, MOBILE]}


async def test_e16_a_zombies_half_written_snapshot_after_the_owners_loses_nothing(site: Site, monkeypatch):
    zombie = await site.registrar().start()
    await site.send(*(site.register(DESK, aor=f"u{n}@example.test") for n in range(4)))
    await zombie.work()
    owner = await site.registrar().start()
    await site.send(*(site.register(MOBILE, aor=f"u{n}@example.test") for n in range(4)))
    await owner.work()
    await owner.handler.snapshot()
    monkeypatch.setattr(snapshot, "AT_ONCE", 2)
    original = zombie.log.append_transaction

    async def dying(transactional_id, records):
        await original(transactional_id, records)
        raise LogUnavailable("killed")

    monkeypatch.setattr(zombie.log, "append_transaction", dying)
    with pytest.raises(LogUnavailable):
        await zombie.handler.snapshot()
    restored = await site.registrar().start()
    assert restored.contacts == owner.contacts == {f"u{n}@example.test": [DESK, MOBILE] for n in range(4)}


async def taken_over(site: Site, sleeper: "Registrar") -> "Registrar":
    """An owner behind it that has acknowledged another contact and written its snapshot."""
    owner = await site.registrar().start()
    await site.send(site.register(MOBILE))
    await owner.work()
    await owner.handler.snapshot()
    return owner


async def restored_after(site: Site, owner: "Registrar", sleeper: "Registrar") -> "Registrar":
    """The sleeper writes, the owner goes on for some turns; then somebody restores."""
    with contextlib.suppress(LogUnavailable):
        await sleeper.handler.snapshot()
    assert sleeper.partition.lost
    await site.send(site.register(DESK, aor="bob@example.test"))
    await owner.work()
    await owner.handler.snapshot()
    assert not owner.partition.changed, "the owner fences the sleeper, and writes in the same turn"
    assert owner.partition.fenced
    await sleeper.handler.snapshot()
    restored = await site.registrar().start()
    assert restored.contacts == {AOR: [DESK, MOBILE], "bob@example.test": [DESK]}
    assert not restored.partition.changed
    return restored


async def test_e16_e18_the_first_snapshot_of_a_sleeper_changes_nothing(site: Site):
    sleeper = await site.registrar().start()
    await site.send(site.register(DESK))
    await sleeper.work()
    owner = await taken_over(site, sleeper)
    await restored_after(site, owner, sleeper)


@pytest.mark.parametrize("failing", [{1}, {2}, {1, 2}])
async def test_e16_e18_nor_does_one_after_a_snapshot_that_failed(site: Site, monkeypatch, failing: set[int]):
    """Whichever of fence and write it was, and also when the sleeper had written well before."""
    sleeper = await site.registrar().start()
    await site.send(site.register("sip:first@192.0.2.8"))
    await sleeper.work()
    await sleeper.handler.snapshot()
    await site.send(site.register(Contact("sip:first@192.0.2.8", expires=0)), site.register(DESK))
    await sleeper.work()
    sleeper.partition.fenced = 1 not in failing  # else the fence comes first, as after an earlier failure
    fail_transactions(sleeper, monkeypatch, {n - 1 if sleeper.partition.fenced else n for n in failing})
    for _ in failing:
        with pytest.raises(LogUnavailable):
            await sleeper.handler.snapshot()
    owner = await taken_over(site, sleeper)
    await restored_after(site, owner, sleeper)


async def test_e16_a_refresh_survives_the_first_snapshot_of_a_sleeper(site: Site):
    """A binding that was refreshed is not ended at its old time."""
    sleeper = await site.registrar().start()
    await site.send(site.register(DESK))
    await sleeper.work()
    owner = await site.registrar().start()
    site.clock.now += 200
    await site.send(site.register(DESK))
    await owner.work()
    await owner.handler.snapshot()
    await sleeper.handler.snapshot()
    await site.send(site.register(DESK, aor="bob@example.test"))
    await owner.work()
    await owner.handler.snapshot()
    third = await site.registrar().start()
    site.clock.now += 110
    await third.handler.tick()
    await third.work()
    assert "expired" not in await site.changes()


async def test_e18_a_snapshot_that_was_cut_short_fences_anew(site: Site, monkeypatch):
    """A cancelled call has told the log nothing that we know of."""
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    await registrar.work()
    await registrar.handler.snapshot()
    await site.send(site.register(MOBILE))
    await registrar.work()

    async def hanging(transactional_id, records):
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(registrar.log, "append_transaction", hanging)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await registrar.handler.snapshot()
    assert not registrar.partition.fenced
    owner = await taken_over(site, registrar)
    await registrar.handler.snapshot()
    assert registrar.partition.lost
    assert (await site.registrar().start()).contacts == owner.contacts


def fail_transactions(registrar: "Registrar", monkeypatch, failing: set[int]) -> None:
    """Transactions with these numbers, from 1 and fences included, have an outcome that nobody knows."""
    original, numbers = registrar.log.append_transaction, itertools.count(1)

    async def failing_some(transactional_id, records):
        if next(numbers) in failing:
            registrar.log._epochs.pop(transactional_id, None)  # as after a real failure: the next is a first one
            raise LogUnavailable("gone")
        await original(transactional_id, records)

    monkeypatch.setattr(registrar.log, "append_transaction", failing_some)


async def test_a_lost_partition_is_claimed_again_before_anything_is_written(site: Site):
    registrar = await site.registrar().start()
    registrar.partition.lost = True
    await site.send(site.register(DESK))
    with pytest.raises(Lost):
        await registrar.work()
    assert await site.truths() == []
    await (await registrar.start()).work()
    assert registrar.contacts == {AOR: [DESK]}


# E15, E23: snapshots and crashes


async def test_e23_crashes_between_truth_and_snapshot_twice_in_a_row_lose_and_keep_nothing(site: Site):
    first = await site.registrar().start()
    await site.send(site.register(DESK))
    await first.work()
    await first.handler.snapshot()
    await site.send(site.register(Contact(DESK, expires=0)), site.register(MOBILE))
    await first.work()  # and crashes
    second = await site.registrar().start()
    await site.send(site.register("sip:third@192.0.2.3"))
    await second.work()  # and crashes
    third = await site.registrar().start()
    assert third.contacts == {AOR: [MOBILE, "sip:third@192.0.2.3"]}
    await third.handler.snapshot()
    fourth = await site.registrar().start()
    assert fourth.contacts == third.contacts
    assert fourth.partition.changed == set()
    assert fourth.offset == 4


async def test_e23_a_crash_within_a_snapshot_of_several_parts_is_harmless(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(*(site.register(DESK, aor=f"u{n}@example.test") for n in range(5)))
    await registrar.work()
    monkeypatch.setattr(snapshot, "AT_ONCE", 2)
    original, calls = registrar.log.append_transaction, []

    async def failing(transactional_id, records):
        calls.append(len(records))
        if len(calls) == 3:  # the second of the parts behind the fence
            raise LogUnavailable("gone")
        await original(transactional_id, records)

    monkeypatch.setattr(registrar.log, "append_transaction", failing)
    with pytest.raises(LogUnavailable):
        await registrar.handler.snapshot()
    await registrar.handler.snapshot()
    assert calls == [0, 3, 3, 0, 3, 3, 2]
    restored = await site.registrar().start()
    assert restored.contacts == registrar.contacts
    assert restored.partition.changed == set()


async def test_e23_what_is_left_of_a_snapshot_of_several_parts_is_replayed(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(*(site.register(DESK, aor=f"u{n}@example.test") for n in range(5)))
    await registrar.work()
    monkeypatch.setattr(snapshot, "AT_ONCE", 2)
    fail_transactions(registrar, monkeypatch, {2})
    with pytest.raises(LogUnavailable):
        await registrar.handler.snapshot()
    restored = await site.registrar().start()
    assert restored.contacts == registrar.contacts
    assert len(restored.partition.changed) == 5


async def test_e15_snapshot_and_tail_give_the_state_of_the_whole_log(site: Site):
    registrar = await site.registrar().start()
    for n in range(20):
        await site.send(
            site.register(DESK, aor=f"u{n % 3}@example.test", call_id=f"c{n % 4}"),
            site.register(Contact(MOBILE, expires=0 if n % 2 else 300), aor=f"u{n % 5}@example.test"),
        )
        await registrar.work()
        if n % 6 == 0:
            await registrar.handler.snapshot()
    states = {t.aor: encode(t.state) for t in await site.truths()}
    assert registrar.partition.states == states
    assert (await site.registrar().start()).partition.states == states


async def test_e15_an_ended_aor_becomes_a_tombstone_once_nothing_of_it_matters(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), site.register(Contact(DESK, expires=0)))
    await registrar.work()
    await registrar.handler.snapshot()
    assert registrar.contacts == {AOR: []}
    for _ in range(20):  # no other command comes
        site.clock.now += 34
        await registrar.handler.tick()
    assert registrar.contacts == {}
    await registrar.handler.snapshot()
    last = [r for r in await site.records(BINDINGS) if r.key == AOR.encode()][-1]
    assert last.value is None
    restored = await site.registrar().start()
    assert restored.contacts == {}


async def test_a_snapshot_with_nothing_new_writes_nothing(site: Site):
    registrar = await site.registrar().start()
    await registrar.handler.snapshot()
    end = (await site.log.bounds(BINDINGS, 0)).end
    await registrar.handler.snapshot()
    assert (await site.log.bounds(BINDINGS, 0)).end == end


async def test_a_snapshot_that_fails_holds_up_no_other_partition(tmp_path):
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, 2)
    await log.start()
    handler = RegistrarHandler(log, Policy(), "registrar-under-test")
    for number in (0, 1):
        await handler.restore(number)
        handler.partitions[number].changed.add(AOR)
    original = log.append_transaction

    async def failing(transactional_id, records):
        if transactional_id == "registrar-0":
            raise LogUnavailable("its coordinator is away")
        await original(transactional_id, records)

    log.append_transaction = failing
    with pytest.raises(LogUnavailable):
        await handler.snapshot()
    assert [len(handler.partitions[number].changed) for number in (0, 1)] == [1, 0]
    await log.stop()
    await store.stop()


async def test_refused_commands_before_a_snapshot_are_not_decided_again(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=1)))
    await registrar.work()
    await registrar.handler.snapshot()
    assert (await site.registrar().start()).offset == 1


# When the log does not do as it is told


async def test_r21_what_was_not_acknowledged_is_not_remembered(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))

    async def away(records):
        raise LogUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(registrar.log, "append", away)
        with pytest.raises(LogUnavailable):
            await registrar.work()
    assert registrar.contacts == {}
    await (await registrar.start()).work()
    assert registrar.contacts == {AOR: [DESK]}


async def test_r21_an_append_of_unknown_outcome_is_decided_once(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    original = registrar.log.append

    async def silent(records):
        await original(records)
        raise LogUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(registrar.log, "append", silent)
        with pytest.raises(LogUnavailable):
            await registrar.work()
    await (await registrar.start()).work()
    assert await site.changes() == ["created"]


async def test_refusals_that_cannot_be_sent_hold_up_nobody(site: Site, monkeypatch):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=1)))

    async def away(records):
        raise LogUnavailable("away")

    before = drops("refusal-not-sent")
    monkeypatch.setattr(registrar.log, "append", away)
    await registrar.work()
    assert drops("refusal-not-sent") == before + 1
    assert registrar.partition.handled == 0


async def test_e24_a_record_that_the_log_refuses_is_a_named_refusal_and_others_go_on(site: Site, monkeypatch):
    monkeypatch.setattr("registrar.handler.STATE_BYTES", 10 * RECORD_BYTES)
    monkeypatch.setattr("events.limits.CONTACT", RECORD_BYTES)
    registrar = await site.registrar().start()
    huge = "sip:x@192.0.2.1;x=" + "y" * (RECORD_BYTES // 2 + 1000)  # stands in the truth twice
    await site.send(site.register(DESK), site.register(huge, aor="b@example.test"), site.register(MOBILE))
    with pytest.raises(Lost):
        await registrar.work()
    await (await registrar.start()).work()
    assert [(r.id, r.status) for r in await site.refusals()] == [("id-2", 500)]
    assert registrar.contacts == {AOR: [DESK, MOBILE]}


async def test_e24_a_state_above_the_bound_is_a_named_refusal(site: Site, monkeypatch):
    monkeypatch.setattr("registrar.handler.STATE_BYTES", 600)
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), site.register(MOBILE, "sip:third@192.0.2.3"), site.register(DESK))
    await registrar.work()
    assert [(r.id, r.status, r.reason) for r in await site.refusals()] == [("id-2", 403, "Registration Too Large")]
    assert registrar.contacts == {AOR: [DESK]}


async def test_an_unreadable_record_on_registrations_is_void(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    await registrar.work()
    await site.log.append([Append(REGISTRATIONS, 0, b"x", b"garbage", (("c", b"999999"),))])
    await site.log.append([Append(REGISTRATIONS, 0, b"x", b"garbage")])
    assert (await site.registrar().start()).contacts == {AOR: [DESK]}


# What a newer version has written (E19)


async def next_truth(site: Site, change=lambda value: value, **headers: bytes) -> None:
    """Another record like the last truth, as the next version might write it."""
    truth = (await site.records(REGISTRATIONS))[-1]
    value = change(json.loads(truth.value))
    changed = [(k, headers.pop(k, v)) for k, v in truth.headers if k != "s"]
    added = [("s", b"1"), *((k, v) for k, v in headers.items() if v)]
    await site.log.append([Append(REGISTRATIONS, 0, truth.key, json.dumps(value).encode(), [*changed, *added])])


def with_binding(**fields: object):
    """A change of all bindings of a truth's state."""

    def change(value):
        for binding in value["state"]["bindings"]:
            binding.update(fields)
        return value

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_binding(path={"v": 2, "hops": []}),
        with_binding(expires="2027-01-01T00:00:00Z"),
        lambda value: value | {"state": {"at": None}},
        lambda value: value | {"state": []},
        lambda value: value | {"type": "ramal.BindingsMoved"},
        lambda value: value | {"changes": [{"kind": "moved", "id": 1, "contact": DESK}]},
        lambda value: {"type": "ramal.Moved", "to": "elsewhere"},
    ],
    ids=["type of a field", "another", "null", "no object", "type of a truth", "kind of change", "another truth"],
)
async def test_e19_a_truth_that_is_not_known_stops_its_partition_and_keeps_its_bytes(site: Site, change):
    newer = await site.registrar().start()
    await site.send(site.register(DESK))
    await newer.work()
    await newer.handler.snapshot()
    before = await site.records(BINDINGS)
    await next_truth(site, change)
    older = await site.registrar().start()
    assert "not known" in older.fault
    assert older.handler.partitions == {}
    await older.handler.snapshot()
    assert await site.records(BINDINGS) == before


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b'{"bindings":{}}', cloud_event("ramal.AorState", "registrar", "snapshot")),
        (b'{"contacts":[]}', cloud_event("ramal.AorState2", "registrar", "snapshot")),
        (b'{"at":1e999}', ()),
        (b'{"at":1,"x_newer":[[[1e999999]]]}', ()),
    ],
)
async def test_e19_a_snapshot_that_is_not_known_stops_its_partition_and_gets_no_tombstone(site: Site, value, headers):
    await site.log.append([Append(BINDINGS, 0, AOR.encode(), value, headers)])
    older = await site.registrar().start()
    await older.handler.snapshot()
    last = (await site.records(BINDINGS))[-1]
    assert (last.key, last.value) == (AOR.encode(), value)
    assert "not known" in older.fault
    assert older.handler.partitions == {}


async def test_e19_a_watermark_that_is_not_known_stops_its_partition(site: Site):
    await site.log.append([Append(BINDINGS, 0, WATERMARK_KEY.encode(), b'{"until":"2027"}')])
    assert "not known" in (await site.registrar().start()).fault


async def test_e16_e19_what_is_not_known_of_an_older_claim_is_void(site: Site):
    zombie = await site.registrar().start()
    await site.send(site.register(DESK))
    await zombie.work()
    owner = await site.registrar().start()
    await site.send(site.register(MOBILE))
    await owner.work()
    await next_truth(site, lambda value: value | {"type": "ramal.BindingsMoved"}, c=b"%d" % zombie.partition.claim)
    assert (await site.registrar().start()).contacts == {AOR: [DESK, MOBILE]}


async def test_e19_an_owner_behind_whom_an_unknown_way_of_claiming_stands_gives_the_partition_up(site: Site):
    owner = await site.registrar().start()
    await site.log.append([Append(REGISTRATIONS, 0, None, b"{}", cloud_event("ramal.ClaimedAnew", "registrar", "x"))])
    await site.send(site.register(DESK))
    with pytest.raises(Lost):
        await owner.work()
    assert owner.contacts == {}
    assert "not known" in (await owner.start()).fault


async def test_e19_unknown_fields_outlive_decisions_snapshots_restores_and_ends(site: Site):
    newer = await site.registrar().start()
    await site.send(site.register(DESK))
    await newer.work()
    await next_truth(site, lambda v: with_binding(x_proof="p")(v) | {"state": v["state"] | {"x_owner": {"n": 1}}})

    async def stands(bindings: list[str]) -> None:
        """So in the last truth, in the snapshot and behind a restore."""
        truth = json.loads((await site.records(REGISTRATIONS))[-1].value)["state"]
        [snapshot] = [r for r in await site.records(BINDINGS) if r.key == AOR.encode()][-1:]
        for state in (truth, json.loads(snapshot.value)):
            assert state["x_owner"] == {"n": 1}
            assert [b.get("x_proof") for b in state.get("bindings", ())] == bindings

    older = await site.registrar().start()
    assert older.partition.newer == {AOR}
    await site.send(site.register(DESK), site.register(MOBILE, call_id="call-2"))  # twice in one batch
    await older.work()
    await older.handler.snapshot()
    await stands(["p", None])
    third = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=0), Contact(MOBILE, expires=0)))
    await third.work()
    await third.handler.snapshot()
    await stands([])
    for _ in range(20):
        site.clock.now += 34
        await third.handler.tick()
        await third.work()
    await third.handler.snapshot()
    await stands([])  # what the AOR had to say in a newer version's words is not for this one to forget
    assert json.loads((await site.registrar().start()).partition.states[AOR])["x_owner"] == {"n": 1}


# Expiry


async def test_r31_e17_a_binding_dies_once_at_its_end_and_grace_in_the_logs_time(site: Site):
    registrar = await site.registrar().start()
    registrar.handler._time._clock = lambda: site.clock.now - 5  # a node whose clock is wrong
    await site.send(site.register(Contact(DESK, expires=60)))
    await registrar.work()
    site.clock.now += 61
    await registrar.handler.tick()
    await registrar.work()
    assert await site.changes() == ["created"]
    site.clock.now += 2
    await registrar.handler.tick()
    await registrar.handler.tick()
    await registrar.work()
    site.clock.now += 30
    await registrar.handler.tick()
    await registrar.work()
    assert await site.changes() == ["created", "expired"]
    assert [truth.by for truth in await site.truths()] == [AOR, "expiry"]


async def test_r31_the_timer_asks_again_until_it_sees_the_event(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=60)))
    await registrar.work()
    for seconds in (63, 4, 3, 6):
        site.clock.now += seconds
        await registrar.handler.tick()
    asked = await registrar.fetch()
    assert len(asked) == 3
    assert {Decoder(ExpireContacts)(r.value).aor for r in asked} == {AOR}
    await registrar.work()
    assert await site.changes() == ["created", "expired"]


async def test_r31_a_refresh_moves_the_end(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    await registrar.work()
    site.clock.now += 299
    await site.send(site.register(DESK))
    await registrar.work()
    site.clock.now += 200
    await registrar.handler.tick()
    assert await registrar.fetch() == []
    site.clock.now += 103
    await registrar.handler.tick()
    assert len(await registrar.fetch()) == 1


async def test_r31_the_timer_is_armed_again_by_a_restore(site: Site):
    await site.send(site.register(DESK))
    await (await site.registrar().start()).work()
    registrar = await site.registrar().start()
    site.clock.now += 303
    await registrar.handler.tick()
    await registrar.work()
    assert await site.changes() == ["created", "expired"]
    assert registrar.partition.bindings == 0


async def test_r43_an_operator_removes(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), RemoveContacts("r-1", AOR, "olga", DESK))
    await registrar.work()
    removed = (await site.truths())[-1]
    assert (removed.by, [str(c.kind) for c in removed.changes]) == ("operator:olga", ["unregistered"])


async def test_released_partitions_are_forgotten_and_their_commands_left_alone(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    records = await registrar.fetch()
    registrar.handler.release(0)
    assert await registrar.handler.handle({0: records}) == {}
    with contextlib.suppress(KeyError):
        registrar.handler.release(0)
    assert await site.truths() == []
