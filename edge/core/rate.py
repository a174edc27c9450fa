"""Token buckets per source address, for what strangers may have us do (CHECKLIST S01)."""

SOURCES = 65536
"""Sources remembered; the one unheard for longest is forgotten first, which gives it a full bucket."""


class SourceRate:
    """Lets `per_second` requests of one source pass, with bursts of one second's worth; 0 lets all pass."""

    def __init__(self, per_second: float, sources: int = SOURCES) -> None:
        self._rate = per_second
        self._sources = sources
        self._buckets: dict[str, tuple[float, float]] = {}

    def passes(self, source: str, now: float) -> bool:
        """Takes a token of this source if there is one; `now` in monotonic seconds."""
        if not self._rate:
            return True
        full = max(self._rate, 1.0)
        tokens, at = self._buckets.pop(source, (full, now))
        tokens = min(full, tokens + (now - at) * self._rate)
        passes = tokens >= 1.0
        # Put in again at the end: the order of the dictionary is that of last use.
        self._buckets[source] = (tokens - 1.0 if passes else tokens, now)
        if len(self._buckets) > self._sources:
            del self._buckets[next(iter(self._buckets))]
        return passes


class SharedRate:
    """Lets so many a second of one source pass, and so many of all sources together: whoever writes false ones, too."""

    def __init__(self, per_source: float, in_all: float) -> None:
        self._sources = SourceRate(per_source)
        self._all = SourceRate(in_all, 1)

    def passes(self, source: str, now: float) -> bool:
        """Takes a token of this source, and one of all, if there are such; `now` in monotonic seconds."""
        return self._sources.passes(source, now) and self._all.passes("", now)
