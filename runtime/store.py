"""The one SQLite file of an embedded Ramal, shared by the log and the tables.

One writer thread has the only connection that writes: everything that is queued while a commit runs shares
the next one, so an fsync is paid per batch and never on the event loop. Each lane of readers has a thread
and a connection of its own. Answers come back to the loop with one wake-up per batch. Other processes may
write to the same file; their commits are noticed within `NOTICE_SECONDS`, and only while somebody waits.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from runtime.errors import ConfigError

log = logging.getLogger("ramal.embedded")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Outcome = tuple[Any, BaseException | None]
Watcher = Callable[[Set[int] | None], None]

NOTICE_SECONDS = 0.2
"""How late a commit of another process may be seen."""
BUSY_SECONDS = 1.5
"""How long another process may hold the file before ours gives up."""
TIMEOUT_SECONDS = 2.0
"""How long anybody waits for the file, in all."""
QUEUED = 4096
"""Pieces of work that may wait for a thread; more mean that the disk has stopped."""
TOGETHER = 512
"""Pieces of work that share a commit."""


CHECK_SECONDS = 5.0
"""How long the file is read at the start to see whether it is damaged."""
DAMAGED = (
    "put a copy from before in its place, or move it and its -wal and -shm away and start anew: users are kept in "
    "users.htdigest, phones register again by themselves, and only history and calls are lost"
)


class StoreUnavailable(Exception):
    """The file cannot be read or written now: busy, full, failing or too slow."""


def check(path: Path) -> None:
    """Reads the file once, for CHECK_SECONDS at the most. Raises ConfigError that says what to do if it is damaged."""
    if not path.exists():
        return
    ends = time.monotonic() + CHECK_SECONDS
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if not _is_damaged(error):
            return  # busy, or too large to be read in that time
        said = str(error)
    if said != "ok":
        raise ConfigError(f"{path}: is damaged ({' '.join(said.split())}); {DAMAGED}")


def _is_damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Job(NamedTuple):
    work: Work[Any]
    future: "asyncio.Future[Any]"
    touches: Mapping[str, Iterable[int]]


class _Lane:
    """One thread with one connection, which does its work in order."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], run: "_Run", settle: "_Settle") -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._run = run
        self._settle = settle
        self._queue: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name=f"ramal-{name}", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], touches: Mapping[str, Iterable[int]]) -> "asyncio.Future[T]":
        """Queues work; raises StoreUnavailable when too much is waiting."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreUnavailable("the file is closed")
            if len(self._queue) >= QUEUED:
                raise StoreUnavailable("too much is waiting for the disk")
            self._queue.append(_Job(work, future, touches))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Ends the thread once the queue is empty."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def _work(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError) as error:
            self._call(self._report_opened, error)
            self._call(self.closed.set)
            return
        self._call(self._report_opened, None)
        try:
            while jobs := self._take():
                self._call(self._settle, jobs, self._run(connection, jobs))
        finally:
            connection.close()
            self._call(self.closed.set)

    def _take(self) -> list[_Job]:
        """The next jobs, as many as share a run; none when the lane is closed and empty."""
        jobs: list[_Job] = []
        with self._wake:
            while not jobs:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    break
                while self._queue and len(jobs) < TOGETHER:
                    job = self._queue.popleft()
                    # Who gave up waiting does not want it any more, and nothing of it has happened.
                    if not job.future.done():
                        jobs.append(job)
        return jobs

    def _report_opened(self, error: Exception | None) -> None:
        if self.opened.done():
            return
        if error:
            self.opened.set_exception(error)
        else:
            self.opened.set_result(None)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # The loop may be gone while a slow disk kept this thread: nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


_Run = Callable[[sqlite3.Connection, Sequence[_Job]], Sequence[Outcome]]
_Settle = Callable[[Sequence[_Job], Sequence[Outcome]], None]


def _commit_together(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Outcome]:
    """Runs jobs in one transaction; one that fails takes back its own changes only."""
    outcomes: list[Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if job.future.done():  # given up while we waited for the file: nothing of it happens
                outcomes.append((None, None))
                continue
            connection.execute("SAVEPOINT job")
            try:
                outcomes.append((job.work(connection), None))
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked for this piece of work
                connection.execute("ROLLBACK TO job")
                outcomes.append((None, error))
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        return [(None, error)] * len(jobs)
    return outcomes


def _read_each(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    for job in jobs:
        try:
            outcomes.append((job.work(connection), None))
        except Exception as error:  # noqa: BLE001  # it goes to whoever asked for this piece of work
            outcomes.append((None, error))
    return outcomes


class EmbeddedStore:
    """The file, its writer thread, its readers, and who waits for news of which topic."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._writer: _Lane | None = None
        self._readers: dict[str, _Lane] = {}
        self._starting = asyncio.Lock()
        self._watchers: dict[str, set[Watcher]] = {}
        self._waiting = 0
        self._somebody_waits = asyncio.Event()
        self._noticing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens (makes) the file, readable by its owner only; does nothing the second time. Raises ConfigError."""
        async with self._starting:
            if self._writer:
                return
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Made before SQLite opens it: its -wal and -shm files take over the mode.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                self.path.chmod(0o600)
                self._writer = _Lane("writer", self._connect, _commit_together, self._settle)
                await self._writer.opened
                for name in ("log", "tables", "questions"):
                    self._readers[name] = _Lane(name, self._connect, _read_each, self._settle)
                    await self._readers[name].opened
            except sqlite3.DatabaseError as error:
                await self.stop()
                if not _is_damaged(error):
                    raise ConfigError(f"{self.path}: {error}") from error
                raise ConfigError(f"{self.path}: is damaged ({error}); {DAMAGED}") from error
            except OSError as error:
                await self.stop()
                raise ConfigError(f"{self.path}: {error}") from error
            self._noticing = asyncio.create_task(self._notice(), name="embedded-notice")

    async def stop(self, deadline: float = 3.0) -> None:
        """Writes what is queued and closes the file, within `deadline` seconds whatever the disk does."""
        if self._noticing:
            self._noticing.cancel()
            await asyncio.wait({self._noticing})
            self._noticing = None
        lanes = [*self._readers.values(), *([self._writer] if self._writer else [])]
        for lane in lanes:
            lane.close()
        try:
            async with asyncio.timeout(deadline):
                for lane in lanes:
                    await lane.closed.wait()
        except TimeoutError:
            log.warning("the disk did not answer in time; the file is left as it is", extra={"path": str(self.path)})
        self._writer = None
        self._readers.clear()

    async def write(self, work: Work[T], touches: Mapping[str, Iterable[int]] | None = None) -> T:
        """Runs `work` in a transaction that is on the disk on return; raises what it raises, or StoreUnavailable.

        `touches` names the partitions, by topic, that get records: whoever waits for them is woken.
        """
        if self._writer is None:
            raise StoreUnavailable("the file is closed")
        return await self._answer(self._writer.submit(work, touches or {}))

    async def read(self, work: Work[T], lane: str = "log") -> T:
        """Runs `work` on a reading connection, which sees all that is committed; raises as `write` does."""
        reader = self._readers.get(lane)
        if reader is None:
            raise StoreUnavailable("the file is closed")
        return await self._answer(reader.submit(work, {}))

    def watch(self, topic: str, watcher: Watcher) -> None:
        """Calls `watcher` with the partitions that got records, or None when another process may have written."""
        self._watchers.setdefault(topic, set()).add(watcher)

    def unwatch(self, topic: str, watcher: Watcher) -> None:
        """Ends a `watch`."""
        self._watchers.get(topic, set()).discard(watcher)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While inside, commits of other processes are looked for."""
        self._waiting += 1
        self._somebody_waits.set()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._somebody_waits.clear()

    async def _answer(self, future: "asyncio.Future[T]") -> T:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await future
        except TimeoutError as error:
            raise StoreUnavailable("the disk did not answer in time") from error
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(str(error)) from error

    def _settle(self, jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
        touched: dict[str, set[int]] = {}
        for job, (result, error) in zip(jobs, outcomes, strict=True):
            if error is None:
                for topic, partitions in job.touches.items():
                    touched.setdefault(topic, set()).update(partitions)
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)
        for topic, numbers in touched.items():
            for watcher in tuple(self._watchers.get(topic, ())):
                watcher(numbers)

    async def _notice(self) -> None:
        """Wakes all watchers when the file's version changes; our own commits change it too, which does no harm."""
        seen = -1
        while True:
            await self._somebody_waits.wait()
            try:
                version = await self.read(_version)
            except (StoreUnavailable, sqlite3.Error):
                version = seen  # whoever reads is told by their own read
            if version != seen:
                seen = version
                for watcher in [w for watchers in self._watchers.values() for w in watchers]:
                    watcher(None)
            await asyncio.sleep(NOTICE_SECONDS * 0.9)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=True, cached_statements=256
        )
        try:
            _configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _configure(connection: sqlite3.Connection) -> None:
    # Before the first table, or it has no effect; later it does nothing.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            # Another process makes the same switch now: SQLite does not wait for this lock.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute("PRAGMA foreign_keys=ON")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)
