"""S05: after an outage all phones come back at once; the measured form is `make bench-storm`."""

import asyncio
import hashlib
import importlib
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import DOMAIN, start_up

pytestmark = pytest.mark.e2e

BENCH = Path(__file__).parents[3] / "bench"
PHONES = 2000
GROWTH = 64 << 20
"""Octets that nobody's memory may grow by."""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_s05_phones_that_come_back_at_once_are_all_registered_and_told_to_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is lost or hears anything but 401, 503 and 200; every 503 says when, not all the same; nor do all end at
    the same time."""
    monkeypatch.syspath_prepend(BENCH)
    storm_phones = importlib.import_module("storm_phones")
    data = tmp_path / "data"
    data.mkdir()
    names = [f"u{number:05d}" for number in range(PHONES)]
    ha1s = [hashlib.md5(f"{name}:{DOMAIN}:secret-{name}".encode()).hexdigest() for name in names]
    (data / "users.htdigest").write_text(
        "".join(f"{name}:{DOMAIN}:{ha1}\n" for name, ha1 in zip(names, ha1s, strict=True))
    )
    running, system = start_up(data, RAMAL_EDGE_MAX_PENDING="60", RAMAL_EDGE_RETRY_AFTER="1,4")
    crowd = storm_phones.Crowd(PHONES, [system.edges[0]], DOMAIN, expires=100)
    try:
        await crowd.open()
        await crowd.register_in_turn(20)
        assert set(crowd.granted) == {100}
        crowd.forget()
        for phone in crowd.phones:
            phone.credentials = ""
        crowd.expires = 3600
        before = resident(running.process.pid)
        running.process.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(2.0, running.process.send_signal, signal.SIGCONT)

        assert await crowd.storm(within=0.5, most_seconds=60.0)

        assert set(crowd.heard) == {200, 401, 503}
        assert crowd.heard[200] == PHONES
        assert set(crowd.retry_after) == {1, 2, 3, 4}
        assert min(crowd.granted) >= 265  # what is left of them when it is answered
        assert max(crowd.granted) <= 300
        assert len(crowd.granted) > 20
        assert resident(running.process.pid) - before < GROWTH
    finally:
        crowd.close()
        running.process.send_signal(signal.SIGCONT)
        running.process.terminate()
        running.process.wait(30)
