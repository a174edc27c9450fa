"""One spelling of the names that operators see: metrics, labels, drops, and what is written about them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("sipcore", "events", "runtime", "edge", "authsvc", "registrar", "locator", "cdr", "console", "ramal")
SERVICES = ("edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console")
SHARED = {
    "ramal_drops",
    "ramal_foreign_partitions",
    "ramal_lag_records",
    "ramal_log_throttled_seconds",
    "ramal_stopped_partitions",
    "ramal_build_info",
}
LABELS = {"gateway", "group", "method", "name", "outcome", "reason", "status", "topic", "version"}
"""All of them have few values, whatever strangers send."""
KINDS = ("Counter", "Gauge", "Histogram")
UNITS = re.compile(r"_(ms|millis|milliseconds|minutes|kb|mb|percent)(_|$)")
MADE_OF = {"_bucket", "_sum", "_count"}


def calls() -> Iterator[ast.Call]:
    """Every call in the code that runs in services."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def text(node: ast.expr) -> str | None:
    """A literal, with `x` for each value in it; None for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "x" for each in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def metrics() -> dict[str, tuple[str, list[str], str]]:
    """By name: kind, labels and what is said of it."""
    found = {}
    for call in calls():
        if called(call) in KINDS and call.args and (name := text(call.args[0])) and name.startswith("ramal_"):
            labels = [label for each in call.args[2:3] for label in ast.literal_eval(each)]
            found[name] = called(call), labels, text(call.args[1]) or ""
    return found


MADE = metrics()


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_metric_is_named_for_its_service_and_its_unit(name: str) -> None:
    kind, labels, told = MADE[name]
    assert re.fullmatch(r"ramal(_[a-z0-9]+)+", name)
    assert name in SHARED or name.split("_")[1] in SERVICES
    assert not name.endswith("_total"), "the client library says it of counters"
    assert not UNITS.search(name), "times are seconds, sizes octets"
    assert kind != "Histogram" or name.endswith("_seconds")
    assert set(labels) <= LABELS
    assert told.endswith("."), "a sentence says what it is"


def test_there_are_metrics_of_latency_log_ins_calls_and_gateways() -> None:
    assert MADE["ramal_edge_response_seconds"][:2] == ("Histogram", ["method", "status"])
    assert {"ramal_authsvc_logins", "ramal_cdr_calls", "ramal_edge_gateway_up", "ramal_edge_gateway_calls"} <= set(MADE)


def test_drops_have_words_joined_by_hyphens() -> None:
    names = {
        name
        for call in calls()
        if called(call) in ("drop", "dropped", "ParseError") and call.args and (name := text(call.args[0])) is not None
    }
    assert len(names) > 100
    assert [name for name in sorted(names) if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []


@pytest.mark.parametrize(
    "place", ["deploy/prometheus/rules/ramal.yml", "deploy/grafana/dashboards/ramal.json",
              "k8s/components/monitoring/monitoring.yaml", "docs/operating.md", "docs/pt/operacao.md",
              "docs/analysts.md", "console/sampled.py"],
)  # fmt: skip
def test_whoever_names_a_metric_names_one_that_is_made(place: str) -> None:
    first = "|".join(("drops", "lag", "stopped", "foreign", "build", *SERVICES))
    named = set(re.findall(rf"\bramal_(?:{first})\w*", (ROOT / place).read_text()))
    assert named
    said = set()
    for name, (kind, _, _) in MADE.items():
        said |= {name, f"{name}_total"} if kind == "Counter" else {name}
        said |= {name + each for each in MADE_OF} if kind == "Histogram" else set()
    assert named - said - {"ramal_drops_total"} == set()
