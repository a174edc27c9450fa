"""Waits, without a loop, until something outside holds."""

import time
from collections.abc import Callable


def until(true: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Waits until it is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
