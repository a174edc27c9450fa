"""Failed log-ins of one partition of `audit` by minute and domain; pure.

The record tells no time of its own: its window is that in which it was written, so none is late.
"""

from collections.abc import Iterable, Iterator

import msgspec

from cdr.statistics.calls import HOUR, MINUTE, adjust
from events.audit import AuthenticationFailed
from events.stats import Seconds

REASONS = 20
"""Reasons that are told by name; they are words of ours."""


class Failures(msgspec.Struct):
    """Those of one minute, by domain and reason; and the ids that are counted, a copy of which changes nothing."""

    counts: dict[str, dict[str, int]] = {}
    ids: set[str] = set()


class Logins:
    """Failed log-ins of one partition, by the records up to now. `grace` is in milliseconds: how long ids are kept."""

    def __init__(self, grace: int) -> None:
        self._grace = grace
        self.time = 0
        self._minutes: dict[int, Failures] = {}
        """Those of the last hours, the newest of which is open."""
        self._touched: set[tuple[int, str]] = set()
        self._changed: set[int] = set()

    def apply(self, event: AuthenticationFailed, id_: str, timestamp: int) -> None:
        """Takes in a record that was written at `timestamp`."""
        self.advance(timestamp)
        since = (self.time - self._grace) // MINUTE
        if any(id_ in failures.ids for minute, failures in self._minutes.items() if minute >= since):
            return
        minute = self.time // MINUTE
        failures = self._minutes.setdefault(minute, Failures())
        domain = event.user.rpartition("@")[2].lower()
        reasons = failures.counts.setdefault(domain, {})
        adjust(reasons, event.reason if event.reason in reasons or len(reasons) < REASONS else "other", 1)
        failures.ids.add(id_)
        self._touched.add((minute, domain))
        self._changed.add(minute)

    def advance(self, timestamp: int) -> None:
        """The log's time is this at least: forgets the hours before the last."""
        self.time = max(self.time, timestamp)
        first = (self.time - self._grace) // MINUTE // HOUR * HOUR
        for minute in [each for each in self._minutes if each < first]:
            del self._minutes[minute]
            self._changed.add(minute)

    def figures(self) -> Iterator[tuple[int, Seconds, str, dict[str, int]]]:
        """What has changed since this was last asked, as start (milliseconds), seconds, domain and reasons."""
        touched = sorted(each for each in self._touched if each[0] in self._minutes)
        for minute, domain in touched:
            yield minute * MINUTE, 60, domain, dict(self._minutes[minute].counts.get(domain, {}))
        for hour, domain in sorted({(minute // HOUR, domain) for minute, domain in touched}):
            whole: dict[str, int] = {}
            for minute, failures in self._minutes.items():
                if minute // HOUR == hour:
                    for reason, count in failures.counts.get(domain, {}).items():
                        adjust(whole, reason, count)
            yield hour * HOUR * MINUTE, 3600, domain, whole
        self._touched.clear()

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """What to store since the last time (None: forget)."""
        for minute in sorted(self._changed):
            failures = self._minutes.get(minute)
            yield f"f{minute}", None if failures is None else _encode(failures)
        self._changed.clear()

    def load(self, stored: Iterable[tuple[str, bytes]], time: int) -> None:
        """Becomes what was stored with a position at this time."""
        self.time = time
        for name, value in stored:
            if name.startswith("f"):
                minute = int(name[1:])
                self._minutes[minute] = _decode(value)
                self._touched.update((minute, domain) for domain in self._minutes[minute].counts)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Failures).decode
