"""The log's clock, as far as a process knows it: whoever judges by time judges by this, never by the host's own."""

from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress

from runtime.log.port import Log, PartitionFault, Position


class LogTime:
    """The log's time, learnt from its records and carried on by our clock.

    Never ahead of the log by more than our clock gains between two records.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._ahead: float | None = None

    def learn(self, timestamp: int) -> None:
        """A record of ours was acknowledged just now with this timestamp (milliseconds)."""
        self._ahead = timestamp - self._clock() * 1000

    def acknowledged(self, positions: Iterable[Position | None]) -> None:
        """What was appended just now, but for what is None, stands there."""
        times = [position.timestamp for position in positions if position is not None]
        if times:
            self.learn(times[-1])

    def heard(self, timestamp: int) -> None:
        """A record with this timestamp was read, whenever it was written: it is this late at least."""
        ahead = timestamp - self._clock() * 1000
        if self._ahead is None or ahead > self._ahead:
            self._ahead = ahead

    def now(self) -> int | None:
        """Milliseconds in the log's time; None before anything was learnt."""
        return None if self._ahead is None else int(self._clock() * 1000 + self._ahead)


async def newest(log: Log, topic: str, partition: int) -> int | None:
    """When the newest record of a partition was written, in milliseconds; None where there is none to be read.

    Raises LogUnavailable.
    """
    bounds = await log.bounds(topic, partition)
    if bounds.begin < bounds.end:
        with suppress(PartitionFault):  # an alarm of whoever reads the partition in order
            async with aclosing(log.read(topic, partition, bounds.end - 1, bounds.end)) as reading:
                async for records in reading:
                    return records[-1].timestamp
    return None
