"""cdr killed, and asleep while another has its partitions, under calls: the tables have what was called, once each."""

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from events.topics import CDRS
from runtime.config import Kafka
from runtime.log.kafka.log import KafkaLog
from tests.chaos.system import CYCLES, FULL, SESSION, USERS, System
from tests.kit.phone import SDP, Call, Phone
from tests.kit.wire import UdpLink

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

BETWEEN = 3.0 if FULL else 1.0
"""Seconds of calls before and after each disturbance."""
SETTLED = 40.0
"""Seconds until the last record is published, a session's time-out among them."""
PAUSE = 0.02
"""Seconds between two calls."""


class Calls:
    """Two phones at two edges; one call after the other until it is ended, by turns answered, declined and given up."""

    def __init__(self, system: System) -> None:
        edges = list(system.edges.values())
        self._alice, self._bob = (
            Phone(UdpLink(edges[n]), f"u{USERS + n:05d}", f"secret-u{USERS + n:05d}", system.domain) for n in (0, 1)
        )
        self._ended = threading.Event()
        self.placed: dict[str, str] = {}
        """By Call-ID, what became of it."""

    def end(self) -> None:
        """No more calls after that which is under way."""
        self._ended.set()

    def run(self) -> None:
        """Calls until `end`, on a thread of its own."""
        kinds: dict[str, Callable[[Call, Call], None]]
        kinds = {"answered": _answered, "failed": _declined, "cancelled": _given_up}
        with self._alice, self._bob:
            self._bob.register()
            for outcome in itertools.cycle(kinds):
                call = self._alice.invite(self._bob.aor)
                incoming = self._bob.incoming()
                incoming.respond(180)
                call.hears(180)
                kinds[outcome](call, incoming)
                self.placed[call.call_id] = outcome
                if self._ended.wait(PAUSE):
                    break
            self._bob.deregister()


def _answered(call: Call, incoming: Call) -> None:
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")
    call.request("BYE")
    incoming.respond(200, to=incoming.gets("BYE"))
    call.hears(200)


def _declined(call: Call, incoming: Call) -> None:
    incoming.respond(486)
    incoming.gets("ACK")
    call.hears(486)
    call.ack()


def _given_up(call: Call, incoming: Call) -> None:
    call.cancel()
    call.hears(200, method="CANCEL")
    incoming.respond(200, to=incoming.gets("CANCEL"))
    incoming.respond(487)
    incoming.gets("ACK")
    call.hears(487)
    call.ack()


@contextlib.asynccontextmanager
async def calls(system: System) -> AsyncIterator[None]:
    """Calls from a little before the block until a little after it; then the tables and the topic must have them."""
    placing = Calls(system)
    running = asyncio.create_task(asyncio.to_thread(placing.run))
    try:
        await system.moved(BETWEEN)
        yield
        await system.moved(BETWEEN)
    finally:
        placing.end()
        await running
    assert len(placing.placed) > 20 * BETWEEN
    await _agree(system, placing.placed)


async def _agree(system: System, placed: dict[str, str]) -> None:
    """What was called is in `cdrs`, `acc`, `missed_calls` and on the topic, and the audit finds no difference."""
    listed = ", ".join(f"'{call_id}'" for call_id in placed)
    published = f"SELECT COUNT(*) FROM cdrs WHERE published = 1 AND call_id IN ({listed})"
    async with asyncio.timeout(SETTLED):
        while (await system.tables.query(published))[0][0] < len(placed):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.2)
    cdrs = await system.tables.query(f"SELECT call_id, outcome FROM cdrs WHERE call_id IN ({listed})")
    acc = await system.tables.query(f"SELECT callid, method, sip_code FROM acc WHERE callid IN ({listed})")
    missed = await system.tables.query(f"SELECT callid FROM missed_calls WHERE callid IN ({listed})")
    assert Counter(cdrs) == Counter(placed.items())
    assert Counter(acc) == Counter((id_, *row) for id_, outcome in placed.items() for row in ACC[outcome])
    assert Counter(id_ for (id_,) in missed) == Counter(
        id_ for id_, outcome in placed.items() if outcome == "cancelled"
    )
    assert {id_: outcome for id_, outcome in (await _records(system)).items() if id_ in placed} == placed
    assert " 0 differences" in await system.stack.ramal("audit-cdrs")


ACC = {
    "answered": [("INVITE", "200"), ("BYE", "200")],
    "failed": [("INVITE", "486")],
    "cancelled": [("INVITE", "487")],
}
"""By what became of a call, method and code of its rows."""


async def _records(system: System) -> dict[str, str]:
    """The outcome of each call by its last record on the topic."""
    log = KafkaLog(Kafka(bootstrap=str(system.stack.description()["kafka"])), "ramal.", 1, "test")
    await log.start()
    found: dict[str, str] = {}
    try:
        for number in range(await log.partitions(CDRS)):
            bounds = await log.bounds(CDRS, number)
            if bounds.begin == bounds.end:
                continue
            async for records in log.read(CDRS, number, bounds.begin, bounds.end):
                told = (msgspec.json.decode(record.value or b"{}") for record in records)
                found.update((each["call_id"], each["outcome"]) for each in told)
    finally:
        await log.stop()
    return found


async def test_c13_cdr_that_is_killed_under_calls_leaves_the_tables_as_if_it_had_not_been(system: System) -> None:
    """C13, E18: at whatever instruction; its successor publishes what it had not."""
    async with calls(system):
        for _ in range(2 * CYCLES):
            await system.moved(BETWEEN)
            await system.stack.kill("cdr-1")


async def test_c13_cdr_that_sleeps_while_another_has_its_partitions_changes_nothing_when_it_wakes(
    system: System,
) -> None:
    """C13, E18: stopped for longer than its session, in the middle of whatever it was doing."""
    other = await system.stack.extra("cdr", "cdr-2")
    async with calls(system):
        for _ in range(CYCLES):
            async with system.stack.hung("cdr-1"):
                await system.moved(SESSION + BETWEEN)
            await system.stack.all_ready(SETTLED)
    assert await other.leave() == 0
    await system.stack.all_ready(SETTLED)
