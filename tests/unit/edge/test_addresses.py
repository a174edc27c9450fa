"""IP addresses out of text, held against the standard library's."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.core.addresses import packed, parsed

ADDRESSES = st.ip_addresses().map(str)
NEARLY = st.text("0123456789.:abf%[] \n\u0661", max_size=24)


def expected(host: str) -> object:
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


@given(ADDRESSES | NEARLY | st.text(max_size=12))
@example("256.1.1.1")
@example("01.2.3.4")
@example("1.2.3")
@example("1.2.3.4.")
@example("1.2.3.4\n")
@example("\u0661.2.3.4")
@example("[1.2.3.4]")
@example("[fe80::1%eth0]")
def test_an_address_is_what_the_standard_library_takes_for_one(host: str) -> None:
    assert parsed(host) == expected(host)


@given(ADDRESSES)
def test_the_octets_of_an_address_are_those_of_the_standard_library(host: str) -> None:
    assert packed(host) == ip_address(host).packed


@pytest.mark.parametrize("host", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "example.test", "::g"])
def test_what_is_no_address_has_no_octets(host: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        packed(host)
