"""What joins sockets and core: a bug costs what was told, and nothing else."""

import pytest

from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from events.replies import Registered
from runtime.metrics import drops
from tests.kit.edge import core


def test_a_bug_with_a_batch_of_replies_does_not_end_the_reading_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    edge = core()
    transports = Transports(edge, list.clear, StreamSettings(StreamLimits(1, 1, 1.0, 1.0), Certificates("", "")))
    monkeypatch.setattr(edge, "replied", broken)
    before = drops("bug")
    transports.replied([Registered("1", "edge-1", "b00t", 0, ())])
    assert drops("bug") == before + 1
