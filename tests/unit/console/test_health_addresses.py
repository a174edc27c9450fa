"""Which process an address names."""

import aiohttp
import pytest

from console.health import look, named
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
        ("http://me:canary@127.0.0.1:8080", "127.0.0.1:8080", "http://me:canary@127.0.0.1:8080"),
        ("me:canary@127.0.0.1:8080", "127.0.0.1:8080", "http://me:canary@127.0.0.1:8080"),
        ("edge-1=http://me:c@nary@127.0.0.1", "edge-1", "http://me:c@nary@127.0.0.1"),
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


@pytest.mark.parametrize("given", ["http://me:canary@", "me:canary@127.0.0.1?x", "edge-1=http://me:canary@[::1"])
def test_a25_a_wrong_address_is_told_without_its_password(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named("--url", given)
    assert "canary" not in str(caught.value)


async def test_a25_why_a_process_does_not_answer_is_told_without_its_password() -> None:
    async with aiohttp.ClientSession() as session:
        looks = await look(session, {"one": "http://me:canary@127.0.0.1:1", "two": "http://me:canary@[::1"})
    assert all(each.reasons and "canary" not in str(each) for each in looks.values())
