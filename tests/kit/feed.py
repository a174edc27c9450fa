"""Records as a share of statistics takes them: in any order, and more than once."""

from typing import Any

from cdr.statistics.board import Board, CallFigures
from cdr.statistics.calls import MINUTE
from cdr.statistics.share import Share
from events.audit import AuthenticationFailed
from events.calls import CallEvent, event_id
from events.stats import Statistics
from events.topics import AUDIT, CALLS, REGISTRATIONS
from events.wire import cloud_event, encode
from tests.kit.call_stories import START

GRACE = 10 * MINUTE
KEPT = {60: 10 * 3_600_000, 3600: 100 * 3_600_000}
BEGIN = START // MINUTE * MINUTE


class Feed:
    """Appends records to one partition, and has a share take them in."""

    def __init__(self, share: Share | None = None) -> None:
        self.share = share or Share(0, GRACE)
        for topic in (CALLS, REGISTRATIONS, AUDIT):
            if topic not in self.share.places:
                self.share.begin(topic, 0)
        self.board = Board(KEPT)

    def call(self, event: CallEvent, timestamp: int) -> None:
        headers = cloud_event("ramal.Call", "edge", event_id(event))
        self.put(CALLS, timestamp, headers, encode(event))

    def put(self, topic: str, timestamp: int, headers: Any, value: bytes) -> None:
        self.share.take(topic, self.share.places[topic].next, timestamp, headers, value)

    def told(self, now: int | None = None) -> list[Statistics]:
        told = self.share.statistics(now)
        for each in told:
            self.board.take(each)
        return told

    def calls(self, seconds: int = 60, *, by_gateway: bool = False) -> list[CallFigures]:
        self.told()
        return self.board.calls(seconds, 0, 1 << 60, by_gateway=by_gateway)


# --- log-ins ---------------------------------------------------------------------------------------------------------


def failed(feed: Feed, timestamp: int, id_: str, reason: str = "wrong response") -> None:
    event = AuthenticationFailed("eve@example.test", "alice@example.test", "192.0.2.66", reason)
    feed.put(AUDIT, timestamp, cloud_event("ramal.AuthenticationFailed", "authsvc", id_), encode(event))
