"""Addresses that nothing is sent to, and peers whose requests are not challenged (CHECKLIST S10, A28).

Asked of the address about to be sent to, after Path, `received` and DNS: a phone, or a stranger's DNS, must not
have us send to this host, its neighbours or the cloud's metadata service.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from edge.core.addresses import Network, networks, parsed, plain
from runtime.errors import ConfigError

_REMEMBERED = 10_000
_NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host (RFC 1122)
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, with the metadata service of most clouds
            "192.0.0.0/24",  # protocol assignments, with Oracle's metadata service
            "100.100.100.200/32",  # Alibaba's
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, with the broadcast address
            "::/96",  # unspecified, loopback, and IPv4 as it was once written
            "fe80::/10",
            "fec0::/10",  # site-local, once
            "fd00:ec2::254/128",  # Amazon's metadata service
            "ff00::/8",
        ),
    )
)
_LOOPBACKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Denied:
    """Which addresses are refused; the answer for the last ones asked is kept."""

    def __init__(self, deny: Iterable[str] = (), bound: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        """`deny`: the cluster's networks. `bound`: addresses the edge binds; one on loopback allows all of loopback.

        `allowed`: addresses or networks of gateways and peers. Raises ConfigError.
        """
        self._denied = (*_NEVER, *networks(deny, "RAMAL_EDGE_DENY"))
        own = [plain(address) for text in bound if (address := parsed(text)) and not address.is_unspecified]
        loopbacks = [net for net in _LOOPBACKS if any(address in net for address in own)]
        listed = networks(allowed, "RAMAL_EDGE_PEERS")
        self._allowed = (*loopbacks, *listed, *(ip_network(address) for address in own))
        self.refuses = lru_cache(_REMEMBERED)(self._refuses)
        """Whether this host, an IP address with or without brackets, must not be sent to; a name must not."""

    def _refuses(self, host: str) -> bool:
        address = parsed(host)
        if address is None:
            return True
        address = plain(address)
        if any(address in network for network in self._allowed):
            return False
        return any(address in network for network in self._denied)


class SipPeers:
    """Networks of SIP peers (gateways, an outer proxy)."""

    def __init__(self, peers: Iterable[str], own: Iterable[str] = (), cluster: Iterable[str] = ()) -> None:
        """Raises ConfigError for a list that has in it an address of ours, or of the cluster's networks.

        `own`: every address that is bound, advertised or this host's. Whoever reaches us by way of a node, a pod or
        a Service would pass for a peer.
        """
        key = "RAMAL_EDGE_PEERS"
        self._networks = networks(peers, key)
        ours = [plain(address) for text in own if (address := parsed(text)) and not address.is_unspecified]
        for network in self._networks:
            if found := next((address for address in ours if address in network), None):
                raise ConfigError(f"{key}: {network} has {found} in it, which is an address of our own")
            for other in networks(cluster, "RAMAL_EDGE_DENY"):
                if _overlap(network, other):
                    raise ConfigError(f"{key}: {network} has addresses of the cluster in it ({other})")
        self.is_peer = lru_cache(_REMEMBERED)(self._is_peer)
        """Whether this source address is a peer's."""

    def _is_peer(self, host: str) -> bool:
        address = parsed(host)
        return address is not None and any(plain(address) in network for network in self._networks)


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)
