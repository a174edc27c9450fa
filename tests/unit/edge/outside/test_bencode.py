"""Bencode as rtpengine speaks it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.outside.bencode import DEPTH, BadBencode, Value, decode, encode

values = st.recursive(
    st.integers(min_value=-(2**63), max_value=2**63 - 1) | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_encoded_is_decoded(value: Value) -> None:
    assert decode(encode(value)) == value


def test_the_manuals_example() -> None:
    assert encode({"command": "ping"}) == b"d7:command4:pinge"
    assert decode(b"d6:result4:ponge") == {"result": b"pong"}


def test_a_tuple_is_a_list_and_a_bytes_value_is_not_touched() -> None:
    assert encode(("a", b"\xff\r\n", -3)) == b"l1:a3:\xff\r\ni-3ee"


def test_other_types_are_not_encoded() -> None:
    with pytest.raises(TypeError, match="float"):
        encode({"a": 1.5})


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"x",
        b"i12",
        b"ie",
        b"i1x2e",
        b"5:four",
        b"-1:a",
        b"99999999999999999999999:a",
        b"l",
        b"li1e",
        b"d1:ae",
        b"di1ei2ee",
        b"1:a1:b",
        b"l" * (DEPTH + 1) + b"e" * (DEPTH + 1),
        b"l" * 100_000,
    ],
)
def test_damaged_octets_are_refused(octets: bytes) -> None:
    with pytest.raises(BadBencode):
        decode(octets)


@given(st.binary(max_size=200))
def test_no_octets_break_it(octets: bytes) -> None:
    with contextlib.suppress(BadBencode):
        decode(octets)


@given(values, st.integers(min_value=0))
def test_a_value_cut_off_is_refused(value: Value, cut: int) -> None:
    octets = encode(value)
    with pytest.raises(BadBencode):
        decode(octets[: cut % len(octets)])
