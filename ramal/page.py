"""The page of `ramal up`: where it is served, by which certificate, and how a browser reaches it."""

import dataclasses
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from edge.config import EdgeConfig, endpoint
from edge.core.flow import host_port
from edge.transport.tls import Certificates
from edge.wiring import host_addresses
from ramal.certificate import hosts, kept_self_signed
from ramal.sockets import addresses
from runtime.errors import ConfigError

PORT = 8081
TLS_PORT = 8443
CERTIFICATE, KEY = "certificate.pem", "private_key.pem"
"""Of our making, in the system's directory."""


@dataclasses.dataclass(frozen=True)
class PageOptions:
    """What `ramal up` was asked for."""

    host: str = "127.0.0.1"
    port: int | None = None
    tls: tuple[Path, Path] | None = None
    """Files of a certificate with its chain, and of its key."""
    self_signed: bool = False

    def checked(self) -> "PageOptions":
        """Itself; raises ConfigError that names the option."""
        try:
            ip_address(self.host)
        except ValueError:
            raise ConfigError(
                f"--host: {self.host!r} is not an address of this machine; 0.0.0.0 stands for all of them"
            ) from None
        if self.tls and self.self_signed:
            raise ConfigError("--tls, --self-signed: only one of them")
        if self.tls:
            try:
                Certificates(*map(str, self.tls))
                hosts(self.tls[0])
            except (ConfigError, ValueError) as error:
                # The setting that the error names is not what was typed.
                why = str(error).rpartition("RAMAL_EDGE_TRUSTED_AUTHORITIES: ")[2]
                raise ConfigError(f"--tls {self.tls[0]} {self.tls[1]}: {why}") from None
        return self

    @property
    def encrypted(self) -> bool:
        return self.self_signed or self.tls is not None

    def edge(self, directory: Path, tls: list[str]) -> dict[str, Any]:
        """Settings of the edge: the page is where its WebSocket is. `tls`: where SIP is spoken over TLS then."""
        if not self.encrypted:
            return {"ws": [host_port(self.host, self.port or PORT)]}
        certificate, key = self.tls or (directory / CERTIFICATE, directory / KEY)
        at = [host_port(self.host, self.port or TLS_PORT)]
        return {"wss": at, "tls": tls, "certificate": str(certificate.resolve()), "private_key": str(key.resolve())}

    def make_certificate(self, directory: Path, domain: str) -> None:
        """Makes one of our own where that is asked for and none is there that still does."""
        if self.self_signed:
            kept_self_signed(directory, domain, host_addresses())


def urls(edge: EdgeConfig, directory: Path) -> list[str]:
    """How a browser reaches the page, the best first; none where the edge has no WebSocket."""
    scheme, bound = ("http", edge.ws) if edge.ws else ("https", edge.wss)
    found: list[str] = []
    for text in bound:
        host, port = endpoint(text, "RAMAL_EDGE_WS")
        if scheme == "https" and Path(edge.certificate) != directory.resolve() / CERTIFICATE:
            found += [f"{scheme}://{name}:{port}/" for name in hosts(Path(edge.certificate))]
        elif host == "0.0.0.0":  # noqa: S104  # compared with, not bound; loopback is where http may have a microphone
            found.append(f"{scheme}://127.0.0.1:{port}/")
        found += [f"{scheme}://{at}/" for at in addresses([text])]
    return list(dict.fromkeys(found))
