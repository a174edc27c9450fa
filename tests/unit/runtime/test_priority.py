"""Which processes give way to others on the same machine."""

import os
import subprocess
import sys

import pytest

from cdr.service import Cdr
from edge.service import EdgeService
from runtime.service import GIVEN_WAY, Unhurried

SERVE = """
import asyncio, os, signal, sys
from runtime.config import Common
from runtime.service import serve

class Serving:
    name, routes = "serving", ()

    def __init__(self, unhurried):
        self.unhurried = unhurried

    async def start(self):
        print(os.nice(0), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop(self, deadline): pass
    def not_ready(self): return []
    def status(self): return {}

services = [Serving(word == "unhurried") for word in sys.argv[1:]]
asyncio.run(serve(services, [], Common(http_host="127.0.0.1", http_port=0)))
"""


@pytest.mark.parametrize(
    ("services", "steps"),
    [(["unhurried"], GIVEN_WAY), (["hurried"], 0), (["unhurried", "hurried"], 0), (["unhurried"] * 2, GIVEN_WAY)],
)
def test_a_process_gives_way_if_nobody_waits_for_any_of_its_services(services: list[str], steps: int) -> None:
    done = subprocess.run([sys.executable, "-c", SERVE, *services], capture_output=True, text=True, timeout=30)

    assert [int(line) - os.nice(0) for line in done.stdout.split()] == [steps] * len(services), done.stderr


def test_nobody_waits_for_cdr_and_phones_wait_for_an_edge() -> None:
    assert Cdr.unhurried
    assert isinstance(Cdr, Unhurried)
    assert not hasattr(EdgeService, "unhurried")
