"""The topics, followed from now on; what they tell is sent every second."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from events.calls import CallEvent
from events.topics import AUTH_COMMANDS, CALLS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Decoder, Poisoned
from ramal.system import System
from ramal.tracing.otlp import Refused, send
from ramal.tracing.spans import Span, Traces
from runtime.errors import Unavailable
from runtime.log.port import Log

EVERY = 1.0
KEPT = 20_000
"""Spans kept while the collector is away; the oldest go first."""
PART = 500
"""Spans of one request, some 250 kB: collectors and what stands before them limit a body."""
_decode: Decoder[CallEvent] = Decoder(CallEvent)
COMMANDS = (AUTH_COMMANDS, REGISTRAR_COMMANDS, REGISTRATIONS, EDGE_REPLIES)


async def follow(system: System, url: str, headers: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Until it is cancelled; `url` is shown, `headers` (a password, say) go along and are not."""
    traces = Traces()
    async with system.log() as log, aiohttp.ClientSession(headers=headers) as session:
        collector = Collector(session, url, tell)
        readers = [
            asyncio.create_task(_read(log, topic, number, traces))
            for topic in (*COMMANDS, CALLS)
            for number in range(await log.partitions(topic))
        ]
        tell(f"traces go to {url}")
        try:
            while True:
                await asyncio.sleep(EVERY)
                for reader in readers:
                    if reader.done():
                        reader.result()
                await collector.take(traces.due(_now()))
        finally:
            collector.close()
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


class Collector:
    """Where spans go. One that is away costs all but the newest KEPT, one that refuses a part that part; each cause is
    told once."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tell: Callable[[str], None]) -> None:
        self._session, self._url, self._tell = session, url, tell
        self._waiting: list[Span] = []
        self._away = ""
        self._refused: set[str] = set()
        self.dropped = 0
        """Spans that it refused, or that were too many to be kept."""

    async def take(self, spans: Iterable[Span]) -> None:
        """Sends these and what waits, as far as the collector takes it."""
        self._waiting += spans
        over = max(0, len(self._waiting) - KEPT)
        del self._waiting[:over]
        self.dropped += over
        while part := self._waiting[:PART]:
            try:
                await send(self._session, self._url, part)
            except Unavailable as error:
                if self._away != str(error):
                    self._tell(f"{error}; up to {KEPT} spans are kept")
                self._away = str(error)
                return
            except Refused as error:
                self.dropped += len(part)
                if str(error) not in self._refused:
                    self._tell(f"{error}; {len(part)} spans are dropped, and all that it refuses so")
                self._refused.add(str(error))
            del self._waiting[:PART]
            if self._away:
                self._tell(f"the collector at {self._url} is back")
            self._away = ""

    def close(self) -> None:
        """Tells how many spans were dropped."""
        if self.dropped:
            self._tell(f"{self.dropped} spans were dropped")


def _now() -> int:
    return time.monotonic_ns() // 1_000_000


async def _read(log: Log, topic: str, partition: int, traces: Traces) -> None:
    begin = (await log.bounds(topic, partition)).end
    async with contextlib.aclosing(log.read(topic, partition, begin)) as batches:
        async for batch in batches:
            now = _now()
            for record in batch:
                if topic != CALLS:
                    traces.record(topic, record, now)
                    continue
                with contextlib.suppress(Poisoned):  # a stranger's record: cdr says so
                    traces.event(_decode(record.value), now)
