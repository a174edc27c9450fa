"""What the registrar counts; gauges are asked for when they are scraped and cost nothing before."""

from collections.abc import Mapping
from functools import cache

from prometheus_client import Counter, Gauge

from registrar.partition import Partition

COMMANDS = Counter("ramal_registrar_commands", "Commands decided.")
RECORDS = Counter("ramal_registrar_records", "Records written to registrations, claims not counted.")
CLAIMS = Counter("ramal_registrar_claims", "Partitions claimed.")
LOSSES = Counter("ramal_registrar_losses", "Partitions given up because another writer took over.")
RESTORE_SECONDS = Gauge("ramal_registrar_restore_seconds", "How long the last restore of a partition took.")
TOPIC_FAULTS = Gauge("ramal_registrar_topic_faults", "What is wrong with the topics (see the log).")
_REFUSALS = Counter("ramal_registrar_refusals", "Commands refused, by status and reason.", ["status", "name"])
_BINDINGS = Gauge("ramal_registrar_bindings", "Bindings remembered.")
_AORS = Gauge("ramal_registrar_aors", "AORs remembered.")
_BEHIND = Gauge("ramal_registrar_snapshot_lag_aors", "AORs whose last state is not yet in the snapshots.")


@cache
def _refusal_counter(status: int, name: str) -> Counter:
    return _REFUSALS.labels(str(status), name)


def refused(status: int, name: str) -> None:
    """Counts a refusal; names are those of the decider."""
    _refusal_counter(status, name).inc()


def watch(partitions: Mapping[int, Partition]) -> None:
    """Lets the gauges speak of these partitions."""
    _BINDINGS.set_function(lambda: sum(p.bindings for p in partitions.values()))
    _AORS.set_function(lambda: sum(len(p.states) for p in partitions.values()))
    _BEHIND.set_function(lambda: sum(len(p.changed) for p in partitions.values()))
