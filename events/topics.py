"""The topics: what they are keyed by, who reads them and how long they are kept (DESIGN section 6)."""

import struct
from functools import lru_cache

import msgspec

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

AUTH_COMMANDS = "auth.commands"
REGISTRAR_COMMANDS = "registrar.commands"
REGISTRATIONS = "registrations"
BINDINGS = "bindings"
EDGE_REPLIES = "edge.replies"
EDGE_LEASES = "edge.leases"
CALLS = "calls"
CDRS = "cdrs"
AUDIT = "audit"
STATS = "stats"
ANALYTICS_CHANGELOG = "analytics-figures-changelog"
"""Faust's own: the contents of its table; nobody else reads it."""
DEAD = "dead"
VIEW_PREFIX = "analysts."
"""Of the topics of the pseudonymised view; its read-only user sees these alone."""


class Topic(msgspec.Struct, frozen=True):
    """One topic as it must exist in the log."""

    name: str
    """Without the configured prefix."""
    key: str
    """What the record key is, in words."""
    retention_ms: int
    """How long records are kept; for a compacted topic, unused."""
    compacted: bool = False
    partitions: int | None = None
    """A fixed count; None means the configured one."""


TOPICS: tuple[Topic, ...] = (
    Topic(AUTH_COMMANDS, "digest user and realm", HOUR),
    Topic(REGISTRAR_COMMANDS, "AOR", 24 * HOUR),
    Topic(REGISTRATIONS, "AOR", 30 * DAY),
    Topic(BINDINGS, "AOR", 0, compacted=True),
    Topic(EDGE_REPLIES, "edge", 10 * MINUTE),
    Topic(EDGE_LEASES, "edge and boot", 0, compacted=True, partitions=1),
    Topic(CALLS, "Call-ID", 7 * DAY),
    Topic(CDRS, "Call-ID", 30 * DAY),
    Topic(AUDIT, "user", 30 * DAY),
    Topic(STATS, "domain", 30 * DAY),
    Topic(ANALYTICS_CHANGELOG, "partition and name", 0, compacted=True),
    Topic(DEAD, "as received", 30 * DAY, partitions=1),
)
VIEW: tuple[Topic, ...] = (
    Topic(VIEW_PREFIX + CALLS, "Call-ID's pseudonym", 90 * DAY),
    Topic(VIEW_PREFIX + CDRS, "Call-ID's pseudonym", 90 * DAY),
    Topic(VIEW_PREFIX + REGISTRATIONS, "AOR's pseudonym", 90 * DAY),
)
"""The pseudonymised view of what happened (`events.pseudonyms`): there where somebody has made it."""


def murmur2(key: bytes) -> int:
    """The hash of Kafka's default partitioner (org.apache.kafka.common.utils.Utils.murmur2), as 32 bits."""
    m = 0x5BD1E995
    length = len(key)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for word in struct.unpack(f"<{whole // 4}I", key[:whole]):
        k = word * m & 0xFFFFFFFF
        k = (k ^ (k >> 24)) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    if tail := key[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & 0xFFFFFFFF
    h = (h ^ (h >> 13)) * m & 0xFFFFFFFF
    return h ^ (h >> 15)


@lru_cache(maxsize=65536)
def partition_of(key: str, count: int) -> int:
    """The partition of a key among `count`: the same as any Kafka client's default partitioner."""
    return (murmur2(key.encode("utf-8", "surrogateescape")) & 0x7FFFFFFF) % count
