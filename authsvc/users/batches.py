"""Look-ups in batches: what is asked for while a batch is under way, or a moment after, makes up the next one.

Few, big look-ups are what makes them cheap, and the answers that wait for them, which go on down the chain
together: a batch costs the sources, the broker and all services as much as some ten names in it. At 2,500 new
users a second a batch holds some thirty names; at one a second it holds one and waits for nobody.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from runtime.tasks import Tasks

log = logging.getLogger("ramal.authsvc")

K = TypeVar("K", bound=Hashable)

LARGEST = 100
IN_FLIGHT = 2
PER_NAME = 0.001
"""Seconds that a batch keeps the next one from beginning, for each name in it: a crowd shares its look-ups."""
APART = 0.012
"""The longest of that. 4 ms cost a tenth more CPU in the whole chain, 20 ms no less (docs/benchmark.md)."""
SLOW = 0.05
"""Only when a batch takes longer than this does a second one begin beside it."""


class Lookups(Generic[K]):
    """Asks for keys in batches of at most LARGEST, at most IN_FLIGHT at a time."""

    def __init__(self, fetch: Callable[[Sequence[K]], Awaitable[None]], capacity: int) -> None:
        """`fetch` finds out about a batch of keys and tells who waits; beyond `capacity` waiting keys none is taken."""
        self._fetch = fetch
        self._capacity = capacity
        self._waiting: dict[K, None] = {}
        self._under_way: set[K] = set()
        self._tasks = Tasks(lambda _: self._begin_in_time())
        self._begins: asyncio.Handle | None = None
        self._next = -1.0
        """When a batch may begin if none is under way."""
        self._next_beside = -1.0
        """When one may begin beside another."""

    def ask(self, key: K) -> bool:
        """Has the key looked up, once however often it is asked for; False when there is no room."""
        if key in self._under_way or key in self._waiting:
            return True
        if len(self._waiting) >= self._capacity:
            return False
        self._waiting[key] = None
        if not self._begins:
            self._begin_in_time()
        return True

    async def stop(self) -> None:
        """Forgets what waits and ends what is under way."""
        self._waiting.clear()
        if self._begins:
            self._begins.cancel()
        await self._tasks.stop()

    def _begin_in_time(self) -> None:
        """Sets the one timer; even what is due now begins after the rest of this batch of records has asked."""
        if self._begins:
            self._begins.cancel()
            self._begins = None
        if not self._waiting or len(self._tasks) >= IN_FLIGHT:
            return
        loop = asyncio.get_running_loop()
        self._begins = loop.call_at(self._next_beside if self._tasks else self._next, self._begin)

    def _begin(self) -> None:
        self._begins = None
        if not self._waiting or len(self._tasks) >= IN_FLIGHT:
            return
        batch = list(self._waiting)[:LARGEST]
        now = asyncio.get_running_loop().time()
        self._next = now + min(APART, PER_NAME * len(batch))
        self._next_beside = now + SLOW
        for key in batch:
            del self._waiting[key]
        self._under_way.update(batch)
        self._tasks.begin(self._run(batch), "look-up of users")
        self._begin_in_time()

    async def _run(self, batch: Sequence[K]) -> None:
        try:
            await self._fetch(batch)
        except Exception:  # a bug: those who wait are answered at their deadline, the others go on
            log.exception("a look-up failed")
        finally:
            self._under_way.difference_update(batch)
