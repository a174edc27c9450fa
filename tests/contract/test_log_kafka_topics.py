"""Topics that are not as they must be are named, each with the setting that is wrong; every codec can be read."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from events.topics import AUDIT, AUTH_COMMANDS, BINDINGS, DEAD, EDGE_LEASES, EDGE_REPLIES, REGISTRATIONS, TOPICS
from ramal.backends import KafkaServer
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from runtime.log.kafka.topics import topic_settings
from runtime.log.port import Append

pytestmark = pytest.mark.integration

FOR_EVER = str(2**63 - 1)
WRONG = [
    (BINDINGS, "cleanup.policy", "delete"),
    (BINDINGS, "cleanup.policy", "compact,delete"),
    (BINDINGS, "segment.bytes", str(1024**3)),
    (BINDINGS, "min.cleanable.dirty.ratio", "0.5"),
    (BINDINGS, "max.compaction.lag.ms", FOR_EVER),
    (BINDINGS, "delete.retention.ms", "1000"),
    (EDGE_LEASES, "cleanup.policy", "delete"),
    (REGISTRATIONS, "cleanup.policy", "compact"),
    (REGISTRATIONS, "cleanup.policy", "compact,delete"),
    (REGISTRATIONS, "retention.ms", "3600000"),
    (REGISTRATIONS, "retention.bytes", "1000000"),
    (REGISTRATIONS, "unclean.leader.election.enable", "true"),
    (REGISTRATIONS, "min.insync.replicas", "1"),
    (AUTH_COMMANDS, "message.timestamp.type", "CreateTime"),
    (AUTH_COMMANDS, "segment.ms", "604800000"),
    (EDGE_REPLIES, "segment.ms", "604800000"),
    (AUDIT, "max.message.bytes", "2000"),
    (DEAD, "retention.ms", "1"),
]
RIGHT = [
    (REGISTRATIONS, "retention.ms", "-1"),
    (REGISTRATIONS, "retention.ms", FOR_EVER),
    (REGISTRATIONS, "segment.ms", "60000"),
    (REGISTRATIONS, "min.insync.replicas", "2"),
    (BINDINGS, "segment.bytes", str(1024**2)),
    (AUDIT, "max.message.bytes", str(8 * 1024**2)),
    (AUDIT, "compression.type", "lz4"),
]


class Site:
    """A log with all its topics, and somebody who changes their settings."""

    def __init__(self, log: KafkaLog, admin: AIOKafkaAdminClient, prefix: str) -> None:
        self.log, self.admin, self.prefix = log, admin, prefix

    async def alter(self, name: str, changes: Mapping[str, str]) -> None:
        """Gives a topic the settings it is made with and these; returns once the broker tells them."""
        topic = next(topic for topic in TOPICS if topic.name == name)
        wanted = topic_settings(topic, 1) | changes
        full = self.prefix + name
        await self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, full, wanted)])
        async with asyncio.timeout(10):
            while not wanted.items() <= (await self._settings(full)).items():  # noqa: ASYNC110  # it sends no event
                await asyncio.sleep(0.02)

    async def _settings(self, full: str) -> dict[str, str]:
        (response,) = await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, full)])
        return {entry[0]: entry[1] for resource in response.resources for entry in resource[4]}

    async def faults(self, kafka: Kafka) -> list[str]:
        """As a log with these settings would find them."""
        self.log._kafka = kafka
        return await self.log.check_topics(4)


@pytest.fixture
async def site(kafka: KafkaServer, topic_prefix: str) -> AsyncIterator[Site]:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, 4, "test")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await log.start()
    await admin.start()
    await log.create_topics(4)
    yield Site(log, admin, topic_prefix)
    await log.stop()
    await admin.close()


async def test_each_wrong_setting_of_a_topic_is_named_alone(site: Site, kafka: KafkaServer) -> None:
    for name, key, value in WRONG:
        insync = 2 if key == "min.insync.replicas" else 1
        await site.alter(name, {key: value})
        told = await site.faults(Kafka(bootstrap=kafka.bootstrap, min_insync_replicas=insync))
        mine = [fault for fault in told if site.prefix + name in fault]
        assert len(mine) == 1, (name, key, value, told)
        assert f"has {key}={value}: it must be" in mine[0]
        if insync == 1:
            assert told == mine
        await site.alter(name, {})
    assert await site.faults(Kafka(bootstrap=kafka.bootstrap)) == []


async def test_a_topic_that_keeps_more_than_it_must_is_right(site: Site, kafka: KafkaServer) -> None:
    for name, key, value in RIGHT:
        await site.alter(name, {key: value})
        told = await site.faults(Kafka(bootstrap=kafka.bootstrap))
        if key == "min.insync.replicas":
            assert told == [
                f"topic {site.prefix}{name} has min.insync.replicas above its 1 copies: nothing can be written"
            ]
        else:
            assert told == [], (name, key, value)
        await site.alter(name, {})


async def test_fewer_copies_than_configured_are_named_for_each_topic(site: Site, kafka: KafkaServer) -> None:
    told = await site.faults(Kafka(bootstrap=kafka.bootstrap, replication_factor=3))
    assert len(told) == len(TOPICS)
    assert all("has a replication factor of 1: it must be at least 3 (RAMAL_KAFKA_REPL" in fault for fault in told)


async def test_a_topic_that_was_made_with_the_brokers_defaults_is_wrong_in_all_that_matters(
    kafka: KafkaServer, topic_prefix: str
) -> None:
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), topic_prefix, 4, "test")
    await log.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic_prefix + name, 4, 1) for name in (BINDINGS, REGISTRATIONS)])
    await admin.close()
    await log.create_topics(4)
    told = " ".join(await log.check_topics(4))
    for key in ("cleanup.policy", "segment.bytes", "min.cleanable.dirty.ratio", "max.compaction.lag.ms"):
        assert f"{topic_prefix}{BINDINGS} has {key}=" in told
    for key in ("message.timestamp.type", "retention.ms"):
        assert f"{topic_prefix}{REGISTRATIONS} has {key}=" in told
    await log.stop()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_the_broker_compresses_is_read_by_every_reader(site: Site, codec: str) -> None:
    await site.alter(AUDIT, {"compression.type": codec})
    records = [Append(AUDIT, 0, b"key", b"value %d" % number * 50) for number in range(200)]
    await site.log.append(records)
    await site.log.append_transaction("t", records[:2])
    # The transaction's marker comes a moment after its acknowledgement.
    async with asyncio.timeout(10):
        while (end := (await site.log.bounds(AUDIT, 0)).end) < 203:  # noqa: ASYNC110  # it sends no event
            await asyncio.sleep(0.02)
    for committed in (False, True):
        read = [r.value async for some in site.log.read(AUDIT, 0, 0, end, committed=committed) for r in some]
        assert read == [record.value for record in (*records, *records[:2])]
