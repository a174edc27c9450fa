"""Authorities and certificates, and a real broker and database that want them."""

import datetime
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ramal import backends
from ramal.backends import KafkaServer
from ramal.processes import free_port

USER, PASSWORD = "ramal", "s3cret-of-the-broker"
LIMITED = "limited"
"""A user who may be given fewer rights; the same password."""
LIFE_SECONDS = 4
"""How long a session of the listener `short` lives."""


class Authority:
    """Vouches for certificates; its own is `file`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.pem"
        own = self._signed(self._name, self._key.public_key(), (), datetime.timedelta(days=9), authority=True)
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, hosts: Iterable[str] = (), ends: float = 5.0) -> "Issued":
        """A certificate and its key; `ends` in days from now, negative for one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), hosts, datetime.timedelta(days=ends))
        issued = Issued(*(self._directory / f"{name}.{kind}.pem" for kind in ("certificate", "key", "both")))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        issued.certificate.write_bytes(public)
        issued.key.write_bytes(private)
        issued.both.write_bytes(private + public)
        return issued

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        hosts: Iterable[str],
        ends: datetime.timedelta,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names := [_name(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


class Issued(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path
    both: Path


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Broker(NamedTuple):
    """A broker with a listener of each kind."""

    server: KafkaServer
    """At its listener in clear, without a user: an administrator."""
    authority: Authority
    stranger: Authority
    """Nobody trusts it."""
    ports: dict[str, int]

    def at(self, listener: str) -> str:
        """The `bootstrap` of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"


PROTOCOLS = {
    "sasl": "SASL_SSL",
    "short": "SASL_SSL",
    "clear": "SASL_PLAINTEXT",
    "ssl": "SSL",
    "mtls": "SSL",
    "expired": "SSL",
    "strange": "SSL",
}
"""By listener."""
_PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},{listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location={directory}/broker.both.pem
ssl.truststore.type=PEM
ssl.truststore.location={directory}/authority.pem
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={directory}/expired.both.pem
listener.name.strange.ssl.keystore.type=PEM
listener.name.strange.ssl.keystore.location={directory}/strange.both.pem
listener.name.short.scram-sha-512.connections.max.reauth.ms={life}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{user};User:CN={user}
allow.everyone.if.no.acl.found={open_to_all}
"""


def start_broker(directory: Path, users: Sequence[str] = (), *, open_to_all: bool = True) -> Broker:
    """Raises StartFailed. `users` are more than USER and LIMITED, with the same password.

    `open_to_all`: whoever logs in may do what no ACL is about; else only what one allows (USER may do all).
    """
    authority, stranger = Authority(directory, "authority"), Authority(directory, "stranger")
    authority.issue("broker", ["127.0.0.1"])
    authority.issue("expired", ["127.0.0.1"], ends=-1.0)
    authority.issue("strange", ["kafka.example.test"])
    ports = {listener: free_port() for listener in PROTOCOLS}
    kept = backends._remembered(directory, port=None, controller=None)
    lines = _PROPERTIES.format(
        directory=directory.resolve(),
        listeners=",".join(f"{name.upper()}://127.0.0.1:{port}" for name, port in ports.items()),
        protocols=",".join(f"{name.upper()}:{protocol}" for name, protocol in PROTOCOLS.items()),
        life=LIFE_SECONDS * 1000,
        user=USER,
        open_to_all=str(open_to_all).lower(),
        **kept,
    )
    scram, plain = (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        (
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            + "".join(f' user_{user}="{PASSWORD}"' for user in (USER, LIMITED, *users))
            + ";"
        ),
    )
    for listener in ("sasl", "short", "clear"):
        for mechanism, module in (("plain", plain), ("scram-sha-256", scram), ("scram-sha-512", scram)):
            lines += f"listener.name.{listener}.{mechanism}.sasl.jaas.config={module}\n"
    formatting = [
        option
        for user in (USER, LIMITED, *users)
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for option in ("--add-scram", f"{mechanism}=[name={user},password={PASSWORD}]")
    ]
    return Broker(backends.start_kafka(directory, more=lines, formatting=formatting), authority, stranger, ports)
