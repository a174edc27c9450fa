"""What Prometheus hears of an edge's answers; each service's own figures are beside its code.

Label values are bounded, whatever phones answer: a status that no RFC has counts by its class.
"""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from edge.core.actions import Actions
from edge.core.answers import TIMED
from edge.core.gateways.routes import Gateways
from sipcore.reasons import REASONS

RESPONSES = Counter("ramal_edge_responses", "Responses sent, by status.", ["status"])
SECONDS = Histogram(
    "ramal_edge_response_seconds",
    "From a request to its final response, by method (REGISTER, INVITE) and status; at once is 0.",
    ["method", "status"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 180),
)
GATEWAY_UP = Gauge("ramal_edge_gateway_up", "1 while a gateway answers, or is not asked; else 0.", ["gateway"])
GATEWAY_CALLS = Counter("ramal_edge_gateway_calls", "INVITEs sent by a gateway.", ["gateway"])


def spelled(status: int) -> str:
    """The label of a status: `486`; `4xx` of one that no RFC has."""
    return str(status) if status in REASONS else f"{status // 100}xx"


@cache
def _responses(label: str) -> Counter:
    return RESPONSES.labels(label)


@cache
def _seconds(method: str, label: str) -> Histogram:
    return SECONDS.labels(method, label)


def count(actions: Actions) -> None:
    """Counts what a wake-up has answered, and which gateways were rung."""
    for status, number in actions.statuses.items():
        _responses(spelled(status)).inc(number)
    for method, status, seconds in actions.finals:
        _seconds(method, spelled(status)).observe(seconds)
    for name, number in actions.by_gateway.items():
        GATEWAY_CALLS.labels(name).inc(number)


def watch(gateways: Gateways) -> None:
    """Tells the state of each gateway, and of none that is no more."""
    GATEWAY_UP.clear()
    for name in gateways.names:
        GATEWAY_UP.labels(name).set_function(lambda name=name: float(gateways.alive(name)))  # type: ignore[misc]
        GATEWAY_CALLS.labels(name)


_responses("503")  # an alert sees the first one, too
for _method in TIMED:
    _seconds(_method, "200")
