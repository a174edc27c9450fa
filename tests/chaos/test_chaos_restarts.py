"""Services that are killed and come back under their name, before their session in the group is over (KIP-345)."""

import asyncio
import time

import pytest

from tests.chaos.rig import Extra
from tests.chaos.system import CYCLES, FULL, SESSION, System

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

GROUPS = ("authsvc", "registrar", "locator")
RATE = 60.0
AFTER = 4.0 if FULL else 2.0
"""Seconds of load behind each kill."""
SETTLED = SESSION + 24.0


def refused(system: System, began: float) -> str:
    """Until when after this moment requests were not answered 200, and how many."""
    sent = [
        s.exchange.sent
        for phone in system.load.phones
        for s in phone.history
        if s.exchange.sent >= began and (s.exchange.answer is None or s.exchange.answer.status not in (200, 401))
    ]
    return f"{len(sent)} refused until +{max(sent, default=began) - began:.2f} s"


@pytest.mark.parametrize("service", GROUPS)
async def test_e08_a_lone_service_that_is_killed_is_back_before_its_session_is_over(
    system: System, service: str
) -> None:
    """E08, E18."""
    async with system.under_load(f"kill -9 the one {service}", RATE) as told:
        for _ in range(CYCLES):
            await system.moved(system.stack.hesitates(f"{service}-1"))
            began = time.time()
            await system.stack.kill(f"{service}-1")
            await system.recovered(SESSION - 1)
            await system.moved(max(0.0, began + AFTER - time.time()))
            told.name += f"; {refused(system, began)}"


@pytest.mark.parametrize("service", GROUPS)
async def test_e08_one_of_two_that_is_killed_is_back_before_its_session_is_over(system: System, service: str) -> None:
    """E08, E18: whichever of the two it is; the other goes on."""
    async with system.under_load(f"kill -9 one of two, {service}", RATE) as told:
        other = await system.stack.extra(service, f"{service}-2")
        await system.recovered(SETTLED)
        for _ in range(CYCLES):
            await system.moved(system.stack.hesitates(f"{service}-1"))
            began = time.time()
            await system.stack.kill(f"{service}-1")
            await system.recovered(SESSION - 1)
            await system.moved(max(0.0, began + AFTER - time.time()))
            told.name += f"; {refused(system, began)}"
        assert await other.leave() == 0
        await system.recovered(SETTLED)


@pytest.mark.parametrize("service", GROUPS)
async def test_e18_a_zombie_whose_place_was_taken_by_its_name_changes_nothing(system: System, service: str) -> None:
    """E18: stopped for less than its session; its successor is there when it goes on, and stays.

    It says why it does nothing, and takes its place again once it is free.
    """
    name = f"{service}-twin"
    async with system.under_load(f"zombie {service} of a name that is taken", RATE):
        zombie = await system.stack.extra(service, name)
        await system.recovered(SETTLED)
        for _ in range(CYCLES):
            with system.stack.asleep(zombie):
                twin = await system.stack.extra(service, name)
                await system.recovered(SETTLED)
            await until_replaced(system, zombie)
            await system.recovered(SETTLED)
            assert await twin.leave() == 0
            await system.stack.ready(name, zombie.http, SETTLED)
        assert await zombie.leave() == 0
        await system.recovered(SETTLED)


@pytest.mark.parametrize("service", GROUPS)
async def test_e08_a_dead_process_that_is_made_to_leave_is_replaced_at_once(system: System, service: str) -> None:
    """E08: for processes whose successors have other names, by whoever sees that they died."""
    name = f"{service}-lost"
    async with system.under_load(f"kill -9 {service}, then ramal leave", RATE) as told:
        lost = await system.stack.extra(service, name)
        await system.recovered(SETTLED)
        began = time.time()
        lost.kill()
        assert (await system.stack.ramal("leave", name)).strip() == f"{name} has left: {service}."
        await system.recovered(SESSION - 1)
        told.name += f"; {refused(system, began)}"
        assert (await system.stack.ramal("leave", name)).strip() == f"Nobody is a member as {name}."


async def until_replaced(system: System, zombie: Extra) -> None:
    """Waits until it says that another has its name."""
    async with asyncio.timeout(SESSION):
        while "another process has joined" not in "".join(await system.stack.reasons(zombie.http)):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.1)
