"""Where a Contact of a REGISTER leads: back to its sender, or elsewhere (RFC 3261 sections 10.2.1 and 16.6). PURE.

the sender's own (by its address, by Via, `.invalid`, or what a phone behind NAT says) --> the flow of the REGISTER
another UDP port of a sender without NAT --> that port, from the same socket of ours
all else --> where the Contact says, by its URI, whichever edge the call is at
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from edge.core.addresses import parsed, plain
from edge.core.flow import PORTS, Flow
from edge.core.next_hops import in_dns
from sipcore.address import Via
from sipcore.errors import ParseError
from sipcore.message import Request
from sipcore.uri import Uri

WITHIN = frozenset({("tls", "tcp"), ("wss", "ws"), ("wss", "tls")})
"""By which transport the phone came, and what it may say of it: in a sips URI the parameter names what is below TLS."""


def reached_by(request: Request, flow: Flow) -> Flow:
    """The flow by which the sender of a request is reached: the one that it came by, or to another port (`way_to`)."""
    try:
        (address,) = request.contacts
        return way_to(address.parsed_uri, request.via, flow, alone=True) or flow
    except (ParseError, ValueError):  # no Contact, several, or none that can be read
        return flow


def way_to(contact: Uri, via: Via, flow: Flow, *, alone: bool) -> Flow | None:
    """The flow by which a Contact's phone is reached; None: it is elsewhere, and found by its URI.

    `alone`: it is the only one of its REGISTER. A phone behind NAT does not know where it is, so that what it says
    of itself alone counts for nothing; nor could anybody but the phone itself be at a private address that we do not
    share with it.
    """
    host = (contact.param("maddr") or contact.host).lower()
    address = _address(host)
    if address is None and not in_dns(host):
        return flow
    source = _address(flow.remote_host)
    said = _said(contact)
    port = contact.port or PORTS.get(said or flow.transport, 5060)
    via_port = via.port or PORTS.get(flow.transport, 5060)
    behind_nat = _address(via.host) != source or not (flow.reliable or via_port == flow.remote_port)
    if behind_nat:
        its_own = alone or address == source or host == via.host.lower()
    elif address == source:
        fits = said in ("", flow.transport) or (flow.transport, said) in WITHIN
        its_own = fits and (port == flow.remote_port or (flow.reliable and (alone or port == via_port)))
        if fits and not its_own and flow.transport == "udp":
            return Flow("udp", flow.local_host, flow.local_port, flow.remote_host, port)
    else:
        its_own = False
    if not its_own and address is not None and source is not None and address != source:
        its_own = source.is_global and not address.is_global
    return flow if its_own else None


def _said(contact: Uri) -> str:
    """The transport that a Contact names; "" for none."""
    if contact.scheme == "sips":
        return "wss" if (contact.param("transport") or "").lower() in ("ws", "wss") else "tls"
    return (contact.param("transport") or "").lower()


@lru_cache(maxsize=20_000)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    address = parsed(host)
    return None if address is None else plain(address)
