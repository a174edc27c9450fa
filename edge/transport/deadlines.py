"""Deadlines: what is due after so many seconds, all of it by one timer."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls `due` with each thing that stays in here for `seconds`; one timer for all of them."""

    def __init__(self, seconds: float, due: Callable[[T], None]) -> None:
        self._seconds, self._due = seconds, due
        self._since: dict[T, float] = {}
        """In order of time."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, thing: T) -> None:
        """Its time begins now, also if it was in here already."""
        self._since.pop(thing, None)
        self.keep(thing)

    def keep(self, thing: T) -> None:
        """Its time begins now, unless it has begun already."""
        if thing in self._since:
            return
        loop = asyncio.get_running_loop()
        self._since[thing] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, thing: T) -> None:
        """It is not due any more."""
        self._since.pop(thing, None)

    def stop(self) -> None:
        """Nothing is due any more."""
        self._since.clear()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Comes again when the next may be due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._since:
            thing, since = next(iter(self._since.items()))
            if since + self._seconds > now:
                if self._timer is None:
                    self._timer = loop.call_at(since + self._seconds, self._look)
                return
            del self._since[thing]
            self._due(thing)
