"""How our topics must be made in Kafka, and what is wrong with those that are there (DESIGN section 6)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from events.topics import DAY, MINUTE, Topic
from runtime.config import Kafka

MIB = 1024 * 1024
_LOOKS_MS = 5 * MINUTE
"""log.retention.check.interval.ms, by default."""


class _Setting(NamedTuple):
    """One of Kafka's settings of a topic: what it is made with, and what is right too."""

    key: str
    value: str
    bound: Literal["", "at least ", "at most "]
    why: str

    def fault(self, topic: str, have: str) -> str | None:
        """The sentence on a value that must not be."""
        if self.bound == "at least ":
            right = _number(have) >= _number(self.value)
        elif self.bound == "at most ":
            right = _number(have) <= _number(self.value)
        else:
            right = have == self.value
        wanted = f"it must be {self.bound}{self.value} ({self.why})"
        return None if right else f"topic {topic} has {self.key}={have}: {wanted}"


def _number(text: str) -> float:
    """A number of Kafka's, in which -1 is without limit; what is none is never right."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return math.inf if number == -1 else number


def _settings(topic: Topic, min_insync_replicas: int) -> list[_Setting]:
    settings = [
        _Setting("message.timestamp.type", "LogAppendTime", "", "every time is the log's"),
        _Setting("min.insync.replicas", str(min_insync_replicas), "at least ", "RAMAL_KAFKA_MIN_INSYNC_REPLICAS"),
        _Setting("unclean.leader.election.enable", "false", "", "else what was acknowledged may be lost"),
        _Setting("max.message.bytes", str(MIB), "at least ", "else the broker refuses batches"),
    ]
    if topic.compacted:
        return [
            *settings,
            _Setting("cleanup.policy", "compact", "", "the last record of each key is kept for ever"),
            _Setting("delete.retention.ms", str(DAY), "at least ", "else a slow reader misses what was deleted"),
            _Setting("segment.bytes", str(32 * MIB), "at most ", "the newest segment is never compacted"),
            _Setting("min.cleanable.dirty.ratio", "0.1", "at most ", "else readers at the start read much too much"),
            _Setting("max.compaction.lag.ms", str(10 * MINUTE), "at most ", "the same"),
        ]
    return [
        *settings,
        _Setting("cleanup.policy", "delete", "", "every record is kept until its time is over"),
        _Setting("retention.ms", str(topic.retention_ms), "at least ", "records are needed for so long"),
        _Setting("retention.bytes", "-1", "", "else records are deleted before their time"),
        # With the default of 7 days, records of a "1 h" topic stay for days.
        _Setting("segment.ms", str(topic.retention_ms // 4), "at most ", "only closed segments are deleted"),
    ]


def topic_settings(topic: Topic, min_insync_replicas: int) -> dict[str, str]:
    """Kafka's settings of one topic, as it is made."""
    wanted = {setting.key: setting.value for setting in _settings(topic, min_insync_replicas)}
    # Any codec can be read; what the cluster does by default is not ours to pay for in every batch.
    return {"compression.type": "producer", **wanted}


async def create_topics(
    admin: AIOKafkaAdminClient, kafka: Kafka, prefix: str, partitions: int, topics: Sequence[Topic]
) -> list[str]:
    """Makes what is missing; returns the names without prefix."""
    there = set(await admin.list_topics())
    missing = [topic for topic in topics if prefix + topic.name not in there]
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


async def topic_faults(
    admin: AIOKafkaAdminClient, kafka: Kafka, prefix: str, partitions: int, topics: Sequence[Topic]
) -> list[str]:
    """One sentence for each thing that must not be so."""
    faults: list[str] = []
    # All topics: to ask for one that is missing makes it on many brokers, with their defaults.
    described = {entry["topic"]: entry for entry in await admin.describe_topics()}
    there = [topic for topic in topics if not described.get(prefix + topic.name, {"error_code": 1})["error_code"]]
    settings = await _described(admin, [prefix + topic.name for topic in there])
    for topic in topics:
        name = prefix + topic.name
        if topic not in there:
            faults.append(f"topic {name} is missing, or hidden by an ACL: run `ramal topics`")
            continue
        faults += _layout_faults(name, described[name]["partitions"], topic.partitions or partitions, kafka)
        have = settings[name]
        if isinstance(have, str):
            faults.append(f"topic {name} does not tell its settings: {have}")
            continue
        faults += filter(
            None, (s.fault(name, have.get(s.key, "unknown")) for s in _settings(topic, kafka.min_insync_replicas))
        )
        copies = _copies(described[name]["partitions"])
        if _number(have.get("min.insync.replicas", "")) > copies:
            faults.append(f"topic {name} has min.insync.replicas above its {copies} copies: nothing can be written")
    return faults


async def kept(admin: AIOKafkaAdminClient, topic: Topic, name: str) -> int | None:
    """How long a record may stay in a topic, as it is set now; None: for ever. Raises KafkaError.

    The broker deletes closed segments only, and looks for them every few minutes.
    """
    have = (await _described(admin, [name]))[name]
    if isinstance(have, str):
        raise errors.KafkaError(have)
    parts = ("max.compaction.lag.ms", "delete.retention.ms") if topic.compacted else ("retention.ms", "segment.ms")
    total = sum(_number(have.get(part, "")) for part in parts) + _LOOKS_MS
    return int(total) if math.isfinite(total) else None


def _layout_faults(name: str, parts: Sequence[Mapping[str, Any]], wanted: int, kafka: Kafka) -> list[str]:
    faults = []
    if len(parts) != wanted:
        faults.append(
            f"topic {name} has {len(parts)} partitions, not {wanted} (RAMAL_PARTITIONS); a count cannot change"
        )
    if _copies(parts) < kafka.replication_factor:
        faults.append(
            f"topic {name} has a replication factor of {_copies(parts)}: it must be at least"
            f" {kafka.replication_factor} (RAMAL_KAFKA_REPLICATION_FACTOR)"
        )
    return faults


def _copies(parts: Sequence[Mapping[str, Any]]) -> int:
    """Of the partition that has the fewest."""
    return min((len(part["replicas"]) for part in parts), default=0)


async def _described(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str] | str]:
    """The settings in force of each topic, or why it does not tell them."""
    found: dict[str, dict[str, str] | str] = dict.fromkeys(names, "no answer")
    if names:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        for response in await admin.describe_configs(resources):
            for code, _, _, name, entries in response.resources:
                found[name] = errors.for_code(code).__name__ if code else {e[0]: str(e[1]) for e in entries}
    return found
