"""Two edges on real sockets with the services behind them, and a phone on UDP that moves from one edge to the other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from edge import service as edge_service
from ramal.directory import DATABASE
from ramal.system import embedded
from runtime.config import Sources
from tests.integration.edge.test_edge_sockets import KEYS, Phone, pinged_alone, ready, registers, settings, udp_port


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    both = Phone(), Phone()
    yield both
    for phone in both:
        phone.socket.close()


async def test_n03_a_phone_that_moves_to_another_edge_is_pinged_by_that_one_alone(
    tmp_path: Path, phones: tuple[Phone, Phone]
) -> None:
    old, new = phones
    users = tmp_path / "users"
    add_user(users, "u0", "example.test", "x")
    system = embedded(tmp_path, Sources({"RAMAL_KEYS": KEYS, "RAMAL_AUTHSVC_USERS_FILE": str(users)}, {}))
    (tmp_path / DATABASE).touch()
    behind, resources = system.services(["authsvc", "registrar", "locator"])
    for name in ("edge-1", "edge-2"):
        resources.append(log := system.new_log(name))
        sources = settings(name=name, edges="127.0.0.1:0", keepalive_seconds="0.2", tcp="")
        behind.append(edge_service.build(sources, log, system.database))
    started = []
    try:
        for resource in resources:
            await resource.start()
            started.append(resource)
        await system.database.migrate()
        for service in behind:
            await service.start()
            started.append(service)
        edges = [service for service in behind if isinstance(service, edge_service.EdgeService)]
        for edge in edges:
            await ready(edge)
        async with asyncio.timeout(15):
            while any(service.not_ready() for service in behind):  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.01)
        assert await registers(old, udp_port(edges[0]), 1) == 200
        await old.pinged()
        assert await registers(new, udp_port(edges[1]), 2) == 200
        await new.pinged()
        await asyncio.sleep(0.1)  # the other edge hears of it in its own time
        await pinged_alone(new, old)
    finally:
        for each in reversed(started):
            await each.stop(2.0)
