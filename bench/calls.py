"""What cdr costs: CPU of the service per event, and the time to make the tables of many calls anew.

    .venv/bin/python bench/calls.py --calls 100000
    .venv/bin/python bench/calls.py --calls 1000000 --only-rebuild

Starts a Kafka and a MariaDB of its own below a scratch directory. Events are those of answered and missed calls, four
to a call; they are all in the log before cdr starts, so the rate is the greatest that it reaches.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cdr.config import Settings
from cdr.rebuild import rebuild
from cdr.service import Cdr
from events.calls import (
    Branch,
    BranchFinal,
    CallAnswered,
    CallAttempted,
    CallCancelled,
    CallEnded,
    CallEvent,
    CallRinging,
    event_id,
)
from events.topics import CALLS, partition_of
from events.wire import Happened, encode
from ramal.backends import start_kafka, start_mysql
from runtime.config import Kafka, MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append

PARTITIONS = 4
START = 1_790_000_000_000
TOGETHER = 200
"""Calls that overlap: so many are under way at any time."""


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # its output


def call(number: int) -> Iterator[CallEvent]:
    """The events of one call; each fourth one is missed."""
    n = {"call_id": f"{number:x}-3848276298220188511@192.0.2.4", "from_tag": f"a{number}", "cseq": 1, "edge": "edge-1"}
    at = START + number * 10
    caller, callee, branch, tag = f"u{number % 1000:05}", f"u{number % 997:05}", f"z9hG4bKrmlx{number}", f"b{number}"
    contact = f"sip:{callee}@192.0.2.9:5060"
    yield CallAttempted(
        **n, at=at, from_uri=f"sip:{caller}@example.test", to_uri=f"sip:{callee}@example.test",
        dialled=f"sip:{callee}@example.test", caller=f"{caller}@example.test", callee=f"{callee}@example.test",
        targets=(f"sip:{callee}@192.0.2.9:5060",), source="192.0.2.4:5060", transport="udp", agent="Desk/1.0",
        codecs=("PCMU", "PCMA", "opus"),
        first=Branch(at=at + 9, branch=branch, contact=contact, source="192.0.2.9:5060", transport="udp"),
    )  # fmt: skip
    yield CallRinging(**n, at=at + 40, to_tag=tag, branch=branch, phrase="Ringing")
    if number % 4 == 3:
        yield CallCancelled(**n, at=at + 20_000)
        yield BranchFinal(**n, at=at + 20_001, branch=branch, code=487, phrase="Request Terminated", to_tag=tag)
        return
    yield CallAnswered(
        **n, at=at + 5000, to_tag=tag, phrase="OK", branch=branch, contact=contact, transport="udp", agent="Soft/2",
        codecs=("PCMA",),
    )  # fmt: skip
    yield CallEnded(**n, at=at + 95_000, to_tag=tag, by="callee", cause=16, reason="Q.850;cause=16", begun=at)


def record(event: CallEvent) -> Append:
    """As an edge writes it."""
    kind = f"ramal.{type(event).__name__}"
    headers = Happened(kind, "edge", event_id(event), event.call_id, event.at)
    return Append(CALLS, partition_of(event.call_id, PARTITIONS), event.call_id.encode(), encode(event), headers)


async def measure(directory: Path, calls: int, only_rebuild: bool) -> None:
    kafka = start_kafka(directory / "kafka")
    mysql = start_mysql(directory / "mysql")
    settings = MySQL(mysql.host, mysql.port, mysql.user, Secret(mysql.password), mysql.database, timeout=600.0)
    database = MySQLDatabase(settings)
    log = KafkaLog(Kafka(bootstrap=kafka.bootstrap, request_timeout=20.0), "bench.", PARTITIONS, "bench")
    try:
        await log.start()
        await log.create_topics(PARTITIONS)
        await database.start()
        await database.migrate()
        events = await told(kafka.bootstrap, calls)
        say(f"{calls} calls, {events} events in the log")
        if not only_rebuild:
            await serve(log, database, events, {"Kafka": kafka.pid, "MariaDB": mysql.pid})
        await anew(log, database, mysql.pid)
    finally:
        await log.stop()
        await database.stop()
        kafka.stop()
        mysql.stop()


async def told(bootstrap: str, calls: int) -> int:
    """Writes the events of all calls, by two processes; how many those are."""
    half = calls // 2 // TOGETHER * TOGETHER
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = ((0, half), (half, calls))
        return sum(await asyncio.gather(*(loop.run_in_executor(pool, tell, bootstrap, *part) for part in parts)))


def tell(bootstrap: str, first: int, end: int) -> int:
    """Writes the events of some calls."""
    return asyncio.run(_tell(bootstrap, first, end))


async def _tell(bootstrap: str, first: int, end: int) -> int:
    log, events = KafkaLog(Kafka(bootstrap=bootstrap, request_timeout=60.0), "bench.", PARTITIONS, "bench"), 0
    await log.start()
    for start in range(first, end, TOGETHER):
        together = itertools.zip_longest(*(call(n) for n in range(start, min(start + TOGETHER, end))))
        records = [record(event) for moment in together for event in moment if event is not None]
        events += len(records)
        await log.append(records)
    await log.stop()
    return events


async def serve(log: KafkaLog, database: MySQLDatabase, events: int, servers: dict[str, int]) -> None:
    cdr = Cdr(log, database, Settings())
    theirs = {name: cpu_of(pid) for name, pid in servers.items()}
    begun, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    await cdr.start()
    while True:
        await asyncio.sleep(0.2)
        ends = [(await log.bounds(CALLS, n)).end for n in range(PARTITIONS)]
        rows = await database.query("SELECT SUM(next_offset) FROM projection_offset WHERE projection = 'calls'")
        if rows[0][0] is not None and int(rows[0][0]) >= sum(ends):
            break
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    await cdr.stop(10.0)
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    more = ", ".join(f"{(cpu_of(pid) - theirs[name]) / events * 1e6:.0f} in {name}" for name, pid in servers.items())
    say(f"served: {events / seconds:.0f} events/s, {used / events * 1e6:.0f} µs of CPU each"
          f" ({2000 * used / events:.1%} of a core at 2,000/s); {more}")  # fmt: skip


async def anew(log: KafkaLog, database: MySQLDatabase, server: int) -> None:
    """On a busy machine the CPU-seconds tell more than the time: with a core for each, it takes the larger of them."""
    own, theirs = time.process_time(), cpu_of(server)
    rebuilt = await rebuild(log, database, Settings())
    say(f"rebuilt {rebuilt.calls} calls in {rebuilt.seconds:.1f} s, equal: {rebuilt.equal};"
        f" CPU-seconds: {time.process_time() - own:.1f} here, {cpu_of(server) - theirs:.1f} in MariaDB")  # fmt: skip


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--only-rebuild", action="store_true", help="leave out the service")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(Path(scratch), arguments.calls, arguments.only_rebuild))
