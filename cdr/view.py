"""The analysts' view: what `calls`, `cdrs` and `registrations` tell, under pseudonyms, on topics of its own.

One handler for each of them, a member of a group of its own. The view follows at least once: a record that was
written twice has one `ce_id`. Where the log says that somebody is to be forgotten, his key goes, so a replay that
gave him one for what is older has taken it back by then.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prometheus_client import Counter

from cdr.keys import deleted, keys_of
from events.catalog import CHANNELS
from events.pseudonyms import forgotten, is_shown, persons, pseudonymised, view_headers
from events.registrations import BindingsRecorded
from events.topics import CALLS, CDRS, REGISTRATIONS, VIEW_PREFIX, partition_of
from events.wire import Decoder, Poisoned, encode
from runtime.database.port import Database
from runtime.handler import Handler
from runtime.log.port import Append, Batch, Log, Record
from runtime.metrics import dropped

log = logging.getLogger("ramal.cdr")

SOURCES = (CALLS, CDRS, REGISTRATIONS)
_RECORDS = Counter("ramal_cdr_view_records", "Records written for analysts, under pseudonyms.", ["topic"])


def group_of(topic: str) -> str:
    """The consumer group of a topic's view."""
    return f"cdr.{VIEW_PREFIX}{topic}"


def _decoder(topic: str) -> Decoder[Any]:
    kinds = CHANNELS[topic].kinds
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union |= kind
    return Decoder(union)


class ViewHandler(Handler):
    """`runtime.worker.Handler` of one topic's view."""

    dead_letters = True

    def __init__(self, topic: str, log: Log, database: Database, served: Collection[str]) -> None:
        self._topic = topic
        self._log = log
        self._database = database
        self._served = served
        self._decode = _decoder(topic)
        self._written = _RECORDS.labels(topic)

    @property
    def topic(self) -> str:
        """The topic that is shown."""
        return self._topic

    @property
    def group(self) -> str:
        """Of this topic's view alone."""
        return group_of(self._topic)

    async def restore(self, partition: int) -> None:
        """The group knows how far the view is."""
        del partition

    def release(self, partition: int) -> None:
        """There is nothing to forget."""

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Writes a batch's records under pseudonyms."""
        waiting: list[tuple[Record, Any]] = []
        for records in batch.values():
            for record in records:
                try:
                    value = self._decode(record.value)
                except Poisoned:
                    dropped("poisoned-in-view")  # whoever projects the topic puts it aside
                    continue
                if is_shown(value):
                    waiting.append((record, value))
                elif whose := forgotten(value):
                    await self._show(waiting)
                    waiting = []
                    await self._database.transact(deleted([whose]))
        await self._show(waiting)
        return {number: records[-1].offset + 1 for number, records in batch.items()}

    async def _show(self, found: Sequence[tuple[Record, Any]]) -> None:
        """Appends these to the view."""
        if not found:
            return
        topic = VIEW_PREFIX + self._topic
        keys = await keys_of(self._database, set().union(*(persons(value) for _, value in found)))
        count = await self._log.partitions(topic)
        records = []
        for record, value in found:
            shown = pseudonymised(value, keys, self._served)
            key = shown.aor if isinstance(shown, BindingsRecorded) else shown.call_id
            headers = view_headers(record.headers, keys)
            records.append(Append(topic, partition_of(key, count), key.encode(), encode(shown), headers))
        await self._log.append(records)
        self._written.inc(len(records))
