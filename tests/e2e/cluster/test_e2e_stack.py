"""`ramal stack`: what stack.json promises, a service that dies, and an end that leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.e2e.conftest import Running, is_ready, start_stack

pytestmark = pytest.mark.e2e


def described(directory: Path) -> dict[str, Any]:
    """stack.json as it is now."""
    content: dict[str, Any] = json.loads((directory / "run" / "stack.json").read_text())
    return content


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.02)


@pytest.fixture
def running(tmp_path: Path) -> "Any":
    """A small stack of this test's own."""
    stack, _ = start_stack(tmp_path, EDGES="2", USERS="20", ANALYTICS="1")
    yield stack
    if stack.process.poll() is None:
        stack.end()


def shows_all_to_an_operator(running: Running, directory: Path, stack: dict[str, Any]) -> None:
    """The command that it prints makes an operator, to whom the console shows every process."""
    told = next(line for line in running.output().splitlines() if line.startswith("For operators: "))
    assert stack["console"] in told
    command = told.partition("who may log in: ")[2].rstrip(")").replace("NAME", "maria --password-stdin")
    ramal = f"export PATH={Path(sys.executable).parent}:$PATH; {command}"
    add = subprocess.run(["sh", "-c", ramal], input="correct horse\n", text=True, capture_output=True, check=False)
    assert add.returncode == 0, add.stderr
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    body = json.dumps({"name": "maria", "password": "correct horse"}).encode()
    fields = {"Content-Type": "application/json"}
    browser.open(urllib.request.Request(f"{stack['console']}api/log-in", body, fields), timeout=10)
    with browser.open(f"{stack['console']}api/health", timeout=10) as answer:
        shown = json.load(answer)["processes"]
    assert {each["name"] for each in shown} == {name for name, each in stack["processes"].items() if each["http"]}
    assert [each["reasons"] for each in shown if each["name"] != "analytics-1" and not each["ready"]] == []


def test_stack_json_says_where_all_is_and_stays_current(running: Running, tmp_path: Path) -> None:
    before = described(tmp_path)
    services = {"edge-1", "edge-2", "authsvc-1", "registrar-1", "locator-1", "cdr-1", "analytics-1", "console"}
    assert set(before["processes"]) == services | {"kafka", "mysql", "ldap"}
    assert [edge["name"] for edge in before["edges"]] == ["edge-1", "edge-2"]
    assert [edge["udp"].partition(":")[0] for edge in before["edges"]] == ["127.0.0.1", "127.0.0.2"]
    assert all(edge["tcp"] == edge["udp"] for edge in before["edges"])
    assert all(alive(process["pid"]) and Path(process["log"]).exists() for process in before["processes"].values())
    waited = {name: process["http"] for name, process in before["processes"].items() if name != "analytics-1"}
    assert all(is_ready(f"http://{http}") for http in waited.values() if http)
    pymysql.connect(**before["mysql"]).close()
    shows_all_to_an_operator(running, tmp_path, before)

    for name in ("registrar-1", "kafka"):
        os.kill(before["processes"][name]["pid"], signal.SIGKILL)
        running.wait_for(
            lambda name=name: described(tmp_path)["processes"][name]["pid"] != before["processes"][name]["pid"]
        )
        assert f"{name} has died" in running.output()
    after = described(tmp_path)
    http = [f"http://{process['http']}" for process in after["processes"].values() if process["http"]]
    running.wait_for(lambda: all(map(is_ready, http)), 60)
    assert (after["kafka"], after["edges"]) == (before["kafka"], before["edges"])

    pids = [process["pid"] for process in after["processes"].values()]
    assert running.end() == 0
    wait_until_gone(pids, 1)
    assert not (tmp_path / "run" / "stack.json").exists()
    assert "Traceback" not in running.output()


def test_its_processes_die_with_a_supervisor_that_is_killed(running: Running, tmp_path: Path) -> None:
    pids = [process["pid"] for process in described(tmp_path)["processes"].values()]

    running.end(signal.SIGKILL)

    wait_until_gone(pids)
