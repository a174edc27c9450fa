"""Server-sent events: that registrations, calls or figures have changed; the page then asks for what it shows.

One look at the projections' positions every two seconds for all who listen, and none while nobody does.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from aiohttp import web

from console.gate import NOT_KEPT, Gate, Guest, refused
from runtime.database.port import Database
from runtime.errors import DatabaseRefused, Unavailable

log = logging.getLogger("ramal.console")

LOOK_SECONDS = 2.0
ALIVE_SECONDS = 15.0
"""After so long without news a comment says that we live."""
LISTENERS, OF_ONE = 200, 20
"""Streams at the same time, in all and of one operator; more are refused."""
AFTER = {"registrations": "location", "calls": "calls"}
"""What has changed when a projection has moved."""


class Live:
    """Tells all who listen."""

    def __init__(self, gate: Gate, tables: Database) -> None:
        self._gate = gate
        self._tables = tables
        self._seen: Mapping[str, int] | None = None
        self._turn = asyncio.Condition()
        self._news: dict[str, int] = dict.fromkeys(AFTER, 0)
        """How often each has changed."""
        self._listeners: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._ended = False

    async def stop(self) -> None:
        """Ends all streams."""
        self._ended = True
        if self._looking:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        async with self._turn:
            self._turn.notify_all()

    async def events(self, request: web.Request, guest: Guest) -> web.StreamResponse:
        """GET: a stream that ends with the session."""
        who = guest.name
        if self._ended or self._listeners.total() >= LISTENERS or self._listeners[who] >= OF_ONE:
            return refused(503, "busy", 10)
        answer = web.StreamResponse(headers={**NOT_KEPT, "Content-Type": "text/event-stream"})
        self._listeners[who] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="console live")
        try:
            await answer.prepare(request)
            await self._tell(answer, lambda: self._gate.guest(request) is not None)
        except ConnectionError:
            pass  # it has gone
        finally:
            self._listeners[who] -= 1
            self._listeners += Counter()  # forgets who has none
        return answer

    async def _tell(self, answer: web.StreamResponse, may: Callable[[], bool]) -> None:
        told, said = dict(self._news), time.monotonic()
        await answer.write(b"retry: 3000\n\n")
        while True:
            changed = await self._changed(told)
            if self._ended or not may():
                return
            if not changed and time.monotonic() < said + ALIVE_SECONDS:
                continue
            told, said = dict(self._news), time.monotonic()
            names = ",".join(f'"{name}":true' for name in changed)
            await answer.write(f"event: changed\ndata: {{{names}}}\n\n".encode() if changed else b": alive\n\n")

    async def _changed(self, told: Mapping[str, int]) -> list[str]:
        """What has changed since then; nothing where that takes longer than a look: the session may be over."""
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._turn:
                await self._turn.wait_for(lambda: self._ended or self._news != told)
        except TimeoutError:
            return []
        return [name for name, count in self._news.items() if count != told[name]]

    async def _look(self) -> None:
        """Compares positions as long as somebody listens."""
        while self._listeners:
            begun = time.monotonic()
            try:
                rows = await self._tables.query(
                    "SELECT projection, SUM(next_offset) FROM projection_offset GROUP BY projection"
                )
            except (Unavailable, DatabaseRefused) as error:
                log.warning("the console sees no news now", extra={"cause": str(error)})
            else:
                await self._compare({str(name): int(total) for name, total in rows})
            await asyncio.sleep(max(0.1, LOOK_SECONDS - (time.monotonic() - begun)))

    async def _compare(self, now: Mapping[str, int]) -> None:
        before, self._seen = self._seen, now
        changed = [n for n, of in AFTER.items() if before is not None and before.get(of) != now.get(of)]
        if changed:
            async with self._turn:
                for name in changed:
                    self._news[name] += 1
                self._turn.notify_all()
