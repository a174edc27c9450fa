"""Static membership of Kafka's consumer groups: killed members, twins and zombies of one name (KIP-345, E18)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator

from ramal.backends import KafkaServer
from runtime.config import Kafka
from runtime.errors import LogUnavailable, Replaced
from runtime.log.kafka.closing import close_client
from runtime.log.kafka.group import KafkaSubscription, _abandon
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Log
from tests.contract.test_log_port import TOPIC, Member, everything, record

pytestmark = pytest.mark.integration

SESSION = 20.0
AT_ONCE = 8.0
"""Seconds: far below a session's time-out, far above a round trip."""

Named = Callable[[str], Awaitable[Log]]


@pytest.fixture
async def named(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[Named]:
    """Makes logs of processes of these names."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str) -> Log:
            log = KafkaLog(Kafka(bootstrap=kafka.bootstrap, session_timeout=SESSION), topic_prefix, 4, "test", name)
            await log.start()
            stack.push_async_callback(log.stop)
            await log.create_topics(4)
            return log

        yield make


async def kill(member: Member) -> None:
    """Its connections end, and nobody is told."""
    subscription = member.subscription
    assert isinstance(subscription, KafkaSubscription)
    client, coordinator = subscription._client, subscription._coordinator
    subscription._stopped = True
    await subscription._fetcher.stop()
    await _abandon(coordinator)
    await close_client(client)


def generation(member: Member) -> int:
    coordinator: GroupCoordinator = member.subscription._coordinator
    return coordinator.generation


def with_all(member: Member) -> Callable[[], bool]:
    return lambda: member.subscription.assigned() == everything()


async def replaced(member: Member) -> str:
    """Polls until it is told that another has its place; the message."""
    async with asyncio.timeout(AT_ONCE):
        while True:
            try:
                await member.poll()
            except Replaced as error:
                return str(error)


async def test_who_comes_back_under_its_name_has_its_partitions_at_once_and_nobody_else_notices(named: Named) -> None:
    one, two = Member(await named("one")), Member(await named("two"))
    await one.until(lambda: len(one.subscription.assigned()) == len(two.subscription.assigned()) == 2, two)
    had, told, joined = one.subscription.assigned(), list(two.told), generation(one)
    await kill(one)
    again, began = Member(await named("one")), time.monotonic()
    await again.until(lambda: again.subscription.assigned() == had, two)
    assert time.monotonic() - began < AT_ONCE
    assert generation(again) == joined == generation(two)
    assert two.told == told
    await (await named("writer")).append([record(n, n % 4) for n in range(8)])
    await again.until(lambda: sum(map(len, [*again.got.values(), *two.got.values()])) == 8, two)
    assert set(again.got) == had


async def test_a_lone_member_that_comes_back_goes_on_where_it_had_committed(named: Named) -> None:
    log = await named("one")
    one = Member(log)
    await log.append([record(n, 0) for n in range(4)])
    await one.until(lambda: one.got.get(0) == [0, 1, 2, 3])
    await one.subscription.commit({0: 3})
    await kill(one)
    again, began = Member(await named("one")), time.monotonic()
    await again.until(lambda: again.got.get(0) == [3])
    assert time.monotonic() - began < AT_ONCE


async def test_e18_a_member_whose_place_is_taken_delivers_and_commits_nothing_and_says_why(named: Named) -> None:
    log = await named("one")
    zombie = Member(log)
    await log.append([record(1, 0)])
    await zombie.until(lambda: zombie.got.get(0) == [1])
    twin = Member(await named("one"))
    await twin.until(with_all(twin))
    await twin.subscription.commit({0: 1})
    assert "RAMAL_NAME" in await replaced(zombie)
    assert zombie.subscription.assigned() == frozenset()
    assert not zombie.subscription.joined()
    assert zombie.told[-4:] == [("revoked", partition) for partition in range(4)]
    zombie.subscription._assigned = everything()  # as one that has not heard of it yet
    with pytest.raises(LogUnavailable):
        await zombie.subscription.commit({0: 9})
    assert await log.committed(TOPIC, "g") == {0: 1}
    # It stays so: neither takes the place from the other again.
    joined = generation(twin)
    for _ in range(10):
        with contextlib.suppress(Replaced):
            await zombie.poll()
        await twin.poll()
    assert (generation(twin), twin.subscription.assigned()) == (joined, everything())


async def test_e18_a_sleeper_whose_place_is_taken_is_not_told_that_a_partition_is_its_own(named: Named) -> None:
    """Also when it asks before its first heartbeat has told it."""
    zombie = Member(await named("one"))
    await zombie.until(with_all(zombie))
    await zombie.subscription.confirm(0)
    twin = Member(await named("one"))
    await twin.until(with_all(twin))
    with pytest.raises(LogUnavailable):
        await zombie.subscription.confirm(0)
    await twin.subscription.confirm(0)


async def test_who_was_replaced_joins_again_once_the_name_is_free(named: Named) -> None:
    first, twin = Member(await named("one")), Member(await named("one"))
    await first.until(with_all(first))
    await twin.until(with_all(twin))
    await replaced(first)
    await twin.subscription.stop()
    async with asyncio.timeout(AT_ONCE):
        while first.subscription.assigned() != everything():
            with contextlib.suppress(Replaced):
                await first.poll()


async def test_a_member_with_a_name_that_stops_leaves_its_partitions_at_once(named: Named) -> None:
    one, two = Member(await named("one")), Member(await named("two"))
    await one.until(lambda: len(one.subscription.assigned()) == len(two.subscription.assigned()) == 2, two)
    began = time.monotonic()
    await one.subscription.stop()
    await two.until(with_all(two))
    assert time.monotonic() - began < AT_ONCE


async def test_a_place_taken_within_a_generation_keeps_nothing_of_what_was_delivered_before(named: Named) -> None:
    """The same partitions in the same generation, and yet another has had them."""
    first = Member(await named("one"))
    await first.until(with_all(first))
    twin = Member(await named("one"))
    await twin.until(with_all(twin))
    assert generation(twin) == generation(first)
    await kill(twin)
    # As if the first had not heard of it, and had come back by an error of its coordination.
    first.subscription._coordinator.reset_generation()
    told = len(first.told)
    await first.until(lambda: len(first.told) >= told + 8)
    assert first.told[told:] == [*(("revoked", n) for n in range(4)), *(("assigned", n) for n in range(4))]


async def test_a_dead_member_that_is_made_to_leave_leaves_its_partitions_at_once(named: Named) -> None:
    log = await named("two")
    one, two = Member(await named("one")), Member(log)
    await one.until(lambda: len(one.subscription.assigned()) == len(two.subscription.assigned()) == 2, two)
    await kill(one)
    began = time.monotonic()
    assert await log.expel("g", "one")
    await two.until(with_all(two))
    assert time.monotonic() - began < AT_ONCE
    assert not await log.expel("g", "one")
    assert not await log.expel("no.such.group", "one")
