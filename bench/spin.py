"""How fast this machine's cores are just now: the processor time of a fixed piece of work, `bench/spin.py`.

A virtual core is a thread of some core that others use too. The same work then costs up to 1.8 times its processor
time, though nothing waits: where two of our own threads share one core of the host, or a neighbour is busy there.
Whoever compares processor times must know it. Prints a line for each core: alone, and while every other core is busy.

`Sampler` does the same beside a benchmark: one sample of some 10 ms every quarter of a second, on each core in turn.
"""
# ruff: noqa: S603, T201

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

TURNS = 140_000
EVERY_SECONDS = 0.25
ALONE = 0.1
"""The share of the fastest samples that is taken for what the machine can do."""


class Sample(NamedTuple):
    """One piece of work."""

    at: float
    """Monotonic seconds when it was done."""
    core: int
    milliseconds: float
    """Of processor time."""


def spin() -> float:
    """The work; milliseconds of processor time that it took."""
    began = time.thread_time_ns()
    value = 1
    for number in range(TURNS):
        value = (value * 31 + number) & 0xFFFFFFFF
    return (time.thread_time_ns() - began) / 1e6


def sample(core: int) -> Sample:
    """The work on one core. This process stays there afterwards."""
    os.sched_setaffinity(0, {core})
    took = spin()
    return Sample(time.monotonic(), core, took)


def mean(samples: Iterable[Sample], begin: float, end: float) -> float | None:
    """Of the samples done between two times; None if there is none."""
    found = [each.milliseconds for each in samples if begin <= each.at <= end]
    return statistics.fmean(found) if found else None


def unhindered(samples: Sequence[Sample]) -> float:
    """What the work costs where nobody is in the way: the slowest of the fastest tenth."""
    ordered = sorted(each.milliseconds for each in samples)
    return ordered[int(ALONE * (len(ordered) - 1))]


def corrected(seconds: float, took: float | None, alone: float) -> float:
    """Processor time as it would be were the machine as fast as when nobody is in the way.

    `took` is the mean of the samples beside the work, `alone` that of `unhindered`; both in one unit.
    """
    return seconds if took is None else seconds * alone / took


class Sampler:
    """A process that takes samples until it is stopped, a line for each into a file."""

    def __init__(self, file: Path, every: float = EVERY_SECONDS) -> None:
        self._file = file
        with file.open("w") as out:
            self._process = subprocess.Popen([sys.executable, __file__, "--sample", str(every)], stdout=out)

    def samples(self) -> list[Sample]:
        """All that were taken so far."""
        lines = self._file.read_text().splitlines(keepends=True)
        fields = [line.split() for line in lines if line.endswith("\n")]
        return [Sample(float(at), int(core), float(took)) for at, core, took in fields]

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


def keep_sampling(every: float) -> None:
    """Prints samples of all cores in turn, for ever."""
    cores = sorted(os.sched_getaffinity(0))
    while True:
        for core in cores:
            print(*sample(core), flush=True)
            time.sleep(every)


def side_by_side(samples: int) -> None:
    """Prints what the work costs on each core alone, and while all others are busy."""
    cores = sorted(os.sched_getaffinity(0))
    for core in cores:
        free = [sample(core).milliseconds for _ in range(samples)]
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for other in cores if other != core]
        try:
            for process, other in zip(others, [other for other in cores if other != core], strict=True):
                os.sched_setaffinity(process.pid, {other})
            time.sleep(0.3)
            busy = [sample(core).milliseconds for _ in range(samples)]
        finally:
            for process in others:
                process.kill()
                process.wait()
        alone, beside = statistics.median(free), statistics.median(busy)
        print(f"core {core}: {alone:.1f} ms alone, {beside:.1f} ms beside busy cores: {beside / alone:.2f} times")


def main() -> None:
    """Measures the cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=25, help="of each core, alone and not (25)")
    parser.add_argument("--sample", type=float, metavar="SECONDS", help="one each so many seconds, until it is killed")
    given = parser.parse_args()
    if given.sample:
        keep_sampling(given.sample)
    else:
        side_by_side(given.samples)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
