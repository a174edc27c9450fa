"""A log, and edges that end with the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from tests.kit.peers import Begin, Edge


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, 2)
    await log.start()
    yield log
    await log.stop()
    await store.stop()


@pytest.fixture
async def begin(log: EmbeddedLog) -> AsyncIterator[Begin]:
    """Begins an edge, and ends it."""
    begun: list[Edge] = []

    async def begin(
        name: str, boot: str = "b1", keys: dict[str, bytes] | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> Edge:
        begun.append(Edge(log, name, boot, keys))
        return await begun[-1].start(address)

    yield begin
    for edge in begun:
        await edge.stop()
