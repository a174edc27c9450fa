"""Which replies an edge takes."""

from types import SimpleNamespace
from typing import Any, cast

from edge.topics.replies import Replies
from events.replies import CloseFlow, Refused, Reply
from events.wire import encode


def test_a_flow_that_is_no_connection_is_any_lifes_to_forget() -> None:
    replies = Replies(cast(Any, None), "edge-1", "b00t", lambda _: None)
    closings = [CloseFlow(boot, "edge-1", boot, "<sip:token@edges;lr>") for boot in ("", "b00t", "other")]
    records: list[Any] = [SimpleNamespace(key=b"edge-1", value=encode(closing)) for closing in closings]
    assert [reply.id for reply in replies.decode(records)] == ["", "b00t"]


def test_replies_for_another_edge_or_boot_and_poisoned_ones_are_dropped() -> None:
    taken: list[Reply] = []
    replies = Replies(cast(Any, None), "edge-1", "b00t", taken.extend)

    def record(key: bytes, value: bytes | None) -> Any:
        return SimpleNamespace(key=key, value=value)

    mine = encode(Refused("1", "edge-1", "b00t", 403, "No"))
    older = encode(Refused("2", "edge-1", "other", 403, "No"))
    records = [
        record(b"edge-1", mine),
        record(b"edge-2", mine),
        record(b"edge-1", older),
        record(b"edge-1", b"{"),
        record(b"edge-1", None),
    ]
    assert [reply.id for reply in replies.decode(records)] == ["1"]
