"""Prometheus metrics that services share; each service defines its own beside its code.

Every drop has a name: count it with `dropped("name")`, which tests assert.
"""

from functools import cache

from prometheus_client import REGISTRY, Counter

_DROPS = Counter("ramal_drops", "Messages and records dropped, by name.", ["name"])


ALARMING = (
    "bug",
    "call-events-overflow",
    "dead-letter",
    "poisoned-call-event",
    "poisoned-registration",
    "wrong-partition",
)
"""Drops that are there from the start, at 0: an alert sees the first increase, too."""


@cache
def _drop_counter(name: str) -> Counter:
    return _DROPS.labels(name)


def dropped(name: str, count: int = 1) -> None:
    """Counts messages or records dropped under this name."""
    _drop_counter(name).inc(count)


def drops(name: str) -> float:
    """How many were dropped under this name so far (for tests and `/metrics`)."""
    return REGISTRY.get_sample_value("ramal_drops_total", {"name": name}) or 0.0


for _name in ALARMING:
    dropped(_name, 0)
