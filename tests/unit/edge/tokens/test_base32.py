"""Base32 is that of RFC 4648, and only what we make is read."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.tokens.base32 import decode, encode


@given(st.binary(max_size=200))
def test_it_is_that_of_rfc_4648_in_lower_case_and_without_padding(octets: bytes) -> None:
    assert encode(octets) == base64.b32encode(octets).decode().rstrip("=").lower()
    assert decode(encode(octets)) == octets


@pytest.mark.parametrize("text", ["a", "abc", "abcdef", "a1", "ab=", "AB", "a b", "_a", "äb", "ab\n", "-a"])
def test_other_lengths_and_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no base32|codec|beyond"):
        decode(text)


def test_bits_beyond_the_last_octet_are_refused() -> None:
    assert decode("aa") == b"\0"
    with pytest.raises(ValueError, match="beyond"):
        decode("ab")
