"""Neighbours: which other edges have leases, read from `edge.leases` from its beginning (CHECKLIST E10, E11).

An edge's name has one life at a time: a lease of a life that began later (by the log's time) ends the one before,
a tombstone ends its own. Nothing else does: a silent log says nothing about edges that talk to us (DESIGN section 8);
whether one is dead is found out by talking to it (`edge.mesh.mesh`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from events.leases import EdgeLease
from events.topics import DAY, EDGE_LEASES, MINUTE
from events.wire import Decoder, Poisoned
from runtime.errors import Unavailable
from runtime.log.port import Append, Log, Record
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

RETRY = 0.5
"""Seconds between two attempts."""
STALE = 10 * MINUTE
"""A lease this much older than the newest one, read at the start, is of an edge that died unheard."""
BURY = DAY
"""One this much older gets its tombstone: compaction alone would keep it for ever."""
NAMES = 1000
"""Edges known, above which those with stale leases are forgotten."""

Life = tuple[str, str]
"""Edge and boot."""
Changed = Callable[[Sequence[EdgeLease], Sequence[Life]], None]

_decode: Decoder[EdgeLease] = Decoder(EdgeLease)


class _Newest(msgspec.Struct, frozen=True):
    """The lease of an edge's newest life."""

    lease: EdgeLease
    since: int
    renewed: int
    """Milliseconds in the log's time, as `since`."""


class Neighbours:
    """The reader of all edges' leases."""

    def __init__(self, log: Log, edge: str, boot: str, changed: Changed) -> None:
        """`changed` gets the leases of other edges that were begun or renewed, and the lives that ended."""
        self._log = log
        self._edge, self._boot = edge, boot
        self._changed = changed
        self._known: dict[str, _Newest] = {}
        self._position = -1
        """The offset to go on at; -1 before all that was there at the start has been read."""
        self._own_seen = False
        self.away = ""
        """Why nothing is read at present."""

    @property
    def ready(self) -> bool:
        """Whether every lease that was in the log at the start is known."""
        return self._position >= 0

    @property
    def replaced_by(self) -> str:
        """The boot of another process that has taken our name since; "" if none has."""
        own = self._known.get(self._edge)
        return own.lease.boot if own and self._own_seen and own.lease.boot != self._boot else ""

    async def run(self) -> None:
        """Reads for ever."""
        while True:
            try:
                if not self.ready:
                    await self._read_all()
                await self._follow()
            except Unavailable as error:
                self.away = str(error) or "the log is away"
            except Exception as error:  # a bug or a missing topic: an alarm, and on
                log.exception("reading leases broke")
                self.away = str(error)
            await asyncio.sleep(RETRY)

    async def _read_all(self) -> None:
        """What there is: only how it ends counts."""
        bounds = await self._log.bounds(EDGE_LEASES, 0)
        self._known.clear()
        newest: dict[bytes, Record] = {}
        async with aclosing(self._log.read(EDGE_LEASES, 0, bounds.begin, bounds.end)) as reading:
            async for records in reading:
                for record in records:
                    if record.key is not None:
                        newest[record.key] = record
        self.apply(sorted(newest.values(), key=lambda record: record.offset))
        last = max((record.timestamp for record in newest.values()), default=0)
        begun = [
            known.lease for edge, known in self._known.items() if known.renewed >= last - STALE and edge != self._edge
        ]
        self._position = bounds.end
        self.away = ""
        self._changed(begun, [])
        dead = [key for key, record in newest.items() if record.value is not None and record.timestamp < last - BURY]
        if dead:
            await self._log.append([Append(EDGE_LEASES, 0, key, None) for key in dead])
            dropped("lease-buried", len(dead))

    async def _follow(self) -> None:
        async with aclosing(self._log.read(EDGE_LEASES, 0, self._position)) as reading:
            self.away = ""
            async for records in reading:
                if records:
                    begun, ended = self.apply(records)
                    self._position = records[-1].offset + 1
                    if len(self._known) > NAMES:
                        self._forget(records[-1].timestamp - STALE)
                    if begun or ended:
                        self._changed(begun, ended)

    def apply(self, records: Sequence[Record]) -> tuple[list[EdgeLease], list[Life]]:
        """The leases of other edges that these records begin or renew, and the lives that they end."""
        begun: dict[str, EdgeLease] = {}
        ended: list[Life] = []
        for record in records:
            before = self._known.get(edge := self._edge_of(record))
            after = self._after(before, record)
            if before and (after is None or after.lease.boot != before.lease.boot):
                ended.append((edge, before.lease.boot))
                begun.pop(edge, None)
                self._known.pop(edge, None)
            if after is not None:
                self._known[edge] = after
                if after is not before:
                    begun[edge] = after.lease
                    self._own_seen |= edge == self._edge and after.lease.boot == self._boot
        begun.pop(self._edge, None)
        return list(begun.values()), [life for life in ended if life[0] != self._edge]

    def _forget(self, before: int) -> None:
        """Forgets edges that died unheard; one that lives after all is known again by its next lease."""
        for edge in [edge for edge, known in self._known.items() if known.renewed < before]:
            del self._known[edge]

    @staticmethod
    def _edge_of(record: Record) -> str:
        return (record.key or b"").rpartition(b"/")[0].decode("utf-8", "replace")

    def _after(self, before: _Newest | None, record: Record) -> _Newest | None:
        """What is known of the record's edge after it."""
        if record.value is None:
            boot = (record.key or b"").rpartition(b"/")[2]
            return None if before and before.lease.boot.encode() == boot else before
        try:
            lease = _decode(record.value)
        except Poisoned:
            dropped("poisoned-lease")
            return before
        if lease.edge != self._edge_of(record):
            dropped("poisoned-lease")
            return before
        since = lease.since or record.timestamp
        if before and before.lease.boot != lease.boot and since < before.since:
            dropped("lease-of-an-ended-life")
            return before
        return _Newest(lease, since, record.timestamp)
