"""How our topics must be made in Kafka, and what is wrong with those that are there (DESIGN section 6)."""

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from events.topics import TOPICS, Topic
from runtime.config import Kafka

MIB = 1024 * 1024
MINUTE_MS = 60_000


def topic_settings(topic: Topic, min_insync_replicas: int) -> dict[str, str]:
    """Kafka's settings of one topic."""
    settings = {
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(min_insync_replicas),
    }
    if topic.compacted:
        return settings | {
            "cleanup.policy": "compact",
            "segment.bytes": str(32 * MIB),
            "min.cleanable.dirty.ratio": "0.1",
            "max.compaction.lag.ms": str(10 * MINUTE_MS),
        }
    return settings | {
        "cleanup.policy": "delete",
        "retention.ms": str(topic.retention_ms),
        # With the default of 7 days, records of a "1 h" topic stay for days: only closed segments are deleted.
        "segment.ms": str(topic.retention_ms // 4),
    }


async def create_topics(admin: AIOKafkaAdminClient, kafka: Kafka, prefix: str, partitions: int) -> list[str]:
    """Makes what is missing; returns the names without prefix."""
    there = set(await admin.list_topics())
    missing = [topic for topic in TOPICS if prefix + topic.name not in there]
    made = []
    for topic in missing:
        new = NewTopic(
            prefix + topic.name,
            topic.partitions or partitions,
            kafka.replication_factor,
            topic_configs=topic_settings(topic, kafka.min_insync_replicas),
        )
        response = await admin.create_topics([new])
        code = response.topic_errors[0][1]
        if code and not issubclass(errors.for_code(code), errors.TopicAlreadyExistsError):
            raise errors.for_code(code)(str(response.topic_errors[0]))
        made.append(topic.name)
    return made


async def topic_faults(admin: AIOKafkaAdminClient, prefix: str, partitions: int) -> list[str]:
    """One sentence for each thing that must not be so."""
    faults = []
    # All topics: to ask for one that is missing makes it on many brokers, with their defaults.
    described = {entry["topic"]: entry for entry in await admin.describe_topics()}
    for topic in TOPICS:
        name = prefix + topic.name
        entry = described.get(name)
        if entry is None or entry["error_code"]:
            faults.append(f"topic {name} is missing: run `ramal topics`")
            continue
        wanted, have = topic.partitions or partitions, len(entry["partitions"])
        if have != wanted:
            faults.append(f"topic {name} has {have} partitions, not {wanted} (RAMAL_PARTITIONS); a count cannot change")
        kind = await _setting(admin, name, "message.timestamp.type")
        if kind != "LogAppendTime":
            faults.append(f"topic {name} has message.timestamp.type={kind}: it must be LogAppendTime")
    return faults


async def _setting(admin: AIOKafkaAdminClient, topic: str, key: str) -> str:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={key: None})
    [response] = await admin.describe_configs([resource])
    for _, _, _, _, entries in response.resources:
        for entry in entries:
            if entry[0] == key:
                return str(entry[1])
    return "unknown"
