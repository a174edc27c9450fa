"""How much of an attack is written to `audit`: a few failures per source and minute, and a bound for all. Pure."""

PER_SOURCE = 6
PER_MINUTE = 600
_MINUTE = 60_000


class AuditRate:
    """Counts per minute of the log's time; sources within it are at most PER_MINUTE."""

    def __init__(self) -> None:
        self._minute = -1
        self._total = 0
        self._sources: dict[str, int] = {}

    def allows(self, source: str, at: int) -> bool:
        """Whether one more failure from this source is written."""
        minute = at // _MINUTE
        if minute != self._minute:
            self._minute, self._total = minute, 0
            self._sources.clear()
        count = self._sources.get(source, 0)
        if self._total >= PER_MINUTE or count >= PER_SOURCE:
            return False
        self._sources[source] = count + 1
        self._total += 1
        return True
