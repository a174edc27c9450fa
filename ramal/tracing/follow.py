"""The topics, followed from now on; what they tell is sent every second."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import aiohttp

from events.calls import CallEvent
from events.topics import AUTH_COMMANDS, CALLS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Decoder, Poisoned
from ramal.system import System
from ramal.tracing.otlp import send
from ramal.tracing.spans import Span, Traces
from runtime.errors import Unavailable
from runtime.log.port import Log

EVERY = 1.0
KEPT = 20_000
"""Spans kept while the collector is away; the oldest go first."""
_decode: Decoder[CallEvent] = Decoder(CallEvent)
COMMANDS = (AUTH_COMMANDS, REGISTRAR_COMMANDS, REGISTRATIONS, EDGE_REPLIES)


async def follow(system: System, url: str, tell: Callable[[str], None]) -> None:
    """Until it is cancelled; a collector that is away is told of, once, and costs at most KEPT spans."""
    traces, waiting, away = Traces(), list[Span](), ""
    async with system.log() as log, aiohttp.ClientSession() as session:
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
                waiting += traces.due(_now())
                del waiting[: max(0, len(waiting) - KEPT)]
                if not waiting:
                    continue
                try:
                    await send(session, url, waiting)
                    waiting = []
                    if away:
                        tell(f"the collector at {url} is back")
                    away = ""
                except Unavailable as error:
                    if not away:
                        tell(f"{error}; up to {KEPT} spans are kept")
                    away = str(error)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


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
