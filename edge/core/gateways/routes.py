"""Telephone gateways: which one a number goes by, what it is asked for there, and which of them answer (PURE).

A number that no user has goes by the gateway with the longest prefix of it among those that answer; where several
have that prefix, by the first in the file, then by the next. Probes are OPTIONS that the caller of `due` sends.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from edge.core.addresses import parsed, spelled
from runtime.errors import ConfigError
from sipcore.errors import ParseError
from sipcore.telephone import NO_RULE, NumberRule, dialled, digits, normal
from sipcore.uri import Uri, parse_uri

MOST_HOSTS = 10_000
"""Addresses of gateways that are remembered."""
LOOK_UP_SECONDS = 60.0
"""How often the name of a gateway that is not asked is looked up."""
DOWN_AFTER = 2
"""Probes in a row without an answer."""
_NO_ANSWER = frozenset({408, 503})


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway; `[gateways.NAME]` in the file."""

    uri: str
    """Where it is: `sip:192.0.2.9:5060;transport=tcp`."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of the numbers it takes: `+55`, `0`; "" takes all."""
    strip: int = 0
    """How many characters (`+` is one) are taken from the front of the number."""
    prepend: str = ""
    """What is then put there."""
    probe_seconds: float = 30.0
    """How often it is asked by OPTIONS whether it is there; 0: never, and it counts as there."""
    domains: tuple[str, ...] = ()
    """Domains whose callers may use it; none given: all."""


class GatewaysConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of section "": `RAMAL_GATEWAYS` is a JSON object, by name."""

    gateways: dict[str, Gateway] = {}
    """Ways to the telephone network, by name."""
    emergency: tuple[str, ...] = ("112", "911")
    """Numbers that every caller may call; dialled as they stand here."""


class ByGateway(NamedTuple):
    """A way to a number."""

    gateway: str
    uri: str
    """The Request-URI for it."""


class _State:
    """What is known of one gateway."""

    __slots__ = ("probe_at", "unanswered")

    def __init__(self) -> None:
        self.probe_at = 0.0
        self.unanswered = 0


class Gateways:
    """The gateways of one edge, each of which counts as there until it was asked."""

    def __init__(self, config: GatewaysConfig, rules: Mapping[str, NumberRule] | None = None) -> None:
        """`rules` of numbers by served domain; raises ConfigError."""
        self._gateways = {name: (gateway, _uri(name, gateway)) for name, gateway in config.gateways.items()}
        self._states = {name: _State() for name in config.gateways}
        self._hosts = {spelled(uri.param("maddr") or uri.host) for _, uri in self._gateways.values()}
        self._emergency = frozenset(config.emergency)
        self._rules = rules or {}

    @property
    def names(self) -> list[str]:
        """All gateways."""
        return list(self._gateways)

    def is_at(self, host: str) -> bool:
        """Whether a gateway is at this name or address, which then is nobody's to call but by a number (S10)."""
        return spelled(host) in self._hosts

    def learn(self, hosts: Iterable[str]) -> None:
        """To these addresses a gateway's name leads."""
        if len(self._hosts) < MOST_HOSTS:
            self._hosts.update(map(spelled, hosts))

    def ways(self, text: str, domain: str) -> list[ByGateway]:
        """By which gateways a caller of this domain reaches a number, in the order to be tried; none if by none.

        `text` is the user part, or what follows `tel:`, as sent. The longest prefix of what was dialled, or of the
        same number by the domain's rule, decides. An emergency number may go by any gateway: the others, as it was
        dialled, come after those of its prefix, and last those that do not answer.
        """
        rule = self._rules.get(domain, NO_RULE)
        number = dialled(text, rule)
        if number is None:
            return []
        spelled = dict.fromkeys((number, normal(number, rule)))
        emergency = number in self._emergency
        matches: list[tuple[int, str, str]] = []
        for name, (gateway, _) in self._gateways.items():
            may = emergency or not gateway.domains or domain in gateway.domains
            fits = [(len(p), name, s) for p in gateway.prefixes for s in spelled if s.startswith(p)]
            if fits and may and self.alive(name):
                matches.append(max(fits, key=_length))
        longest = max(map(_length, matches), default=0)
        ways = [self._way(name, spelling) for length, name, spelling in matches if length == longest]
        if not emergency:
            return ways
        others = sorted(self._gateways, key=lambda name: not self.alive(name))
        taken = {way.gateway for way in ways}
        return ways + [ByGateway(name, self._asked(name, number)) for name in others if name not in taken]

    @property
    def probed(self) -> bool:
        """Whether any gateway is ever asked, or its name looked up."""
        return any(self._interval(name) for name in self._gateways)

    def due(self, now: float) -> list[tuple[str, str, bool]]:
        """Names and URIs of gateways whose turn it is, and whether they are asked by OPTIONS or only looked up.

        Who is asked is told of by `answered` or `unanswered` before the next time. A name is looked up even if nobody
        is asked: its addresses are to be known before a stranger dials one (`is_at`).
        """
        found = []
        for name, (gateway, uri) in self._gateways.items():
            state, interval = self._states[name], self._interval(name)
            if interval and state.probe_at <= now:
                state.probe_at = now + interval
                found.append((name, str(uri), gateway.probe_seconds > 0))
        return found

    def _interval(self, name: str) -> float:
        gateway, uri = self._gateways[name]
        if gateway.probe_seconds > 0:
            return gateway.probe_seconds
        return 0.0 if parsed(uri.param("maddr") or uri.host) else LOOK_UP_SECONDS

    def answered(self, name: str, status: int) -> None:
        """A final response came: the gateway is there, unless it is 503 or 408."""
        if status in _NO_ANSWER:
            self.unanswered(name)
        elif name in self._states:
            self._states[name].unanswered = 0

    def unanswered(self, name: str) -> None:
        """Nothing came, or it could not be sent."""
        if name in self._states:
            self._states[name].unanswered += 1

    def alive(self, name: str) -> bool:
        """Whether the gateway is there as far as is known."""
        return self._states[name].unanswered < DOWN_AFTER

    def _way(self, name: str, number: str) -> ByGateway:
        gateway, _ = self._gateways[name]
        return ByGateway(name, self._asked(name, gateway.prepend + number[gateway.strip :]))

    def _asked(self, name: str, number: str) -> str:
        uri = self._gateways[name][1]
        # `#` is no character of a user part (RFC 3261 section 25.1).
        return str(Uri(uri.scheme, number.replace("#", "%23"), None, uri.host, uri.port, uri.params))


def _length(match: tuple[int, str, str]) -> int:
    return match[0]


def _uri(name: str, gateway: Gateway) -> Uri:
    key = f"gateways.{name}"
    try:
        uri = parse_uri(gateway.uri)
    except ParseError as error:
        raise ConfigError(f"{key}.uri: {gateway.uri!r} is no URI") from error
    if not uri.is_sip or uri.user is not None or uri.headers:
        raise ConfigError(f"{key}.uri: {gateway.uri!r} is not sip:HOST or sips:HOST")
    if gateway.strip < 0:
        raise ConfigError(f"{key}.strip: must not be below 0")
    if gateway.prepend and digits(gateway.prepend) != gateway.prepend:
        raise ConfigError(f"{key}.prepend: {gateway.prepend!r} is no part of a number")
    return uri
