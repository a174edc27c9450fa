"""What so many phones need, from measured unit costs: `.venv/bin/python bench/sizing.py --phones 100000`.

The costs are those of docs/benchmark.md (CPU) and of bench/sizes.py (octets); docs/sizing.md says what they are worth.
Prints the table of that page without arguments.
"""
# ruff: noqa: T201

import argparse
import itertools
import math
from collections.abc import Sequence

REFRESH = {"edge": 0.20, "authsvc": 0.06, "registrar": 0.06, "locator": 0.07, "brokers": 0.12, "MySQL": 0.05}
"""CPU-seconds of 1,000 refreshes at saturation (docs/benchmark.md, "Where the time goes")."""
PACE = ((100, 3.0), (500, 1.0), (1500, 0.56))
"""CPU-seconds of 1,000 registrations, everything included, by how many come in a second (`make bench-curves`)."""
CALL = {"edge": 0.91 + 0.55, "cdr": 0.17, "brokers": 0.07, "MySQL": 0.12}
"""CPU-seconds of 1,000 calls with their records ("What a call costs"), with what a challenge adds (1.48 - 0.93)."""
SERVICES = ("edge", "authsvc", "registrar", "locator", "cdr")
"""Each of whose processes uses one core."""
BUSY = 0.5
"""The share of a core that is planned for: the rest is for the minute after an outage."""

DAY = 86_400
KEPT = {
    "auth.commands": ((1, 830), (1, 830), 1.25 / 24),
    "registrar.commands": ((1, 614), (0, 0), 30 / 24),
    "registrations": ((1, 996), (0, 0), 37.5),
    "edge.replies": ((1, 435), (2, 435), 12.5 / 1440),
    "calls": ((0, 0), (4, 698), 8.75),
    "cdrs": ((0, 0), (1, 892), 37.5),
}
"""By topic: records and octets of a refresh, of a call (bench/sizes.py), and days until they are gone for certain."""
LEFT = ((4, 1.0), (8, 0.30), (30, 0.23), (math.inf, 0.20))
"""What compressing leaves of records of `registrations`, by how many are together at most in a batch."""
GATHERED = 0.045
"""Seconds in which an edge gathers registrations (`RAMAL_EDGE_GATHER_SECONDS`)."""
COPIES = 3
SIP = {"refresh": 1840, "call": 10_000}
"""Octets between phone and edge with the headers of UDP and IP: of a refresh with its challenge, measured; of a call,
an estimate."""
BINDING = 900
"""Octets of a registrar's memory for one binding, measured by bench/growth.py."""
ROW = {"location": 650, "cdrs": 1500}
"""Octets of a row with its indices: measured among 100,000 phones, and an estimate."""
PHONES = (10_000, 100_000, 1_000_000, 10_000_000)


def needs(phones: int, refresh: float, calls: float) -> dict[str, str]:
    """What so many phones need: `refresh` seconds between two REGISTERs, `calls` of each in the busy hour."""
    rates = {"refresh": phones / refresh, "call": phones * calls / 3600}
    cores = {
        name: (REFRESH.get(name, 0) * rates["refresh"] + CALL.get(name, 0) * rates["call"]) / 1000
        for name in (*SERVICES, "brokers", "MySQL")
    }
    processes = {name: max(2, math.ceil(cores[name] / BUSY)) for name in SERVICES}
    partitions = max(4, 2 * max(processes[name] for name in ("authsvc", "registrar", "locator")))
    share = {"registrations": left(rates["refresh"] * GATHERED / partitions)}
    written = sum(
        r * o * rates["refresh"] * share.get(topic, 1) + r2 * o2 * rates["call"]
        for topic, ((r, o), (r2, o2), _) in KEPT.items()
    )
    log = {
        topic: (r * o * rates["refresh"] * share.get(topic, 1) + r2 * o2 * rates["call"] * share_of_day(calls))
        * (days * DAY)
        for topic, ((r, o), (r2, o2), days) in KEPT.items()
    }
    phones_and_edges = sum(SIP[name] * rates[name] for name in SIP)
    return {
        "REGISTERs a second": figure(rates["refresh"]),
        "calls a second, busy hour": figure(rates["call"]),
        **{f"{name}: cores busy, processes": f"{figure(cores[name])}, {processes[name]}" for name in SERVICES},
        "brokers: cores busy, all copies' leaders": figure(cores["brokers"]),
        "MySQL: cores busy": figure(cores["MySQL"]),
        "all of it for REGISTER alone, at this pace": figure(rates["refresh"] * at_pace(rates["refresh"]) / 1000),
        "partitions": str(partitions),
        "network: phones and edges, both ways": f"{octets(phones_and_edges)}/s",
        "written to the log, one copy": f"{octets(written)}/s",
        f"network: into all brokers, and out of them, {COPIES} copies": f"{octets(COPIES * written)}/s each",
        "the log, one copy": octets(sum(log.values())),
        "of that `registrations`": octets(log["registrations"]),
        "memory of all registrars": octets(phones * BINDING),
        "`location`": octets(phones * ROW["location"]),
        "`cdrs` in a year": octets(phones * calls * 8 * 365 * ROW["cdrs"]),
    }


def at_pace(rate: float) -> float:
    """CPU-seconds of 1,000 registrations at so many a second: between two points of PACE on a line of logarithms."""
    if rate <= PACE[0][0]:
        return PACE[0][1]
    for (low, dear), (high, cheap) in itertools.pairwise(PACE):
        if rate <= high:
            return dear * (cheap / dear) ** (math.log(rate / low) / math.log(high / low))
    return PACE[-1][1]


def left(together: float) -> float:
    """The share of their octets that compressing leaves of records, so many of which are in one batch."""
    return next(share for most, share in LEFT if together < most)


def share_of_day(calls: float) -> float:
    """The mean of a day against its busy hour, which is taken for an eighth of it."""
    return 8 / 24 if calls else 0


def figure(number: float) -> str:
    """Two digits that count."""
    if number >= 10:
        return f"{round(number, 1 - math.floor(math.log10(number))):,.0f}"
    return f"{number:.2g}" if number >= 0.01 else "below .01"


def octets(number: float) -> str:
    """In a unit that people read."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{figure(number)} {unit}"


def table(phones: Sequence[int], refresh: float, calls: float) -> str:
    """All of it in Markdown, a column for each number of phones."""
    columns = [needs(each, refresh, calls) for each in phones]
    lines = ["| phones | " + " | ".join(f"{each:,}" for each in phones) + " |", "|---" * (len(phones) + 1) + "|"]
    lines += ["| " + " | ".join([name, *(column[name] for column in columns)]) + " |" for name in columns[0]]
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phones", type=int, nargs="+", default=PHONES)
    parser.add_argument("--refresh", type=float, default=150.0, help="seconds between two REGISTERs of a phone")
    parser.add_argument("--calls", type=float, default=1.0, help="calls of a phone in the busy hour")
    given = parser.parse_args()
    print(table(given.phones, given.refresh, given.calls))


if __name__ == "__main__":
    main()
