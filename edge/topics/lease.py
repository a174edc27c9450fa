"""The lease: says every few seconds on `edge.leases` that this edge lives, and where; a tombstone when it stops.

Its acknowledgement also teaches the log's time, so that an idle edge knows it too. The first one's time goes with
all later ones: lives of one edge are ordered by it, whatever compaction has left (`edge.topics.neighbours`).
"""

import time

import msgspec

from edge.core.clock import LogClock
from events.leases import EdgeLease
from events.topics import EDGE_LEASES
from events.wire import cloud_event, encode
from runtime.log.port import Append, Log

KIND = "ramal.EdgeLease"


class Lease:
    """The lease of one edge's life."""

    def __init__(self, log: Log, clock: LogClock, lease: EdgeLease) -> None:
        self._log = log
        self._clock = clock
        self._lease = lease
        self._key = f"{lease.edge}/{lease.boot}"
        self._renewals = 0

    async def renew(self) -> None:
        """Writes it once; raises LogUnavailable."""
        sent = time.monotonic()
        self._renewals += 1
        headers = cloud_event(KIND, "edge", f"{self._key}/{self._renewals}")
        record = Append(EDGE_LEASES, 0, self._key.encode(), encode(self._lease), headers)
        positions = await self._log.append([record])
        written = positions[-1].timestamp
        self._clock.learn(sent, time.monotonic(), written)
        if not self._lease.since:
            self._lease = msgspec.structs.replace(self._lease, since=written)

    async def end(self) -> None:
        """Writes the tombstone; raises LogUnavailable."""
        await self._log.append([Append(EDGE_LEASES, 0, self._key.encode(), None)])
