"""Statistics of real calls, `ramal top`, and the queries of the board and the alerts, on running systems."""

import json
import os
import pty
import re
import select
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.sampled import Labels, parsed
from tests.e2e.conftest import CALLERS, RAMAL, System
from tests.kit.phone import SDP

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[14], CALLERS[15]
OF_PROMETHEUS = {"service", "instance", "le"}
"""Labels that deploy/prometheus/prometheus.yml adds, or that histograms have."""
OF_GATEWAYS = {"ramal_edge_gateway_up", "ramal_edge_gateway_calls_total"}
"""Said where there are gateways, which the stack has none of: `unit/edge/test_metrics.py` holds them."""
ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "ramal.yml"
BOARD = ROOT / "deploy" / "grafana" / "dashboards" / "ramal.json"
SELECTOR = re.compile(r"\b(ramal_\w+|process_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
BY = re.compile(r"by \(([^)]*)\)")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def processes(system: System) -> dict[str, str]:
    """Where each process's HTTP is."""
    if system.kind == "up":
        return {"up": system.http[0]}
    described = json.loads((system.run_dir / "stack.json").read_text())["processes"]
    return {name: f"http://{each['http']}" for name, each in described.items() if each["http"]}


def test_a_call_is_in_the_figures(system: System) -> None:
    where = next(url for name, url in processes(system).items() if name == "up" or name.startswith("analytics"))
    with system.phone(ALICE) as alice, system.phone(BOB, transport="tcp") as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(180)
        call.hears(180)
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")
        incoming.request("BYE")
        call.respond(200, to=call.gets("BYE"))
        incoming.hears(200)

        deadline = time.monotonic() + 60
        while True:
            try:
                found = json.loads(get(f"{where}/statistics?window=hour"))
            except OSError:
                found = {"calls": [], "registrations": []}
            ended = sum(each["ended"] for each in found["calls"])
            online = {name for each in found["registrations"] for name in each["transports"]}
            if ended and {"udp", "tcp"} <= online:
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        assert all(each["attempts"] >= each["answered"] for each in found["calls"])
        alice.deregister()
        bob.deregister()


def test_top_says_once_what_all_processes_do(system: System) -> None:
    at = [f"--url={name}={url}" for name, url in processes(system).items()]
    said = subprocess.run([*RAMAL, "top", "--once", "--json", *at], capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    assert {each["name"] for each in found["processes"]} == set(processes(system))
    assert all(each["memory_bytes"] > 1_000_000 for each in found["processes"])
    assert {"calls", "registrations"} <= set(found["overall"]["lag"])
    assert found["overall"]["stopped_partitions"] == 0


def test_top_finds_the_processes_of_both_systems_by_itself(system: System) -> None:
    there = system.where or ("--run-dir", str(system.run_dir))
    said = subprocess.run([*RAMAL, "top", "--once", *there], capture_output=True, text=True, check=True).stdout
    assert "Registrations" in said
    assert all(name in said for name in processes(system))


def test_top_in_a_terminal_looks_again_and_ends_by_ctrl_c(up: System) -> None:
    main, other = pty.openpty()
    process = subprocess.Popen(
        [*RAMAL, "top", "--every", "0.3", *up.where],
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(other)
    try:
        shown = b""
        deadline = time.monotonic() + 60
        while shown.count(b"Ramal at") < 3:
            assert time.monotonic() < deadline, shown
            if select.select([main], [], [], 1)[0]:
                shown += os.read(main, 65536)
        assert b"\x1b[?1049h" in shown  # a screen of its own
        os.write(main, b"\x03")
        process.send_signal(2)
        end = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < end:
            if select.select([main], [], [], 0.2)[0]:
                try:
                    shown += os.read(main, 65536)
                except OSError:
                    break
        process.wait(20)
        assert b"\x1b[?1049l" in shown  # the terminal is as it was
        assert b"Traceback" not in shown
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_top_says_that_nobody_answers() -> None:
    done = subprocess.run(
        [*RAMAL, "top", "--once", "--url", "127.0.0.1:9"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no process answers" in done.stderr
    assert "Traceback" not in done.stderr


# --- the board and the alerts ----------------------------------------------------------------------------------------


def queries() -> Iterator[tuple[str, str]]:
    """Each query, and where it stands."""
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"board: {panel['title']}", target["expr"].replace("$__rate_interval", "5m")
    name = ""
    lines = RULES.read_text().splitlines()
    for number, line in enumerate(lines):
        if found := re.match(r" +- alert: (\w+)", line):
            name = found[1]
        if found := re.match(r"( +)expr: (.*)", line):
            indent, text = found.groups()
            if text == ">-":
                block = []
                for each in lines[number + 1 :]:
                    if len(each) - len(each.lstrip()) <= len(indent):
                        break
                    block.append(each.strip())
                text = " ".join(block)
            yield f"alert: {name}", text


def missing(query: str, samples: dict[tuple[str, Labels], Any]) -> list[str]:
    """What a query names and nobody says."""
    faults = []
    for name, matchers in SELECTOR.findall(query):
        if name in OF_GATEWAYS:
            continue
        of_name = [dict(labels) for known, labels in samples if known == name]
        if not of_name:
            faults.append(f"no metric {name}")
            continue
        for label, operator, value in MATCHER.findall(matchers):
            if label in OF_PROMETHEUS:
                continue
            wanted = value.split("|") if operator == "=~" and not re.search(r"[\[.]", value) else [value]
            for each in wanted:
                pattern = each if operator == "=~" else re.escape(each)
                if not any(re.fullmatch(pattern, labels.get(label, "\0")) for labels in of_name):
                    faults.append(f"no {name} with {label} {each}")
    names = {name for name, _ in SELECTOR.findall(query)}
    labels = {label for known, with_ in samples if known in names for label, _ in with_}
    for listed in BY.findall(query):
        faults += [f"no label {each}" for each in re.split(r",\s*", listed) if each not in labels | OF_PROMETHEUS]
    return faults


def test_every_metric_and_label_that_the_board_and_the_alerts_name_is_said_by_a_running_stack(stack: System) -> None:
    where = processes(stack)
    deadline = time.monotonic() + 60
    while True:
        # The stack has no gateway; unit/edge/test_metrics.py holds what is said of one.
        samples: dict[tuple[str, Labels], Any] = {
            (name, (("gateway", "one"),)): 1.0 for name in ("ramal_edge_gateway_up", "ramal_edge_gateway_calls_total")
        }
        for url in where.values():
            samples |= parsed(get(f"{url}/metrics"))
        faults = {place: found for place, query in queries() if (found := missing(query, samples))}
        if not faults:
            break
        assert time.monotonic() < deadline, faults
        time.sleep(1)
    assert len(list(queries())) > 30


def test_the_check_of_queries_finds_what_is_not_there() -> None:
    samples = {("ramal_x_total", (("status", "200"),)): 1.0}
    assert missing('sum by (status) (rate(ramal_x_total{status="200"}[5m]))', samples) == []
    assert missing('ramal_x_total{status="503"}', samples)
    assert missing("sum by (colour) (ramal_x_total)", samples)
    assert missing("ramal_y", samples)


def test_the_rules_are_good_for_prometheus() -> None:
    promtool = Path("/usr/bin/promtool")
    if not promtool.exists():
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
