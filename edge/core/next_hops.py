"""Where a URI leads by RFC 3263, as far as nobody need be asked: what to ask DNS for, in which order to try (PURE)."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from edge.core.actions import NextHop
from edge.core.addresses import parsed
from sipcore.errors import ParseError
from sipcore.uri import Uri, parse_uri

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
"""By transport that we open flows by. Nobody opens one to a WebSocket client (RFC 7118 section 5)."""
_SERVICES = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
_NAPTR_SERVICES = {"SIPS+D2T": "tls", "SIP+D2T": "tcp", "SIP+D2U": "udp"}
_NOT_IN_DNS = ("invalid", "localhost")  # RFC 6761; `.invalid` is what browsers put into their Contact


class NextHopQuery(NamedTuple):
    """What a URI asks for."""

    host: str
    """TARGET of RFC 3263 section 4: an IP address without brackets, or a name in lower case."""
    transport: str
    """"": not said."""
    port: int
    """0: not said."""
    secure: bool
    """A sips URI: nothing but TLS."""

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an IP address."""
        return parsed(self.host) is not None

    @property
    def default_transport(self) -> str:
        """What is taken where neither the URI nor DNS says more (section 4.1)."""
        return self.transport or ("tls" if self.secure else "udp")

    def at(self, addresses: Iterable[str]) -> list[NextHop]:
        """These addresses by the default transport."""
        transport = self.default_transport
        return [NextHop(transport, a, self.port or DEFAULT_PORTS[transport], self.host) for a in addresses]


class Service(NamedTuple):
    """An SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str
    """Without the last dot; "": the service is not to be had there."""


class Naptr(NamedTuple):
    """A NAPTR record, as far as SIP uses it."""

    order: int
    preference: int
    flags: str
    service: str
    regexp: str
    replacement: str


@lru_cache(maxsize=2_000)
def query_of(uri: str) -> NextHopQuery | None:
    """What a URI asks for; None for one that leads nowhere from here.

    Those are: other schemes, transports that we do not open, a sips URI with `transport=udp`, names that are
    never in DNS (single labels, `.invalid`), and what is neither an address nor a name (`127.1`).
    """
    try:
        parts = parse_uri(uri)
    except ParseError:
        return None
    if not parts.is_sip:
        return None
    host = _target(parts)
    transport = (parts.param("transport") or "").lower()
    secure = parts.scheme == "sips"
    if secure and transport:
        # In a sips URI the parameter says what is under TLS (RFC 3261 section 26.2.2).
        transport = {"tcp": "tls", "tls": "tls"}.get(transport, "none")
    if host is None or (transport and transport not in DEFAULT_PORTS) or parts.port == 0:
        return None
    return NextHopQuery(host, transport, parts.port or 0, secure)


def _target(uri: Uri) -> str | None:
    host = (uri.param("maddr") or uri.host).lower()
    address = parsed(host)
    if address is not None:
        return str(address)
    return host.removesuffix(".") if in_dns(host) else None


def in_dns(host: str) -> bool:
    """Whether a lower-case host that is no IP address may be a name in DNS."""
    labels = host.removesuffix(".").split(".")
    # toplabel = ALPHA / ALPHA *( alphanum / "-" ) alphanum: no number in another spelling passes for a name.
    return len(labels) > 1 and labels[-1] not in _NOT_IN_DNS and labels[-1][0:1].isalpha() and all(labels)


def numeric(uri: str) -> list[NextHop] | None:
    """Where a URI leads if it takes no DNS to tell: [] for nowhere; None if DNS must be asked."""
    asked = query_of(uri)
    if asked is None:
        return []
    return asked.at([asked.host]) if asked.is_numeric else None


def services(asked: NextHopQuery) -> list[tuple[str, str]]:
    """Transports and the names of their SRV records, the preferred first, where NAPTR says nothing (section 4.1)."""
    if asked.transport or asked.secure:
        transports: Sequence[str] = (asked.default_transport,)
    else:
        transports = ("udp", "tcp")
    return [(transport, f"{_SERVICES[transport]}.{asked.host}") for transport in transports]


def by_naptr(records: Iterable[Naptr], secure: bool) -> list[tuple[str, str]]:
    """Transports and the names of their SRV records by NAPTR, the preferred first (section 4.1)."""
    found = []
    for record in sorted(records, key=lambda record: (record.order, record.preference)):
        transport = _NAPTR_SERVICES.get(record.service.upper())
        if transport is None or (secure and transport != "tls"):
            continue
        if record.flags.lower() == "s" and not record.regexp and record.replacement:
            found.append((transport, record.replacement))
    return found


def in_order(records: Iterable[Service], draw: Callable[[], float]) -> list[Service]:
    """The order of RFC 2782: by priority; within one at random by weight. `draw` gives numbers in [0, 1)."""
    left = sorted(records)
    ordered = []
    while left:
        # Weight 0 stands first, and has a small chance.
        same = [record for record in left if record.priority == left[0].priority]
        point = draw() * (sum(record.weight for record in same) + 1)
        chosen = same[-1]
        running = 0
        for record in same:
            running += record.weight
            if running >= int(point):
                chosen = record
                break
        left.remove(chosen)
        ordered.append(chosen)
    return ordered
