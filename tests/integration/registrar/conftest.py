"""A registrar's site."""

from collections.abc import AsyncIterator

import pytest

from runtime.store import EmbeddedStore
from tests.kit.registrar import Site


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "ramal.sqlite")
    await store.start()
    site = Site(store)
    await site.log.start()
    yield site
    for log in (*site.logs, site.log):
        await log.stop()
    await store.stop()
