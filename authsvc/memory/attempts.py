"""Attempts at a password that is not a phone's: who fails again and again waits longer and longer. Pure, bounded."""

LONGEST_SECONDS = 3600
FORGOTTEN_SECONDS = 24 * 3600
"""After so long without an attempt, failures are forgotten."""


class Attempts:
    """Failures by subject (a user, an address); from the `limit`-th on each shuts it out, twice as long each time."""

    def __init__(self, limit: int, seconds: int, capacity: int = 20_000) -> None:
        """`seconds`: the first wait."""
        self._limit = limit
        self._seconds = seconds
        self._capacity = capacity
        self._failures: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def remaining(self, subject: str, at: int) -> int:
        """Seconds until this subject may try again; 0: now. `at` in milliseconds, here as below."""
        count, last = self._failures.get(subject, (0, 0))
        if count < self._limit:
            return 0
        wait = min(self._seconds << min(count - self._limit, 20), LONGEST_SECONDS)
        return max(0, (last + wait * 1000 - at + 999) // 1000)

    def failed(self, subject: str, at: int) -> None:
        """Counts a failure; without room, the subject is forgotten that failed longest ago."""
        count, last = self._failures.pop(subject, (0, at))
        if at - last >= FORGOTTEN_SECONDS * 1000:
            count = 0
        while self._failures:  # in order of the last failure
            first = next(iter(self._failures))
            if len(self._failures) < self._capacity and at - self._failures[first][1] < FORGOTTEN_SECONDS * 1000:
                break
            del self._failures[first]
        self._failures[subject] = (count + 1, at)

    def retracted(self, subject: str) -> None:
        """Takes back one failure, which was none; the others stand."""
        if entry := self._failures.get(subject):
            self._failures[subject] = (entry[0] - 1, entry[1])

    def succeeded(self, subject: str) -> None:
        """Forgets its failures."""
        self._failures.pop(subject, None)
