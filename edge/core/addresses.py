"""IP addresses out of text: of Contacts, Vias and sockets, and of the settings."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from runtime.errors import ConfigError
from sipcore.errors import ParseError
from sipcore.uri import ipv6

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

REMEMBERED = 10_000
_NAT64 = IPv6Network("64:ff9b::/96")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")


def networks(texts: Iterable[str], key: str) -> tuple[Network, ...]:
    """Addresses and networks (`192.0.2.0/24`, `[2001:db8::1]`); raises ConfigError that names the key."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip().replace("[", "").replace("]", ""), strict=False))
        except ValueError:
            raise ConfigError(f"{key}: {text!r} is no address or network") from None
    return tuple(found)


@lru_cache(REMEMBERED)
def parsed(host: str) -> Address | None:
    """The IP address that a host is, with or without brackets; None for a name."""
    host = host.removeprefix("[").removesuffix("]")
    if ":" not in host:
        return IPv4Address(_octets(host)) if _IPV4.fullmatch(host) else None
    try:
        return IPv6Address(host)
    except ValueError:
        return None


def packed(host: str) -> bytes:
    """The octets of an address as a socket says it; ValueError for what is none."""
    if ":" in host:
        return IPv6Address(host).packed
    octets = _octets(host)
    if len(octets) != 4:
        raise ValueError(f"no address: {host!r}")
    return octets


def _octets(host: str) -> bytes:
    """Of IPv4 as it is written; `ipaddress` takes four times as long, and each REGISTER asks for several."""
    return bytes(map(int, host.split(".")))


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64), else the address without its zone."""
    if isinstance(address, IPv4Address):
        return address
    within = address.ipv4_mapped or address.sixtofour
    if within is None and IPv6Address(int(address)) in _NAT64:
        within = IPv4Address(int(address) & 0xFFFFFFFF)
    return within or IPv6Address(int(address))


@lru_cache(REMEMBERED)
def spelled(host: str) -> str:
    """The one spelling of a host: no brackets, case or last dot, IPv6 in its shortest form, IPv4 out of IPv6."""
    try:
        return str(plain(ipv6(host) if ":" in host else IPv4Address(host)))
    except (ParseError, ValueError):
        return host.lower().removesuffix(".")
