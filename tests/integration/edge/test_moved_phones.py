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
from tests.integration.edge.test_edge_sockets import KEYS, Phone, ready, register, settings, udp_port
from tests.kit.edge import challenge_nonce


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    both = Phone(), Phone()
    yield both
    for phone in both:
        phone.socket.close()


async def registers(phone: Phone, port: int, cseq: int) -> int:
    """The status that u0 hears at this edge, once it has answered the challenge."""

    def numbered(octets: bytes) -> bytes:
        return octets.replace(b"CSeq: 1", b"CSeq: %d" % cseq).replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % cseq)

    phone.send(numbered(register(0)), "127.0.0.1", port)
    challenge, _ = await phone.heard()
    phone.send(numbered(register(0, nonce=challenge_nonce(challenge))), "127.0.0.1", port)
    return (await phone.heard())[0].status


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
        while old.waits():
            pass
        for _ in range(5):
            await new.pinged()
        assert not old.waits()
    finally:
        for each in reversed(started):
            await each.stop(2.0)
