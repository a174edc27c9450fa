"""Several edges on the ports of one: who has which socket, and their health pages as one."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.config import EdgeConfig
from ramal import workers as module
from ramal.gathered import merged, together
from ramal.processes import StartFailed
from ramal.workers import UNANSWERED, Workers, opened
from runtime.config import Sources
from runtime.errors import ConfigError

PAGE = """\
# HELP ramal_drops_total Messages dropped, by name.
# TYPE ramal_drops_total counter
ramal_drops_total{name="a"} 1.0
ramal_drops_total{name="b {c}"} 2.0
# HELP ramal_edge_connections Open ones.
# TYPE ramal_edge_connections gauge
ramal_edge_connections 3.0
"""


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """Closes sockets."""
    with contextlib.ExitStack() as stack:
        yield stack


def workers(closing: contextlib.ExitStack, **environ: str) -> Workers:
    found = Workers(Sources({"RAMAL_EDGE_UDP": "127.0.0.1:0", "RAMAL_EDGE_TCP": "127.0.0.1:0", **environ}, {}))
    closing.callback(found.close)
    return found


def test_every_worker_is_an_edge_with_a_name_and_a_place_for_other_edges_of_its_own(
    closing: contextlib.ExitStack,
) -> None:
    environ = {"RAMAL_EDGE_EDGES": "[2001:db8::1]:5070", "RAMAL_EDGE_EDGES_ADVERTISED": "10.0.0.1:6070"}
    found = workers(closing, RAMAL_NAME="edge-1", RAMAL_EDGE_WORKERS="3", **environ)
    assert [worker.name for worker in found.workers] == ["edge-1.0", "edge-1.1", "edge-1.2"]
    last = found.workers[2].settings
    assert last["RAMAL_EDGE_EDGES"] == "[2001:db8::1]:5072"
    assert last["RAMAL_EDGE_EDGES_ADVERTISED"] == "10.0.0.1:6072"
    assert (last["RAMAL_EDGE_NAME"], last["RAMAL_EDGE_WORKERS"]) == ("edge-1.2", "1")
    assert len({worker.http for worker in found.workers}) == 3


def test_workers_of_an_edge_without_others_find_each_other_on_loopback(closing: contextlib.ExitStack) -> None:
    found = workers(closing, RAMAL_EDGE_WORKERS="2")
    assert {worker.settings["RAMAL_EDGE_EDGES"] for worker in found.workers} == {"127.0.0.1:0"}


def test_a_worker_needs_a_port_for_other_edges() -> None:
    environ = {"RAMAL_EDGE_EDGES": "127.0.0.1:65535", "RAMAL_EDGE_UDP": "", "RAMAL_EDGE_TCP": ""}
    with pytest.raises(ConfigError, match=r"^RAMAL_EDGE_EDGES: no port is left for worker 1"):
        Workers(Sources({"RAMAL_EDGE_WORKERS": "2", **environ}, {}))


def test_each_worker_has_a_udp_socket_on_the_one_port_and_all_have_one_listening_socket(
    closing: contextlib.ExitStack,
) -> None:
    found = workers(closing, RAMAL_EDGE_WORKERS="2")
    one, two = (worker.sockets for worker in found.workers)
    assert one["udp 127.0.0.1 0"].getsockname() == two["udp 127.0.0.1 0"].getsockname()
    assert one["udp 127.0.0.1 0"] is not two["udp 127.0.0.1 0"]
    assert one["tcp 127.0.0.1 0"] is two["tcp 127.0.0.1 0"]


def test_a_phone_comes_to_the_same_worker_always_and_all_workers_have_some(closing: contextlib.ExitStack) -> None:
    found = workers(closing, RAMAL_EDGE_WORKERS="2")
    sockets = [worker.sockets["udp 127.0.0.1 0"] for worker in found.workers]
    came_to = set()
    for _ in range(40):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            for _ in range(3):
                phone.sendto(b"x", sockets[0].getsockname())
        counts = []
        for sock in sockets:
            taken = 0
            with contextlib.suppress(BlockingIOError):
                while sock.recv(10):
                    taken += 1
            counts.append(taken)
        assert sorted(counts) == [0, 3]
        came_to.add(counts.index(3))
    assert came_to == {0, 1}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_address_that_somebody_has_is_named_also_where_he_would_share_it(
    closing: contextlib.ExitStack, transport: str
) -> None:
    first = workers(closing, RAMAL_EDGE_WORKERS="2").workers[0].sockets[f"{transport} 127.0.0.1 0"]
    text = f"127.0.0.1:{first.getsockname()[1]}"
    wanted = {"udp": (), "tcp": (), transport: (text,)}
    with pytest.raises(StartFailed, match=rf"^{transport} {text}: Address already in use \(RAMAL_EDGE_"):
        opened(EdgeConfig(workers=2, udp=wanted["udp"], tcp=wanted["tcp"]), closing)


def test_the_metrics_of_all_workers_are_one_page_that_says_whose_each_is() -> None:
    own = "# HELP process_cpu_seconds_total T.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1\n"
    whole = merged(own, {"e.0": PAGE, "e.1": PAGE})
    families = {family.name: family.samples for family in text_string_to_metric_families(whole)}
    assert [(s.labels, s.value) for s in families["ramal_edge_connections"]] == [
        ({"worker": "e.0"}, 3.0),
        ({"worker": "e.1"}, 3.0),
    ]
    assert sum(sample.value for sample in families["ramal_drops"]) == 6.0
    assert {sample.labels["name"] for sample in families["ramal_drops"]} == {"a", "b {c}"}
    assert [sample.labels for sample in families["process_cpu_seconds"]] == [{}]
    assert whole.count("# TYPE ramal_drops_total") == 1


def said(*, ready: bool, **needs: str) -> str:
    services = {"edge": {need: {"ok": not why, "reason": why} for need, why in needs.items()}}
    reasons = [f"edge: {why}" for why in needs.values() if why]
    return json.dumps({"ready": ready, "draining": False, "reasons": reasons, "services": services})


def test_all_are_ready_only_when_each_is_and_each_says_what_it_lacks() -> None:
    whole = together({"e.0": said(ready=True, log=""), "e.1": said(ready=True, log="away")}, draining=False)
    assert whole["ready"]
    assert whole["reasons"] == ["e.1: edge: away"]
    assert whole["services"]["e.1"] == {"log": {"ok": False, "reason": "away"}}
    assert not together({"e.0": said(ready=True), "e.1": said(ready=False)}, draining=False)["ready"]
    gone = together({"e.0": said(ready=True), "e.1": None}, draining=True)
    assert (gone["ready"], gone["draining"], gone["reasons"]) == (False, True, ["e.1: does not answer"])


async def watched(workers: Workers, answers: list[bool], monkeypatch: pytest.MonkeyPatch) -> int | None:
    """How a worker ends, None if it goes on, that answers so at each look."""
    said = iter(answers)
    enough = asyncio.Event()

    async def answered(place: tuple[str, int]) -> bool:
        assert place == workers.workers[0].http
        if (found := next(said, None)) is None:
            enough.set()
            await asyncio.Event().wait()
        return bool(found)

    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(module, "answers", answered)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:  # noqa: ASYNC220  # at once
        process.send_signal(signal.SIGSTOP)  # so hangs a worker
        workers.workers[0].process = process
        watch = asyncio.create_task(workers._watch(workers.workers[0]))
        await enough.wait()
        watch.cancel()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.3)
        process.kill()
        return None


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([True] + [False] * UNANSWERED, -signal.SIGKILL),
        ([True] + [False] * (UNANSWERED - 1) + [True, False], None),
        ([False] * 3 * UNANSWERED, None),  # it has only begun
    ],
)
def test_a_worker_that_answers_no_more_is_killed_and_one_that_begins_is_not(
    closing: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, answers: list[bool], code: int | None
) -> None:
    assert asyncio.run(watched(workers(closing, RAMAL_EDGE_WORKERS="2"), answers, monkeypatch)) == code
