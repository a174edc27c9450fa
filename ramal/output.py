"""Standard output that somebody reads, or no longer does (`| head -1`)."""

import asyncio
import errno
import os
import select
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.2


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
