"""Records that nobody can read, on every topic that a service consumes, in the whole system."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from events.topics import AUTH_COMMANDS, DEAD, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS, partition_of
from events.wire import header
from ramal.system import system_at
from runtime.config import Sources
from runtime.log.port import Append, Log
from tests.e2e.conftest import DOMAIN, System, is_ready, user

pytestmark = pytest.mark.e2e

CONSUMED = (AUTH_COMMANDS, REGISTRAR_COMMANDS, REGISTRATIONS)
POISON = (b"{", b'{"type":"ramal.Unknown"}', b"\xff\x00", None)


def test_c18_poison_goes_to_dead_with_its_cause_and_every_consumer_goes_on(system: System) -> None:
    partitions, letters = asyncio.run(poisoned(system))
    one_of_each: dict[int, int] = {}
    for number in range(30, 40):
        one_of_each.setdefault(partition_of(f"{user(number)}@{DOMAIN}", partitions), number)
    for number in one_of_each.values():
        with system.phone(number) as phone:
            assert phone.register().status == 200
            assert phone.contact in system.located(number)
            assert phone.deregister().status == 200
    assert letters == {(topic, partition): len(POISON) for topic in CONSUMED for partition in range(partitions)}
    assert all(map(is_ready, system.http))


async def poisoned(system: System) -> tuple[int, Counter[tuple[str, int]]]:
    """Puts poison into every partition; returns their count, and how many letters came to `dead` from where."""
    data = Path(system.where[1]) if system.where else None
    async with system_at(data, Sources(dict(system.environ), {})).log() as log:
        partitions = await log.partitions(REGISTRATIONS)
        begin = (await log.bounds(DEAD, 0)).end
        await log.append(
            [
                Append(topic, partition, b"key", value)
                for topic in (*CONSUMED, EDGE_REPLIES)
                for partition in range(partitions)
                for value in POISON
            ]
        )
        deadline = time.monotonic() + 30
        letters = await dead_from(log, begin)
        while letters.total() < partitions * len(CONSUMED) * len(POISON) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)  # what is awaited happens in other processes
            letters = await dead_from(log, begin)
        return partitions, letters


async def dead_from(log: Log, begin: int) -> Counter[tuple[str, int]]:
    """Dead letters from this offset on, by topic and partition; each must say a cause, none may carry a digest."""
    letters: Counter[tuple[str, int]] = Counter()
    async for records in log.read(DEAD, 0, begin, (await log.bounds(DEAD, 0)).end):
        for record in records:
            topic, partition = header(record.headers, "topic"), header(record.headers, "partition")
            assert topic is not None
            assert partition is not None
            assert header(record.headers, "cause")
            assert record.value == b"" or topic != AUTH_COMMANDS.encode()
            letters[topic.decode(), int(partition)] += 1
    return letters
