"""What rows of Kamailio's and OpenSIPS' tables mean here, and which are not taken, with why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.ha1 import User, from_password
from events.calls import CallAnswered, CallAttempted, CallCancelled, CallEnded, CallFailed, event_id
from ramal.importing.rows import Account, Alias, Group, Left, Phone, account, alias, calls, group, phone

SERVED = {"example.test", "b.test"}
ALICE = from_password("alice", "example.test", "secret")


NAMELESS = "its name is empty, or has a space, a colon or a control character in it"


def an_account(**row: Any) -> Account | Left:
    return account({"username": "alice", "domain": "example.test", "password": "", "ha1": ""} | row, "b.test", SERVED)


def test_an_ha1_is_taken_as_it_is_and_no_other_algorithm_is_made_of_it() -> None:
    assert an_account(ha1=ALICE.md5) == Account(("alice", "example.test"), User(ALICE.md5))


def test_a_clear_text_password_gives_all_algorithms() -> None:
    assert an_account(password="secret") == Account(("alice", "example.test"), ALICE)
    assert an_account(password="secret", ha1=ALICE.md5) == Account(("alice", "example.test"), ALICE)


def test_an_ha1_that_is_not_of_its_password_and_domain_is_told() -> None:
    found = an_account(password="secret", ha1="0" * 32)
    assert isinstance(found, Account)
    assert found.user == ALICE
    assert "its ha1 is not of its password" in found.doubt


def test_opensips_own_columns_of_sha_256_are_taken() -> None:
    found = an_account(ha1=ALICE.md5, ha1_sha256=ALICE.sha256, ha1_sha512t256=ALICE.sha512_256)
    assert found == Account(("alice", "example.test"), ALICE)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, "it has neither a password nor an HA1"),
        ({"ha1": "not hex"}, "it has neither a password nor an HA1"),
        ({"password": "x", "domain": "c.test"}, "the domain c.test is not served"),
        ({"password": "x", "username": ""}, NAMELESS),
        ({"password": "x", "username": "a b"}, NAMELESS),
        ({"password": "x", "username": "a:b"}, NAMELESS),
        ({"password": "x", "username": "a" * 65}, "its name is longer than 64 characters"),
    ],
    ids=str,
)  # fmt: skip
def test_an_account_that_is_not_taken_says_why(row: dict[str, str], why: str) -> None:
    found = an_account(**row)
    assert isinstance(found, Left)
    assert found.why == why


def test_a_row_without_a_domain_is_of_the_one_that_is_given_and_domains_are_in_lower_case() -> None:
    assert an_account(password="x", domain="")[0] == ("alice", "b.test")  # type: ignore[comparison-overlap]
    assert an_account(password="secret", domain="Example.TEST") == Account(("alice", "example.test"), ALICE)


def test_an_alias_has_another_user_than_itself() -> None:
    row = {"alias_username": "desk", "alias_domain": "", "username": "alice", "domain": "example.test"}
    assert alias(row, "b.test", SERVED) == Alias(("desk", "b.test"), ("alice", "example.test"))
    assert isinstance(alias(row | {"alias_username": "alice"}, "example.test", SERVED), Left)


def test_a_group_has_a_name() -> None:
    row = {"username": "alice", "domain": "example.test", "grp": "long"}
    assert group(row, "", SERVED) == Group(("alice", "example.test"), "long")
    assert isinstance(group(row | {"grp": ""}, "", SERVED), Left)


# --- location --------------------------------------------------------------------------------------------------------

ROW = {
    "username": "alice", "domain": "example.test", "contact": "sip:alice@192.0.2.4:5062", "received": None,
    "path": None, "left": 1800, "q": -1.0, "callid": "c1", "cseq": 7, "user_agent": "n/a", "instance": None,
    "reg_id": 0,
}  # fmt: skip


def a_phone(**row: Any) -> Phone | Left:
    return phone(ROW | row, "b.test", SERVED, 60)


def test_a_phone_is_registered_where_its_contact_says_for_the_rest_of_its_time() -> None:
    found = a_phone()
    assert isinstance(found, Phone)
    [contact] = found.registration.contacts
    assert (found.aor, contact.uri, contact.expires, contact.path) == ("alice@example.test", ROW["contact"], 1800, ())
    assert (contact.q, contact.params, found.registration.user_agent) == (None, "", "")
    assert (found.registration.call_id, found.registration.cseq) == ("c1", 7)


def test_what_is_left_is_never_less_than_the_registrar_grants() -> None:
    found = a_phone(left=3)
    assert isinstance(found, Phone)
    assert (found.registration.contacts[0].expires, found.left) == (60, 3)


@pytest.mark.parametrize("column", ["instance", "sip_instance"])
def test_instance_and_q_are_those_of_the_contact(column: str) -> None:
    found = a_phone(**{column: '"<urn:uuid:0>"', "reg_id": 1, "q": 0.5})
    assert isinstance(found, Phone)
    [contact] = found.registration.contacts
    assert (contact.instance, contact.reg_id, contact.q) == ("<urn:uuid:0>", 1, 0.5)
    assert contact.params == ';q=0.5;+sip.instance="<urn:uuid:0>"'


def test_a_received_that_is_the_contacts_own_address_is_no_nat() -> None:
    assert isinstance(a_phone(received="sip:192.0.2.4:5062"), Phone)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"left": 0}, "its time is over"),
        ({"left": -1_795_000_000}, "it was set for ever, by no phone"),
        ({"contact": "mailto:a@b"}, "its Contact is no SIP URI"),
        ({"contact": "nonsense"}, "its Contact is no SIP URI"),
        ({"contact": "sip:x@a1b2.invalid;transport=ws"}, "it is on a WebSocket, which only the other proxy has"),
        ({"path": "<sip:edge.example.test;lr>"}, "it is reached through another proxy (Path)"),
        ({"received": "sip:203.0.113.9:40000"}, "it is behind NAT, whose mapping only the other proxy has"),
        ({"received": "sip:192.0.2.4:40000"}, "it is behind NAT, whose mapping only the other proxy has"),
        ({"domain": "c.test"}, "the domain c.test is not served"),
    ],
    ids=str,
)  # fmt: skip
def test_a_contact_that_only_the_other_proxy_reaches_is_left_to_its_next_register(
    row: dict[str, Any], why: str
) -> None:
    found = a_phone(**row)
    assert isinstance(found, Left)
    assert found.why == why


# --- acc -------------------------------------------------------------------------------------------------------------

ACC = {
    "method": "INVITE", "from_tag": "a", "to_tag": "b", "callid": "c1", "sip_code": "200", "sip_reason": "OK",
    "at": 1_000_000, "src_user": "alice", "src_domain": "example.test", "src_ip": "192.0.2.4", "dst_ouser": "2800",
    "dst_user": "bob", "dst_domain": "elsewhere.test",
}  # fmt: skip


def events(answered: set[tuple[str, str]] | None = None, **row: Any) -> Any:
    return calls(ACC | row, answered or set(), SERVED, "kamailio")


def test_an_answered_invite_is_an_attempt_and_an_answer_at_its_own_time() -> None:
    attempted, answered = events()
    assert isinstance(attempted, CallAttempted)
    assert isinstance(answered, CallAnswered)
    assert (attempted.at, answered.at, answered.edge) == (1_000_000, 1_000_000, "kamailio")
    assert (attempted.caller, attempted.callee) == ("alice@example.test", "")  # bob is none of ours
    assert (attempted.to_uri, attempted.dialled) == ("sip:bob@elsewhere.test", "sip:2800@elsewhere.test")


def test_opensips_whole_call_in_one_row_has_its_beginning_and_its_end() -> None:
    attempted, answered, ended = events(setuptime=3, duration=61, ms_duration=61_250)
    assert (attempted.at, answered.at, ended.at) == (997_000, 1_000_000, 1_061_250)


@pytest.mark.parametrize(("code", "kind"), [("487", CallCancelled), ("486", CallFailed), ("503", CallFailed)])
def test_an_invite_that_was_not_answered_says_how_it_ended(code: str, kind: type) -> None:
    _, ended = events(sip_code=code, sip_reason="Why")
    assert isinstance(ended, kind)


def test_a_bye_belongs_to_the_invite_whichever_side_sent_it() -> None:
    [by_caller] = events({("a", "b")}, method="BYE")
    [by_callee] = events({("b", "a")}, method="BYE")
    assert (by_caller.by, by_caller.from_tag, by_caller.to_tag) == ("caller", "a", "b")
    assert (by_callee.by, by_callee.from_tag, by_callee.to_tag) == ("callee", "b", "a")


def test_without_columns_of_the_parties_a_call_is_known_by_its_call_id() -> None:
    bare = {name: value for name, value in ACC.items() if name[:4] not in ("src_", "dst_")}
    attempted, _ = calls(bare, set(), SERVED, "kamailio")
    assert isinstance(attempted, CallAttempted)
    assert (attempted.call_id, attempted.from_uri, attempted.dialled, attempted.caller) == ("c1", "", "", "")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"callid": ""}, "it has no Call-ID, or too long a one"),
        ({"sip_code": "180"}, "it has no final response"),
        ({"sip_code": ""}, "it has no final response"),
        ({"method": "ACK"}, "it is of no call's beginning or end (another method)"),
    ],
    ids=str,
)
def test_a_row_of_no_call_says_why(row: dict[str, str], why: str) -> None:
    assert events(**row).why == why


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["INVITE", "BYE"]), st.integers(200, 699))
def test_the_same_row_is_the_same_event_however_often_it_is_read(
    tag: str, call_id: str, method: str, code: int
) -> None:
    row = {"callid": call_id, "from_tag": tag, "method": method, "sip_code": str(code)}
    one, two = events(**row), events(**row)
    if not isinstance(one, Left):
        assert [event_id(event) for event in one] == [event_id(event) for event in two]


def test_a_bye_alone_ends_a_call() -> None:
    [ended] = events(method="BYE")
    assert isinstance(ended, CallEnded)
