"""A process that waits for a backend at its start says for which, to whoever asks `/status`."""

import asyncio
import os
import signal

import aiohttp
import pytest

from runtime.config import Common
from runtime.errors import DatabaseUnavailable
from runtime.http import HttpServer
from runtime.service import serve


class Tables:
    """A database that is not there until it is let."""

    def __init__(self) -> None:
        self.there = False

    async def start(self) -> None:
        if not self.there:
            raise DatabaseUnavailable("Unknown database 'ramall' (1049)")

    async def stop(self, deadline: float = 3.0) -> None: ...


async def test_why_a_process_has_not_started_stands_in_its_status(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for of_the_whole_process in ("settle_garbage", "wake_in_turn"):
        monkeypatch.setattr(f"runtime.service.{of_the_whole_process}", lambda: None)
    tables, started = Tables(), asyncio.Event()
    url = f"http://127.0.0.1:{unused_tcp_port}/status"

    async def has_started(http: HttpServer) -> None:
        started.set()

    common = Common(http_host="127.0.0.1", http_port=unused_tcp_port)
    running = asyncio.create_task(serve([], [tables], common, started=has_started))
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:

        async def reasons() -> list[str]:
            try:
                async with session.get(url) as response:
                    said: list[str] = (await response.json())["reasons"]
                    return said
            except aiohttp.ClientConnectionError:
                return []  # it does not listen yet

        while await reasons() != ["starting", "waits: Unknown database 'ramall' (1049)"]:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)
        tables.there = True
        await started.wait()
        assert await reasons() == []
        os.kill(os.getpid(), signal.SIGTERM)
        await running
