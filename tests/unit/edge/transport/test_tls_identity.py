"""Whose certificate it is (RFC 5922 section 7; CHECKLIST T19)."""

from typing import Any, cast

import pytest

from edge.service import build
from edge.transport.tls import Certificates, proves
from runtime.config import Sources
from runtime.errors import ConfigError


def certificate(*names: tuple[str, str], common_name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"subject": ((("commonName", common_name),),)}
    if names:
        found["subjectAltName"] = names
    return found


@pytest.mark.parametrize(
    ("names", "domain", "proven"),
    [
        ([("URI", "sip:example.test")], "example.test", True),
        ([("URI", "SIP:Example.TEST")], "EXAMPLE.test", True),
        ([("URI", "sip:example.test:5061;transport=tls")], "example.test", True),
        ([("URI", "sip:alice@example.test")], "example.test", False),
        ([("URI", "sips:example.test")], "example.test", False),
        ([("URI", "https://example.test")], "example.test", False),
        ([("DNS", "example.test")], "example.test", True),
        ([("DNS", "sip.example.test")], "example.test", False),
        ([("DNS", "*.example.test")], "a.example.test", False),
        ([("DNS", "example.test"), ("URI", "sip:other.test")], "example.test", False),
        ([("DNS", "example.test"), ("URI", "https://other.test")], "example.test", True),
        ([("IP Address", "192.0.2.1")], "192.0.2.1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "[2001:db8::1]", True),
        ([("DNS", "192.0.2.1")], "192.0.2.1", False),
        ([], "example.test", True),
    ],
)
def test_t19_a_sip_domain_is_proven_by_its_uri_else_by_its_dns_name(
    names: list[tuple[str, str]], domain: str, proven: bool
) -> None:
    assert proves(certificate(*names, common_name="example.test" if not names else "elsewhere.test"), domain) is proven


def test_t19_a_common_name_counts_only_without_alternative_names() -> None:
    assert not proves(certificate(("DNS", "other.test"), common_name="example.test"), "example.test")
    assert not proves(None, "example.test")
    assert not proves({}, "example.test")


def test_certificates_that_cannot_be_read_name_the_keys() -> None:
    with pytest.raises(ConfigError, match="RAMAL_EDGE_CERTIFICATE"):
        Certificates("/nowhere/cert.pem", "/nowhere/key.pem")
    with pytest.raises(ConfigError, match="RAMAL_EDGE_CERTIFICATE"):
        Certificates("", "").server(0.0)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TLS", "127.0.0.1:0", "RAMAL_EDGE_CERTIFICATE"),
        ("WSS", "127.0.0.1:0", "RAMAL_EDGE_CERTIFICATE"),
        ("WS", "127.0.0.1", "RAMAL_EDGE_WS"),
        ("PROXY_PROTOCOL_FROM", "balancer.example.test", "RAMAL_EDGE_PROXY_PROTOCOL_FROM"),
        ("ADVERTISED", '{"sctp": "x"}', "RAMAL_EDGE_ADVERTISED"),
    ],
)
def test_bad_settings_of_transports_name_the_key(name: str, value: str, key: str) -> None:
    environ = {"RAMAL_KEYS": "k:" + "00" * 32, "RAMAL_EDGE_NAME": "e", f"RAMAL_EDGE_{name}": value}
    with pytest.raises(ConfigError, match=key):
        build(Sources(environ, {}), cast(Any, None), cast(Any, None))
