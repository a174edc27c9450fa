"""What an operator has done, as a record of `audit`."""

from events.audit import ContactsRemoved, SessionsEnded
from events.topics import AUDIT, partition_of
from events.wire import cloud_event, encode
from runtime.log.port import Append, Log


async def audited(log: Log, done: ContactsRemoved | SessionsEnded, source: str, id_: str) -> Append:
    """The record, among those of the operator; `source` and `id_` are its CloudEvent's. Raises LogUnavailable."""
    partition = partition_of(done.operator, await log.partitions(AUDIT))
    key = done.operator.encode(errors="surrogateescape")
    return Append(AUDIT, partition, key, encode(done), cloud_event(f"ramal.{type(done).__name__}", source, id_))
