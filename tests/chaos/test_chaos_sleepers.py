"""A registrar that sleeps while another owns its partition: real processes on a real broker (E16, E18).

The sleeper speaks to the broker through a door. Shut for the group, it keeps the sleeper from hearing that it owns
nothing any more, so that its snapshot always comes first; shut for transactions, it makes a snapshot fail.
"""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from events.topics import REGISTRATIONS
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from tests.chaos.door import GROUP, TRANSACTIONS, Door, broker_behind
from tests.chaos.rig import until
from tests.chaos.services import Services
from tests.kit.stopping import stop

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

ALICE, BOB = "alice@example.test", "bob@example.test"
DESK, MOBILE = "sip:alice@192.0.2.4:5062", "sip:alice@192.0.2.9"


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


@pytest.fixture
async def services(door: Door, tmp_path: Path) -> AsyncIterator[Services]:
    with broker_behind(door, tmp_path / "kafka") as kafka:
        log = KafkaLog(Kafka(bootstrap=kafka.bootstrap), "ramal.", 1, "test")
        await log.start()
        services = Services(log, kafka.bootstrap, tmp_path)
        try:
            await log.create_topics(1)
            yield services
        finally:
            services.kill_all()
            await log.stop()


@pytest.mark.parametrize("failed", [False, True], ids=["its first", "one after a snapshot that failed"])
async def test_e18_a_snapshot_of_a_sleeper_loses_nothing_that_was_acknowledged(
    services: Services, door: Door, tmp_path: Path, failed: bool
) -> None:
    """E16, E18: nor does it keep the owner from writing its own: who was fenced by a sleeper fences it in turn."""
    door.shut = TRANSACTIONS
    sleeper = services.start("sleeper", door.bootstrap)
    assert await services.register(ALICE, DESK) == [DESK]
    if failed:
        log = tmp_path / "sleeper.log"
        await until("a snapshot fails", lambda: '"put off"' in log.read_text(), 20)
    stop(sleeper.pid)
    assert await services.snapshots() == ({}, -1)

    services.start("owner")
    assert await services.register(ALICE, MOBILE) == [DESK, MOBILE]
    end = (await services.log.bounds(REGISTRATIONS, 0)).end
    await services.written(end - 1)
    assert (await services.snapshots())[0] == {ALICE.encode(): [DESK, MOBILE]}

    door.shut = GROUP
    os.kill(sleeper.pid, signal.SIGCONT)
    told = '"the partition has another owner"'
    await until("the sleeper sees the owner", lambda: told in (tmp_path / "sleeper.log").read_text(), 20)
    sleeper.kill()

    await services.register(BOB, DESK)
    await services.written((await services.log.bounds(REGISTRATIONS, 0)).end - 1)
    assert (await services.snapshots())[0] == {ALICE.encode(): [DESK, MOBILE], BOB.encode(): [DESK]}
    services.kill_all()
    services.start("third")
    assert await services.register(ALICE) == [DESK, MOBILE]
    assert await services.register(BOB) == [DESK]
