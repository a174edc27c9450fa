"""Settings of the edge; section `edge`."""

import re
import socket
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec

from edge.core.deny import SipPeers
from edge.core.gateways.numbers import aors, rules_of
from edge.core.settings import CoreSettings
from runtime.config import Common, Count, Duration, Number, Seconds, WholeSeconds
from runtime.errors import ConfigError
from sipcore.errors import ParseError
from sipcore.uri import parse_uri

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+")
LONGEST_REPLY = 2.0
"""authsvc lets copies of a REGISTER pass for 30 s, each on its way for this long at most: the registrar, which
remembers the first for 32 s, must still know it."""


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `edge`."""

    name: str = ""
    """Unique among live edges, the same after a restart; `RAMAL_NAME`, else the host's name, by default."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """Processes that share this edge's ports, each an edge of its own (`NAME.0`, `NAME.1`, …) that takes one core:
    as many as there are cores, less what else runs here. Bounds such as `max_calls` count for each."""
    udp: tuple[str, ...] = ("0.0.0.0:5060",)
    """`host:port` each; `[::]:5060` for IPv6. Replies leave from the address that was written to."""
    tcp: tuple[str, ...] = ("0.0.0.0:5060",)
    """The same for TCP."""
    tls: tuple[str, ...] = ()
    """The same for TLS."""
    ws: tuple[str, ...] = ()
    """The same for WebSocket; the path is `/sip` or `/`."""
    wss: tuple[str, ...] = ()
    """The same for WebSocket over TLS."""
    certificate: str = ""
    """PEM file with the chain of TLS and WSS; read again when it changes."""
    private_key: str = ""
    """PEM file."""
    trusted_authorities: str = ""
    """PEM file by which TLS peers that we connect to are verified; the system's by default."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may open a WebSocket (`https://phone.example.test`); none given: all."""
    proxy_protocol_from: tuple[str, ...] = ()
    """Addresses or networks of balancers that say by the PROXY protocol (v1, v2) who speaks."""
    edges: str = ""
    """`host:port` where other edges connect; "": this edge is the only one. With several workers, that of the first:
    each further one has the next port."""
    edges_advertised: str = ""
    """`host:port` that other edges reach it by, where that is another."""
    peers: tuple[str, ...] = ()
    """Addresses or networks of SIP peers (gateways, an outer proxy): not challenged, and believed of who calls."""
    deny: tuple[str, ...] = ()
    """Addresses or networks of the cluster (nodes, pods, Services), where nothing is sent to."""
    nameservers: tuple[str, ...] = ()
    """`host` or `host:port` each; those of the system by default."""
    challenge_calls: bool = True
    """Whether our own users must authenticate to call; if not, anybody who writes such a From reaches our users,
    never a gateway or another domain."""
    foreign_callers: bool = False
    """Whether a caller of another domain may call our users without credentials."""
    relay: bool = True
    """Whether our users may call other domains, and register Contacts that are elsewhere than their phones."""
    rtpengine: tuple[str, ...] = ()
    """`host:port` of each rtpengine's ng protocol; a call's server is chosen by its Call-ID."""
    srtp: tuple[Literal["udp", "tcp", "tls"], ...] = ()
    """Transports (`tls`) whose phones are offered RTP/SAVP by rtpengine; RTP/AVP to the others, DTLS to browsers."""
    timer_c: float = 185.0
    """Seconds an INVITE may ring on one branch; more than 3 minutes (RFC 3261 section 16.6)."""
    min_se: Annotated[int, msgspec.Meta(ge=90)] = 90
    """Seconds of the shortest session timer that a call may have (Min-SE, RFC 4028): what is shorter is answered 422,
    or prolonged where the phone would not know why."""
    max_calls: Count = 5_000
    """Server transactions that are not answered yet; above that new calls get 503."""
    keepalive_seconds: Duration = 20.0
    """How often the owner pings a phone on UDP; 0: never."""
    flow_timer: Number = 0
    """Within how many seconds a phone that registers flows (RFC 5626) is asked to say something on each: Flow-Timer;
    0: it is not told, and chooses for itself."""
    service_route: tuple[str, ...] = ()
    """URIs that phones are told to send their calls by (Service-Route, RFC 3608): `sip:sip.example.test;lr`. Ours, or
    of a proxy before us; empty: none are told."""
    advertised: dict[str, str] = {}
    """By transport, the `host` or `host:port` that phones know us by; the bound address by default."""
    service_name: str = ""
    """The host in Path: the name of all edges together, with a port if DNS has no SRV record that says another than
    5060; the default domain by default."""
    own_addresses: bool = False
    """A phone may use an address of this host (or localhost) as its domain: it then means the default domain."""
    gather_seconds: Duration = 0.045
    """How long a registration may wait for others to go to the log with, once one has just gone; 0: not at all."""
    reply_seconds: float = 2.0
    """How long a phone waits for the log's answer before it hears 503; at most 2."""
    retry_after: tuple[int, int] = (5, 15)
    """Least and greatest Retry-After of our own 503s, in seconds; drawn at random, so that phones spread."""
    max_pending: Count = 10_000
    """Transactions without an answer; above that, 503 at once."""
    max_completed: Number = 100_000
    """Answered UDP transactions kept for retransmissions (32 s); the oldest goes first."""
    challenges_per_second: Duration = 0.0
    """Per source address, requests without usable credentials that are answered; 0: all."""
    max_connections: Count = 20_000
    """Of all transports but UDP, at one edge."""
    connections_per_source: Count = 2_000
    """Of those, from one address."""
    message_seconds: Seconds = 10.0
    """A stream whose message is not whole this long after its first octet is closed."""
    idle_seconds: Seconds = 180.0
    """A connection by which no SIP message has come yet is closed when it says nothing for this long, keep-alives
    included (they come every 120 s at most, RFC 5626 section 4.4.1). A phone's flow may be silent: it stays until
    its peer closes it, or no more answers TCP's or WebSocket's probes."""
    drain_seconds: Duration = 30.0
    """After SIGTERM, how long calls that ring may take to be answered; new ones go to other edges meanwhile.
    0: it does not wait."""
    lease_seconds: WholeSeconds = 5
    """How often an edge says on `edge.leases` that it lives, and asks the database."""
    grace_seconds: Number = 5
    """An ended binding is still routed by for this long: clocks and the log's way to the table."""


def edge_name(config: EdgeConfig, common: Common) -> str:
    """What this edge is called in leases and tokens."""
    return config.name or common.name or socket.gethostname()


def core_settings(
    config: EdgeConfig,
    common: Common,
    own_hosts: frozenset[str],
    own_addresses: Sequence[str] = (),
    refuses: Callable[[str], bool] = lambda host: False,
) -> CoreSettings:
    """What the pure core needs of it; `own_addresses` are this host's, none of which may be a peer's.

    `refuses`: whether nothing may be sent to an address.

    Raises ConfigError.
    """
    least, greatest = config.retry_after
    if not 0 < least <= greatest:
        raise ConfigError(f"RAMAL_EDGE_RETRY_AFTER: {least},{greatest} is not 0 < least <= greatest")
    if not 0 < config.reply_seconds <= LONGEST_REPLY:
        raise ConfigError(
            f"RAMAL_EDGE_REPLY_SECONDS: {config.reply_seconds} is not above 0 and at most {LONGEST_REPLY}"
        )
    if config.timer_c <= 180:
        raise ConfigError(f"RAMAL_EDGE_TIMER_C: {config.timer_c:g} is not above 180 (RFC 3261 section 16.6)")
    for uri in config.service_route:
        _check_route(uri)
    _check_names(config)
    domains = common.served()
    modes = {name: domain.media for name, domain in domains.items()}
    if not config.rtpengine and set(modes.values()) != {"direct"}:
        raise ConfigError("RAMAL_EDGE_RTPENGINE: a domain's media is relayed, and no rtpengine is named")
    redirecting = frozenset(name for name, domain in domains.items() if domain.redirect)
    return CoreSettings(
        default_domain=common.domain.lower(),
        algorithms={name: domain.algorithms for name, domain in domains.items()},
        own_hosts=own_hosts,
        own_addresses=config.own_addresses,
        reply_seconds=config.reply_seconds,
        retry_after=config.retry_after,
        nonce_seconds=common.nonce_seconds,
        max_pending=config.max_pending,
        max_completed=config.max_completed,
        challenges_per_second=config.challenges_per_second,
        advertised=config.advertised,
        challenge_calls=config.challenge_calls,
        foreign_callers=config.foreign_callers,
        relay=config.relay,
        keepalive_seconds=config.keepalive_seconds,
        flow_timer=config.flow_timer,
        service_route=config.service_route,
        min_se=config.min_se,
        timer_c=config.timer_c,
        max_calls=config.max_calls,
        is_peer=SipPeers(config.peers, own_addresses, config.deny).is_peer,
        refuses=refuses,
        redirects=redirecting.__contains__,
        media=lambda name: modes.get(name, "direct"),
        srtp=config.srtp,
        number=aors(rules_of(domains), domains.keys()),
    )


def _check_route(text: str) -> None:
    """Raises ConfigError for what no phone can take for a loose route."""
    try:
        uri = parse_uri(text)
        good = uri.is_sip and uri.param("lr") is not None and text.isascii() and not set(text) & set(' <>",\r\n')
    except ParseError:
        good = False
    if not good:
        raise ConfigError(f"RAMAL_EDGE_SERVICE_ROUTE: {text!r} is not like sip:sip.example.test;lr")


def _check_names(config: EdgeConfig) -> None:
    """Raises ConfigError for what would stand in Path as it is, and for an origin that no browser ever names."""
    for origin in config.origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"RAMAL_EDGE_ORIGINS: {origin!r} is not like https://phone.example.test, without a path")
    if config.service_name:
        try:
            uri = parse_uri(f"sip:{config.service_name}")
            good = uri.user is None and not uri.params and not set(config.service_name) & set(' <>",;?\r\n')
        except ParseError:
            good = False
        if not good:
            raise ConfigError(f"RAMAL_EDGE_SERVICE_NAME: {config.service_name!r} is not host or host:port")
    if config.edges:
        endpoint(config.edges, "RAMAL_EDGE_EDGES")


def endpoint(text: str, key: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[host]:port`; raises ConfigError that names the key."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{key}: {text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
