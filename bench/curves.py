#!/usr/bin/env python3
"""What an operation costs at each load, as curves: `make bench-curves`.

    bench/curves.py ../shared/bench [TARGET…] --rounds 1 --svg docs/curves.svg

CPU-seconds per 1,000 registrations of new users, refreshes and calls, at fixed rates and at saturation with some in
flight, of all targets in one run: all are up at once, and each load is offered to one after the other, by turns. So
what the machine does within minutes meets all of them. Between and beside the loads a fixed piece of work is timed on
each core (bench/spin.py): figures stand as they were measured and as they would be were the machine always as fast as
where nobody is in its way. CPU is everything on the server's side: the target, its broker, and what MariaDB and
slapd take meanwhile.

Ctrl-C ends it with what was measured so far. Without TARGET: kamailio:DB_MODE=3 and bench/ramal.json. One round takes
six to eight minutes. Callers with credentials, whom Ramal challenges (the peer knows no such setting):

    bench/curves.py ../shared/bench kamailio:DB_MODE=3 bench/ramal.json:CHALLENGE_CALLS=true --workloads register,call
"""
# ruff: noqa: T201

import argparse
import importlib
import json
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import curves_picture
import spin
from curves_points import Figure, Point, loads, medians, plan, table, users_needed

HERE = Path(__file__).resolve().parent
TARGETS = ("kamailio:DB_MODE=3", str(HERE / "ramal.json"))
WORKLOADS = ("register", "refresh", "call")
AROUND_SECONDS = 1.6
"""Of spinning before and after each load."""


class Bench:
    """The kit with all targets up at once."""

    def __init__(self, kit: Any, work: Path, specs: Sequence[str], users: int) -> None:
        self.kit = kit
        variables = dict(kit.DEFAULTS, USERS=str(users))
        self.backends = kit.Backends(work, variables)
        targets = [kit.Target.parse(spec, work, variables) for spec in specs]
        self.targets = {target.name: target for target in targets}
        self._started: list[Any] = []
        self._sampler: spin.Sampler | None = None
        self._work = work

    def start(self) -> None:
        """Backends, targets, and the sampler."""
        say(f"MariaDB and OpenLDAP with {self.backends.v['USERS']} users …")
        self.backends.start()
        for target in self.targets.values():
            say(f"{target.name} …")
            target.prepare()
            target.reset()
            self._started.append(target)
            target.start()
        self._sampler = spin.Sampler(self._work / "spins")

    def stop(self) -> None:
        """Ends all that was started."""
        if self._sampler:
            self._sampler.stop()
        for target in self._started:
            target.stop()
        self.backends.stop()

    def samples(self) -> list[spin.Sample]:
        """Of the piece of work so far."""
        return self._sampler.samples() if self._sampler else []

    def idle(self, seconds: float) -> dict[str, float]:
        """What each target takes of a core while nobody asks it anything, in percent."""
        names = list(self.targets)
        before = {name: self._cpu(name) for name in names}
        time.sleep(seconds)
        return {name: 100 * (self._cpu(name) - before[name]) / seconds for name in names}

    def _cpu(self, name: str) -> float:
        groups = self.targets[name].groups()
        return sum(self.kit.cpu_seconds(pids) for pids in groups.values())

    def measure(self, number: int, point: Point, most_seconds: float) -> Figure:
        """Offers the load of a point."""
        kit, target = self.kit, self.targets[point.target]
        load = self._sipp(target, point, most_seconds)
        time.sleep(AROUND_SECONDS)
        callee = load.callee() if point.workload == "call" else None
        try:
            if callee:
                time.sleep(0.3)
            written = self._calls_written(target)
            meter = kit.Meter(target, self.backends)
            began = time.monotonic()
            scenario = "uac" if point.workload == "call" else "register"
            got = load.generate(scenario, point.count, point.load.rate, point.cseq)
            if point.workload == "call":
                self._until_written(target, written + got["ok"])
            busy = meter.read()
            ended = time.monotonic()
            meter.close()
        finally:
            if callee:
                kit.terminate(callee.pid, 2)
                callee.wait()
        time.sleep(AROUND_SECONDS)
        samples = self.samples()
        per = 1000 / max(1, got["ok"])
        times = got["times"].get("total", [])
        return Figure(
            point.target,
            point.workload,
            str(point.load),
            number,
            got["per_second"],
            point.count - got["ok"],
            got["resent"],
            kit.percentile(times, 0.5) or 0.0,
            kit.percentile(times, 0.99) or 0.0,
            sum(busy.values()) * per,
            {name: seconds * per for name, seconds in busy.items()},
            (
                spin.mean(samples, began - AROUND_SECONDS - 0.3, began),
                spin.mean(samples, began, ended),
                spin.mean(samples, ended, ended + AROUND_SECONDS),
            ),
        )

    def _sipp(self, target: Any, point: Point, most_seconds: float) -> Any:
        kit, unique = self.kit, secrets.token_hex(4)

        class Sipp(kit.Load):  # type: ignore[misc, name-defined]  # the kit has no types
            """The kit's load with users from the first of this point on, and an end."""

            def csv(self, count: int) -> Path:
                path = self.dir / "users.csv"
                domain = self.v["DOMAIN"]
                names = [kit.user_name(point.first_user + number) for number in range(count)]
                rows = [
                    f"{name};[authentication username={name} password={kit.password_of(name)}];{domain}\n"
                    for name in names
                ]
                path.write_text("SEQUENTIAL\n" + "".join(rows))
                return Path(path)

            def command(self, scenario: str, port: str, extra: list[str]) -> list[str]:
                words = list(super().command(scenario, port, extra))
                if "-cid_str" in words:  # by a Call-ID of an earlier load it would be a call that is there already
                    words[words.index("-cid_str") + 1] = f"%u-{unique}@%s"
                if "-timeout" in words:
                    words[words.index("-timeout") + 1] = str(int(most_seconds))
                if scenario == "uac" and self.v.get("CHALLENGE_CALLS") == "true":
                    words[words.index("-sf") + 1] = str(HERE / "uac_with_credentials.xml")
                return words

        return Sipp(target, argparse.Namespace(concurrency=point.load.in_flight or 50))

    def _calls_written(self, target: Any) -> int:
        query = target.query("settled_call")
        if not query:
            return 0
        sql = self.kit.Sql(target.v, target.database)
        try:
            return int(sql.one(query))
        finally:
            sql.close()

    def _until_written(self, target: Any, wanted: int) -> None:
        """Waits until the tables have so many calls: what is still to be done is a part of their cost."""
        until = time.monotonic() + 20.0
        if target.query("settled_call"):
            while self._calls_written(target) < wanted and time.monotonic() < until:
                time.sleep(0.2)


def say(text: str) -> None:
    """To who waits."""
    print(text, file=sys.stderr, flush=True)


def run(bench: Bench, points: Sequence[tuple[int, Point]], seconds: float) -> list[Figure]:
    """Measures the points; what there is when somebody presses Ctrl-C."""
    figures: list[Figure] = []
    began = time.monotonic()
    try:
        for done, (number, point) in enumerate(points):
            left = (time.monotonic() - began) / done * (len(points) - done) if done else 0
            about = f", {left / 60:.0f} min left" if done else ""
            figure = bench.measure(number, point, 3 * seconds + 15)
            figures.append(figure)
            spins = "/".join("–" if each is None else f"{each:.0f}" for each in figure.spins)
            say(
                f"[{done + 1}/{len(points)}{about}] round {number + 1} {point.workload} {point.load} {point.target}: "
                f"{figure.per_second:.0f}/s, {figure.failed} failed, {figure.resent} resent, "
                f"{figure.p50:.0f}/{figure.p99:.0f} ms, CPU {figure.cpu:.3f} s/1000, spin {spins} ms"
            )
    except KeyboardInterrupt:
        say(f"Stopped after {len(figures)} of {len(points)}: what follows is of these.")
    return figures


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", help="the kit's directory")
    parser.add_argument("targets", nargs="*", default=TARGETS, help="as the kit names them; the first is compared with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workloads", type=named, default=WORKLOADS, help="register,refresh,call: register first")
    parser.add_argument("--rates", type=numbers, default=(100, 500, 1000), help="a second (100,500,1000)")
    parser.add_argument("--in-flight", type=numbers, default=(50, 300), help="closed loops' sizes (50,300)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate (6)")
    parser.add_argument("--operations", type=int, default=5000, help="of each closed loop (5000)")
    parser.add_argument("--workdir", help="kept; else a temporary directory")
    parser.add_argument("--json", type=Path, help="every figure into this file")
    parser.add_argument("--svg", type=Path, help="the picture into this file (needs matplotlib)")
    return parser


def numbers(text: str) -> list[int]:
    """Of a list with commas; ValueError, which argparse tells."""
    found = [int(each) for each in text.split(",") if each]
    if any(each < 1 for each in found):
        raise ValueError
    return found


def named(text: str) -> list[str]:
    """Workloads with commas. Refresh and call are about those who have registered."""
    found = text.split(",")
    if found[0] != "register" or not set(found) <= set(WORKLOADS):
        raise ValueError
    return found


def main() -> int:
    """Measures, prints the table, draws the picture."""
    given = options().parse_args()
    if not (Path(given.kit) / "bench.py").is_file():
        sys.exit(f"{given.kit} is not the kit's directory: it has no bench.py")
    if given.svg and find_spec("matplotlib") is None:
        sys.exit("--svg needs matplotlib: pip install --group bench")
    sys.path.insert(0, given.kit)
    kit = importlib.import_module("bench")
    curve = loads(given.rates, given.in_flight)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ramal-curves-") as temporary:
        work = Path(given.workdir or temporary).resolve()
        work.mkdir(parents=True, exist_ok=True)
        users = users_needed(curve, given.seconds, given.operations, given.rounds) + 1
        bench = Bench(kit, work, given.targets, users)
        try:
            bench.start()
            idle = bench.idle(4.0)
            say("idle: " + ", ".join(f"{name} {share:.1f} % of a core" for name, share in idle.items()))
            points = list(
                plan(list(bench.targets), given.workloads, curve, given.seconds, given.operations, given.rounds)
            )
            figures = run(bench, points, given.seconds)
            samples = bench.samples()
        finally:
            bench.stop()
    if not figures:
        return 1
    alone = spin.unhindered(samples)
    if given.json:
        given.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))
    print(
        f"{given.rounds} rounds, {given.seconds:g} s of each rate, {given.operations} operations of each closed loop;"
        f" {(time.monotonic() - began) / 60:.1f} min. Idle: "
        + ", ".join(f"{name} {share:.1f} % of a core" for name, share in idle.items())
        + f". The piece of work: {alone:.1f} ms where nobody is in the way,"
        f" {statistics.fmean(each.milliseconds for each in samples) / alone:.2f} × that in the mean.\n"
    )
    print(table(figures, alone))
    if given.svg:
        curves_picture.draw(given.svg, medians(figures, alone))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended with it
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
