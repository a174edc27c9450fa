"""How fast a registrar restores, and what a binding costs it: `make bench-restore`.

Fills a real Kafka with AORs of one binding each, through the registrar's own handler, then restores them in a
fresh process: once from snapshots, once from the truths alone (a registrar that died before any snapshot).
Prints seconds, and bytes of resident memory per binding. Limits: 5 s and 1 KB at 100,000.
"""

import asyncio
import gc
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import uvloop

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.topics import REGISTRATIONS, partition_of
from events.wire import Header, encode
from ramal.backends import start_kafka
from registrar.config import Policy
from registrar.handler import RegistrarHandler
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Log

PARTITIONS = 4
LIMIT_SECONDS = 5.0
LIMIT_BYTES = 1024
FAR = 2**50
"""A deadline that never passes."""


class _Record(NamedTuple):
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[Header, ...] = ()


def _register(number: int) -> RegisterContacts:
    """A REGISTER like SIPp's, with what an edge adds."""
    aor = f"u{number:06d}@example.test"
    registration = Registration(
        call_id=f"{number}-48151@192.0.2.77",
        cseq=1,
        branch=f"z9hG4bK-48151-{number}-0",
        contacts=(Contact(f"sip:u{number:06d}@192.0.2.77:{1024 + number % 60000}", expires=300),),
        received=f"sip:192.0.2.77:{1024 + number % 60000};transport=udp",
        path=("<sip:k1mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpi@edge.example.test;lr>",),
        socket="udp:192.0.2.1:5060",
        user_agent="baresip v1.0.0 (x86_64/linux)",
        methods=8191,
    )
    return RegisterContacts(f"edge-1-0a1b2c3d-{number}", ReplyTo("edge-1", "0a1b2c3d", FAR), aor, aor, registration)


async def _log(bootstrap: str, prefix: str) -> Log:
    log = KafkaLog(Kafka(bootstrap=bootstrap, request_timeout=20.0), prefix, PARTITIONS, "bench-restore")
    await log.start()
    await log.create_topics(PARTITIONS)
    while await log.check_topics(PARTITIONS):  # noqa: ASYNC110  # what is awaited happens in the broker
        await asyncio.sleep(0.2)
    return log


async def _fill(bootstrap: str, prefix: str, aors: int, snapshots: bool) -> None:
    log = await _log(bootstrap, prefix)
    handler = RegistrarHandler(log, Policy(), "bench-restore", PARTITIONS)
    for partition in range(PARTITIONS):
        await handler.restore(partition)
    now = time.time_ns() // 1_000_000
    offsets = [0] * PARTITIONS
    for first in range(0, aors, 2000):
        batch: dict[int, list[_Record]] = defaultdict(list)
        for number in range(first, min(first + 2000, aors)):
            command = _register(number)
            partition = partition_of(command.aor, PARTITIONS)
            batch[partition].append(_Record(partition, offsets[partition], now, b"", encode(command)))
            offsets[partition] += 1
        await handler.handle(batch)
    if snapshots:
        await handler.snapshot()
    await log.stop()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _measure(bootstrap: str, prefix: str) -> tuple[float, int, int]:
    """Seconds of a restore of all partitions, bytes that the process grew by, and bindings."""
    log = await _log(bootstrap, prefix)
    handler = RegistrarHandler(log, Policy(), "bench-restore", PARTITIONS)
    await log.bounds(REGISTRATIONS, 0)
    gc.collect()
    before, began = _resident(), time.monotonic()
    await asyncio.gather(*(handler.restore(partition) for partition in range(PARTITIONS)))
    seconds = time.monotonic() - began
    gc.collect()
    grown = _resident() - before
    bindings = sum(partition.bindings for partition in handler.partitions.values())
    await log.stop()
    return seconds, grown, bindings


def _fill_process(*arguments: object) -> None:
    uvloop.run(_fill(*arguments))  # type: ignore[arg-type]  # as given by main


def _measure_process(*arguments: object) -> tuple[float, int, int]:
    return uvloop.run(_measure(*arguments))  # type: ignore[arg-type]  # as given by main


def main() -> int:
    aors = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    good = True
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="ramal-restore-") as directory:
        kafka = start_kafka(Path(directory))
        try:
            for source in ("snapshots", "truths"):
                # A process each, so that nothing of one is in the memory of the other.
                with context.Pool(1) as pool:
                    pool.apply(_fill_process, (kafka.bootstrap, f"{source}.", aors, source == "snapshots"))
                with context.Pool(1) as pool:
                    seconds, grown, bindings = pool.apply(_measure_process, (kafka.bootstrap, f"{source}."))
                each = grown / max(bindings, 1)
                print(f"from {source}: {bindings} bindings in {seconds:.2f} s, {each:.0f} bytes per binding")  # noqa: T201  # its output
                good &= bindings == aors and seconds <= LIMIT_SECONDS and each <= LIMIT_BYTES
        finally:
            kafka.stop()
    print("within the limits" if good else f"beyond the limits: {LIMIT_SECONDS} s, {LIMIT_BYTES} bytes")  # noqa: T201  # its output
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
