#!/usr/bin/env python3
"""All phones come back at once after an outage: how long until all are registered, what they hear: `make bench-storm`.

    bench/storm.py --phones 100000 --edges 2 --outage 60

A real `ramal stack`; phones register in turn, the edges stand still for the outage and are then killed, and as they
come up again all phones send REGISTER within a second, with repetitions, and wait as a Retry-After tells them. The
phones take the same cores as the system: divide what you read by what they leave. Nobody may be lost.
"""
# ruff: noqa: S603, T201

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import storm_phones
import uvloop

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "example.test"
PORT = 26_060
TICK = os.sysconf("SC_CLK_TCK")


def share(values: list[float], part: float) -> float:
    """A percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


class Stack:
    """`ramal stack` and its processes."""

    def __init__(self, directory: Path, edges: int, users: int) -> None:
        self.path = directory / "stack.json"
        self._log = directory / "stack.log"
        with self._log.open("wb") as out:
            words = ("stack", "--run-dir", directory, "--edges", edges, "--users", users, "--sip-port", PORT)
            self._process = subprocess.Popen(
                [str(ROOT / ".venv" / "bin" / "ramal"), *map(str, words), "--domain", DOMAIN, "--analytics", "0"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def started(self, seconds: float) -> None:
        """Waits until it says of itself where it is."""
        until = time.monotonic() + seconds
        while not self.path.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"ramal stack did not start:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.2)

    def pids(self) -> dict[str, int]:
        """By the name of the process."""
        described: dict[str, Any] = json.loads(self.path.read_text())
        return {name: int(process["pid"]) for name, process in described["processes"].items()}

    def edges(self) -> list[tuple[str, int]]:
        """Where they take UDP."""
        described = json.loads(self.path.read_text())
        pairs = [edge["udp"].rpartition(":") for edge in described["edges"]]
        return [(host, int(port)) for host, _, port in pairs]

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(60)


def resident(pid: int) -> float:
    """MB of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def watch(stack: Stack, most: dict[str, float], crowd: storm_phones.Crowd, began: float) -> None:
    """Notes the most memory of each process, and says how far the phones are."""
    said = 0.0
    while True:
        for name, pid in stack.pids().items():
            most[name] = max(most.get(name, 0.0), resident(pid))
        if time.monotonic() - said > 5:
            said = time.monotonic()
            done = sum(phone.registered is not None for phone in crowd.phones)
            print(f"  {said - began:5.0f} s: {done} of {len(crowd.phones)}, {dict(crowd.heard)}", file=sys.stderr)
        await asyncio.sleep(0.5)


async def run(directory: Path, given: argparse.Namespace) -> int:
    """The whole story; the exit code."""
    stack = Stack(directory, given.edges, given.phones)
    crowd = None
    try:
        print(f"ramal stack with {given.edges} edges and {given.phones} users …", file=sys.stderr)
        await stack.started(240)
        crowd = storm_phones.Crowd(given.phones, stack.edges(), DOMAIN)
        for phone in crowd.phones:
            phone.edge = phone.number
        await crowd.open()
        began = time.monotonic()
        await crowd.register_in_turn(given.at_once)
        calm = time.monotonic() - began
        print(f"In turn: {given.phones / calm:,.0f} registrations/s, {dict(crowd.heard)}")
        edges = {name: pid for name, pid in stack.pids().items() if name.startswith("edge")}
        before = {name: resident(pid) for name, pid in stack.pids().items()}
        for pid in edges.values():
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(given.outage)
        for pid in edges.values():
            os.kill(pid, signal.SIGKILL)
        while any(stack.pids().get(name) == pid for name, pid in edges.items()):  # noqa: ASYNC110  # others' work
            await asyncio.sleep(0.1)
        await asyncio.sleep(given.ready)
        crowd.forget()
        most: dict[str, float] = {}
        mine, worked = time.process_time(), {pid: spent(pid) for pid in stack.pids().values()}
        began = time.monotonic()
        watching = asyncio.create_task(watch(stack, most, crowd, began))
        whole = await crowd.storm(given.within, given.limit)
        watching.cancel()
        tell(crowd, began, time.process_time() - mine)
        took = {name: spent(pid) - worked.get(pid, 0.0) for name, pid in stack.pids().items()}
        print("CPU-seconds meanwhile: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items()))
        print("Memory, MB: " + ", ".join(f"{name} {before.get(name, 0):.0f} → {most[name]:.0f}" for name in most))
        return 0 if whole and set(crowd.heard) <= {200, 401, 503} and not crowd.retry_after[-1] else 1
    finally:
        if crowd:
            crowd.close()
        stack.stop()


def tell(crowd: storm_phones.Crowd, began: float, mine: float) -> None:
    """Prints what the phones went through."""
    times = [phone.registered - began for phone in crowd.phones if phone.registered is not None]
    lost, last = len(crowd.phones) - len(times), max(times, default=0.0)
    print(f"Storm: {len(times)} registered in {last:.1f} s, {lost} not; half after {share(times, 0.5):.1f} s,")
    print(f"  p99 {share(times, 0.99):.1f} s; {len(times) / max(last, 1):,.0f} registrations/s")
    print(
        f"  heard {dict(sorted(crowd.heard.items()))}; {crowd.resent} repetitions, {crowd.given_up} without any answer"
    )
    print(f"  Retry-After {dict(sorted(crowd.retry_after.items()))}")
    granted = crowd.granted
    print(f"  granted {min(granted, default=0)} to {max(granted, default=0)} s, {len(granted)} different times")
    print(f"  the phones themselves took {mine:.0f} CPU-seconds")


def main() -> int:
    """Runs a storm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phones", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without any edge (60)")
    parser.add_argument("--within", type=float, default=1.0, help="seconds in which all phones come back (1)")
    parser.add_argument("--ready", type=float, default=2.0, help="seconds that the edges have before them (2)")
    parser.add_argument("--at-once", type=int, default=300, help="phones that register at once before the outage (300)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds after which it is given up (240)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ramal-storm-") as directory:
        return uvloop.run(run(Path(directory), given))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended with it
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
