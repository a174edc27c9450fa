"""The figures of the whole system: the records of `stats` added up, and the rates that people ask for; pure.

ASR and NER are those of ITU-T E.425 on calls as SIP has them: a redirected call (3xx) is tried again elsewhere and is
no attempt of its own, a call whose outcome is not known yet is not in a rate. docs/analysts.md has the definitions.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from cdr.statistics.delay import quantile
from events.stats import CallStatistics, LoginStatistics, RegistrationStatistics, Statistics

_SUMS = (
    "attempts",
    "answered",
    "delivered",
    "failed",
    "cancelled",
    "redirected",
    "to_users",
    "missed",
    "ended",
    "talk_ms",
    "concurrent",
    "late",
)


class CallFigures(msgspec.Struct, kw_only=True):
    """The calls of one window; ratios from 0 to 1, null where there is nothing to divide by."""

    start: int
    """Milliseconds since 1970, UTC."""
    seconds: int
    domain: str
    gateway: str | None
    """None: all of them together."""
    attempts: int = 0
    answered: int = 0
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    redirected: int = 0
    to_users: int = 0
    missed: int = 0
    ended: int = 0
    talk_ms: int = 0
    concurrent: int = 0
    late: int = 0
    asr: float | None = None
    """Answer-seizure ratio."""
    ner: float | None = None
    """Network effectiveness ratio."""
    acd: float | None = None
    """Average call duration, seconds."""
    missed_rate: float | None = None
    pdd_p50: int | None = None
    """Post-dial delay, milliseconds."""
    pdd_p95: int | None = None


class RegistrationFigures(msgspec.Struct, kw_only=True):
    """What is registered at the end of one window."""

    start: int
    seconds: int
    domain: str
    online: int = 0
    transports: dict[str, int] = {}
    agents: dict[str, int] = {}


class LoginFigures(msgspec.Struct, kw_only=True):
    """Failed log-ins of one window."""

    start: int
    seconds: int
    domain: str
    failed: int = 0
    reasons: dict[str, int] = {}


class Board:
    """The newest figures of each window and partition. `kept` milliseconds of windows of each length."""

    def __init__(self, kept: dict[int, int]) -> None:
        self._kept = kept
        self._shares: dict[int, dict[tuple[Any, ...], dict[int, Statistics]]] = {}
        """By start of the window; by kind, length, domain and gateway; by partition."""
        self._newest = 0

    def take(self, each: Statistics) -> None:
        """Takes a record in, whatever order they come in."""
        self._newest = max(self._newest, each.start)
        if each.start < self._newest - self._kept[each.seconds]:
            return
        key = (type(each), each.seconds, each.domain, each.gateway if isinstance(each, CallStatistics) else "")
        if each.start not in self._shares:
            self._shares[each.start] = {}
            self._forget()
        shares = self._shares[each.start].setdefault(key, {})
        known = shares.get(each.partition)
        if known is None or each.through >= known.through:
            shares[each.partition] = each

    def _forget(self) -> None:
        for start in [start for start in self._shares if start < self._newest - max(self._kept.values())]:
            del self._shares[start]
        for start, keys in self._shares.items():
            for key in [key for key in keys if start < self._newest - self._kept[key[1]]]:
                del keys[key]

    def calls(self, seconds: int, since: int, until: int, *, by_gateway: bool = False) -> list[CallFigures]:
        """The calls of the windows that begin in [since, until) and have any, by domain, by gateway if so asked."""
        found: dict[tuple[int, str, str], list[CallStatistics]] = {}
        for each in self._of(CallStatistics, seconds, since, until):
            key = (each.start, each.domain, each.gateway if by_gateway else "")
            found.setdefault(key, []).append(each)
        figures = (
            added(key[0], seconds, key[1], key[2] if by_gateway else None, shares)
            for key, shares in sorted(found.items())
        )
        return [each for each in figures if any(getattr(each, name) for name in _SUMS)]

    def registrations(self, seconds: int, since: int, until: int) -> list[RegistrationFigures]:
        """What was registered at the end of these windows, by domain."""
        found: dict[tuple[int, str], RegistrationFigures] = {}
        for each in self._of(RegistrationStatistics, seconds, since, until):
            figures = found.setdefault(
                (each.start, each.domain),
                RegistrationFigures(start=each.start, seconds=seconds, domain=each.domain),
            )
            figures.online += each.online
            figures.transports = dict(Counter(figures.transports) + Counter(each.transports))
            figures.agents = dict(Counter(figures.agents) + Counter(each.agents))
        return [found[key] for key in sorted(found)]

    def logins(self, seconds: int, since: int, until: int) -> list[LoginFigures]:
        """Failed log-ins of these windows, by domain."""
        found: dict[tuple[int, str], LoginFigures] = {}
        for each in self._of(LoginStatistics, seconds, since, until):
            figures = found.setdefault(
                (each.start, each.domain), LoginFigures(start=each.start, seconds=seconds, domain=each.domain)
            )
            figures.failed += each.failed
            figures.reasons = dict(Counter(figures.reasons) + Counter(each.reasons))
        return [found[key] for key in sorted(found)]

    def _of(self, kind: type[Any], seconds: int, since: int, until: int) -> Iterable[Any]:
        for start, keys in self._shares.items():
            if since <= start < until:
                for key, shares in keys.items():
                    if key[0] is kind and key[1] == seconds:
                        yield from shares.values()


def added(start: int, seconds: int, domain: str, gateway: str | None, shares: Iterable[CallStatistics]) -> CallFigures:
    """The sum of partitions (or of gateways), and its rates."""
    figures = CallFigures(start=start, seconds=seconds, domain=domain, gateway=gateway)
    delays: Counter[str] = Counter()
    for each in shares:
        for name in _SUMS:
            setattr(figures, name, getattr(figures, name) + getattr(each, name))
        delays.update(each.post_dial)
    outcomes = figures.answered + figures.failed + figures.cancelled
    figures.asr = _ratio(figures.answered, outcomes)
    figures.ner = _ratio(figures.delivered, outcomes)
    figures.acd = _ratio(figures.talk_ms / 1000, figures.ended)
    figures.missed_rate = _ratio(figures.missed, figures.to_users)
    figures.pdd_p50, figures.pdd_p95 = quantile(delays, 0.5), quantile(delays, 0.95)
    return figures


def _ratio(part: float, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
