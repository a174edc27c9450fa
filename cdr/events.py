"""Records of `calls` as cdr reads them, and those that it writes."""

import hashlib

from events.calls import CallEvent, CallTimedOut, event_id
from events.cdrs import CallRecord
from events.people import PersonForgotten
from events.topics import CALLS, CDRS, partition_of
from events.wire import Decoder, Happened, encode
from runtime.log.port import Append

decode: Decoder[CallEvent] = Decoder(CallEvent)
read: Decoder[CallEvent | PersonForgotten] = Decoder(CallEvent | PersonForgotten)
"""Whatever may stand on `calls`."""
SOURCE = "cdr"


def timed_out(event: CallTimedOut, partition: int) -> Append:
    """The record that closes a call."""
    headers = Happened("ramal.CallTimedOut", SOURCE, event_id(event), event.call_id, event.at)
    return Append(CALLS, partition, _key(event.call_id), encode(event), headers)


def call_record(record: CallRecord, partitions: int) -> Append:
    """The record of a call for `cdrs`; its id is that of its content, so a repetition is known as one."""
    value = encode(record)
    id_ = hashlib.blake2b(value, digest_size=16).hexdigest()
    headers = Happened("ramal.CallRecord", SOURCE, id_, record.call_id, record.ended)
    return Append(CDRS, partition_of(record.call_id, partitions), _key(record.call_id), value, headers)


def _key(call_id: str) -> bytes:
    return call_id.encode("utf-8", "replace")
