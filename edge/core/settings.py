"""Settings of the pure core."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

Mode = Literal["direct", "bridge", "relay"]
"""Where rtpengine stands between the phones of a domain's calls: never, only between WebRTC and others, always."""


class CoreSettings(msgspec.Struct, frozen=True):
    """What does not change while the edge runs."""

    default_domain: str
    algorithms: Mapping[str, tuple[str, ...]]
    """By served domain, in lower case: the algorithms its challenges offer, in order."""
    own_hosts: frozenset[str] = frozenset()
    """Names and addresses we are known by, in lower case, besides the address that a message was sent to."""
    own_addresses: bool = False
    """Whether such a host, in the Request-URI or To of a REGISTER, means the default domain."""
    reply_seconds: float = 2.0
    retry_after: tuple[int, int] = (5, 15)
    nonce_seconds: int = 300
    max_pending: int = 10_000
    max_completed: int = 100_000
    challenges_per_second: float = 0.0
    advertised: Mapping[str, str] = {}
    """By transport, the `host` or `host:port` that phones know us by."""
    challenge_calls: bool = True
    foreign_callers: bool = False
    relay: bool = True
    keepalive_seconds: float = 20.0
    flow_timer: int = 0
    """Seconds of Flow-Timer; 0: none is told."""
    service_route: tuple[str, ...] = ()
    """URIs of Service-Route."""
    min_se: int = 90
    """Seconds of the shortest session timer that is let pass."""
    timer_c: float = 185.0
    max_calls: int = 5_000
    is_peer: Callable[[str], bool] = lambda host: False
    """Whether requests from this address are not challenged."""
    refuses: Callable[[str], bool] = lambda host: False
    """Whether nothing may be sent to this address."""
    redirects: Callable[[str], bool] = lambda domain: False
    """Whether calls to this domain are answered with 302."""
    media: Callable[[str], Mode] = lambda domain: "direct"
    """Whether rtpengine stands between the phones of a call to this domain."""
    srtp: tuple[str, ...] = ()
    """Transports whose phones are offered RTP/SAVP."""
    number: Callable[[str, str], str | None] = lambda number, domain: None
    """The AOR by which a telephone number is looked up for a caller of a domain; None for what is none of ours."""
