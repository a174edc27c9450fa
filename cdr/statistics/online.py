"""The bindings of one partition by transport and user agent, and how many each minute ended with; pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from cdr.statistics.calls import HOUR, MINUTE, NONE
from events.registrations import BindingsRecorded
from events.stats import Seconds

AGENTS = 50
"""User agents that are told by name."""
OTHER = "other"
UNKNOWN = "unknown"
NAME = 40
"""Characters of a product's name."""
WIDTH = 80
"""Characters that are looked at."""
TRANSPORTS = frozenset({"udp", "tcp", "tls", "ws", "wss"})
_PRODUCT = re.compile(r"[^/(\t]+")
_VERSION = re.compile(r"[\s_-]+[vV]?\d+\.\d.*")


class Phone(NamedTuple):
    """What counts of a binding."""

    transport: str
    agent: str


class Online(NamedTuple):
    """How many bindings a domain has."""

    online: int
    transports: dict[str, int]
    agents: dict[str, int]


def product(agent: str) -> str:
    """The product that a User-Agent names, without its version: `Linphone` of `Linphone/4.5 (belle-sip/4.5)`,
    `Yealink SIP-T46S` of `Yealink SIP-T46S 66.86.0.15`."""
    found = _PRODUCT.match(agent.strip()[:WIDTH])
    return _VERSION.sub("", found.group()).strip()[:NAME] if found else UNKNOWN


class Registrations:
    """The bindings of one partition, by the records up to now."""

    def __init__(self) -> None:
        self.time = 0
        self._phones: dict[str, tuple[Phone, ...]] = {}
        """By AOR."""
        self._counts: dict[str, Counter[Phone]] = defaultdict(Counter)
        """By domain."""
        self._touched: set[str] = set()
        """Domains to be told."""
        self._ended: dict[tuple[int, str], Online] = {}
        """What was at the end of minutes that are over and are to be told."""
        self._minute = NONE
        self._changed: set[str] = set()

    def apply(self, event: BindingsRecorded, timestamp: int) -> None:
        """Takes in a record that was written at `timestamp`."""
        self.advance(timestamp)
        phones = tuple(Phone(_transport(each.socket), product(each.user_agent)) for each in event.state.bindings)
        before = self._phones.get(event.aor, ())
        if phones != before:
            self._count(event.aor, before, phones)
            self._changed.add(event.aor)

    def _count(self, aor: str, before: tuple[Phone, ...], after: tuple[Phone, ...]) -> None:
        domain = aor.rpartition("@")[2].lower()
        counts = self._counts[domain]
        counts.subtract(before)
        counts.update(after)
        self._counts[domain] = +counts
        if after:
            self._phones[aor] = after
        else:
            self._phones.pop(aor, None)
        self._touched.add(domain)

    def advance(self, timestamp: int) -> None:
        """The log's time is this at least: what is registered now was so at the end of the minutes before."""
        self.time = max(self.time, timestamp)
        minute = self.time // MINUTE
        if minute <= self._minute:
            return
        if self._minute != NONE:
            # The first of them may be another figure than was told last, and the last one ends what was told: of a
            # long silence between them every minute is the same, and an hour's worth is told.
            for each in {*range(max(self._minute, minute - HOUR), minute)}:
                for domain in self._counts:
                    self._ended[each, domain] = self._online(domain)
        self._touched.update(self._counts)
        self._minute = minute

    def _online(self, domain: str) -> Online:
        counts = self._counts[domain]
        transports: Counter[str] = Counter()
        agents: Counter[str] = Counter()
        for phone, count in counts.items():
            transports[phone.transport] += count
            agents[phone.agent] += count
        return Online(counts.total(), dict(sorted(transports.items())), most(agents))

    def figures(self) -> Iterator[tuple[int, Seconds, str, Online]]:
        """What has changed since this was last asked, as start (milliseconds), seconds, domain and figures."""
        told = dict(self._ended)
        told.update({(self._minute, domain): self._online(domain) for domain in self._touched})
        hours = {}
        for (minute, domain), online in sorted(told.items(), key=lambda each: each[0]):
            yield minute * MINUTE, 60, domain, online
            hours[minute // HOUR, domain] = online
        for (hour, domain), online in hours.items():
            yield hour * HOUR * MINUTE, 3600, domain, online
        self._ended.clear()
        self._touched.clear()
        for domain in [domain for domain, counts in self._counts.items() if not counts]:
            del self._counts[domain]  # it was told that there is nobody

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """What to store since the last time (None: forget)."""
        for aor in self._changed:
            phones = self._phones.get(aor)
            yield "a" + aor, None if phones is None else _encode(phones)
        self._changed.clear()

    def load(self, stored: Iterable[tuple[str, bytes]], time: int) -> None:
        """Becomes what was stored with a position at this time."""
        self.time, self._minute = time, time // MINUTE if time else NONE
        for name, value in stored:
            if name.startswith("a"):
                self._count(name[1:], (), _decode(value))


def _transport(socket: str) -> str:
    name = socket.partition(":")[0].lower()
    return name if name in TRANSPORTS else UNKNOWN


def most(agents: Mapping[str, int]) -> dict[str, int]:
    """The most frequent ones by name, what is left as `other`."""
    ranked = sorted(agents.items(), key=lambda each: (each[0] == OTHER, -each[1], each[0]))
    named = dict(ranked[:AGENTS])
    if rest := sum(count for _, count in ranked[AGENTS:]):
        named[OTHER] = named.get(OTHER, 0) + rest
    return named


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Phone, ...]).decode
