"""Tasks that are nobody's to wait for but their owner's, who ends them; and several that are waited for together."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any


class Tasks:
    """The tasks of one owner that are under way."""

    def __init__(self, ended: Callable[["asyncio.Task[None]"], None] | None = None) -> None:
        """`ended` is called with each that has ended, when it counts no more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = ended

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begins a task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._ended is not None:
            self._ended(task)

    async def stop(self) -> None:
        """Cancels all and waits until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Waits for all to end before it raises what one raised: none goes on behind who waits."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
