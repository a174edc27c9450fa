"""What no log takes, refused before anything is sent."""

from events.limits import RECORD_BYTES
from events.topics import TOPICS
from runtime.errors import LogRefused
from runtime.log.port import Append

_TOPICS = frozenset(topic.name for topic in TOPICS)


def check_record(record: Append) -> int:
    """The record's size in bytes; raises LogRefused: too large, for no topic of ours, or with neither key nor value."""
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value)
    if size > RECORD_BYTES:
        raise LogRefused(f"a record for {record.topic} has {size} bytes, more than {RECORD_BYTES}")
    if record.topic not in _TOPICS:
        raise LogRefused(f"there is no topic {record.topic}")
    if record.key is None and record.value is None:
        raise LogRefused(f"a record for {record.topic} has neither key nor value")
    return size
