"""Failed attempts by user and source (CHECKLIST A30). Pure, bounded; one object per partition.

The partition follows the user, so a lock-out is the same whichever edge was asked. Another user behind the
same address, and the same user from another address, are not touched.
"""


class Lockouts:
    """Counts failures that follow each other closely; at `limit` the pair is shut out until it has been quiet."""

    def __init__(self, limit: int, seconds: int, capacity: int = 100_000) -> None:
        self._limit = limit
        self._milliseconds = seconds * 1000
        self._capacity = capacity
        self._failures: dict[tuple[str, str], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def remaining(self, user: str, source: str, at: int) -> int:
        """Seconds for which this user is still shut out from this source; 0: is not."""
        if not self._failures or (entry := self._failures.get((user, source))) is None:
            return 0
        count, last = entry
        left = last + self._milliseconds - at
        return (left + 999) // 1000 if count >= self._limit and left > 0 else 0

    def failed(self, user: str, source: str, at: int) -> None:
        """Counts a failure. Pairs whose time is over are forgotten, and without room that which failed longest ago."""
        count, last = self._failures.pop((user, source), (0, at))
        if at - last >= self._milliseconds:
            count = 0
        while self._failures:
            # In order of the last failure.
            pair = next(iter(self._failures))
            if len(self._failures) < self._capacity and at - self._failures[pair][1] < self._milliseconds:
                break
            del self._failures[pair]
        self._failures[user, source] = (count + 1, at)

    def retracted(self, user: str, source: str) -> None:
        """Takes back one failure of this pair, which was none; the others stand."""
        if entry := self._failures.get((user, source)):
            count, last = entry
            self._failures[user, source] = (count - 1, last)

    def succeeded(self, user: str, source: str) -> None:
        """Forgets the failures of this pair."""
        if self._failures:
            self._failures.pop((user, source), None)

    def forgiven(self, user: str) -> None:
        """Forgets the failures of this user from everywhere."""
        for pair in [pair for pair in self._failures if pair[0] == user]:
            del self._failures[pair]
