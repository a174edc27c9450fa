"""Standard output that somebody reads, or no longer does (`| head -1`)."""

import asyncio
import errno
import os
import re
import select
import sys
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

T = TypeVar("T")

LOOK_SECONDS = 0.2
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal would obey instead of showing it: controls (C0, C1) and marks that turn the direction of a line."""


def shown(text: str) -> str:
    """The text with a question mark for each character that a terminal would obey."""
    return _OBEYED.sub("?", text)


class Terminal(Console):
    """A console on which what phones and callers have written is shown and never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be written: controls of our own, and texts as they are shown."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


async def while_read(work: Coroutine[Any, Any, T]) -> T:
    """Awaits it, but raises BrokenPipeError as soon as nobody reads standard output any more."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            if unread():
                raise BrokenPipeError(errno.EPIPE, "nobody reads standard output")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def unread() -> bool:
    """Whether standard output is a pipe whose reader has closed it."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always told
    return any(events & select.POLLERR for _, events in poll.poll(0))


def flush() -> bool:
    """Writes what is left; False if nobody reads it. Nothing is then left for the interpreter to complain of."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
