"""Which edge asked first for a request that was let in (CHECKLIST Y36). Pure, bounded; one object per partition.

A caller whose 100 was lost sends its INVITE again, and the copy may reach another edge. All that one user asks
meets in one partition, in order, so the second edge can be told whose the call is.
"""

from events.commands import RequestId

MILLISECONDS = 32_000
"""For how long a copy may come: 64*T1 (RFC 3261 section 17.1.1.2, Timer B)."""

Edge = tuple[str, str]
"""Name and boot."""


class Requests:
    """Edges by user and request, the oldest request first."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._edges: dict[int, tuple[Edge, int]] = {}

    def __len__(self) -> int:
        return len(self._edges)

    def first(self, user: str, request: RequestId, edge: Edge, at: int) -> Edge | None:
        """Who asked for this request before, if it was not this edge itself."""
        entry = self._edges.get(_key(user, request))
        if entry is None or at - entry[1] >= MILLISECONDS or entry[0] == edge:
            return None
        return entry[0]

    def enter(self, user: str, request: RequestId, edge: Edge, at: int) -> None:
        """This edge asked for it; who did so before stays the first."""
        while self._edges:
            oldest = next(iter(self._edges))
            if len(self._edges) < self._capacity and at - self._edges[oldest][1] < MILLISECONDS:
                break
            del self._edges[oldest]
        self._edges.setdefault(_key(user, request), (edge, at))


def _key(user: str, request: RequestId) -> int:
    """What stands for a request in this process: its words may be long."""
    return hash((user, request.call_id, request.cseq, request.branch))
