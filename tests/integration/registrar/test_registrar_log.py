"""The registrar over a real log: one truth a command, claims, zombies, sleepers."""

import asyncio
import contextlib

import pytest

from events.commands import Contact
from events.topics import DEAD, REGISTRATIONS
from registrar import snapshot
from registrar.config import Policy
from registrar.truths import is_claim
from runtime.errors import LogUnavailable
from runtime.metrics import drops
from runtime.worker import Lost
from tests.kit.registrar import (
    AOR,
    DESK,
    MOBILE,
    Registrar,
    Site,
    fail_transactions,
)


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
