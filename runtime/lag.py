"""How far a member of a group is behind its topic: a gauge, measured now and then beside the work."""

import asyncio
import contextlib
from collections.abc import Mapping

from prometheus_client import Gauge

from runtime.errors import Unavailable
from runtime.log.port import Log
from runtime.places import Place

EVERY_SECONDS = 10.0

LAG = Gauge("ramal_lag_records", "Records of our partitions that were not handled yet.", ["topic", "group"])


async def measure(log: Log, topic: str, group: str, places: Mapping[int, Place]) -> None:
    """Sums the lag of all partitions that are ours, for ever; of one that is away the last figure stays."""
    gauge = LAG.labels(topic, group)
    last: dict[int, int] = {}
    while True:
        ours = tuple(places.values())
        for place in ours:
            with contextlib.suppress(Unavailable):
                last[place.partition] = await _behind(log, topic, place)
        gauge.set(sum(last.get(place.partition, 0) for place in ours))
        await asyncio.sleep(EVERY_SECONDS)


async def _behind(log: Log, topic: str, place: Place) -> int:
    bounds = await log.bounds(topic, place.partition)
    return max(0, bounds.end - max(place.next, bounds.begin))
