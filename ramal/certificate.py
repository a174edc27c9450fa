"""Self-signed certificates, for `ramal stack` and for trials of `ramal up`; and whom a certificate names."""

import datetime
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = 365
LEFT = datetime.timedelta(days=7)
"""A certificate that ends sooner is made anew."""


def self_signed(directory: Path, domain: str, addresses: Iterable[str]) -> tuple[Path, Path]:
    """Writes `certificate.pem` and `private_key.pem` (mode 0600) for a domain and IP addresses; returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(domain), x509.DNSName("localhost")]
    names.append(x509.UniformResourceIdentifier(f"sip:{domain}"))
    names += [x509.IPAddress(ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "certificate.pem", directory / "private_key.pem"
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_path, key_path


def kept_self_signed(directory: Path, domain: str, addresses: Iterable[str]) -> None:
    """As `self_signed`, unless what lies there still does: browsers ask again about a new one."""
    wanted = {domain, *(str(ip_address(address)) for address in addresses)}
    path = directory / "certificate.pem"
    if path.exists() and (directory / "private_key.pem").exists():
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        ends = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        named = _names(certificate)
        found = {*named.get_values_for_type(x509.DNSName), *map(str, named.get_values_for_type(x509.IPAddress))}
        if ends > LEFT and wanted <= found:
            return
    self_signed(directory, domain, wanted - {domain})


def hosts(path: Path) -> list[str]:
    """The DNS names, without wildcards, of the first certificate of a PEM file; raises ValueError where none is."""
    named = _names(x509.load_pem_x509_certificate(path.read_bytes()))
    return [name for name in named.get_values_for_type(x509.DNSName) if "*" not in name]


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
