"""The log's time, learnt from acknowledged records: the one clock of deadlines and of seconds left.

Nobody's wall clock is trusted: the difference is between the local monotonic clock and the timestamps
that the log gives (LogAppendTime), so neither a skewed node nor a stepped clock moves a deadline.
"""

APART_MS = 2000.0
"""What the log's time may jump by before people are told: a command's whole deadline, by default."""
REMEMBERED_SECONDS = 60.0


class LogClock:
    """Milliseconds in the log's time from local monotonic seconds."""

    def __init__(self, now: float, wall: float) -> None:
        """`now` is monotonic, `wall` the local guess in Unix seconds until the log has been heard."""
        self._difference = wall * 1000.0 - now * 1000.0
        self.learnt = False
        self._jumps: dict[bool, tuple[float, float]] = {}
        """The last jump forwards and the last one back: when, and by how many milliseconds."""

    def at(self, now: float) -> int:
        """The log's time in milliseconds at this local moment."""
        return int(now * 1000.0 + self._difference)

    def learn(self, sent: float, acknowledged: float, timestamp: int) -> None:
        """A record appended between two local moments got this timestamp (milliseconds).

        The true difference is then between `timestamp - acknowledged` and `timestamp + 1 - sent`. The
        estimate moves only as far as it must to lie within: short round trips narrow it, long ones
        (a waiting batch) leave it alone, and a step of the log's clock is followed at once.
        """
        lowest = timestamp - acknowledged * 1000.0
        highest = timestamp + 1 - sent * 1000.0
        if not self.learnt:
            self._difference = (lowest + highest) / 2
            self.learnt = True
            return
        before = self._difference
        self._difference = min(max(before, lowest), highest)
        jump = self._difference - before
        if abs(jump) >= APART_MS:
            self._jumps[jump > 0] = (acknowledged, abs(jump))

    def apart(self, now: float) -> float:
        """By how many seconds the brokers' clocks differ, as far as it matters: their partitions' times go back and
        forth. 0: they do not, or one clock was set once."""
        lately = [by for when, by in self._jumps.values() if now - when < REMEMBERED_SECONDS]
        return min(lately) / 1000.0 if len(lately) == 2 else 0.0
