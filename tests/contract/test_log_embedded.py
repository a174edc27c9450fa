"""What the embedded log promises beyond the port: one file, several processes, kill -9, retention."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from events.topics import AUTH_COMMANDS, BINDINGS, HOUR, REGISTRAR_COMMANDS
from runtime.errors import ConfigError, LogUnavailable
from runtime.log.embedded import sql as embedded_sql
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Record
from runtime.store import EmbeddedStore

TOPIC = REGISTRAR_COMMANDS
APPENDER = """
import asyncio, sys
from runtime.store import EmbeddedStore
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append

async def main(path, name, count):
    store = EmbeddedStore(path)
    log = EmbeddedLog(store, 4)
    await log.start()
    print("ready", flush=True)
    for number in range(count):
        value = f"{name}-{number}".encode()
        (position,) = await log.append([Append("registrar.commands", 0, b"k", value)])
        print(position.offset, value.decode(), flush=True)
    await log.stop()
    await store.stop()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ramal.db"


@contextlib.asynccontextmanager
async def opened(path: Path, now: Callable[[], float] | None = None) -> AsyncIterator[EmbeddedLog]:
    store = EmbeddedStore(path)
    log = EmbeddedLog(store, 4, now=now) if now else EmbeddedLog(store, 4)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()
        await store.stop()


async def another_process(path: Path, name: str, count: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDER, str(path), name, str(count), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    return process


async def read_all(log: EmbeddedLog, topic: str = TOPIC, partition: int = 0, begin: int = 0) -> list[Record]:
    end = (await log.bounds(topic, partition)).end
    return [record async for batch in log.read(topic, partition, begin, end) for record in batch]


def numbered(count: int, topic: str = TOPIC) -> list[Append]:
    return [Append(topic, 0, b"key", str(number).encode()) for number in range(count)]


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    async with opened(path) as log:
        await log.append(numbered(1))
        files = list(path.parent.iterdir())
        assert {file.name for file in files} >= {"ramal.db", "ramal.db-wal"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "ramal.db"
    path.write_bytes(b"something else entirely" * 100)
    for wrong in (path, tmp_path):
        with pytest.raises(ConfigError, match=str(wrong)):
            await EmbeddedStore(wrong).start()


async def test_records_and_offsets_survive_a_restart(path: Path) -> None:
    async with opened(path) as log:
        await log.append(numbered(3))
    async with opened(path) as log:
        assert [p.offset for p in await log.append(numbered(2))] == [3, 4]
        assert [r.value for r in await read_all(log)] == [b"0", b"1", b"2", b"0", b"1"]


async def test_timestamps_do_not_follow_a_clock_that_goes_backwards(path: Path) -> None:
    clock = iter([1000.0, 900.0, 1000.5])
    async with opened(path, lambda: next(clock)) as log:
        stamps = [(await log.append(numbered(1)))[0].timestamp for _ in range(3)]
    assert stamps == [1_000_000, 1_000_000, 1_000_500]


async def test_old_records_are_deleted_and_their_offsets_never_given_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_sql, "CHUNK", 2)
    time = 1_000_000.0
    async with opened(path, lambda: time) as log:
        await log.append(numbered(5, AUTH_COMMANDS))
        time += HOUR / 1000
        await log.append(numbered(1, AUTH_COMMANDS))
        time += 1
        await log.clean()
        assert await log.bounds(AUTH_COMMANDS, 0) == (5, 6)
        assert [r.offset for r in await read_all(log, AUTH_COMMANDS)] == [5]
        assert await log.offset_at(AUTH_COMMANDS, 0, 0) == 5
        time += HOUR / 1000
        await log.clean()
        assert await log.bounds(AUTH_COMMANDS, 0) == (6, 6)
    async with opened(path, lambda: time) as log:
        assert [p.offset for p in await log.append(numbered(1, AUTH_COMMANDS))] == [6]


async def test_a_compacted_topic_keeps_the_last_record_of_each_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_sql, "CHUNK", 3)
    time = 1_000_000.0
    async with opened(path, lambda: time) as log:
        keys = [b"a", b"b", b"a", b"c", b"a", b"b"]
        await log.append([Append(BINDINGS, 0, key, str(n).encode()) for n, key in enumerate(keys)])
        await log.append([Append(BINDINGS, 1, b"a", b"other partition")])
        await log.clean()
        assert [(r.offset, r.key, r.value) for r in await read_all(log, BINDINGS)] == [
            (3, b"c", b"3"),
            (4, b"a", b"4"),
            (5, b"b", b"5"),
        ]
        await log.append([Append(BINDINGS, 0, b"a", None), Append(BINDINGS, 0, b"b", b"7")])
        await log.clean()
        assert [(r.key, r.value) for r in await read_all(log, BINDINGS)] == [(b"c", b"3"), (b"a", None), (b"b", b"7")]
        time += embedded_sql.TOMBSTONE_MS / 1000 + 1
        await log.clean()
        assert [(r.key, r.value) for r in await read_all(log, BINDINGS)] == [(b"c", b"3"), (b"b", b"7")]
        assert len(await read_all(log, BINDINGS, 1)) == 1
        assert [p.offset for p in await log.append([Append(BINDINGS, 0, b"a", b"8")])] == [8]


async def test_cleaning_gives_space_back_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_sql, "VACUUM_PAGES", 64)
    time = 1_000_000.0
    async with opened(path, lambda: time) as log:
        await log.append([Append(AUTH_COMMANDS, 0, b"k", b"x" * 4096) for _ in range(500)])
        time += HOUR / 1000 + 1
        before = await pages(path)
        for _ in range(40):
            await log.clean()
        assert await pages(path) < before / 4


async def pages(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
    return int(count)


async def test_another_processs_append_is_read_while_we_wait(path: Path) -> None:
    async with opened(path) as log:
        reading = log.read(TOPIC, 0, 0)
        first = asyncio.ensure_future(anext(reading))
        member = log.subscribe(TOPIC, "g", lambda partition: member.begin(partition, None), lambda _: None)
        polled = asyncio.create_task(member.poll(20))
        process = await another_process(path, "other", 1)
        assert [r.value for r in await asyncio.wait_for(first, 20)] == [b"other-0"]
        assert [r.value for r in (await polled)[0]] == [b"other-0"]
        assert await process.wait() == 0
        await reading.aclose()


async def test_processes_that_append_at_the_same_time_share_the_offsets(path: Path) -> None:
    async with opened(path) as log:
        processes = [await another_process(path, name, 60) for name in ("a", "b")]
        for number in range(60):
            await log.append([Append(TOPIC, 0, b"k", f"c-{number}".encode())])
        told: dict[str, str] = {}
        for process in processes:
            out, _ = await process.communicate()
            told.update(line.split() for line in out.decode().splitlines())  # type: ignore[misc]  # pairs
        found = await read_all(log)
        assert [r.offset for r in found] == list(range(180))
        values = [(r.value or b"").decode() for r in found]
        for name in "abc":
            assert [v for v in values if v.startswith(name)] == [f"{name}-{n}" for n in range(60)]
        assert all(values[int(offset)] == value for offset, value in told.items())


async def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: dict[int, str] = {}
    for attempt in range(3):
        process = await another_process(path, str(attempt), 1_000_000)
        assert process.stdout
        for _ in range(25):
            offset, value = (await process.stdout.readline()).decode().split()
            acknowledged[int(offset)] = value
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = await process.communicate()
        acknowledged.update(
            (int(o), v) for o, v in (line.split() for line in rest.decode().splitlines() if " " in line)
        )
    async with opened(path) as log:
        found = await read_all(log)
    assert [r.offset for r in found] == list(range(len(found)))
    assert all(found[offset].value == value.encode() for offset, value in acknowledged.items())


async def test_while_the_file_is_held_an_append_is_refused_in_time_and_the_next_one_works(path: Path) -> None:
    async with opened(path) as log:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(10):
                with pytest.raises(LogUnavailable):
                    await log.append(numbered(1))
            assert await log.bounds(TOPIC, 0) == (0, 0)
            other.execute("ROLLBACK")
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(LogUnavailable):
                    (position,) = await log.append(numbered(1))
                    break
        assert position.offset == 0


async def test_an_append_that_was_given_up_before_its_turn_is_not_written(path: Path) -> None:
    async with opened(path) as log:
        tasks = [asyncio.create_task(log.append(numbered(1))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[10:]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        written = [o[0].offset for o in outcomes if isinstance(o, list)]
        end = (await log.bounds(TOPIC, 0)).end
        assert written == sorted(written)
        assert len(written) <= end <= 20


async def test_after_stop_the_log_is_unavailable(path: Path) -> None:
    async with opened(path) as log:
        await log.append(numbered(1))
    with pytest.raises(LogUnavailable):
        await log.append(numbered(1))
