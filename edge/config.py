"""Settings of the edge; section `edge`."""

import msgspec

from edge.settings import CoreSettings
from runtime.config import Common
from runtime.errors import ConfigError


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `edge`."""

    name: str = ""
    """Unique among live edges, the same after a restart; `RAMAL_NAME`, else the host's name, by default."""
    udp: tuple[str, ...] = ("0.0.0.0:5060",)
    """`host:port` each; `[::]:5060` for IPv6. Replies leave from the address that was written to."""
    tcp: tuple[str, ...] = ("0.0.0.0:5060",)
    advertised: dict[str, str] = {}
    """By transport, the `host` or `host:port` that phones know us by; the bound address by default."""
    service_name: str = ""
    """The host in Path: the name of all edges together; the default domain by default."""
    own_addresses: bool = False
    """A phone may use an address of this host (or localhost) as its domain: it then means the default domain."""
    reply_seconds: float = 2.0
    """How long a phone waits for the log's answer before it hears 503."""
    retry_after: tuple[int, int] = (5, 15)
    """Least and greatest Retry-After of our own 503s, in seconds; drawn at random, so that phones spread."""
    max_pending: int = 10_000
    """Transactions without an answer; above that, 503 at once."""
    max_completed: int = 100_000
    """Answered UDP transactions kept for retransmissions (32 s); the oldest goes first."""
    challenges_per_second: float = 0.0
    """Per source address, requests without usable credentials that are answered; 0: all."""
    max_connections: int = 20_000
    connections_per_source: int = 2_000
    message_seconds: float = 10.0
    """A stream whose message is not whole this long after its first octet is closed."""
    lease_seconds: int = 5
    grace_seconds: int = 5
    """An ended binding is still routed by for this long: clocks and the log's way to the table."""


def core_settings(config: EdgeConfig, common: Common, own_hosts: frozenset[str]) -> CoreSettings:
    """What the pure core needs of it; raises ConfigError."""
    least, greatest = config.retry_after
    if not 0 < least <= greatest:
        raise ConfigError("RAMAL_EDGE_RETRY_AFTER: needs 0 < least <= greatest")
    if config.reply_seconds <= 0:
        raise ConfigError("RAMAL_EDGE_REPLY_SECONDS: must be above 0")
    return CoreSettings(
        default_domain=common.domain.lower(),
        algorithms={name: domain.algorithms for name, domain in common.served().items()},
        own_hosts=own_hosts,
        own_addresses=config.own_addresses,
        reply_seconds=config.reply_seconds,
        retry_after=config.retry_after,
        nonce_seconds=common.nonce_seconds,
        max_pending=config.max_pending,
        max_completed=config.max_completed,
        challenges_per_second=config.challenges_per_second,
    )


def endpoint(text: str, key: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[host]:port`; raises ConfigError that names the key."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{key}: {text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
