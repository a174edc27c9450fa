"""What two looks at the metrics of all processes say of the time between them; pure."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
HANDLED = {
    "edge": "ramal_edge_responses_total",
    "authsvc": "ramal_authsvc_logins_total",
    "registrar": "ramal_registrar_commands_total",
    "locator": "ramal_locator_records_total",
    "cdr": "ramal_cdr_events_total",
    "analytics": "ramal_analytics_records_total",
}
"""What a service has done, by its name."""
SUMMED = ("attempts", "answered", "delivered", "failed", "cancelled", "missed", "ended", "talk_ms", "concurrent")


@dataclasses.dataclass(frozen=True)
class Look:
    """One process as it was seen once."""

    name: str
    at: float
    """Seconds on any clock."""
    samples: Mapping[tuple[str, Labels], float]
    """By name and labels; empty if it did not answer."""
    reasons: Sequence[str] = ()
    """Why it is not ready."""

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of a metric over all label values but those given."""
        wanted = labels.items()
        return sum(
            value for (known, with_), value in self.samples.items() if known == name and wanted <= dict(with_).items()
        )

    def highest(self, name: str) -> float | None:
        """The highest value of a metric; None where there is none."""
        return max((value for (known, _), value in self.samples.items() if known == name), default=None)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric, by one of its labels."""
        found: Counter[str] = Counter()
        for (known, with_), value in self.samples.items():
            if known == name:
                found[dict(with_).get(label, "")] += value  # type: ignore[assignment]  # a Counter of floats
        return dict(found)


def parsed(text: str) -> dict[tuple[str, Labels], float]:
    """The samples of a page of metrics. Raises ValueError."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith(("ramal_", "process_"))
        for sample in family.samples
    }


def _rate(before: Look, now: Look, name: str, /, **labels: str) -> float:
    """Per second; what began anew in between, a process or one worker of an edge, counts from 0."""
    seconds = now.at - before.at
    if seconds <= 0:
        return 0.0
    wanted, grown = labels.items(), 0.0
    for sample, value in now.samples.items():
        if sample[0] == name and wanted <= dict(sample[1]).items():
            since = value - before.samples.get(sample, 0.0)
            grown += since if since >= 0 else value
    return grown / seconds


def process(before: Look, now: Look) -> dict[str, Any]:
    """One row: what a process does."""
    handled = sum(_rate(before, now, metric) for metric in HANDLED.values())
    return {
        "name": now.name,
        "ready": bool(now.samples) and not now.reasons,
        "reasons": list(now.reasons),
        "cpu": round(_rate(before, now, "process_cpu_seconds_total"), 3),
        "memory_bytes": int(now.total("process_resident_memory_bytes")),
        "records_per_second": round(handled, 1),
        "lag": int(now.total("ramal_lag_records") + now.total("ramal_analytics_lag_records")),
        "drops_per_second": round(_rate(before, now, "ramal_drops_total"), 1),
    }


def overall(pairs: Iterable[tuple[Look, Look]]) -> dict[str, Any]:
    """What the system does, all processes together."""
    pairs = list(pairs)
    looks = [now for _, now in pairs]

    def rate(name: str, /, **labels: str) -> float:
        return round(sum(_rate(before, now, name, **labels) for before, now in pairs), 2)

    statuses: Counter[str] = Counter()
    for before, now in pairs:
        for status in now.by("ramal_edge_responses_total", "status"):
            statuses[f"{status[:1]}xx"] += round(  # type: ignore[assignment]  # a Counter of floats
                _rate(before, now, "ramal_edge_responses_total", status=status), 2
            )
    finals = sum(statuses.values()) - statuses["1xx"]
    lag: Counter[str] = Counter()
    for now in looks:
        for topic, records in now.by("ramal_lag_records", "topic").items():
            lag[topic] += int(records)
    ages = {name: _worst(looks, f"ramal_{name}_age_seconds") for name in ("locator", "cdr")}
    return {
        "bindings": int(sum(now.total("ramal_registrar_bindings") for now in looks)),
        "aors": int(sum(now.total("ramal_registrar_aors") for now in looks)),
        "registrations_per_second": rate("ramal_registrar_records_total"),
        "failed_logins_per_second": rate("ramal_authsvc_failed_logins_total"),
        "responses_per_second": {name: round(value, 2) for name, value in sorted(statuses.items())},
        "unavailable_share": round(rate("ramal_edge_responses_total", status="503") / finals, 4) if finals else 0.0,
        "transactions": int(sum(now.total("ramal_edge_transactions") for now in looks)),
        "lag": dict(sorted(lag.items())),
        "age_seconds": {name: age for name, age in ages.items() if age is not None},
        "stopped_partitions": int(sum(now.total("ramal_stopped_partitions") for now in looks)),
        "dead_letters": int(sum(now.total("ramal_drops_total", name="dead-letter") for now in looks)),
    }


def gateways(looks: Iterable[Look]) -> list[dict[str, Any]]:
    """By gateway: at how many edges it answers, of how many, and the INVITEs sent by it."""
    found: dict[str, dict[str, Any]] = {}
    for now in looks:
        for name, up in now.by("ramal_edge_gateway_up", "gateway").items():
            each = found.setdefault(name, {"name": name, "edges": 0, "up": 0, "calls": 0})
            each["edges"] += 1
            each["up"] += int(up > 0)
            each["calls"] += int(now.total("ramal_edge_gateway_calls_total", gateway=name))
    return [found[name] for name in sorted(found)]


def _worst(looks: Iterable[Look], name: str) -> float | None:
    found = [age for now in looks if (age := now.highest(name)) is not None]
    return round(max(found), 1) if found else None


def minute(statistics: Mapping[str, Any], begin: int) -> dict[str, Any] | None:
    """The figures of all domains in the minute that begins then, from `/statistics`; None without any."""
    calls = [each for each in statistics.get("calls", ()) if each["start"] == begin]
    online = [each for each in statistics.get("registrations", ()) if each["start"] == begin]
    failed = sum(each["failed"] for each in statistics.get("logins", ()) if each["start"] == begin)
    if not calls and not online and not failed:
        return None
    sums = {name: sum(each[name] for each in calls) for name in SUMMED}
    outcomes = sums["answered"] + sums["failed"] + sums["cancelled"]
    delays = [each["pdd_p95"] for each in calls if each["pdd_p95"] is not None]
    return {
        "start": begin,
        **sums,
        "asr": round(sums["answered"] / outcomes, 3) if outcomes else None,
        "ner": round(sums["delivered"] / outcomes, 3) if outcomes else None,
        "acd": round(sums["talk_ms"] / 1000 / sums["ended"], 1) if sums["ended"] else None,
        "worst_pdd_p95": max(delays, default=None),
        "online": sum(each["online"] for each in online),
        "failed_logins": failed,
    }
