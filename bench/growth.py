#!/usr/bin/env python3
"""What a registration costs among 10^4, 10^5 and 10^6 others, and how long a restore takes: `make bench-growth`.

    bench/growth.py --aors 10000 100000 1000000

A real Kafka and a real MariaDB, filled in bulk (snapshots on `bindings`, rows of `location`) with AORs of one contact
each. Per size one registrar restores in a process of its own: seconds, and resident memory a binding. Then refreshes
of random AORs by turns over the sizes, so that whatever the machine does meets all of them: processor time of the
registrar's handler, of the locator's projection and of MariaDB, and the edge's look-up of random AORs in `location`.
Limits: a tenth more than the least, 1 KB a binding, 15 s for a restore, 2 ms for 99 of 100 look-ups.
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
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from growth_phones import Record, aor, command, now, spent, state

from edge.outside.location import Names, find
from events.registrations import BindingsRecorded, Change, Kind, Watermark, binding_id
from events.topics import partition_of
from events.wire import encode
from locator.config import Settings
from locator.decider import Truth, location
from locator.projection import Part, Partition, Projection
from locator.tables import LIVE, LOCATION_COLUMNS, stored_bindings
from ramal.backends import KafkaServer, MySQLServer, start_kafka, start_mysql
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from registrar.snapshot import snapshots_id
from registrar.truths import snapshot, watermark
from runtime.config import Kafka, MySQL
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Statement
from runtime.database.positions import Position, begin_at
from runtime.log.kafka.log import KafkaLog

PARTITIONS = 4
SIZES = (10_000, 100_000, 1_000_000)
REFRESHES = 3_000
"""Of each size in each round."""
TOGETHER = 100
"""Truths in one transaction of the locator."""
REMEMBERED = Settings().remembered
MOST_DEARER, MOST_BYTES, MOST_RESTORE_SECONDS, MOST_LOOKUP_MS = 1.10, 1024, 15.0, 2.0
MYSQL = "innodb_buffer_pool_size=2G\ninnodb_log_file_size=1G\n"
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
    handler = RegistrarHandler(log, Policy(), "bench-growth")
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


# --- the tables ------------------------------------------------------------------------------------------------------


class Tables:
    """The tables of one size, and the locator's way into them."""

    def __init__(self, server: MySQLServer, aors: int) -> None:
        self._aors, self._pid = aors, server.pid
        settings = MySQL(server.host, server.port, server.user, server.password, f"growth{aors}", timeout=120.0)  # type: ignore[arg-type]  # text
        self._database = MySQLDatabase(settings)
        self._projection = Projection(self._database, LIVE)
        self._partition = Partition(0, Position(0, -1))
        self._numbers = random.Random(aors)  # noqa: S311  # no secret
        self._cseq = 1

    async def fill(self) -> None:
        """Some rows as the locator writes them, then copies of these by the database."""
        database, at = self._database, now()
        await database.start()
        await database.migrate()
        first = min(self._aors, 10_000)
        for start in range(0, first, 500):
            rows = [location(state(n, at).bindings[0], aor(n), 0) for n in range(start, min(first, start + 500))]
            await database.transact([database.upsert(LIVE.location, LOCATION_COLUMNS, ("contact_id",), rows)])
        for copied in range(first, self._aors, first):
            await database.transact([self._copied(first, copied)])
        # A locator that has run for an hour has met every phone.
        for start in range(0, min(self._aors, REMEMBERED), 5_000):
            ids = [binding_id(0, number + 1, 0) for number in range(start, start + 5_000)]
            self._partition.known.update(await stored_bindings(database, LIVE, ids))
        await database.transact([begin_at(database, LIVE.projection, 0, self._partition.at)])

    def _copied(self, rows: int, shift: int) -> Statement:
        step = binding_id(0, 2, 0) - binding_id(0, 1, 0)
        changed = {
            "contact_id": f"contact_id + {shift * step}",
            "username": f"CONCAT('u', LPAD(SUBSTRING(username, 2) + {shift}, 7, '0'))",
            "contact": f"CONCAT('sip:u', LPAD(SUBSTRING(username, 2) + {shift}, 7, '0'), SUBSTRING(contact, 13))",
        }
        columns = ", ".join(LOCATION_COLUMNS)
        chosen = ", ".join(changed.get(column, column) for column in LOCATION_COLUMNS)
        last = binding_id(0, rows, 0)
        return Statement(f"INSERT INTO location ({columns}) SELECT {chosen} FROM location WHERE contact_id <= {last}")  # noqa: S608  # ours

    async def refresh(self) -> tuple[float, float]:
        """CPU-milliseconds of one refresh in this process, and in MariaDB."""
        self._cseq += 1
        batches = [list(self._truths()) for _ in range(0, REFRESHES, TOGETHER)]
        worked, mysql = time.process_time(), spent(self._pid)
        for truths in batches:
            partition = self._partition
            end = partition.at.next + len(truths)
            numbered = [truth._replace(offset=partition.at.next + n) for n, truth in enumerate(truths)]
            await self._projection.look_up(partition, numbered)
            await self._projection.write([Part(partition, numbered, end)])
            partition.forget(REMEMBERED)
        per = 1000 / REFRESHES
        return per * (time.process_time() - worked), per * (spent(self._pid) - mysql)

    def _truths(self) -> Iterator[Truth]:
        for _ in range(TOGETHER):
            number = self._numbers.randrange(self._aors)
            after = state(number, now(), self._cseq)
            [binding] = after.bindings
            changes = (Change(Kind.REFRESHED, binding.id, binding.contact),)
            id_ = f"{number}-{self._cseq}-{self._numbers.random()}"
            yield Truth(0, 0, BindingsRecorded(id_, aor(number), aor(number), changes, after))

    async def look_up(self, times: int) -> list[float]:
        """Milliseconds of the edge's question where an AOR is, one after the other."""
        took = []
        for _ in range(times):
            name = aor(self._numbers.randrange(self._aors))
            began = time.perf_counter()
            found, _ = await find(self._database, {name: Names({}).of(name)})
            took.append(1000 * (time.perf_counter() - began))
            if len(found[name].targets) != 1:
                raise SystemExit(f"{name} is not in the tables")
        return took

    async def stop(self) -> None:
        """Closes the connections."""
        await self._database.stop()


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
        costs: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(rounds + 1):
            for aors in sizes if number % 2 else reversed(sizes):
                children[aors][1].send(True)
                decided = await asyncio.to_thread(children[aors][1].recv)
                projected, stored = await tables[aors].refresh()
                took = await tables[aors].look_up(lookups)
                if number:  # the first warms up
                    costs["registrar", aors].append(decided)
                    costs["locator", aors].append(projected)
                    costs["MariaDB", aors].append(stored)
                    costs["look-up", aors] += took
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
    print("\n| AORs | registrar | locator | MariaDB | sum, CPU s/1000 | to the least | look-up p50, p99 ms |")
    print("|---|---|---|---|---|---|---|")
    names = ("registrar", "locator", "MariaDB")
    medians = {(name, aors): statistics.median(costs[name, aors]) for name in names for aors in sizes}
    sums = {aors: sum(medians[name, aors] for name in names) for aors in sizes}
    good = True
    for aors in sizes:
        dearer, took = sums[aors] / min(sums.values()), costs["look-up", aors]
        parts = " | ".join(f"{medians[name, aors]:.3f}" for name in names)
        p50, p99 = share(took, 0.5), share(took, 0.99)
        print(f"| {aors:,} | {parts} | {sums[aors]:.3f} | {dearer:.2f} × | {p50:.2f}, {p99:.2f} |")
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
