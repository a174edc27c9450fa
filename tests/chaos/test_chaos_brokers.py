"""Three brokers: leaders move, one is restarted, killed or hung, under appends; nothing is lost, nothing doubled.

The short form appends to the log alone; RAMAL_CHAOS=full repeats it and has the whole system on such a cluster.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from events.topics import REGISTRATIONS
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from tests.chaos.appends import Appends
from tests.chaos.brokers import FENCED_MS, NODES, Brokers
from tests.chaos.rig import Stack
from tests.chaos.system import CYCLES, FULL, MIN_EXPIRES, SESSION, USERS, System, Told

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

PARTITIONS = 6
LOAD = 3.0 if FULL else 1.0
"""Seconds of load before and after each disturbance."""
SOON = 4.0
"""Seconds after which everything has found the new leaders; the summary tells how long it took."""
FENCED = FENCED_MS / 1000 + 8.0
"""The same where a broker first has to be missed."""
ALL_AGAIN = 45.0
"""Seconds in which every partition and edge gives 200 again, the members of the groups included."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def brokers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Brokers]:
    """Three of them."""
    cluster = Brokers(tmp_path_factory.mktemp("brokers"))
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def log(brokers: Brokers, topic_prefix: str) -> AsyncIterator[KafkaLog]:
    """A log on them, with topics of its own that all three have."""
    # Longer than by default: what fails here did so because it was answered, not because two CPUs were busy.
    settings = Kafka(bootstrap=brokers.bootstrap, replication_factor=3, min_insync_replicas=2, request_timeout=4.0)
    log = KafkaLog(settings, topic_prefix, PARTITIONS, "chaos")
    await log.start()
    try:
        await log.create_topics(PARTITIONS)
        await brokers.in_sync(topic_prefix)
        yield log
    finally:
        await log.stop()


@contextlib.asynccontextmanager
async def under_appends(log: KafkaLog, told: list[Told], name: str) -> AsyncIterator[tuple[Appends, Told]]:
    """Appends from a little before the block until a little after it, then what they must have left."""
    appends, now = Appends(log, REGISTRATIONS, PARTITIONS), Told(name)
    told.append(now)
    appends.start()
    try:
        await appends.right_again(20)
        await asyncio.sleep(LOAD)
        yield appends, now
        await asyncio.sleep(LOAD)
        await appends.stop()
        now.answers.update({"records": len(appends.acknowledged), "appends that failed": len(appends.failed)})
        assert await appends.broken() == []
    finally:
        await appends.close()


async def test_leaders_that_move_cost_nothing(
    brokers: Brokers, log: KafkaLog, topic_prefix: str, told: list[Told]
) -> None:
    """Nothing dies: every partition is led by another broker from one moment to the next."""
    async with under_appends(log, told, "leaders move") as (appends, now):
        for _ in range(CYCLES + 1):
            await brokers.prefer_others(topic_prefix)
            before = time.monotonic()
            assert await brokers.elect(topic_prefix) == len(await brokers.led(topic_prefix))
            now.recovered.append(await appends.right_again(SOON))
            await asyncio.sleep(LOAD)
            assert appends.failures_after(before) == []


async def test_a_broker_that_is_restarted_in_order_loses_and_doubles_nothing(
    brokers: Brokers, log: KafkaLog, topic_prefix: str, told: list[Told]
) -> None:
    async with under_appends(log, told, "orderly restarts") as (appends, now):
        for node in NODES[: 3 if FULL else 1]:
            await brokers.all[node].end()
            gone = time.monotonic()
            now.recovered.append(await appends.right_again(SOON))
            await brokers.all[node].back()
            await brokers.in_sync(topic_prefix)
            await brokers.elect(topic_prefix)
            now.recovered.append(await appends.right_again(SOON))
            assert appends.failures_after(gone + SOON) == []


async def test_a_broker_that_is_killed_loses_and_doubles_nothing(
    brokers: Brokers, log: KafkaLog, topic_prefix: str, told: list[Told]
) -> None:
    """E08: two of three go on once the third has been missed."""
    async with under_appends(log, told, "kill -9 a broker") as (appends, now):
        for _ in range(CYCLES):
            for node in NODES[1 : 3 if FULL else 2]:
                brokers.all[node].kill()
                now.recovered.append(await appends.right_again(FENCED))
                await brokers.all[node].back()
                await brokers.in_sync(topic_prefix)
                await brokers.elect(topic_prefix)
                now.recovered.append(await appends.right_again(SOON))


@pytest.mark.slow
async def test_a_broker_that_hangs_loses_and_doubles_nothing(
    brokers: Brokers, log: KafkaLog, topic_prefix: str, told: list[Told]
) -> None:
    """What it was sent before is carried out, or not, when it goes on."""
    async with under_appends(log, told, "a broker hangs") as (appends, now):
        for node in NODES:
            async with brokers.all[node].hung():
                now.recovered.append(await appends.right_again(FENCED + 10))
                await asyncio.sleep(FENCED)
            await brokers.in_sync(topic_prefix)
            await brokers.elect(topic_prefix)
            now.recovered.append(await appends.right_again(SOON))


async def test_what_a_leader_appended_before_it_stepped_down_stands_once(
    brokers: Brokers, log: KafkaLog, topic_prefix: str
) -> None:
    """With acks=all a leader waits for its followers, and says that it leads no more of what it has appended."""
    leader = await brokers.controller()  # which stays
    led = await brokers.in_sync(topic_prefix)
    topic = topic_prefix + REGISTRATIONS
    partition = next(p for (name, p), (led_by, _, _) in led.items() if (name, led_by) == (topic, leader))
    preferred, slow = (node for node in NODES if node != leader)
    await brokers.prefer(topic, partition, [preferred, leader, slow])
    await log.append([Append(REGISTRATIONS, partition, b"k", b"before")])
    async with brokers.all[slow].hung():
        await asyncio.sleep(0.6)  # no event tells that a follower's last fetch has been answered
        appending = asyncio.create_task(
            log.append([Append(REGISTRATIONS, partition, b"k", b"%d" % n) for n in range(3)])
        )
        await asyncio.sleep(0.4)
        electing = asyncio.create_task(brokers.elect_of(topic, [partition]))
        await asyncio.sleep(0.6)
    await electing
    positions = await appending
    end = (await log.bounds(REGISTRATIONS, partition)).end
    values = [(r.offset, r.value) async for batch in log.read(REGISTRATIONS, partition, 0, end) for r in batch]
    assert (await brokers.led(topic))[topic, partition][0] == preferred
    assert values == [(0, b"before"), *((p.offset, b"%d" % n) for n, p in enumerate(positions))]


# -- the whole system ---------------------------------------------------------------------------------------

RATE = 60
TOPICS = "ramal."


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory, told: list[Told]) -> AsyncIterator[System]:
    """All services on the three brokers, every phone registered."""
    settings = {
        "RAMAL_KAFKA_BOOTSTRAP": brokers.bootstrap,
        "RAMAL_KAFKA_REPLICATION_FACTOR": "3",
        "RAMAL_KAFKA_MIN_INSYNC_REPLICAS": "2",
        "RAMAL_KAFKA_SESSION_TIMEOUT": str(SESSION),
        "RAMAL_REGISTRAR_MIN_EXPIRES": str(MIN_EXPIRES),
    }
    stack = Stack(tmp_path_factory.mktemp("site"), 2, USERS, settings)
    try:
        await stack.started(120)
        system = System(stack)
        try:
            await system.begin()
            system.told = told
            yield system
        finally:
            await system.close()
    finally:
        stack.close()


@pytest.mark.slow
async def test_leaders_that_move_cost_no_registration(brokers: Brokers, site: System) -> None:
    async with site.under_load("leaders move, all services", RATE):
        for _ in range(CYCLES):
            await brokers.prefer_others(TOPICS)
            await brokers.elect(TOPICS)
            await site.recovered(ALL_AGAIN)


@pytest.mark.slow
async def test_brokers_restarted_one_by_one_cost_no_acknowledged_registration(brokers: Brokers, site: System) -> None:
    async with site.under_load("orderly restarts, all services", RATE):
        for broker in brokers.all.values():
            await broker.end()
            await site.recovered(ALL_AGAIN)
            await broker.back()
            await brokers.in_sync(TOPICS)
            await brokers.elect(TOPICS)
            await site.recovered(ALL_AGAIN)


@pytest.mark.slow
async def test_a_killed_broker_costs_no_acknowledged_registration(brokers: Brokers, site: System) -> None:
    async with site.under_load("kill -9 a broker, all services", RATE):
        for broker in brokers.all.values():
            broker.kill()
            await site.recovered(ALL_AGAIN)
            await broker.back()
            await brokers.in_sync(TOPICS)
            await brokers.elect(TOPICS)
            await site.recovered(ALL_AGAIN)


@pytest.mark.slow
async def test_a_hung_broker_costs_no_acknowledged_registration(brokers: Brokers, site: System) -> None:
    async with site.under_load("a broker hangs, all services", RATE):
        for broker in brokers.all.values():
            async with broker.hung():
                await site.recovered(ALL_AGAIN)
                await asyncio.sleep(FENCED)
            await brokers.in_sync(TOPICS)
            await brokers.elect(TOPICS)
            await site.recovered(ALL_AGAIN)
