"""A registrar that sleeps while another owns its partition: real processes on a real broker (E16, E18).

The sleeper speaks to the broker through a door. Shut for the group, it keeps the sleeper from hearing that it owns
nothing any more, so that its snapshot always comes first; shut for transactions, it makes a snapshot fail.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import BindingsRecorded
from events.topics import BINDINGS, REGISTRAR_COMMANDS, REGISTRATIONS
from events.wire import Decoder, cloud_event, encode
from ramal.processes import Child, spawn
from registrar.truths import is_claim, is_watermark
from runtime.config import Kafka
from runtime.log.kafka import KafkaLog
from runtime.log.port import Append, Record
from tests.chaos.door import GROUP, TRANSACTIONS, Door, broker_behind
from tests.chaos.rig import until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

SESSION, INTERVAL = 6, 1
"""Seconds of the group's session, and between snapshots."""
ALICE, BOB = "alice@example.test", "bob@example.test"
DESK, MOBILE = "sip:alice@192.0.2.4:5062", "sip:alice@192.0.2.9"

_decode: Decoder[BindingsRecorded] = Decoder(BindingsRecorded)
_numbers = itertools.count(1)


class Registrars:
    """Processes of `ramal registrar` on one partition, and commands for them."""

    def __init__(self, log: KafkaLog, bootstrap: str, directory: Path) -> None:
        self.log, self._bootstrap, self._directory = log, bootstrap, directory
        self._children: list[Child] = []

    def start(self, name: str, bootstrap: str = "") -> Child:
        environ = {
            **os.environ,
            "RAMAL_NAME": name,
            "RAMAL_PARTITIONS": "1",
            "RAMAL_KAFKA_BOOTSTRAP": bootstrap or self._bootstrap,
            "RAMAL_KAFKA_SESSION_TIMEOUT": str(SESSION),
            "RAMAL_REGISTRAR_SNAPSHOT_INTERVAL": str(INTERVAL),
        }
        child = spawn(name, [sys.executable, "-m", "ramal", "registrar"], self._directory / f"{name}.log", environ)
        self._children.append(child)
        return child

    def kill_all(self) -> None:
        for child in self._children:
            if child.alive():
                child.kill()
        self._children.clear()

    async def register(self, aor: str, *contacts: str, seconds: float = 40) -> list[str]:
        """The AOR's contacts, once a registrar has recorded that these are registered; none given: a query."""
        number = next(_numbers)
        command = RegisterContacts(
            f"id-{number}",
            ReplyTo("edge-1", "boot", int((time.time() + seconds) * 1000)),
            aor,
            aor,
            Registration(f"call-{number}", number, f"z9hG4bK{number}", tuple(Contact(c) for c in contacts)),
        )
        begin = (await self.log.bounds(REGISTRATIONS, 0)).end
        headers = cloud_event("ramal.RegisterContacts", "test", command.id)
        await self.log.append([Append(REGISTRAR_COMMANDS, 0, aor.encode(), encode(command), headers)])
        async with asyncio.timeout(seconds), contextlib.aclosing(self.log.read(REGISTRATIONS, 0, begin)) as reading:
            async for records in reading:
                for record in records:
                    if not is_claim(record.headers) and (event := _decode(record.value)).id == command.id:
                        return [binding.contact for binding in event.state.bindings]
        raise AssertionError("the log ended")

    async def claims(self) -> int:
        """How often the partition was claimed."""
        return sum(is_claim(record.headers) for record in await self._records(REGISTRATIONS))

    async def snapshots(self) -> tuple[dict[bytes, list[str]], int]:
        """The contacts by AOR in the snapshots, and up to which truth they say that they are whole."""
        contacts: dict[bytes, list[str]] = {}
        through = -1
        for record in await self._records(BINDINGS):
            value = json.loads(record.value or b"{}")
            if is_watermark(record):
                through = value["through"]
            else:
                contacts[record.key or b""] = [binding["contact"] for binding in value.get("bindings", ())]
        return contacts, through

    async def written(self, through: int, seconds: float = 20) -> None:
        """Waits until snapshots are whole up to this offset."""
        async with asyncio.timeout(seconds):
            while (await self.snapshots())[1] < through:  # noqa: ASYNC110  # what is awaited happens elsewhere
                await asyncio.sleep(0.1)

    async def _records(self, topic: str) -> list[Record]:
        end = (await self.log.bounds(topic, 0)).end
        return [r async for some in self.log.read(topic, 0, 0, end, committed=True) for r in some]


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


@pytest.fixture
async def registrars(door: Door, tmp_path: Path) -> AsyncIterator[Registrars]:
    with broker_behind(door, tmp_path / "kafka") as kafka:
        log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), "ramal.", 1, "test")
        await log.start()
        registrars = Registrars(log, kafka.bootstrap, tmp_path)
        try:
            await log.create_topics(1)
            yield registrars
        finally:
            registrars.kill_all()
            await log.stop()


@pytest.mark.parametrize("failed", [False, True], ids=["its first", "one after a snapshot that failed"])
async def test_e18_a_snapshot_of_a_sleeper_loses_nothing_that_was_acknowledged(
    registrars: Registrars, door: Door, tmp_path: Path, failed: bool
) -> None:
    """E16, E18: nor does it keep the owner from writing its own: who was fenced by a sleeper fences it in turn."""
    door.shut = TRANSACTIONS
    sleeper = registrars.start("sleeper", door.bootstrap)
    assert await registrars.register(ALICE, DESK) == [DESK]
    if failed:
        log = tmp_path / "sleeper.log"
        await until("a snapshot fails", lambda: '"put off"' in log.read_text(), 20)
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert await registrars.snapshots() == ({}, -1)

    registrars.start("owner")
    assert await registrars.register(ALICE, MOBILE) == [DESK, MOBILE]
    end = (await registrars.log.bounds(REGISTRATIONS, 0)).end
    await registrars.written(end - 1)
    assert (await registrars.snapshots())[0] == {ALICE.encode(): [DESK, MOBILE]}

    door.shut = GROUP
    os.kill(sleeper.pid, signal.SIGCONT)
    told = '"the partition has another owner"'
    await until("the sleeper sees the owner", lambda: told in (tmp_path / "sleeper.log").read_text(), 20)
    sleeper.kill()

    await registrars.register(BOB, DESK)
    await registrars.written((await registrars.log.bounds(REGISTRATIONS, 0)).end - 1)
    assert (await registrars.snapshots())[0] == {ALICE.encode(): [DESK, MOBILE], BOB.encode(): [DESK]}
    registrars.kill_all()
    registrars.start("third")
    assert await registrars.register(ALICE) == [DESK, MOBILE]
    assert await registrars.register(BOB) == [DESK]
