"""Flow tokens: the name of a flow that only we can make (RFC 5626 section 5.2; CHECKLIST N04, N05, N07).

A token is lower-case base32 of

    key id, edge, transport and family, local address and port, remote address and port,
    on connections also boot and connection number, then 10 octets of HMAC-SHA-256 over all that

Texts have their length in the octet before. A token of UDP outlives the edge's restart, since its socket
comes back under the same address; that of a connection does not, so it names the boot.
"""

import hmac
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from edge.core.addresses import packed
from edge.core.flow import TRANSPORTS, Flow, Hop, host_port
from edge.core.tokens import base32
from edge.core.tokens.flow_names import FlowNames
from sipcore import mac
from sipcore.uri import received_uri

IPV6 = 0x80
MAC = 10
"""Octets of the HMAC: 80 bits (RFC 5626 section 5.2 asks for at least 80)."""
LONGEST = 512
PURPOSE = b"ramal flow token\x00"
"""One key serves several purposes; no token is ever a nonce."""
FLOWS = 20_000
"""Flows whose names are kept ready, so that a refresh computes no HMAC; and tokens of which it is known what they name,
for a phone's is the same in each call to it."""


class FlowTokens:
    """Makes and verifies the tokens of one edge."""

    def __init__(self, keys: Mapping[str, bytes], edge: str, boot: str, service_name: str) -> None:
        """The first key signs, all verify; `service_name` is the host, and perhaps the port, that Path shows."""
        self._keys = dict(keys)
        self._signing = next(iter(self._keys))
        self._edge, self._boot, self._service_name = edge, boot, service_name
        self.names = lru_cache(maxsize=FLOWS)(self._names)
        self._verified = lru_cache(maxsize=FLOWS)(self._verify)

    def make(self, flow: Flow) -> str:
        """The token of a flow of this edge."""
        local, remote = packed(flow.local_host), packed(flow.remote_host)
        family = IPV6 if len(remote) == 16 else 0
        payload = b"".join(
            (
                _text(self._signing),
                _text(self._edge),
                bytes((TRANSPORTS.index(flow.transport) | family,)),
                local,
                flow.local_port.to_bytes(2, "big"),
                remote,
                flow.remote_port.to_bytes(2, "big"),
            )
        )
        if flow.connection:
            payload += _text(self._boot) + flow.connection.to_bytes(6, "big")
        return base32.encode(payload + self._mac(self._signing, payload))

    def verify(self, token: str) -> Hop | None:
        """What the token names; None for one that is changed, foreign or of a forgotten key."""
        if not token.isascii() or len(token) > LONGEST:
            return None
        try:
            return self._verified(token.lower())
        except (IndexError, ValueError):
            return None

    def _verify(self, token: str) -> Hop:
        """Raises for what is not genuine, so that only what is genuine is remembered."""
        octets = base32.decode(token)
        payload, proof = octets[:-MAC], octets[-MAC:]
        key_id, rest = _read_text(payload)
        if key_id not in self._keys or not hmac.compare_digest(proof, self._mac(key_id, payload)):
            raise ValueError("not ours")
        return _named(rest)

    def _mac(self, key_id: str, payload: bytes) -> bytes:
        return mac.digest(self._keys[key_id], PURPOSE + payload)[:MAC]

    def _names(self, flow: Flow) -> FlowNames:
        return FlowNames(
            path=f"<sip:{self.make(flow)}@{self._service_name};lr>",
            received=received_uri(flow.transport, flow.remote_host, flow.remote_port),
            socket=f"{flow.transport}:{host_port(flow.local_host, flow.local_port)}",
        )


def _text(value: str) -> bytes:
    octets = value.encode()
    return bytes((len(octets),)) + octets


def _read_text(payload: bytes) -> tuple[str, bytes]:
    end = 1 + payload[0]
    return payload[1:end].decode(), payload[end:]


def _named(payload: bytes) -> Hop:
    """The fields after the key id, of a payload whose HMAC is right."""
    edge, rest = _read_text(payload)
    size = 16 if rest[0] & IPV6 else 4
    transport = TRANSPORTS[rest[0] & ~IPV6]
    local, rest = rest[1 : 3 + size], rest[3 + size :]
    remote, rest = rest[: 2 + size], rest[2 + size :]
    boot, connection = "", 0
    if rest:
        boot, number = _read_text(rest)
        connection = int.from_bytes(number, "big")
    return Hop(Flow(transport, *_address(local), *_address(remote), connection), edge, boot)


def _address(octets: bytes) -> tuple[str, int]:
    host, port = octets[:-2], int.from_bytes(octets[-2:], "big")
    return str(IPv4Address(host) if len(host) == 4 else IPv6Address(host)), port
