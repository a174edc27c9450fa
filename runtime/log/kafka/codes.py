"""What Kafka's error codes mean to us in the answers to Produce, Fetch and ListOffsets.

One table for each request: was it written, does what we know of the cluster have to be asked for again, and what is
done then. The codes and their names are those of the Kafka protocol; which of them say that metadata is stale is what
its clients know as InvalidMetadataException. A code that a table does not name: see `meaning`.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple


class Written(enum.Enum):
    """Whether a refused request's records are in the log."""

    NO = "no"
    MAYBE = "maybe"
    """With acks=all a leader appends first and waits then: what happens meanwhile is told by an error."""
    YES = "yes"


class Then(enum.Enum):
    """What is done about it."""

    AGAIN = "again"
    """The same once more, after a moment, to whoever leads then."""
    REFUSE = "refuse"
    """The log will never do this."""
    NEW_EPOCH = "new epoch"
    """The log does not go on from our last sequence number: begin at 0 under the next epoch."""
    NEW_PRODUCER = "new producer"
    """The log does not know our producer id any more, or knows a later epoch of it: ask for another id."""
    DONE = "done"
    MOVE = "move"
    """The offset is not there: whoever reads decides where to go on."""


class Meaning(NamedTuple):
    """Of one code in one answer."""

    name: str
    then: Then
    stale: bool = False
    """Whether metadata may be old: who leads is asked again at once."""
    written: Written = Written.MAYBE


_NO, _AGAIN, _REFUSE = Written.NO, Then.AGAIN, Then.REFUSE

_STALE = {
    3: "UNKNOWN_TOPIC_OR_PARTITION",
    5: "LEADER_NOT_AVAILABLE",
    6: "NOT_LEADER_OR_FOLLOWER",
    8: "BROKER_NOT_AVAILABLE",
    9: "REPLICA_NOT_AVAILABLE",
    13: "NETWORK_EXCEPTION",
    56: "KAFKA_STORAGE_ERROR",
    72: "LISTENER_NOT_FOUND",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    100: "UNKNOWN_TOPIC_ID",
    103: "INCONSISTENT_TOPIC_ID",
}
"""Whichever request: another broker leads now, or will soon. What was appended before may stay (6, 3 and 56 may come
after the append)."""
_MOVED = {code: Meaning(name, _AGAIN, stale=True) for code, name in _STALE.items()}

PRODUCE: Mapping[int, Meaning] = _MOVED | {
    0: Meaning("NONE", Then.DONE, written=Written.YES),
    46: Meaning("DUPLICATE_SEQUENCE_NUMBER", Then.DONE, written=Written.YES),
    # Written or not, and to whoever leads: a sequence number stands once, so all these are safe to send again.
    -1: Meaning("UNKNOWN_SERVER_ERROR", _AGAIN),
    7: Meaning("REQUEST_TIMED_OUT", _AGAIN),
    20: Meaning("NOT_ENOUGH_REPLICAS_AFTER_APPEND", _AGAIN),
    2: Meaning("CORRUPT_MESSAGE", _AGAIN, written=_NO),
    19: Meaning("NOT_ENOUGH_REPLICAS", _AGAIN, written=_NO),
    51: Meaning("CONCURRENT_TRANSACTIONS", _AGAIN, written=_NO),
    89: Meaning("THROTTLING_QUOTA_EXCEEDED", _AGAIN, written=_NO),
    # Of the sequence numbers.
    45: Meaning("OUT_OF_ORDER_SEQUENCE_NUMBER", Then.NEW_EPOCH, written=_NO),
    59: Meaning("UNKNOWN_PRODUCER_ID", Then.NEW_EPOCH, written=_NO),
    47: Meaning("INVALID_PRODUCER_EPOCH", Then.NEW_PRODUCER, written=_NO),
    49: Meaning("INVALID_PRODUCER_ID_MAPPING", Then.NEW_PRODUCER, written=_NO),
    90: Meaning("PRODUCER_FENCED", Then.NEW_PRODUCER, written=_NO),
    # Of the records, or of us.
    10: Meaning("MESSAGE_TOO_LARGE", _REFUSE, written=_NO),
    17: Meaning("INVALID_TOPIC_EXCEPTION", _REFUSE, written=_NO),
    18: Meaning("RECORD_LIST_TOO_LARGE", _REFUSE, written=_NO),
    21: Meaning("INVALID_REQUIRED_ACKS", _REFUSE, written=_NO),
    29: Meaning("TOPIC_AUTHORIZATION_FAILED", _REFUSE, written=_NO),
    31: Meaning("CLUSTER_AUTHORIZATION_FAILED", _REFUSE, written=_NO),
    32: Meaning("INVALID_TIMESTAMP", _REFUSE, written=_NO),
    35: Meaning("UNSUPPORTED_VERSION", _REFUSE, written=_NO),
    42: Meaning("INVALID_REQUEST", _REFUSE, written=_NO),
    43: Meaning("UNSUPPORTED_FOR_MESSAGE_FORMAT", _REFUSE, written=_NO),
    44: Meaning("POLICY_VIOLATION", _REFUSE, written=_NO),
    76: Meaning("UNSUPPORTED_COMPRESSION_TYPE", _REFUSE, written=_NO),
    87: Meaning("INVALID_RECORD", _REFUSE, written=_NO),
}

_READ = {
    -1: Meaning("UNKNOWN_SERVER_ERROR", _AGAIN),
    7: Meaning("REQUEST_TIMED_OUT", _AGAIN),
    78: Meaning("OFFSET_NOT_AVAILABLE", _AGAIN),
    89: Meaning("THROTTLING_QUOTA_EXCEEDED", _AGAIN),
    17: Meaning("INVALID_TOPIC_EXCEPTION", _REFUSE),
    29: Meaning("TOPIC_AUTHORIZATION_FAILED", _REFUSE),
    31: Meaning("CLUSTER_AUTHORIZATION_FAILED", _REFUSE),
    35: Meaning("UNSUPPORTED_VERSION", _REFUSE),
    42: Meaning("INVALID_REQUEST", _REFUSE),
    43: Meaning("UNSUPPORTED_FOR_MESSAGE_FORMAT", _REFUSE),
}

FETCH: Mapping[int, Meaning] = (
    _MOVED
    | _READ
    | {
        0: Meaning("NONE", Then.DONE),
        1: Meaning("OFFSET_OUT_OF_RANGE", Then.MOVE),
        2: Meaning("CORRUPT_MESSAGE", _AGAIN),
        70: Meaning("FETCH_SESSION_ID_NOT_FOUND", _AGAIN),
        71: Meaning("INVALID_FETCH_SESSION_EPOCH", _AGAIN),
        76: Meaning("UNSUPPORTED_COMPRESSION_TYPE", _REFUSE),
        106: Meaning("FETCH_SESSION_TOPIC_ID_ERROR", _AGAIN),
        109: Meaning("OFFSET_MOVED_TO_TIERED_STORAGE", _AGAIN),
    }
)

LIST_OFFSETS: Mapping[int, Meaning] = _MOVED | _READ | {0: Meaning("NONE", Then.DONE)}

_OTHER = Meaning("", _AGAIN, stale=True)


def meaning(table: Mapping[int, Meaning], code: int) -> Meaning:
    """What a code means by one of the tables; of one that it does not name: perhaps written, ask and try again."""
    return table.get(code) or _OTHER._replace(name=f"error {code}")
