"""authsvc.users.ldap_wire: the bytes of a search, against ldap3's own reading of them."""

import contextlib
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.ldap_connection import filter_octets
from authsvc.users.ldap_wire import MAX_MESSAGE, Done, Entry, Malformed, Reference, any_of, one_of, search, take
from runtime.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # ldap3 2.9.1 with pyasn1 0.6
    from ldap3 import DEREF_NEVER, SUBTREE
    from ldap3.operation.search import search_operation
    from ldap3.protocol.rfc4511 import (
        URI,
        AttributeDescription,
        LDAPMessage,
        LDAPString,
        MessageID,
        PartialAttribute,
        PartialAttributeList,
        ProtocolOp,
        ResultCode,
        SearchResultDone,
        SearchResultEntry,
        SearchResultReference,
        Vals,
    )
    from ldap3.utils.asn1 import encode
    from ldap3.utils.conv import escape_bytes


def message(kind: str, operation: object, message_id: int = 7) -> bytes:
    """A message as ldap3 would encode it."""
    whole = LDAPMessage()
    whole["messageID"] = MessageID(message_id)
    whole["protocolOp"] = ProtocolOp().setComponentByName(kind, operation)
    return bytes(encode(whole))


def entry(attributes: dict[str, list[bytes]]) -> bytes:
    listed = PartialAttributeList()
    for index, (name, values) in enumerate(attributes.items()):
        partial = PartialAttribute()
        partial["type"] = AttributeDescription(name)
        partial["vals"] = Vals()
        for position, value in enumerate(values):
            partial["vals"].setComponentByPosition(position, value)
        listed.setComponentByPosition(index, partial)
    operation = SearchResultEntry()
    operation["object"] = LDAPString("uid=x,dc=example,dc=test")
    operation["attributes"] = listed
    return message("searchResEntry", operation)


def done(code: int = 0) -> bytes:
    operation = SearchResultDone()
    operation["resultCode"] = ResultCode(code)
    operation["matchedDN"] = LDAPString("")
    operation["diagnosticMessage"] = LDAPString("")
    return message("searchResDone", operation)


names = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5)


@given(st.integers(1, 2**31 - 1), names)
def test_a19_names_are_in_the_request_as_ldap3_puts_them_after_escaping(message_id: int, values: list[bytes]) -> None:
    terms = "".join(f"(uid={escape_bytes(value)})" for value in values)
    operation = search_operation(
        "dc=example,dc=test", f"(|{terms})", SUBTREE, DEREF_NEVER, ["uid", "userPassword"], 0, 300, False, False, False
    )
    request = search(message_id, "dc=example,dc=test", one_of("uid", values), ["uid", "userPassword"], 300)
    assert request == message("searchRequest", operation, message_id)


def test_r42_whether_there_is_anybody_is_asked_as_ldap3_asks_it_with_the_filter_of_users_beside_it() -> None:
    for filter_, also in (("(uid=*)", ""), ("(&(uid=*)(title=x))", "(title=x)")):
        operation = search_operation("dc=x", filter_, SUBTREE, DEREF_NEVER, ["uid"], 1, 2, False, False, False)
        assert search(5, "dc=x", any_of("uid", filter_octets(also)), ["uid"], 2, 1) == message(
            "searchRequest", operation, 5
        )


@pytest.mark.parametrize(
    "text",
    [
        "(objectClass=person)",
        "(&(objectClass=person)(!(title=ex*))(|(ou=a)(ou=b\\2a)))",
        "(userAccountControl:1.2.840.113556.1.4.803:=2)",
        "(uidNumber>=1000)",
    ],
)
def test_a_filter_of_users_is_added_to_the_search_as_it_is_written(text: str) -> None:
    operation = search_operation(
        "dc=x", f"(&(|(uid=a)){text})", SUBTREE, DEREF_NEVER, ["uid"], 0, 2, False, False, False
    )
    request = search(5, "dc=x", one_of("uid", [b"a"], filter_octets(text)), ["uid"], 2)
    assert request == message("searchRequest", operation, 5)


@pytest.mark.parametrize("text", ["objectClass=person", "(objectClass=person", "(a=b)(c=d)", "(&)", "()", " "])
def test_a_text_that_is_no_filter_stops_the_start_and_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_FILTER"):
        filter_octets(text)


def test_r42_what_is_on_another_server_is_told() -> None:
    operation = SearchResultReference()
    operation[0] = URI("ldap://elsewhere.test/dc=x")
    assert take(message("searchResRef", operation) + done(), 7)[0] == [Reference(), Done(0)]


attributes = st.dictionaries(
    st.sampled_from(["uid", "userPassword", "sipHA1"]), st.lists(st.binary(max_size=200), min_size=1, max_size=3)
)


@given(st.lists(attributes, max_size=4), st.integers(0, 80), st.data())
def test_answers_are_read_alike_whole_and_in_pieces(
    entries: list[dict[str, list[bytes]]], code: int, data: st.DataObject
) -> None:
    whole = b"".join([entry(each) for each in entries]) + done(code if code in (0, 4, 32, 50) else 0)
    expected: list[Entry | Done] = [Entry({n.lower(): v for n, v in each.items()}) for each in entries]
    expected.append(Done(code if code in (0, 4, 32, 50) else 0))
    assert take(whole, 7) == (expected, len(whole))
    cut = data.draw(st.integers(0, len(whole)))
    first, used = take(whole[:cut], 7)
    rest, used_rest = take(whole[used:], 7)
    assert first + rest == expected
    assert used + used_rest == len(whole)


@given(st.binary(max_size=200))
def test_any_bytes_give_answers_or_malformed_and_nothing_else(data: bytes) -> None:
    try:
        _, used = take(data, 7)
    except Malformed:
        return
    assert 0 <= used <= len(data)


@given(attributes, st.data())
def test_a_damaged_answer_gives_malformed_and_nothing_else(each: dict[str, list[bytes]], data: st.DataObject) -> None:
    damaged = bytearray(entry(each) + done())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        take(bytes(damaged), 7)


def test_an_answer_to_another_search_and_one_too_large_are_malformed() -> None:
    with pytest.raises(Malformed):
        take(done(), 8)
    with pytest.raises(Malformed):
        take(b"\x30\x84" + (MAX_MESSAGE + 1).to_bytes(4, "big"), 7)
