"""TLS of the edge: our certificate, which may change while we run, and whom we connect to (CHECKLIST T19, T20).

A server's identity is its SIP domain as RFC 5922 has it, not a host name as in HTTPS: a `sip:` URI in the
certificate, else a DNS name, compared whole; no wildcard matches anything.
"""

import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from prometheus_client import Gauge

from runtime.errors import ConfigError

log = logging.getLogger("ramal.edge")

EXPIRY = Gauge(
    "ramal_edge_certificate_expiry_timestamp_seconds",
    "When the first certificate of our chain expires, in seconds since 1970; 0: we have none.",
)

LOOK_SECONDS = 10.0
"""The files are looked at for a new connection, for `/metrics` and for `/status`, but no more often than this."""

Stamp = tuple[tuple[int, int, int], ...]
"""Of each file: when it changed, its number and its size."""


class Certificates:
    """The contexts of both sides; made again when the files of our certificate or authorities have changed."""

    def __init__(
        self, certificate: str, private_key: str, authorities: str = "", *, clock: Callable[[], float] = time.time
    ) -> None:
        """PEM files; `certificate` "": we have none and accept no TLS. `clock` in Unix seconds. Raises ConfigError."""
        self._certificate, self._private_key, self._authorities = certificate, private_key, authorities
        self._files = [Path(name) for name in (certificate, private_key, authorities) if name]
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._looked = float("-inf")
        self._clock = clock
        self._ends = 0.0
        """When the certificate in force expires, in Unix seconds; 0: there is none, NaN: it does not tell."""
        self._left_out = ""
        """Why changed files are not used; "" while those in force are the files."""
        try:
            self._stamp = self._stamps()
            if self._files:
                self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"RAMAL_EDGE_CERTIFICATE, RAMAL_EDGE_PRIVATE_KEY, RAMAL_EDGE_TRUSTED_AUTHORITIES: {error}"
            ) from None
        if certificate:
            EXPIRY.set_function(lambda: self.ends(time.monotonic()))

    def ends(self, now: float) -> float:
        """When the certificate that a new connection would be shown expires, in Unix seconds; 0: there is none."""
        self._refresh(now)
        return self._ends

    def trouble(self, now: float) -> str:
        """What only a person can mend, in a sentence; "" while there is nothing."""
        self._refresh(now)
        left_out = f"; changed certificate files cannot be used yet: {self._left_out}" if self._left_out else ""
        if self._certificate and self._ends <= self._clock():
            return f"RAMAL_EDGE_CERTIFICATE has expired: no phone connects by TLS or WSS{left_out}"
        return left_out.removeprefix("; ")

    def server(self, now: float) -> ssl.SSLContext:
        """The context for a connection that is accepted now; raises ConfigError if there is no certificate."""
        self._refresh(now)
        if self._server is None:
            raise ConfigError("RAMAL_EDGE_CERTIFICATE: TLS and WSS need one")
        return self._server

    def client(self, now: float) -> ssl.SSLContext:
        """The context for a connection that we open now; whom it leads to is checked by `proves`."""
        self._refresh(now)
        if self._client is None:  # without files of our own, the system's authorities are only read when needed
            self._load()
        assert self._client is not None  # noqa: S101  # `_load` makes it
        return self._client

    def _refresh(self, now: float) -> None:
        """Reads changed files; while they do not fit together, what was read before stays in force."""
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                self._left_out = ""
                return
            self._load()
            self._stamp = stamp
        except (OSError, ssl.SSLError) as error:
            why = str(error)
            if why != self._left_out:
                log.warning("changed certificate files cannot be used yet", extra={"error": why})
            self._left_out = why
            return
        self._left_out = ""
        log.info("certificate files have changed and were read")

    def _stamps(self) -> Stamp:
        stats = [file.stat() for file in self._files]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _load(self) -> None:
        """Makes both contexts, or changes none; what has expired replaces nothing that has not."""
        ends = _expiry(Path(self._certificate).read_bytes()) if self._certificate else 0.0
        if ends <= self._clock() < self._ends:
            raise _Expired
        server = self._with_certificate(ssl.PROTOCOL_TLS_SERVER) if self._certificate else None
        client = self._with_certificate(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False  # a SIP domain is not compared as a host name is
        client.verify_mode = ssl.CERT_REQUIRED
        if self._authorities:
            client.load_verify_locations(self._authorities)
        else:
            client.load_default_certs()
        self._server, self._client, self._ends = server, client, ends
        if self._certificate and ends <= self._clock():
            log.error("the certificate has expired", extra={"file": self._certificate})

    def _with_certificate(self, side: int) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._certificate:
            # As a client too: a peer may ask who we are (RFC 3261 section 26.3.1). No password is ever asked for.
            context.load_cert_chain(self._certificate, self._private_key or None, password=_no_password)
        return context


class _Expired(ssl.SSLError):
    def __init__(self) -> None:
        super().__init__(0, "the new certificate has expired already")


def _expiry(pem: bytes) -> float:
    """When the first certificate to expire of a chain does so, in seconds since 1970; NaN if that cannot be read."""
    try:
        return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(pem))
    except ValueError:
        return float("nan")


def _no_password() -> str:
    raise ssl.SSLError("the private key has a password")


PeerCertificate = Mapping[str, object]
"""As `ssl.SSLSocket.getpeercert` gives it."""


def proves(certificate: PeerCertificate | None, domain: str) -> bool:
    """Whether a verified certificate belongs to a SIP domain (RFC 5922 sections 7.1 and 7.2)."""
    if not certificate:
        return False
    wanted = domain.lower().strip("[]")
    names = certificate.get("subjectAltName")
    if not isinstance(names, tuple) or not names:
        return wanted in _common_names(certificate)
    with contextlib.suppress(ValueError):
        # RFC 5922 speaks of domains alone; a next hop that is an address can only prove that address.
        address = ip_address(wanted)
        return any(kind == "IP Address" and ip_address(value) == address for kind, value in names)
    domains = {found for kind, value in names if kind == "URI" and (found := _uri_domain(value))}
    if not domains:
        domains = {value.lower() for kind, value in names if kind == "DNS"}
    return wanted in domains


def _uri_domain(uri: str) -> str:
    """The domain that a URI in a certificate stands for; "" if it is not a SIP domain's."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "sip" or "@" in rest:
        return ""
    return rest.partition(";")[0].partition("?")[0].partition(":")[0].lower()


def _common_names(certificate: PeerCertificate) -> set[str]:
    """The common names of a certificate without alternative names; RFC 5922 section 7.1, step 2."""
    subject = certificate.get("subject")
    if not isinstance(subject, tuple):
        return set()
    return {value.lower() for row in subject for name, value in row if name == "commonName"}
