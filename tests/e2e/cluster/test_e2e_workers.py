"""An edge of two workers on one port: phones of both call each other, and one worker's end disturbs nobody else."""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.tokens import base32
from tests.e2e.conftest import CALLERS, System, start_stack
from tests.kit.phone import SDP, Call, Phone
from tests.kit.stopping import standing_still
from tests.kit.waiting import until

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[34], CALLERS[35]
TRIES = 60
"""Phones until one has come to the worker that is wanted: half of them do."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A distributed system whose one edge has two workers."""
    directory = tmp_path_factory.mktemp("workers")
    running, system = start_stack(directory, EDGES="1", USERS="1200", RAMAL_EDGE_WORKERS="2")
    yield system
    assert running.end() == 0


@pytest.fixture
def whole(two: System) -> Iterator[System]:
    """Both serve and know each other, before and after."""
    until(lambda: is_whole(two), "both workers know each other")
    yield two
    until(lambda: is_whole(two), "both workers know each other again")
    for number in (ALICE, BOB):
        with two.phone(number) as phone:
            phone.deregister()


@pytest.fixture
def at_worker(whole: System) -> Iterator[Callable[..., Phone]]:
    """Registers a user's phone that has come to this worker."""
    with contextlib.ExitStack() as stack:

        def registered(number: int, worker: int, transport: str = "udp") -> Phone:
            for _ in range(TRIES):
                phone = whole.phone(number, transport=transport)
                if owner(phone.register().first("path")) == f"edge-1.{worker}":
                    return stack.enter_context(phone)
                phone.deregister()
                phone.close()
            raise AssertionError(f"no phone comes to worker {worker}")

        yield registered


def owner(path: str) -> str:
    """The edge that a flow token names."""
    octets = base32.decode(path.partition("sip:")[2].partition("@")[0])
    name = octets[1 + octets[0] :]
    return name[1 : 1 + name[0]].decode()


def asked(system: System, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{system.http[0]}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def is_whole(system: System) -> bool:
    try:
        _, said = asked(system, "/status")
        return bool(said["ready"]) and not said["reasons"] and system.metric("ramal_edge_neighbours") == 2
    except OSError:
        return False


def parent(system: System) -> int:
    return int(system.described()["processes"]["edge-1"]["pid"])


def workers(system: System) -> dict[str, int]:
    """The process of each worker, by its name."""
    found = {}
    process = parent(system)
    for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with contextlib.suppress(OSError):  # gone meanwhile
            variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            found.update((v.partition("=")[2], int(pid)) for v in variables if v.startswith("RAMAL_EDGE_NAME="))
    return found


def begins_anew(system: System, name: str, before: int) -> None:
    """Waits until a worker is another process."""
    until(lambda: workers(system).get(name, before) != before, f"{name} begins anew")


def talking(alice: Phone, bob: Phone) -> tuple[Call, Call]:
    """A call that is answered."""
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    answered(call, incoming)
    return call, incoming


def answered(call: Call, incoming: Call) -> None:
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")


def ends(sender: Call, receiver: Call) -> None:
    sender.request("BYE")
    receiver.gets("BYE")
    receiver.respond(200)
    sender.hears(200)


@pytest.mark.parametrize(
    ("caller", "callee", "at"),
    [
        ("udp", "udp", (0, 1)),
        ("udp", "udp", (1, 1)),
        ("udp", "ws", (0, 1)),
        ("ws", "udp", (1, 0)),
        ("tcp", "wss", (1, 0)),
    ],
)
def test_phones_of_two_workers_call_each_other_from_the_one_port(
    whole: System, at_worker: Callable[..., Phone], caller: str, callee: str, at: tuple[int, int]
) -> None:
    alice, bob = at_worker(ALICE, at[0], caller), at_worker(BOB, at[1], callee)
    call, incoming = talking(alice, bob)
    for sender, receiver in ((call, incoming), (incoming, call)):  # a re-INVITE from each side
        sender.request("INVITE", body=SDP)
        receiver.gets("INVITE")
        answered(sender, receiver)
    ends(incoming, call)
    for phone in (alice, bob):
        assert phone.requests_from | phone.responses_from == {whole.at[0][phone.link.transport]}


def test_e08_a_worker_that_is_killed_in_mid_call_disturbs_no_other_and_has_its_phones_back(
    whole: System, at_worker: Callable[..., Phone]
) -> None:
    alice, bob = at_worker(ALICE, 0), at_worker(BOB, 1)
    call, incoming = talking(alice, bob)
    before = workers(whole)
    os.kill(before["edge-1.1"], signal.SIGKILL)
    # By the other one, and from the same port; what bob answers waits for the next life of his worker.
    call.request("INVITE", body=SDP)
    incoming.gets("INVITE")
    answered(call, incoming)
    begins_anew(whole, "edge-1.1", before["edge-1.1"])
    assert workers(whole)["edge-1.0"] == before["edge-1.0"]
    until(lambda: is_whole(whole), "it serves again")
    assert owner(bob.register().first("path")) == "edge-1.1"
    ends(incoming, call)
    assert bob.requests_from == {whole.edges[0]}


def test_a_phone_whose_connection_ended_with_its_worker_is_taken_by_whoever_is_there(
    whole: System, at_worker: Callable[..., Phone]
) -> None:
    alice, bob = at_worker(ALICE, 0), at_worker(BOB, 1, "ws")
    call, _ = talking(alice, bob)
    before = workers(whole)
    os.kill(before["edge-1.1"], signal.SIGSTOP)  # it cannot accept, whatever comes
    os.kill(before["edge-1.1"], signal.SIGKILL)
    with whole.phone(BOB, transport="ws") as again:
        again.register()
        second, incoming = talking(alice, again)
        ends(second, incoming)
    assert call.phone.register().status == 200
    begins_anew(whole, "edge-1.1", before["edge-1.1"])


def test_e09_a_worker_that_is_told_to_end_drains_and_begins_anew(
    whole: System, at_worker: Callable[..., Phone]
) -> None:
    alice, bob = at_worker(ALICE, 1), at_worker(BOB, 1)
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    before = workers(whole)
    os.kill(before["edge-1.1"], signal.SIGTERM)
    time.sleep(0.5)
    with whole.phone(BOB, transport="tcp") as other:  # the other worker alone accepts now
        assert owner(other.register().first("path")) == "edge-1.0"
        other.registers(f"Contact: <{other.contact}>", "Expires: 0")
    answered(call, incoming)
    begins_anew(whole, "edge-1.1", before["edge-1.1"])
    ends(call, incoming)


def test_e09_sigterm_to_the_edge_drains_all_of_its_workers(whole: System, at_worker: Callable[..., Phone]) -> None:
    alice, bob = at_worker(ALICE, 0), at_worker(BOB, 1)
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    before = parent(whole)
    os.kill(before, signal.SIGTERM)
    until(lambda: asked(whole, "/status")[1]["draining"], "it drains")
    assert asked(whole, "/readyz")[0] == 200
    answered(call, incoming)
    until(lambda: parent(whole) != before, "it ends, and its supervisor starts it again")
    until(lambda: is_whole(whole), "both serve again")
    ends(incoming, call)


def test_it_is_ready_only_while_all_of_its_workers_answer(whole: System, at_worker: Callable[..., Phone]) -> None:
    at_worker(ALICE, 0)
    assert asked(whole, "/readyz") == (200, {"ready": True, "reasons": []})
    with standing_still(workers(whole)["edge-1.1"]):
        assert asked(whole, "/readyz") == (503, {"ready": False, "reasons": ["edge-1.1: does not answer"]})
        assert whole.located(ALICE)
