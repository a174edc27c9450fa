"""Keeps processes running: sleeps until one ends, and starts it again at the same addresses under the same name.

At once, since phones hear 503 until it is back; after a second, if it had hardly begun: it may end again at once.

Every child is started from the main thread: they die when the supervisor does, however it dies.
"""

import contextlib
import dataclasses
import json
import os
import select
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable

from ramal.processes import Child, StartFailed, tail

AGAIN_SECONDS = 1.0
BEGUN_SECONDS = 5.0
READY_SECONDS = 60.0


@dataclasses.dataclass
class Part:
    """One process: how to start it, and what it is now."""

    name: str
    start: Callable[[], Child]
    child: Child
    http: str = ""
    """`host:port` of its health page; empty for a backend."""
    stop_seconds: float = 9.0
    """A service that does not drain ends by itself within 8."""
    due: float | None = None
    """When it is to be started again, on the monotonic clock; None while it runs."""
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def ends_by(self) -> signal.Signals:
        """A service that is told SIGINT does not drain: no other edge is left to which anything could be handed."""
        return signal.SIGINT if self.http else signal.SIGTERM

    def begun(self, now: float) -> bool:
        """Whether it has run for a while."""
        return now - self.started >= BEGUN_SECONDS


class Supervisor:
    """The parts in the order in which they were started."""

    def __init__(self, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.parts: dict[str, Part] = {}
        self._say = say
        self._changed = changed

    def add(self, part: Part) -> None:
        """Takes a part that has just been started."""
        self.parts[part.name] = part

    def end(self, name: str) -> None:
        """Stops a part for good."""
        part = self.parts.pop(name)
        part.child.stop(part.stop_seconds)

    def wait_ready(self, *names: str) -> None:
        """Waits until the health pages of these parts, or of all, say ready.

        Raises StartFailed where one does not, or its process ends.
        """
        deadline = time.monotonic() + READY_SECONDS
        for part in [self.parts[name] for name in names or self.parts]:
            while part.http and (reasons := _not_ready(part.http)):
                if not part.child.alive():
                    said = f"see {part.child.log}\n{tail(part.child.log)}"
                    raise StartFailed(f"{part.name} ended at start ({part.child.ended()}); {said}")
                if time.monotonic() > deadline:
                    raise StartFailed(f"{part.name} is not ready: {'; '.join(reasons)}; see {part.child.log}")
                time.sleep(0.05)

    def run(self) -> None:
        """Supervises for ever; ends by an exception (KeyboardInterrupt)."""
        while True:
            self._sleep()
            now = time.monotonic()
            for part in self.parts.values():
                if part.due is not None:
                    if now >= part.due:
                        self._start_again(part)
                elif not part.child.alive():
                    part.due, when = (now, "now") if part.begun(now) else (now + AGAIN_SECONDS, "in a second")
                    self._say(f"{part.name} has died ({part.child.ended()}); it is started again {when}")

    def _sleep(self) -> None:
        """Until a process ends, or the next one is due."""
        poll = select.poll()
        descriptors = []
        try:
            for part in self.parts.values():
                if part.due is None:
                    # Gone already and reaped: then it is not alive, and run() sees it at once.
                    with contextlib.suppress(ProcessLookupError):
                        descriptors.append(os.pidfd_open(part.child.pid))
                        poll.register(descriptors[-1], select.POLLIN)
            due = [part.due for part in self.parts.values() if part.due is not None]
            watched = len(descriptors) + len(due) == len(self.parts)
            wait = max(0.0, min(due) - time.monotonic()) * 1000 if due else None
            poll.poll(wait if watched else 0)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _start_again(self, part: Part) -> None:
        try:
            part.child = part.start()
        except StartFailed as error:
            part.due = time.monotonic() + AGAIN_SECONDS
            self._say(f"{part.name} does not start: {error}")
            return
        part.due, part.started = None, time.monotonic()
        self._changed()
        self._say(f"{part.name} runs again as process {part.child.pid}")

    def stop(self, groups: Iterable[Iterable[str]]) -> None:
        """Ends the named groups of parts one after the other, the parts of a group at once."""
        for names in groups:
            parts = [self.parts[name] for name in names if name in self.parts]
            for part in parts:
                part.child.terminate(part.ends_by)
            for part in parts:
                part.child.stop(part.stop_seconds, part.ends_by)


def _not_ready(http: str) -> list[str]:
    """Why a service is not ready; empty when it is."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=2.0):  # http, loopback, ours
            return []
    except urllib.error.HTTPError as error:
        with error:
            try:
                reasons: list[str] = json.load(error)["reasons"]
            except (ValueError, LookupError, TypeError):
                return [f"{http} answers {error.code} {error.reason}, as no service of ours does"]
            return reasons or ["no reason given"]
    except OSError as error:
        return [str(error)]
