"""The Faust application: figures by minute and hour from `calls`, `registrations` and `audit`, over Kafka.

Faust brings the group, the records and a table (RocksDB, with its changelog in Kafka) that follows its partition to
whoever has it next. What Faust does not promise is promised here, by offsets:

- It delivers twice after a rebalance, and skips records: by commits past what is under way, after exceptions, and
  around a restart (docs/kafka.md, sections 2 and 3). Each share knows its position. A record below it is a copy; one
  above it shows a gap, which is read from the topic before anything else. At each assignment, and whenever a partition
  has not moved between two looks, it is read up to its end in the same way. So it does not matter what is committed,
  and a group without commits may begin at the end.
- A commit does not wait for the table. The position is in the table itself, written last: whatever part of a write
  the changelog has, figures go on from there (`cdr.statistics.share`).
- An exception in an agent counts as done: none leaves the loop.
- The application may come to a standstill, or crash as a whole: it is built anew, in this process.
- Its web server would show tables to everybody: it is off. `/statistics` is on our own HTTP.
- Topics are made by `ramal topics`, the changelog among them: Faust makes none.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faust.types import EventT, StreamT
from prometheus_client import Counter, Gauge

from cdr.application import application, directory
from cdr.config import Analytics as Settings
from cdr.figures import Page, Telling, first_offset, now_of, read_up, take
from cdr.statistics.share import SOURCES, Share
from events.topics import ANALYTICS_CHANGELOG, STATS
from runtime.config import Common, Kafka, Sources
from runtime.database.port import Database
from runtime.errors import LogUnavailable, Unavailable
from runtime.http import Route
from runtime.log.port import Log
from runtime.metrics import dropped
from runtime.service import Service

log = logging.getLogger("ramal.analytics")

TABLE = "figures"
STANDSTILL = 12
"""Looks at which Faust has delivered nothing of what there is, after which it is built anew."""
START_SECONDS = 60.0
STOP_SECONDS = 6.0
AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
CHUNK = 500
"""Table entries read between two breaths."""
_MEMORY = {
    "write_buffer_size": 4 << 20,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 << 20,
    "max_open_files": 64,
}
"""Of RocksDB, for each partition: its defaults are for disks full of data."""

_FILLED = Counter("ramal_analytics_filled", "Records that Faust had not delivered and that were read from the log.")
_RESTARTS = Counter("ramal_analytics_restarts", "Times that the Faust application was built anew.")
_BEHIND = Gauge("ramal_analytics_lag_records", "Records that are not in the figures yet.")


class Analytics:
    """`runtime.service.Service` of the Faust application."""

    name = "analytics"

    def __init__(self, log_: Log, sources: Sources) -> None:
        self._log = log_
        self._common = sources.section(Common)
        self._kafka = sources.section(Kafka, "kafka")
        self._settings = sources.section(Settings, "analytics")
        self._page = Page(log_)
        self.routes: Sequence[Route] = self._page.routes
        self._run: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self._why = "has not joined its group yet"

    async def start(self) -> None:
        """Begins in the background."""
        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._page.start()
        self._task = asyncio.create_task(self._keep(), name="analytics")

    async def stop(self, deadline: float) -> None:
        """Ends within `deadline` seconds; what is not stored is read again by whoever comes next."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=deadline)
        await self._page.stop()

    def not_ready(self) -> list[str]:
        """Why not, one sentence each."""
        if self._run is None:
            return [self._why]
        return self._run.not_ready()

    def status(self) -> dict[str, str]:
        """By what it needs, why that is away; "" while it is there."""
        return {"kafka": self._why if self._run is None else self._run.away}

    async def _keep(self) -> None:
        """Runs the application, again and again, until cancelled."""
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(directory(self._settings.directory))
            except OSError as error:
                self._why = f"RAMAL_ANALYTICS_DIRECTORY: {error}"
                log.critical("there is no place for the tables of Faust", extra={"cause": str(error)})
                return
            failures = 0
            while True:
                began = time.monotonic()
                try:
                    await self._topics_are_there()
                    self._run = Run(self._log, self._common, self._kafka, self._settings, place)
                    self._why = await self._run.run()
                except Exception as error:
                    log.exception("Faust failed")
                    self._why = f"Faust failed: {type(error).__name__}"
                self._run = None
                failures = 0 if time.monotonic() - began > 60 else failures + 1
                _RESTARTS.inc()
                log.warning("Faust is started again", extra={"cause": self._why})
                await asyncio.sleep(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)])

    async def _topics_are_there(self) -> None:
        """Returns once they are: of a topic that is missing, Faust's client would have the broker make one by its own
        settings."""
        while True:
            try:
                counts = {await self._log.partitions(topic) for topic in (*SOURCES, STATS, ANALYTICS_CHANGELOG)}
                why = "" if len(counts) == 1 else "its topics have different numbers of partitions: see `ramal topics`"
            except KeyError as error:
                why = f"{error.args[0]}: run `ramal topics`"
            except Unavailable as error:
                why = str(error)
            if not why:
                return
            if why != self._why:
                log.warning("Faust waits", extra={"cause": why})
            self._why = why
            await asyncio.sleep(AGAIN_SECONDS[1])


class Run:
    """One life of the Faust application: its shares, by partition number."""

    def __init__(self, log_: Log, common: Common, kafka: Kafka, settings: Settings, directory: Path) -> None:
        self._log = log_
        self._settings = settings
        self._topics = {f"{common.topic_prefix}{topic}": topic for topic in SOURCES}
        self._telling = Telling(log_)
        self._shares: dict[int, Share] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._stored: dict[int, float] = {}
        """When each share was stored last, monotonic."""
        self._ends: dict[tuple[int, str], int] = {}
        """Of topics, at the last look."""
        self._delivered = 0
        """Records by Faust since the last look."""
        self.away = ""
        """Why the log did not answer at the last look."""
        self._still = 0
        """Looks in a row at which Faust delivered nothing of what there was."""
        self._loading: asyncio.Task[None] | None = None
        self._joined = False
        self._app = application(common, kafka, directory)
        self._table = self._app.Table(
            TABLE,
            key_type=bytes,
            value_type=bytes,
            partitions=common.partitions,
            options=dict(_MEMORY),
        )
        changelog = self._table.changelog_topic.get_topic_name()
        if changelog != f"{common.topic_prefix}{ANALYTICS_CHANGELOG}":
            raise RuntimeError(f"Faust names its changelog {changelog}")
        # The agent and its topic are registered with the application.
        topic = self._app.topic(*self._topics, key_serializer="raw", value_serializer="raw", allow_empty=True)
        self._app.agent(topic, name="figures", concurrency=1)(self._read)
        self._app.on_partitions_revoked.connect(self._revoked, weak=False)
        self._app.on_rebalance_complete.connect(self._assigned, weak=False)

    async def run(self) -> str:
        """Runs until Faust fails or stands still, and says why; cancelling ends it."""
        app = self._app
        try:
            async with asyncio.timeout(START_SECONDS):
                await app.start()
            while not app.crashed and not app.should_stop:
                await asyncio.sleep(self._settings.publish_every)
                await self._look()
                if self._still >= STANDSTILL:
                    return "Faust has delivered nothing for too long"
            return f"Faust failed: {app.crash_reason!r}"
        except TimeoutError:
            return "Faust did not start in time"
        finally:
            self._drop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await app.stop()

    def not_ready(self) -> list[str]:
        """Why not, one sentence each."""
        if not self._joined:
            return ["has not joined its group yet"]
        return ["figures are being restored"] if self._loading and not self._loading.done() else []

    # --- partitions come and go -------------------------------------------------------------------------------------

    async def _revoked(self, _app: Any, /, *_args: Any, **_: Any) -> None:
        self._drop()

    async def _assigned(self, _app: Any, /, *_args: Any, **_: Any) -> None:
        """The table has all that the changelog has: shares can be loaded. Records that come before are skipped here
        and read from the topic."""
        self._drop()
        mine = {
            tp.partition
            for tp in self._app.assignor.assigned_actives()
            if tp.topic in self._topics  # the assignor gives the same numbers of all topics with one count
        }
        self._joined = True
        self._loading = asyncio.create_task(self._load(sorted(mine)), name="analytics loading")

    def _drop(self) -> None:
        """Forgets all shares: their table may change in another's hands."""
        if self._loading:
            self._loading.cancel()
        self._shares.clear()
        self._ends.clear()

    async def _load(self, partitions: Sequence[int]) -> None:
        stored: dict[int, dict[str, bytes]] = {partition: {} for partition in partitions}
        for count, (key, value) in enumerate(self._table.items()):
            partition, _, name = key.decode().partition("/")
            if (items := stored.get(int(partition))) is not None:
                items[name] = value
            if count % CHUNK == 0:
                await asyncio.sleep(0)
        for partition in partitions:
            share = Share(partition, self._settings.grace * 1000)
            share.load(stored.pop(partition))
            while True:
                try:
                    await self._begin(share)
                    break
                except LogUnavailable as error:
                    log.warning("figures are not restored now", extra={"partition": partition, "cause": str(error)})
                    await asyncio.sleep(AGAIN_SECONDS[0])
            self._locks[partition] = asyncio.Lock()
            self._stored[partition] = time.monotonic()
            self._shares[partition] = share

    async def _begin(self, share: Share) -> None:
        """Reads up what was not stored."""
        for topic in SOURCES:
            if topic not in share.places:
                share.begin(topic, await first_offset(self._log, topic, share.partition, self._settings))
            end = (await self._log.bounds(topic, share.partition)).end
            await read_up(self._log, share, topic, end)

    # --- records ----------------------------------------------------------------------------------------------------

    async def _read(self, stream: StreamT[bytes]) -> None:
        """The agent. An exception would count its record as done; here the next one finds the gap."""
        async for event in stream.events():
            self._delivered += 1
            try:
                await self._take(event)
            except LogUnavailable as error:
                log.warning("figures wait for the log", extra={"cause": str(error)})
            except Exception:
                log.exception("a record could not be taken into the figures; going on")
                dropped("bug")

    async def _take(self, event: EventT[Any]) -> None:
        message = event.message
        topic, partition = self._topics[message.topic], message.partition
        share = self._shares.get(partition)
        if share is None:
            return  # it is being loaded, and read up to here
        async with self._locks[partition]:
            if not share.is_next(topic, message.offset):
                await self._fill(share, topic, message.offset)
            take(share, topic, [_Record(message)])
            if time.monotonic() - self._stored[partition] >= self._settings.store_every:
                await self._store(share)

    async def _fill(self, share: Share, topic: str, end: int) -> None:
        _FILLED.inc(end - share.places[topic].next)
        await read_up(self._log, share, topic, end)

    async def _store(self, share: Share) -> None:
        """Writes what has changed into the table, within the iteration over a record of the same partition number:
        so Faust writes to that partition. What is stored was told before."""
        await self._telling.tell(share)
        if self._shares.get(share.partition) is not share:
            return  # it is another's meanwhile
        self._stored[share.partition] = time.monotonic()
        for name, value in share.changes():
            key = f"{share.partition}/{name}".encode()
            if value is None:
                del self._table[key]
            else:
                self._table[key] = value

    # --- now and then -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Tells what has changed; reads what Faust did not deliver in time."""
        delivered, self._delivered = self._delivered, 0
        filled = behind = 0
        away = ""
        for partition, share in tuple(self._shares.items()):
            try:
                async with self._locks[partition]:
                    for topic in SOURCES:
                        due = self._ends.get((partition, topic), 0)
                        if share.places[topic].next < due:
                            filled += due - share.places[topic].next
                            await self._fill(share, topic, due)
                        end = (await self._log.bounds(topic, partition)).end
                        self._ends[partition, topic] = end
                        behind += max(0, end - share.places[topic].next)
                    if self._shares.get(partition) is share:
                        await self._telling.tell(share, await now_of(self._log, share, self._telling.time))
            except LogUnavailable as error:
                away = str(error)
                if not self.away:
                    log.warning("figures are not told now", extra={"cause": away})
                break  # it is away for the others, too
            except Exception:
                log.exception("figures could not be told; trying again")
        self.away = away
        _BEHIND.set(behind)
        self._still = self._still + 1 if filled and not delivered else 0


class _Record:
    """A message of Faust as `cdr.figures` takes records."""

    __slots__ = ("headers", "offset", "timestamp", "value")

    def __init__(self, message: Any) -> None:
        self.offset: int = message.offset
        self.timestamp = round(message.timestamp * 1000)
        self.headers = tuple(message.headers or ())
        self.value: bytes | None = message.value


def build(sources: Sources, log_: Log, database: Database) -> Service:
    """The service with its settings from these sources."""
    return Analytics(log_, sources)
