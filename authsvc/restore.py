"""Which nonces may have been used before a partition came to us (CHECKLIST A09)."""

import contextlib

from authsvc.decider import nonce_key
from events.commands import AuthCommand, Authenticate
from events.wire import Decoder, Poisoned
from runtime.log.port import Log

MARGIN_SECONDS = 1
"""By how much an edge's idea of the log's time may be ahead or behind."""

_decode: Decoder[AuthCommand] = Decoder(AuthCommand)


async def used_before(log: Log, topic: str, partition: int, begin: int) -> tuple[int | None, frozenset[int]]:
    """The second up to which nonces may have been used before `begin`, and the keys of later ones that were.

    A nonce made after that second was used in the last few seconds, if it was: those commands are read. None: the log
    has lost them.
    """
    bounds = await log.bounds(topic, partition)
    if begin > bounds.end:
        return None, frozenset()
    if begin <= bounds.begin:
        return -1, frozenset()  # gone from the log: older than any nonce lives, see `service`
    last = 0
    async for records in log.read(topic, partition, begin - 1, begin):
        last = records[-1].timestamp // 1000
    floor = last - MARGIN_SECONDS - 1
    since = await log.offset_at(topic, partition, (floor - MARGIN_SECONDS) * 1000)
    used: set[int] = set()
    async for records in log.read(topic, partition, min(since, begin), begin):
        for record in records:
            with contextlib.suppress(Poisoned):  # it is a dead letter already
                command = _decode(record.value)
                if isinstance(command, Authenticate):
                    used.add(nonce_key(command))
    return floor, frozenset(used)
