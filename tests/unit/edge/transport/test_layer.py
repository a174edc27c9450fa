"""What joins sockets and core: a bug costs what was told, and nothing else."""

from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from events.replies import Registered
from runtime.metrics import drops
from tests.kit.edge import core_but


def test_a_bug_with_a_batch_of_replies_does_not_end_the_reading_of_them() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    edge = core_but(replied=broken)
    transports = Transports(edge, list.clear, StreamSettings(StreamLimits(1, 1, 1.0, 1.0), Certificates("", "")))
    before = drops("bug")
    transports.replied([Registered("1", "edge-1", "b00t", 0, ())])
    assert drops("bug") == before + 1
