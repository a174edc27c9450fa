"""Whose page a request came from, and what failures are counted by."""

import pytest

from console.gate import is_literal, network


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "[fd00::2]"]
)
def test_an_address_or_localhost_can_be_nobody_elses(host: str) -> None:
    assert is_literal(host)


@pytest.mark.parametrize(
    "host", ["", "evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.1.evil.test", "[", "[]"]
)
def test_another_name_may_lead_here_for_a_moment(host: str) -> None:
    assert not is_literal(host)


def test_failures_are_counted_by_address_and_of_ipv6_by_what_one_person_has() -> None:
    assert network("192.0.2.4") == "192.0.2.4"
    assert network("2001:db8:1:2:3:4:5:6") == network("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network("") == ""
