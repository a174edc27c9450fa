"""The registrar over a real log: expiry, and what operators remove."""

import contextlib

from events.commands import Contact, ExpireContacts, RemoveContacts
from events.topics import partition_of
from events.wire import Decoder
from tests.kit.registrar import (
    AOR,
    DESK,
    Site,
)

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


async def test_what_was_registered_under_another_partition_count_ends_and_nothing_else_is_decided(site: Site):
    registrar = await site.registrar().start()
    await site.send(site.register(Contact(DESK, expires=60)))
    await registrar.work()
    registrar.handler._count = next(n for n in range(2, 99) if partition_of(AOR, n))  # RAMAL_PARTITIONS was changed
    await site.send(site.register(Contact(DESK, expires=0)), RemoveContacts("id", AOR, "operator"))
    await registrar.work()
    assert await site.changes() == ["created"]
    assert [refused.status for refused in await site.refusals()] == [503]
    site.clock.now += 63
    await registrar.handler.tick()
    await registrar.work()
    assert await site.changes() == ["created", "expired"]
