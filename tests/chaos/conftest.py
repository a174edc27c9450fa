"""One stack for all scenarios: they follow one another on it, as disturbances do in life."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.load import PATIENCE
from tests.chaos.rig import Stack
from tests.chaos.system import CALLERS, FULL, MIN_EXPIRES, SESSION, USERS, System, Told

EDGES = 3

_told: list[Told] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The scenarios of the full form alone are marked `slow`: left out unless RAMAL_CHAOS=full."""
    if FULL:
        return
    skip = pytest.mark.skip(reason="only with RAMAL_CHAOS=full")
    for item in items:
        if "tests/chaos/" in item.nodeid and item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each scenario measured."""
    if _told:
        terminalreporter.section("chaos")
        for told in _told:
            terminalreporter.write_line(told.line())


@pytest.fixture(scope="session")
def told() -> list[Told]:
    """Where scenarios without a system note what they measured."""
    return _told


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def whole_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The stack with every phone registered."""
    settings = {
        "RAMAL_KAFKA_SESSION_TIMEOUT": str(SESSION),
        "RAMAL_REGISTRAR_MIN_EXPIRES": str(MIN_EXPIRES),
    }
    stack = Stack(tmp_path_factory.mktemp("stack"), EDGES, USERS + CALLERS, settings)
    try:
        await stack.started(90)
        system = System(stack)
        try:
            await system.begin()
            system.told = _told
            yield system
        finally:
            await system.close()
    finally:
        stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def system(whole_system: System) -> AsyncIterator[System]:
    """The system, whole again before each scenario and left whole after it."""
    stack = whole_system.stack
    await stack.all_ready(60)
    whole_system.look_up_now = True
    whole_system.load.patience = PATIENCE
    whole_system.load.violations.clear()
    try:
        yield whole_system
    finally:
        await whole_system.load.stop()
        await whole_system.prober.stop()
        stack.let_go()
