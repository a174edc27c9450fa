#!/usr/bin/env python3
"""What a registration costs among 10^4, 10^5 and 10^6 others, and how long a restore takes: `make bench-growth`.

    bench/growth.py --aors 10000 100000 1000000

A real Kafka and a real MariaDB, filled in bulk (snapshots on `bindings`, rows of `location`) with AORs of one contact
each. Per size one registrar restores in a process of its own: seconds, and resident memory a binding. Then refreshes
of random AORs by turns over the sizes, so that whatever the machine does meets all of them: processor time of the
registrar's handler, of the locator's projection and of MariaDB; the same of phones that come from another port, which
end an interval of the history and begin one; and the edge's look-up of random AORs in `location`, each followed by a
question that reads nothing: how much of it is the machine's.
Limits: a refresh a tenth more than the least, 1 KB a binding, 15 s for a restore, 2 ms for 99 of 100 look-ups.
"""
# ruff: noqa: T201

import argparse
import asyncio
import gc
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from growth_phones import Record, aor, command, now, state
from growth_tables import REFRESHES, TOGETHER, Tables

from events.registrations import Watermark
from events.topics import partition_of
from events.wire import encode
from ramal.backends import KafkaServer, MySQLServer, start_kafka, start_mysql
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.snapshot import snapshots_id
from registrar.truths import snapshot, watermark
from runtime.config import Kafka, MySQL
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Statement
from runtime.log.kafka.log import KafkaLog

PARTITIONS = 4
SIZES = (10_000, 100_000, 1_000_000)
MOVES = 1_000
"""Of each size in each round; dearer than refreshes, of which there are REFRESHES."""
MOST_DEARER, MOST_BYTES, MOST_RESTORE_SECONDS, MOST_LOOKUP_MS = 1.10, 1024, 15.0, 2.0
MYSQL = "innodb_buffer_pool_size=3G\ninnodb_log_file_size=1G\n"
"""As docs/operating.md advises for so many phones."""


# --- the registrar ---------------------------------------------------------------------------------------------------


async def open_log(bootstrap: str, aors: int) -> KafkaLog:
    """Topics of one size's own."""
    log = KafkaLog(Kafka(bootstrap=bootstrap, request_timeout=20.0), f"growth{aors}.", PARTITIONS, "bench-growth")
    await log.start()
    await log.create_topics(PARTITIONS)
    while await log.check_topics(PARTITIONS):  # noqa: ASYNC110  # what is awaited happens in the broker
        await asyncio.sleep(0.2)
    return log


async def fill_log(log: KafkaLog, aors: int) -> None:
    """Snapshots of so many AORs, as registrars write them."""
    at = now()
    parts: dict[int, list[Any]] = defaultdict(list)
    for number in range(aors):
        name = aor(number)
        partition = partition_of(name, PARTITIONS)
        parts[partition].append(snapshot(partition, name, encode(state(number, at))))
        if len(parts[partition]) == 4_000:
            await log.append_transaction(snapshots_id(partition), parts.pop(partition))
    for partition in range(PARTITIONS):
        mark = watermark(partition, Watermark(-1, -1, -1))
        await log.append_transaction(snapshots_id(partition), [*parts[partition], mark])


async def registrar(connection: Connection, bootstrap: str, aors: int) -> None:
    """Restores, says how that went, and refreshes as often as it is asked to."""
    log = await open_log(bootstrap, aors)
    handler = RegistrarHandler(log, Policy(), "bench-growth", PARTITIONS)
    gc.collect()
    before, began = resident(), time.monotonic()
    worked = time.process_time()
    await asyncio.gather(*(handler.restore(number) for number in range(PARTITIONS)))
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    gc.collect()
    bindings = sum(partition.bindings for partition in handler.partitions.values())
    connection.send((seconds, worked, (resident() - before) / max(bindings, 1), bindings))
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)  # as a service does
    offsets, numbers, cseq = [0] * PARTITIONS, random.Random(aors), 1  # noqa: S311  # no secret
    while await asyncio.to_thread(connection.recv):
        cseq += 1
        batches: list[dict[int, list[Record]]] = []
        for _ in range(0, REFRESHES, TOGETHER):
            batch: dict[int, list[Record]] = defaultdict(list)
            for _ in range(TOGETHER):
                asked = command(numbers.randrange(aors), cseq)
                number = partition_of(asked.aor, PARTITIONS)
                batch[number].append(Record(number, offsets[number], now(), b"", encode(asked)))
                offsets[number] += 1
            batches.append(batch)
        worked = time.process_time()
        for each in batches:
            await handler.handle(each)
        connection.send(1000 * (time.process_time() - worked) / REFRESHES)
    await log.stop()


def resident() -> int:
    """Octets of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def filled(bootstrap: str, aors: int) -> None:
    """Makes the topics of a size."""
    log = await open_log(bootstrap, aors)
    await fill_log(log, aors)
    await log.stop()


def fill_process(bootstrap: str, aors: int) -> None:
    """In a process of its own: its memory is not to be the registrar's."""
    uvloop.run(filled(bootstrap, aors))


def registrar_process(connection: Connection, bootstrap: str, aors: int) -> None:
    """A registrar that is asked by its connection."""
    uvloop.run(registrar(connection, bootstrap, aors))


# --- by turns --------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """To who waits."""
    print(text, file=sys.stderr, flush=True)


def share(values: Sequence[float], part: float) -> float:
    """A percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def measure(kafka: KafkaServer, mysql: MySQLServer, sizes: Sequence[int], rounds: int, lookups: int) -> bool:
    """All of it; whether it is within the limits."""
    context = multiprocessing.get_context("spawn")
    good = True
    children: dict[int, tuple[Any, Connection]] = {}
    tables = {}
    try:
        for aors in sizes:
            began = time.monotonic()
            filling = context.Process(target=fill_process, args=(kafka.bootstrap, aors))
            filling.start()
            await asyncio.to_thread(filling.join)
            if filling.exitcode:
                raise SystemExit(f"the log was not filled with {aors:,} AORs")
            ours, theirs = context.Pipe()
            child = context.Process(target=registrar_process, args=(theirs, kafka.bootstrap, aors), daemon=True)
            child.start()
            children[aors] = child, ours
            say(f"{aors:,} AORs are in the log ({time.monotonic() - began:.0f} s)")
            seconds, worked, each, bindings = await asyncio.to_thread(ours.recv)
            print(f"{aors:9,} AORs: restored in {seconds:5.2f} s ({worked:.2f} CPU-s), {each:.0f} bytes a binding")
            small = aors < 100_000  # of so few, what the process has beside them counts more
            good &= bindings == aors and seconds <= MOST_RESTORE_SECONDS and (small or each <= MOST_BYTES)
            began = time.monotonic()
            tables[aors] = Tables(mysql, aors)
            await tables[aors].fill()
            say(f"{aors:,} rows are in the tables ({time.monotonic() - began:.0f} s)")
            octets = await tables[aors].octets()
            print(f"{aors:9,} rows: " + ", ".join(f"{size:.0f} octets of {name}" for name, size in octets.items()))
        costs: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(rounds + 1):
            for aors in sizes if number % 2 else reversed(sizes):
                children[aors][1].send(True)
                decided = await asyncio.to_thread(children[aors][1].recv)
                projected, stored = await tables[aors].refresh()
                moved = sum(await tables[aors].refresh(MOVES, moved=True))
                took, idle = await tables[aors].look_up(lookups)
                if number:  # the first warms up
                    costs["registrar", aors].append(decided)
                    costs["locator", aors].append(projected)
                    costs["MariaDB", aors].append(stored)
                    costs["moved", aors].append(moved)
                    costs["look-up", aors] += took
                    costs["idle", aors] += idle
            say(f"round {number} of {rounds}")
        good &= tell(costs, sizes)
        return good
    finally:
        for child, connection in children.values():
            connection.send(False)
            child.join(10)
        for each in tables.values():
            await each.stop()


def tell(costs: dict[tuple[str, int], list[float]], sizes: Sequence[int]) -> bool:
    """Prints the table; whether it is within the limits."""
    print("\n| AORs | registrar | locator | MariaDB | refresh, CPU s/1000 | to the least | moved |", end="")
    print(" look-up p50, p99 ms | no row p50, p99 ms |\n|---|---|---|---|---|---|---|---|---|")
    names = ("registrar", "locator", "MariaDB")
    medians = {(name, aors): statistics.median(costs[name, aors]) for name in (*names, "moved") for aors in sizes}
    sums = {aors: sum(medians[name, aors] for name in names) for aors in sizes}
    good = True
    for aors in sizes:
        dearer = sums[aors] / min(sums.values())
        parts = " | ".join(f"{medians[name, aors]:.3f}" for name in names)
        (p50, p99), idle = ([share(costs[name, aors], part) for part in (0.5, 0.99)] for name in ("look-up", "idle"))
        print(f"| {aors:,} | {parts} | {sums[aors]:.3f} | {dearer:.2f} × | {medians['moved', aors]:.3f}", end="")
        print(f" | {p50:.2f}, {p99:.2f} | {idle[0]:.2f}, {idle[1]:.2f} |")
        good &= dearer <= MOST_DEARER and p99 <= MOST_LOOKUP_MS
    return good


async def databases(server: MySQLServer, sizes: Sequence[int]) -> None:
    """One for each size."""
    database = MySQLDatabase(MySQL(server.host, server.port, server.user, server.password, server.database))  # type: ignore[arg-type]  # text
    await database.start()
    for aors in sizes:
        await database.transact([Statement(f"CREATE DATABASE growth{aors} CHARACTER SET utf8mb4")])
    await database.stop()


async def both(kafka: KafkaServer, mysql: MySQLServer, given: argparse.Namespace) -> bool:
    """The databases, then the measuring."""
    await databases(mysql, given.aors)
    return await measure(kafka, mysql, given.aors, given.rounds, given.lookups)


def main() -> int:
    """Measures; 1 beyond the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aors", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=7, help=f"of {REFRESHES} refreshes of each size (7)")
    parser.add_argument("--lookups", type=int, default=2000, help="of each size in each round (2000)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ramal-growth-") as directory:
        kafka = start_kafka(Path(directory) / "kafka")
        try:
            mysql = start_mysql(Path(directory) / "mysql", more=MYSQL)
            try:
                good = uvloop.run(both(kafka, mysql, given))
            finally:
                mysql.stop()
        finally:
            kafka.stop()
    limits = f"{MOST_DEARER} × the least, {MOST_BYTES} bytes, {MOST_RESTORE_SECONDS:.0f} s, {MOST_LOOKUP_MS:.0f} ms"
    print(f"{'within' if good else 'beyond'} the limits: {limits}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
