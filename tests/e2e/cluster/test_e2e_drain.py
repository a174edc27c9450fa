"""SIGTERM to an edge while calls ring: none of them fails, and a call that begins then is another edge's (E09)."""

import contextlib
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authsvc.users.file import add_user
from tests.e2e.conftest import CALLERS, DOMAIN, Running, System, start_up, user
from tests.kit.phone import SDP, Call

pytestmark = pytest.mark.e2e

ALICE, BOB, CAROL = CALLERS[30], CALLERS[31], CALLERS[32]
SOON = 30.0


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[tuple[Running, System]]:
    """An embedded system of one's own, to be ended."""
    for number in (ALICE, BOB):
        add_user(tmp_path / "data" / "users.htdigest", user(number), DOMAIN, f"secret-{user(number)}")
    running, system = start_up(tmp_path / "data", RAMAL_EDGE_DRAIN_SECONDS="6")
    yield running, system
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def status(base: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base}/status", timeout=5) as response:
        said: dict[str, Any] = json.load(response)
        return said


def handed_over(system: System) -> float:
    with urllib.request.urlopen(f"{system.http[0]}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('ramal_drops_total{name="handed-over"}'))


def until_draining(base: str) -> None:
    deadline = time.monotonic() + SOON
    while not status(base)["draining"]:
        assert time.monotonic() < deadline, "it does not drain"
        time.sleep(0.02)


@pytest.fixture
def phones() -> Iterator[contextlib.ExitStack]:
    """Closes the phones."""
    with contextlib.ExitStack() as stack:
        yield stack


def rings(system: System, phones: contextlib.ExitStack, bob_at: int = 0) -> tuple[Call, Call]:
    """A call that rings: the caller's side, and the callee's."""
    alice, bob = (phones.enter_context(each) for each in (system.phone(ALICE), system.phone(BOB, edge=bob_at)))
    alice.register()
    bob.register()
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    return call, incoming


def talks(call: Call, incoming: Call) -> None:
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")


def test_e09_after_sigterm_it_stays_ready_until_what_rings_is_answered_and_then_ends(
    embedded: tuple[Running, System], phones: contextlib.ExitStack
) -> None:
    running, system = embedded
    call, incoming = rings(system, phones)
    running.process.send_signal(signal.SIGTERM)
    until_draining(system.http[0])
    said = status(system.http[0])
    with urllib.request.urlopen(f"{system.http[0]}/readyz", timeout=5) as ready:
        assert ready.status == 200
    request = urllib.request.Request(f"{system.http[0]}/status", headers={"Accept": "text/plain"})
    with urllib.request.urlopen(request, timeout=5) as words:
        assert words.read().decode().startswith("ready, draining\n")
    assert said["ready"]
    assert set(said["services"]) >= {"edge", "authsvc", "registrar", "locator"}
    # Its phones are served meanwhile: nobody else can serve them.
    assert call.phone.register().status == 200
    talks(call, incoming)
    assert running.process.wait(SOON) == 0


@pytest.mark.parametrize("how", ["nobody answers", "a second signal", "Ctrl-C"])
def test_e09_draining_has_a_bound_and_whoever_asks_twice_does_not_wait(
    embedded: tuple[Running, System], phones: contextlib.ExitStack, how: str
) -> None:
    running, system = embedded
    rings(system, phones)
    began = time.monotonic()
    if how == "Ctrl-C":
        running.process.send_signal(signal.SIGINT)
    else:
        running.process.send_signal(signal.SIGTERM)
        until_draining(system.http[0])
    if how == "a second signal":
        running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(SOON) == 0
    assert (time.monotonic() - began >= 6.0) == (how == "nobody answers")


def test_e09_a_call_that_begins_at_a_draining_edge_is_another_edges(
    edges: System, phones: contextlib.ExitStack
) -> None:
    first = edges.described()["processes"]["edge-1"]["pid"]
    call, incoming = rings(edges, phones, bob_at=1)
    os.kill(first, signal.SIGTERM)
    until_draining(edges.http[0])
    with edges.phone(CAROL) as carol:
        carol.register()
        second = carol.invite(incoming.phone.aor)
        handed = incoming.phone.incoming()
        handed.respond(180)
        second.hears(180)
        assert handed_over(edges) >= 1
        talks(call, incoming)
        assert status(edges.http[0])["draining"]  # the other one still rings
        talks(second, handed)
    deadline = time.monotonic() + SOON
    while edges.described()["processes"]["edge-1"]["pid"] == first:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.05)
    incoming.phone.deregister()
