"""What a container's health check asks, over real sockets; and which modules it may load."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ramal.probe import ask
from runtime.http import HttpServer

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("reasons", "status"), [([], 200), (["edge: the log is away"], 503)])
async def test_a_probe_hears_whether_the_process_is_ready_and_why_not(reasons: list[str], status: int) -> None:
    server = HttpServer("127.0.0.1", 0, lambda: reasons)
    await server.start()
    # What listens everywhere is asked on loopback.
    environ = {"RAMAL_HTTP_HOST": "0.0.0.0", "RAMAL_HTTP_PORT": str(server.port)}
    try:
        assert (await asyncio.to_thread(ask, "/healthz", environ))[0] == 200
        heard = await asyncio.to_thread(ask, "/readyz", environ)
    finally:
        await server.stop()
    assert heard[0] == status
    assert all(reason in heard[1] for reason in reasons)


def test_a_probe_of_nothing_fails_with_one_line() -> None:
    command = [sys.executable, "-m", "ramal.probe", "/readyz"]
    done = subprocess.run(command, cwd=ROOT, env={"RAMAL_HTTP_PORT": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("/readyz: ")
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr


def test_a_probe_loads_nothing_but_the_standard_library() -> None:
    """It runs every few seconds in every container."""
    script = "import sys, ramal.probe; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"typer", "rich", "msgspec", "aiohttp", "asyncio"}.intersection(done.stdout.split())
