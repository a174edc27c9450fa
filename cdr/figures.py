"""Figures go out on `stats`, and come back added up on a page: what both ways of reckoning them share.

And one of the two ways: the service `analytics` of `ramal up`, where the runtime's own workers read the topics (Kafka
has Faust do that, see `cdr.analytics`). Its state is made anew at each start from the newest hours of the log.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import Counter

from cdr.config import Analytics as Settings
from cdr.statistics.board import Board
from cdr.statistics.share import SOURCES, Share
from events.stats import CallStatistics, Statistics
from events.topics import STATS, partition_of
from events.wire import Decoder, Poisoned, dated, encode
from runtime.config import Sources
from runtime.database.port import Database
from runtime.errors import LogUnavailable, Unavailable
from runtime.http import Route
from runtime.log.apart import append_apart
from runtime.log.clock import LogTime
from runtime.log.port import Append, Batch, Log, PartitionFault
from runtime.metrics import dropped
from runtime.service import Service
from runtime.worker import Worker

log = logging.getLogger("ramal.analytics")

GROUP = "analytics"
KEPT = {60: 3 * 3_600_000, 3600: 24 * 3_600_000}
"""Milliseconds of windows that the page has, by their length in seconds."""
PAGE = 500
"""Windows and keys of one answer at most."""
AGAIN_SECONDS = 2.0

RECORDS = Counter("ramal_analytics_records", "Records taken into the figures.", ["topic"])
COPIES = Counter("ramal_analytics_copies", "Records delivered that were in the figures already.")
_TOLD = Counter("ramal_analytics_statistics", "Records written to stats.")

_decode: Decoder[Statistics] = Decoder(Statistics)


def take(share: Share, topic: str, records: Iterable[Any]) -> None:
    """Has a share take records in; what nobody can read is counted and passed over."""
    taken = copies = 0
    for record in records:
        outcome = share.take(topic, record.offset, record.timestamp, record.headers, record.value)
        taken += outcome.taken
        copies += outcome.copies
        if outcome.unreadable:
            dropped("unreadable-statistics-source")
    RECORDS.labels(topic).inc(taken)
    COPIES.inc(copies)


async def read_up(log_: Log, share: Share, topic: str, end: int) -> None:
    """Takes in what stands before `end` by reading it from the log; what cannot be read is passed over, with an alarm.

    Raises LogUnavailable.
    """
    place = share.places[topic]
    if place.next >= end:
        return
    try:
        async with contextlib.aclosing(log_.read(topic, share.partition, place.next, end)) as batches:
            async for records in batches:
                take(share, topic, records)
                await asyncio.sleep(0)
    except PartitionFault as error:
        log.error("figures are not complete", extra={"topic": topic, "partition": share.partition, "cause": str(error)})
    share.skip(topic, end)


async def first_offset(log_: Log, topic: str, partition: int, settings: Settings) -> int:
    """Where figures begin that nothing is known of."""
    return await log_.offset_at(topic, partition, int((time.time() - settings.horizon) * 1000))


class Telling:
    """Writes figures to `stats`; what the log does not take is told later, as it is then."""

    def __init__(self, log_: Log) -> None:
        self._log = log_
        self.time = LogTime(time.monotonic)
        self._pending: dict[tuple[Any, ...], Statistics] = {}
        self._turn = asyncio.Lock()

    async def tell(self, share: Share, now: int | None = None) -> None:
        """Tells what has changed in a share; raises LogUnavailable."""
        for each in share.statistics(now):
            gateway = each.gateway if isinstance(each, CallStatistics) else ""
            self._pending[type(each), each.start, each.seconds, each.domain, gateway, each.partition] = each
        async with self._turn:
            if not self._pending:
                return
            pending = dict(self._pending)
            count = await self._log.partitions(STATS)
            positions = await append_apart(self._log, [_record(each, count) for each in pending.values()])
            self.time.acknowledged(positions)
            _TOLD.inc(len(positions) - positions.count(None))
            for (key, each), position in zip(pending.items(), positions, strict=True):
                if position is not None and self._pending.get(key) is each:
                    del self._pending[key]


def _record(each: Statistics, partitions: int) -> Append:
    kind = f"ramal.{type(each).__name__}"
    value = encode(each)
    id_ = blake2b(value, digest_size=16).hexdigest()  # told again with other figures it is another event
    headers = dated(kind, GROUP, id_, each.domain, each.start)
    return Append(STATS, partition_of(each.domain, partitions), each.domain.encode(), value, headers)


class Page:
    """`/statistics`: the figures of the whole system, as `stats` has them."""

    def __init__(self, log_: Log) -> None:
        self._log = log_
        self._board = Board(KEPT)
        self._waiting: set[int] | None = None
        """Partitions that were not read up to their end yet; None: nobody knows how many there are."""
        self._tasks: list[asyncio.Task[None]] = []
        self.routes: Sequence[Route] = (("GET", "/statistics", self.statistics),)

    def start(self) -> None:
        """Begins to read."""
        self._tasks = [asyncio.create_task(self._follow(), name="statistics")]

    async def stop(self) -> None:
        """Ends reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while self._waiting is None:
            try:
                self._waiting = set(range(await self._log.partitions(STATS)))
            except (Unavailable, KeyError):
                await asyncio.sleep(AGAIN_SECONDS)
        await asyncio.gather(*(self._read(partition) for partition in tuple(self._waiting)))

    async def _read(self, partition: int) -> None:
        begin: int | None = None
        while True:
            try:
                if begin is None:
                    since = int(time.time() * 1000) - max(KEPT.values())
                    begin = await self._log.offset_at(STATS, partition, since)
                end = (await self._log.bounds(STATS, partition)).end
                if begin >= end:
                    self._is_read(partition)
                async with contextlib.aclosing(self._log.read(STATS, partition, begin)) as batches:
                    async for records in batches:
                        for record in records:
                            self._take(record.value)
                        begin = records[-1].offset + 1
                        if begin >= end:
                            self._is_read(partition)
                        await asyncio.sleep(0)
            except (Unavailable, PartitionFault) as error:
                log.warning("statistics are not read now", extra={"partition": partition, "cause": str(error)})
                begin = None
            await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, value: bytes | None) -> None:
        try:
            self._board.take(_decode(value))
        except Poisoned:
            dropped("unreadable-statistics")

    def _is_read(self, partition: int) -> None:
        if self._waiting is not None:
            self._waiting.discard(partition)

    async def statistics(self, request: web.Request) -> web.Response:
        """`?window=minute|hour&since=MS&until=MS&by=gateway`: the last 15 windows without `since`."""
        if self._waiting is None or self._waiting:
            return web.json_response(
                {"error": "the statistics are being read"}, status=503, headers={"Retry-After": "2"}
            )
        try:
            seconds, since, until, by_gateway = _asked(request.query, int(time.time() * 1000))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        board = self._board
        found = {
            "window": seconds,
            "since": since,
            "until": until,
            "calls": board.calls(seconds, since, until, by_gateway=by_gateway),
            "registrations": board.registrations(seconds, since, until),
            "logins": board.logins(seconds, since, until),
        }
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")


def _asked(query: Mapping[str, str], now: int) -> tuple[int, int, int, bool]:
    """Length of windows, begin and end, and whether by gateway. Raises ValueError that names the parameter."""
    if unknown := set(query) - {"window", "since", "until", "by"}:
        raise ValueError(f"{min(unknown)}: there is no such parameter; there are window, since, until, by")
    lengths = {"minute": 60, "hour": 3600}
    window, by = query.get("window", "minute"), query.get("by", "")
    if window not in lengths:
        raise ValueError("window: is minute or hour")
    if by not in ("", "gateway"):
        raise ValueError("by: is gateway")
    seconds = lengths[window]
    begin = now // (seconds * 1000) * seconds * 1000
    times = {"since": begin - 14 * seconds * 1000, "until": begin + seconds * 1000}
    for name in times:
        if text := query.get(name):
            if not text.isascii() or not text.isdigit() or len(text) > 15:
                raise ValueError(f"{name}: is a time in milliseconds since 1970")
            times[name] = int(text)
    return seconds, times["since"], times["until"], by == "gateway"


# --- in `ramal up` ---------------------------------------------------------------------------------------------------


class Reckoner:
    """`runtime.worker.Handler` of one of the topics: their records into figures in memory."""

    group = GROUP
    dead_letters = True

    def __init__(self, topic: str, log_: Log, settings: Settings) -> None:
        self.topic = topic
        self.shares: dict[int, Share] = {}
        self._log = log_
        self._settings = settings

    async def restore(self, partition: int) -> int:
        """Begins at the newest hours of the log."""
        share = Share(partition, self._settings.grace * 1000)
        begin = await first_offset(self._log, self.topic, partition, self._settings)
        share.begin(self.topic, begin)
        self.shares[partition] = share
        return begin

    def release(self, partition: int) -> None:
        """Forgets the partition."""
        self.shares.pop(partition, None)

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Takes the records in."""
        for partition, records in batch.items():
            if share := self.shares.get(partition):
                take(share, self.topic, records)
        return {partition: records[-1].offset + 1 for partition, records in batch.items()}


class Figures:
    """`runtime.service.Service` of the figures in `ramal up`."""

    name = "analytics"

    def __init__(self, log_: Log, settings: Settings) -> None:
        self._log = log_
        self._settings = settings
        self._telling = Telling(log_)
        self._page = Page(log_)
        self._reckoners = [Reckoner(topic, log_, settings) for topic in SOURCES]
        self._workers = [Worker(log_, reckoner) for reckoner in self._reckoners]
        self._tasks: list[asyncio.Task[None]] = []
        self.routes: Sequence[Route] = self._page.routes

    async def start(self) -> None:
        """Begins to read in the background."""
        self._page.start()
        self._tasks = [asyncio.create_task(worker.run(), name="analytics") for worker in self._workers]
        self._tasks.append(asyncio.create_task(self._tell(), name="analytics telling"))

    async def stop(self, deadline: float) -> None:
        """Ends within `deadline` seconds; the newest figures may not be told."""
        for task in self._tasks[len(self._workers) :]:
            task.cancel()
        await asyncio.gather(*(worker.stop(deadline / 2) for worker in self._workers))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._page.stop()

    def not_ready(self) -> list[str]:
        """Nobody waits for figures."""
        return []

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return {need: why for worker in self._workers for need, why in worker.status().items()}

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(self._settings.publish_every)
            for reckoner in self._reckoners:
                for share in tuple(reckoner.shares.values()):
                    try:
                        await self._telling.tell(share, await now_of(self._log, share, self._telling.time))
                    except LogUnavailable as error:
                        log.warning("figures are not told now", extra={"cause": str(error)})
                    except Exception:
                        log.exception("figures could not be told; trying again")


async def now_of(log_: Log, share: Share, time_: LogTime) -> int | None:
    """The log's time up to which a share has everything; None if it is behind, or nothing was heard of the log yet.

    Raises LogUnavailable.
    """
    now = time_.now()
    for topic, place in tuple(share.places.items()):
        if (await log_.bounds(topic, share.partition)).end > place.next:
            return None
        if place.time:
            time_.heard(place.time)
    return now


def build(sources: Sources, log_: Log, database: Database) -> Service:
    """The service with its settings from these sources."""
    return Figures(log_, sources.section(Settings, "analytics"))
