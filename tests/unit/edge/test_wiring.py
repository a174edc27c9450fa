"""The shells of an edge joined: what one of them answers to the core costs no other."""

from typing import Any, cast

from edge.config import EdgeConfig
from edge.core.actions import Location
from edge.core.deny import Denied
from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from edge.wiring import Surroundings
from runtime.config import Common
from runtime.metrics import drops
from tests.kit.edge import KEYS, core_but


def test_y34_one_answer_that_breaks_costs_the_others_nothing() -> None:
    told = []

    def located(number: int, found: Location, now: float) -> None:
        told.append((number, found.aor))
        if number == 1:
            raise ZeroDivisionError

    edge = core_but(located=located)
    transports = Transports(edge, list.clear, StreamSettings(StreamLimits(1, 1, 1.0, 1.0), Certificates("", "")))
    nothing = cast(Any, None)
    life = ("edge-1", "b00t")
    wired = Surroundings(EdgeConfig(), Common(), Denied(), edge, transports, nothing, nothing, KEYS, life)
    before = drops("bug")

    wired._located([(1, Location("alice@example.test")), (2, Location("bob@example.test"))])

    assert told == [(1, "alice@example.test"), (2, "bob@example.test")]
    assert drops("bug") == before + 1
