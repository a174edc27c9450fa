"""Kills, hangs, joins and outages under load; after each, all of `System.verify` holds.

The short form runs in some minutes; RAMAL_CHAOS=full has more load, more cycles and the slow scenarios.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import time

import pytest

from ramal.processes import free_port
from registrar.config import Policy
from tests.chaos.load import DEADLINE, PATIENCE, SLACK, Intent, Phone, Sent
from tests.chaos.rig import RAMAL, Extra
from tests.chaos.system import CYCLES, FULL, MIN_EXPIRES, OUTAGE, SESSION, System

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

SERVICES = ("authsvc-1", "registrar-1", "locator-1")
BACKENDS = ("mysql", "ldap", "kafka")
SOON = 15.0
"""Seconds in which all registers again once what was away is back; the summary tells how long it took."""
SETTLED = SESSION + 24.0
"""The same where a consumer group must first miss a member that was killed."""


ODD = {
    "RAMAL_REGISTRAR_MAX_CONTACTS": "1",
    "RAMAL_REGISTRAR_OVERFLOW": "refuse",
    "RAMAL_REGISTRAR_MAX_EXPIRES": "120",
    "RAMAL_REGISTRAR_DEFAULT_EXPIRES": "120",
    # Else it closes its connections when it wakes, before it reads what came over them.
    "RAMAL_KAFKA_REQUEST_TIMEOUT": "60",
}
ODD_POLICY = Policy(min_expires=MIN_EXPIRES, max_contacts=1, overflow="refuse", max_expires=120, default_expires=120)
HELD = 40.0
"""A dead rebuild's hold on the positions is taken back after 30 s."""
REBUILD_DEATHS = [0.8 + 0.07 * n for n in range(20)]
ANYTHING = 120.0 if FULL else 12.0
ALL_SETTLED = 90.0
DEAD = OUTAGE if FULL else 4.0
SEEDS = [int(seed) for seed in os.environ.get("RAMAL_CHAOS_SEEDS", "").split()] or [int(time.time() % 10_000)]
"""Of the random test; the summary and the test's name tell them."""

# -- kill -9 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
async def test_e08_a_killed_service_costs_no_acknowledged_registration(system: System, name: str) -> None:
    """E08, E23 (the registrar dies twice in a row, so between a truth and its snapshot), E18."""
    async with system.under_load(f"kill -9 {name}"):
        for _ in range(CYCLES):
            for _ in range(2 if name == "registrar-1" else 1):
                await system.stack.kill(name)
            await system.recovered(SETTLED)


async def test_e08_a_killed_edge_costs_at_most_a_retransmission(system: System) -> None:
    """E08, E11: its phones go on through another edge; those of its next life are answered."""
    async with system.under_load("kill -9 edge-1"):
        for _ in range(CYCLES):
            others = [name for name in system.edges if name != "edge-1"]
            system.avoid("edge-1")
            await system.stack.kill("edge-1")
            await system.recovered(SOON, edges=others)
            await system.stack.ready("edge-1", system.stack.http()["edge-1"], 20)
            system.avoid()
            await system.recovered(SOON)


@pytest.mark.parametrize("name", BACKENDS)
async def test_e08_a_backend_killed_again_and_again_costs_no_acknowledged_registration(
    system: System, name: str
) -> None:
    """E08, E12, E13, A22: what was acknowledged is there when it is back; meanwhile the documented replies."""
    newcomers = system.newcomers(3)
    async with system.under_load(f"{name} dead"):
        for _ in range(CYCLES):
            system.look_up_now = name != "mysql"
            began = time.time()
            await asyncio.gather(system.stack.keep_down(name, DEAD), *(refused(system, phone) for phone in newcomers))
            ended = time.time()
            await system.recovered(SOON if name != "kafka" else SETTLED)
            await asyncio.gather(*(system.register(phone, SOON) for phone in newcomers))
            newcomers = []
            system.look_up_now = True
    system.unmoved(began, ended)


# -- zombies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["authsvc", "registrar", "locator"])
async def test_e18_a_process_stopped_beyond_its_session_changes_nothing_when_it_goes_on(
    system: System, service: str
) -> None:
    """E18: another of its kind takes over; the zombie wakes up with other settings, among its old assignments."""
    name = f"{service}-zombie"
    if service == "registrar":
        system.reader.ledger.policies[name] = ODD_POLICY
    async with system.under_load(f"zombie {service}"):
        zombie = await system.stack.extra(service, name, ODD)
        await system.recovered(SETTLED)
        for _ in range(CYCLES):
            with system.stack.asleep(zombie):
                await system.recovered(SETTLED)
            await system.recovered(SETTLED)
        assert await zombie.leave() == 0
        await system.recovered(SETTLED)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
async def test_e18_a_lone_process_stopped_beyond_its_session_goes_on(system: System, name: str) -> None:
    """E18 with nobody to take over."""
    async with system.under_load(f"stopped {name}"):
        for _ in range(CYCLES):
            async with system.stack.hung(name):
                await system.moved(SESSION + 3)
            await system.recovered(SETTLED)


# -- ends of bindings --------------------------------------------------------------------------------------------


async def test_e23_bindings_end_once_and_in_time_though_the_registrar_dies(system: System) -> None:
    """E23, E17: none lives for ever, none ends twice (the ledger sees that), after a kill around their end."""
    phones = system.newcomers(8)
    seconds = 3
    async with system.under_load("bindings end while the registrar dies"):
        for phone in phones:
            await system.register(phone, SOON, expires=seconds)
        await system.stack.kill("registrar-1")
        await system.recovered(SETTLED)
        await system.moved(2 * seconds)
    for phone in phones:
        assert not system.reader.ledger.states[phone.aor].bindings


# -- copies ---------------------------------------------------------------------------------------------------


async def test_e04_a_register_that_reaches_two_edges_changes_one_thing(system: System) -> None:
    """E04, R19: with MySQL hung in between, too."""
    system.load.scatter = True
    try:
        async with system.under_load("every packet to two edges"):
            system.look_up_now = False
            async with system.stack.hung("mysql"):
                await system.moved(1.0)
            await system.recovered(SOON)
            system.look_up_now = True
    finally:
        system.load.scatter = False


# -- joining and leaving ---------------------------------------------------------------------------------------


async def test_e20_services_join_and_leave_under_load(system: System) -> None:
    """E20, E25: no registration fails."""
    began = time.time()
    async with system.under_load("join and leave"):
        for _ in range(CYCLES):
            joined = await asyncio.gather(
                *(system.stack.extra(service, f"{service}-2") for service in ("authsvc", "registrar", "locator"))
            )
            await system.recovered(SETTLED)
            for extra in joined:
                assert await extra.leave() == 0
                await system.recovered(SOON)
    assert not system.refused_since(began), "registrations failed"


# -- backends away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
async def test_e13_a_hung_backend_gives_documented_replies_in_time_and_recovery_alone(
    system: System, name: str
) -> None:
    """E02, E12, E13, A22: 503 with Retry-After within the deadline, never a false 200, a 403 or a 404."""
    newcomers = system.newcomers(5)
    async with system.under_load(f"{name} hangs"):
        system.look_up_now = name != "mysql"
        began = time.time()
        async with system.stack.hung(name):
            await asyncio.gather(system.moved(OUTAGE), *(refused(system, phone) for phone in newcomers))
        ended = time.time()
        await system.recovered(SOON if name != "kafka" else SETTLED)
        system.look_up_now = True
        await asyncio.gather(*(system.register(phone, SOON) for phone in newcomers))
    system.unmoved(began, ended)
    if name == "ldap":
        assert not system.refused_since(began, newcomers), "known users were refused while LDAP was away"


async def refused(system: System, phone: Phone) -> None:
    """A phone that was never heard of before is told 503, in time; `Load` judges when and how."""
    assert status(await system.load.register(phone, system.load.refresh(phone))) == 503


async def test_e12_while_kafka_is_away_a_refresh_is_not_promised_and_routing_goes_on(system: System) -> None:
    """E12, E03: 503 to a refresh and to a removal; every edge still routes by what was acknowledged before."""
    staying, leaving = system.newcomers(2)
    async with system.scenario("requests while kafka hangs"):
        await asyncio.gather(system.register(staying, SOON), system.register(leaving, SOON))
        async with system.stack.hung("kafka"):
            asked = await asyncio.gather(
                system.load.register(staying, system.load.refresh(staying)),
                system.load.register(leaving, Intent(None, 0)),
            )
            routed = [await system.routed(phone) for phone in (staying, leaving)]
        assert [status(sent) for sent in asked] == [503, 503]
        assert routed == [{frozenset({phone.contact()})} for phone in (staying, leaving)]
        await system.recovered(SETTLED)
        await system.register(leaving, SOON, expires=0)
        assert await system.routed(leaving) == {frozenset()}


# -- the projection lost ---------------------------------------------------------------------------------------------


async def test_e14_dropped_tables_are_rebuilt_from_the_log_while_serving(system: System) -> None:
    """E14, C14: equal checksums, everything routable again."""
    async with system.under_load("drop tables and rebuild"):
        system.look_up_now = False
        for table in ("location", "registration_history", "projection_offset"):
            await system.tables.query(f"DROP TABLE {table}")
        await rebuild(system)
        await system.recovered(SETTLED)
        system.look_up_now = True


async def test_e14_a_rebuild_while_serving_is_not_noticed(system: System) -> None:
    """E14: with the tables there, no registration fails and every look-up is answered meanwhile."""
    async with system.under_load("rebuild"):
        await rebuild(system)


@pytest.mark.slow
async def test_e14_a_rebuild_that_is_killed_leaves_tables_that_are_right(system: System) -> None:
    """E14: wherever it dies, also between holding the positions and giving them back."""
    async with system.under_load("kill -9 the rebuild"):
        for seconds in REBUILD_DEATHS:
            rebuilding = await start_rebuild(system)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rebuilding.wait(), seconds)
            if rebuilding.returncode is None:
                rebuilding.kill()
                await rebuilding.wait()
        await system.recovered(HELD)
        await rebuild(system)


async def start_rebuild(system: System) -> asyncio.subprocess.Process:
    """`ramal rebuild` with the locator's settings."""
    locator = system.stack.process("locator-1")
    return await asyncio.create_subprocess_exec(
        str(RAMAL), "rebuild", env=locator.environ(), cwd=locator.directory(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


async def rebuild(system: System) -> str:
    """Runs it to its end; returns what it printed."""
    rebuilding = await start_rebuild(system)
    try:
        printed, _ = await asyncio.wait_for(rebuilding.communicate(), 300)
    finally:
        if rebuilding.returncode is None:
            rebuilding.kill()
            await rebuilding.wait()
    text = printed.decode(errors="replace")
    assert rebuilding.returncode == 0, text
    return text


# -- a stuck edge --------------------------------------------------------------------------------------------------


async def test_e22_a_deregistration_stuck_in_a_hung_edge_undoes_nothing(system: System) -> None:
    """E22 with the request in the hung edge's socket: its CSeq is lower than what B was promised."""
    [phone] = system.newcomers(1)
    system.load.patience = 3.0
    async with system.scenario("deregistration in a hung edge's socket"):
        await system.register(phone, SOON)
        async with system.hung_edge("edge-1"):
            await system.load.register(phone, Intent(phone.contact(), 0), edge="edge-1")
            sent = await system.load.register(phone, system.load.refresh(phone), edge="edge-2")
            assert status(sent) == 200
        await system.recovered(SOON)
    assert system.reader.ledger.states[phone.aor].bindings


async def test_e22_a_command_stuck_in_a_hung_edges_producer_is_too_late(system: System) -> None:
    """E22 with another Call-ID, so that the deadline alone protects the phone.

    Kafka hangs, so that the edge's first command is on its way and the second waits behind it; then the edge
    hangs and Kafka goes on. The second is written when the edge goes on, past its deadline: an edge with a longer
    time-out than ours, which would not send it any more.
    """
    phone, other = system.newcomers(2)
    before = await system.dropped("late-command")
    async with system.scenario("deregistration in a hung edge's producer"):
        address = f"127.0.0.1:{free_port()}"
        edge = await system.stack.extra("edge", "edge-odd", ODD | {f"RAMAL_EDGE_{t}": address for t in ("UDP", "TCP")})
        system.load.edges["edge-odd"] = "127.0.0.1", int(address.rpartition(":")[2])
        for _ in range(3):  # on a starved machine the edge may hand over both at once, or neither
            await asyncio.gather(system.register(phone, SOON), system.register(other, SOON))
            await stuck(system, edge, phone, other)
            if await dropped_late(system, before):
                break
        else:
            pytest.fail("the deregistration was never late: the scenario did not do what it says")
        await system.recovered(SETTLED)
    assert system.reader.ledger.states[phone.aor].bindings, phone.report()


async def dropped_late(system: System, before: float) -> bool:
    """Whether commands are dropped as late within 15 s, beside those before."""
    for _ in range(150):
        if await system.dropped("late-command") > before:
            return True
        await asyncio.sleep(0.1)
    return False


async def stuck(system: System, edge: Extra, phone: Phone, other: Phone) -> None:
    """One deregistration, held up until its deadline is over in this edge's producer, behind a refresh of another."""
    began = time.time()
    system.load.patience = 0.6
    with contextlib.ExitStack() as sleeping:
        async with system.stack.hung("kafka"):
            first = asyncio.create_task(system.load.register(other, system.load.refresh(other), edge="edge-odd"))
            await asyncio.sleep(0.5)  # no event tells that the edge has handed it to its producer
            leaving = system.load.register(phone, Intent(phone.contact(), 0), edge="edge-odd", call_id="ago@chaos")
            second = asyncio.create_task(leaving)
            await asyncio.sleep(0.5)
            sleeping.enter_context(system.stack.asleep(edge))
        await asyncio.gather(first, second)
        system.load.patience = PATIENCE
        await system.recovered(SOON)
        await system.register(phone, SOON)
        await system.moved(max(0.0, began + DEADLINE + SLACK - time.time()))


def status(sent: Sent | None) -> int | None:
    """Of the final response, if there was one."""
    return sent.exchange.answer.status if sent is not None and sent.exchange.answer is not None else None


# -- all at once ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS, ids=[f"seed{number}" for number in range(len(SEEDS))])
async def test_e08_anything_at_any_time(system: System, seed: int) -> None:
    """E08, E18, E20: random kills and stops of any process, several at a time."""
    fate = random.Random(seed)
    async with system.under_load(f"anything at any time, seed {seed}"):
        system.look_up_now = False
        async with asyncio.TaskGroup() as group:
            for name in system.stack.names():
                group.create_task(trouble(system, name, random.Random(fate.random()), time.monotonic() + ANYTHING))
        await system.recovered(ALL_SETTLED)
        system.look_up_now = True


async def trouble(system: System, name: str, fate: random.Random, until: float) -> None:
    """One process's bad days: now stopped for a while, now killed, mostly left alone."""
    while (left := until - time.monotonic()) > 0:
        await system.moved(min(left, fate.expovariate(1 / 6.0)))
        if fate.random() < 0.5:
            async with system.stack.hung(name):
                await system.moved(min(fate.expovariate(1 / 1.5), SESSION + 3))
        else:
            await system.stack.kill(name, 60)
