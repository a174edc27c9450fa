"""Which process an address names."""

import pytest

from console.health import named
from runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "name", "address"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("edge-1=127.0.0.1:8080", "edge-1", "http://127.0.0.1:8080"),
        ("edge-1=https://[::1]:8080/", "edge-1", "https://[::1]:8080"),
        ("127.0.0.1:8080/a=b", "127.0.0.1:8080/a=b", "http://127.0.0.1:8080/a=b"),
        ("edge-1=http://127.0.0.1/a=b", "edge-1", "http://127.0.0.1/a=b"),
    ],
)
def test_a_name_stands_before_the_first_equals_sign(given: str, name: str, address: str) -> None:
    assert named("--url", given) == (name, address)


@pytest.mark.parametrize(
    "given", ["127.0.0.1:28080/evil?x=y=z", "", "=127.0.0.1:1", "edge-1=", "ftp://a", "http://[::1", "a=b:c", "a=b=c:1"]
)
def test_what_is_no_address_is_refused_and_nobody_asked(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--url: .* is not"):
        named("--url", given)
