"""Settings of the pure core."""

from collections.abc import Mapping

import msgspec


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
