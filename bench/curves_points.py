"""The points of bench/curves.py: what is offered in which order, and what the figures come to."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import spin

HEADER = (
    "| workload | load | target | operations/s | p50, p99 ms | failed, resent"
    " | CPU s/1000 | machine | corrected | rate | CPU, corrected |"
)


class Load(NamedTuple):
    """So many a second, or as many as go with so many in flight."""

    rate: int | None
    in_flight: int | None

    def __str__(self) -> str:
        return f"{self.rate}/s" if self.rate else f"{self.in_flight} in flight"


class Point(NamedTuple):
    """One load of one kind, offered to one target."""

    workload: str
    load: Load
    target: str
    count: int
    first_user: int
    cseq: int


class Figure(NamedTuple):
    """What one point gave."""

    target: str
    workload: str
    load: str
    round: int
    per_second: float
    failed: int
    resent: int
    p50: float
    p99: float
    cpu: float
    """CPU-seconds per 1,000."""
    groups: dict[str, float]
    """The same by group of processes."""
    spins: tuple[float | None, float | None, float | None]
    """Milliseconds of the piece of work before, during and after."""


def loads(rates: Iterable[int], in_flight: Iterable[int]) -> list[Load]:
    """The points of a curve from left to right."""
    return [*(Load(rate, None) for rate in rates), *(Load(None, many) for many in in_flight)]


def counts(load: Load, seconds: float, operations: int) -> int:
    """How many operations of this load are offered."""
    return max(1, int(load.rate * seconds)) if load.rate else operations


def plan(
    targets: Sequence[str],
    workloads: Sequence[str],
    curve: Sequence[Load],
    seconds: float,
    operations: int,
    rounds: int,
) -> Iterator[tuple[int, Point]]:
    """Each point with its round: by load, then by target in turn, the order turned with each.

    A load has users of its own in each round, so that `register` meets new ones, and `refresh` and `call` those.
    """
    first = turn = 0
    for number in range(rounds):
        users = {}
        for load in curve:
            users[load] = first
            first += counts(load, seconds, operations)
        for workload in workloads:
            for load in curve:
                turn += 1
                cseq = 1 + 1000 * turn
                for target in targets if turn % 2 else reversed(targets):
                    yield number, Point(workload, load, target, counts(load, seconds, operations), users[load], cseq)


def users_needed(curve: Sequence[Load], seconds: float, operations: int, rounds: int) -> int:
    """How many users the directory must have."""
    return rounds * sum(counts(load, seconds, operations) for load in curve)


def medians(figures: Sequence[Figure], alone: float) -> dict[tuple[str, str, str], dict[str, float]]:
    """By workload, load and target: the medians of the rounds, and all that failed; `cpu_corrected` by the spins."""
    found: dict[tuple[str, str, str], list[Figure]] = {}
    for figure in figures:
        found.setdefault((figure.workload, figure.load, figure.target), []).append(figure)
    return {
        key: {
            "per_second": statistics.median(each.per_second for each in some),
            "failed": sum(each.failed for each in some),
            "resent": sum(each.resent for each in some),
            "p50": statistics.median(each.p50 for each in some),
            "p99": statistics.median(each.p99 for each in some),
            "cpu": statistics.median(each.cpu for each in some),
            "cpu_corrected": statistics.median(spin.corrected(each.cpu, each.spins[1], alone) for each in some),
            "spin": statistics.fmean([each.spins[1] for each in some if each.spins[1] is not None] or [alone]) / alone,
        }
        for key, some in found.items()
    }


def table(figures: Sequence[Figure], alone: float) -> str:
    """All of it in Markdown; ratios are to the first target of the same load."""
    lines = [HEADER, "|---" * HEADER.count(" | ") + "|---|"]
    found = medians(figures, alone)
    firsts: dict[tuple[str, str], str] = {}
    targets = list(dict.fromkeys(figure.target for figure in figures))
    order = list(dict.fromkeys((figure.workload, figure.load) for figure in figures))
    for workload, load in order:
        for target in targets:
            row = found.get((workload, load, target))
            if row is None:
                continue
            first = found[workload, load, firsts.setdefault((workload, load), target)]
            rate = row["per_second"] / first["per_second"] if first["per_second"] else 0
            cpu = row["cpu_corrected"] / first["cpu_corrected"] if first["cpu_corrected"] else 0
            lines.append(
                f"| {workload} | {load} | {target} | {row['per_second']:,.0f} | {row['p50']:.0f}, {row['p99']:.0f}"
                f" | {row['failed']:.0f}, {row['resent']:.0f} | {row['cpu']:.2f} | {row['spin']:.2f} ×"
                f" | {row['cpu_corrected']:.2f} | {rate:.2f} × | {cpu:.2f} × |"
            )
    return "\n".join(lines)
