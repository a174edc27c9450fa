"""The registrar over a real log: crashes, snapshots, restores."""

import pytest

from events.commands import Contact
from events.topics import BINDINGS, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import encode
from registrar import snapshot
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.truths import claim_of
from runtime.errors import LogUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from runtime.worker import Lost
from tests.kit.registrar import AOR, DESK, MOBILE, Site, fail_transactions, read_state
from tests.kit.shortened import shorten


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


async def test_a_registrar_whose_topic_was_made_anew_claims_anew_and_loses_nothing_after_it(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(DESK))
    await registrar.work()
    await registrar.handler.snapshot()
    await shorten(site.store, REGISTRATIONS, 0)
    await site.send(site.register(MOBILE))
    with pytest.raises(Lost):  # what it wrote is under a claim that does not stand in the log
        await registrar.work()
    await (await registrar.start()).work()
    truths = [record for record in await site.records(REGISTRATIONS) if record.offset > registrar.partition.claim]
    assert [claim_of(record) for record in truths] == [registrar.partition.claim]
    restored = await site.registrar().start()  # crashed before its snapshot
    assert restored.contacts == registrar.contacts == {AOR: [DESK, MOBILE]}
    await restored.handler.snapshot()
    assert (await site.registrar().start()).contacts == restored.contacts


async def test_a_registrar_whose_topic_has_lost_its_end_does_not_go_back_behind_its_snapshots(site: Site):
    registrar = await site.registrar().start()
    for contact in (DESK, MOBILE):
        await site.send(site.register(contact))
        await registrar.work()
        site.clock.now += 1
    await registrar.handler.snapshot()
    await shorten(site.store, REGISTRATIONS, registrar.partition.next - 2)  # both truths are gone
    second = await site.registrar().start()
    assert second.contacts == {AOR: [DESK, MOBILE]}
    await site.send(site.register("sip:third@192.0.2.3"))
    await second.work()
    third = await site.registrar().start()  # crashed before its snapshot
    assert third.contacts == second.contacts == {AOR: [DESK, MOBILE, "sip:third@192.0.2.3"]}


async def test_where_commands_are_lost_their_offsets_are_filled_up_and_no_id_is_given_twice(site: Site):
    registrar = await site.registrar().start()
    for contact in (DESK, MOBILE):
        await site.send(site.register(contact))
        await registrar.work()
    await shorten(site.store, REGISTRAR_COMMANDS, 1)
    await site.send(site.register("sip:lost@192.0.2.3"))  # at the offset of one that was decided: it hears 503
    second = await site.registrar().start()
    assert second.offset == 2
    await shorten(site.store, REGISTRAR_COMMANDS, 0)
    third = await site.registrar().start()
    assert [record.offset for record in await site.records(REGISTRAR_COMMANDS)] == [0, 1]
    await site.send(site.register("sip:third@192.0.2.3"))
    await third.work()
    assert third.contacts == {AOR: [DESK, MOBILE, "sip:third@192.0.2.3"]}
    [state] = [read_state(value) for value in third.partition.states.values()]
    assert len({binding.id for binding in state.bindings}) == 3


async def test_where_more_commands_are_lost_than_can_be_filled_up_a_person_has_to_hear_of_it(site: Site, monkeypatch):
    monkeypatch.setattr("registrar.restore.MOST_FILLED", 1)
    registrar = await site.registrar().start()
    await site.send(site.register(DESK), site.register(MOBILE))
    await registrar.work()
    await shorten(site.store, REGISTRAR_COMMANDS, 0)
    assert (await site.registrar().start()).fault == "partition 0: position 2 is beyond the log's end 0"


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
    handler = RegistrarHandler(log, Policy(), "registrar-under-test", 2)
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
