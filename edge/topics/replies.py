"""Replies: reads this edge's partition of `edge.replies` and hands on what is for this boot.

Reading begins at the end as it is at start, before the edge is ready, so no reply to it can be older; after
an outage it goes on where it was. Two edges on one partition only read each other's replies in vain.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

from events.replies import CloseFlow, Reply
from events.topics import EDGE_REPLIES, partition_of
from events.wire import Decoder, Poisoned
from runtime.errors import Unavailable
from runtime.log.port import Log, Record
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

RETRY = 0.5
"""Seconds between two attempts."""

_decode: Decoder[Reply] = Decoder(Reply)


class Replies:
    """The reader of one edge's replies."""

    def __init__(self, log: Log, edge: str, boot: str, replied: Callable[[list[Reply]], None]) -> None:
        self._log = log
        self._key = edge.encode()
        self._edge, self._boot = edge, boot
        self._replied = replied
        self._partition = 0
        self._position = -1
        """The offset to go on at; -1 before the end was first asked for."""
        self.away = ""
        """Why nothing is read at present."""

    @property
    def positioned(self) -> bool:
        """Whether every reply to a command sent from now on will be read."""
        return self._position >= 0

    async def run(self) -> None:
        """Reads for ever."""
        while True:
            try:
                await self._read()
            except Unavailable as error:
                self.away = str(error) or "the log is away"
            except Exception as error:  # a bug or a missing topic: an alarm, and on
                log.exception("reading replies broke")
                self.away = str(error)
            await asyncio.sleep(RETRY)

    async def _read(self) -> None:
        if self._position < 0:
            # Once: a position is one of its partition, whatever count the topic has later.
            self._partition = partition_of(self._edge, await self._log.partitions(EDGE_REPLIES))
            self._position = (await self._log.bounds(EDGE_REPLIES, self._partition)).end
        self.away = ""
        async with aclosing(self._log.read(EDGE_REPLIES, self._partition, self._position)) as reading:
            async for records in reading:
                if records:
                    replies = self.decode(records)
                    self._position = records[-1].offset + 1
                    if replies:
                        self._replied(replies)

    def decode(self, records: Sequence[Record]) -> list[Reply]:
        """The replies among these records that are for this boot."""
        replies = []
        for record in records:
            if record.key != self._key:
                continue
            try:
                reply = _decode(record.value)
            except Poisoned:
                dropped("poisoned-reply")
                continue
            if reply.boot == self._boot or (isinstance(reply, CloseFlow) and not reply.boot):
                replies.append(reply)
            else:
                dropped("reply-to-another-boot")
        return replies
