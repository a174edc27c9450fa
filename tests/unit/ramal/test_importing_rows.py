"""What rows of Kamailio's and OpenSIPS' tables mean here, and which are not taken, with why."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.users.ha1 import User, from_password
from events.calls import CallAnswered, CallAttempted, CallCancelled, CallEnded, CallFailed, event_id
from events.commands import Registration
from events.wire import Happened
from ramal.importing.rows import Account, Alias, Group, Left, Phone, account, alias, calls, group, phone
from ramal.wording import new_name

SERVED = {"example.test", "b.test"}
ALICE = from_password("alice", "example.test", "secret")


NAMELESS = "its name cannot stand in a SIP address: `ramal user add` refuses it too"
ODD = ["", "a b", "a:b", 'a"b', "x@y", "<z>", "a%20b", "a\r\nb", "jos\u00e9"]


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
        ({"password": "x", "username": "a" * 65}, "its name is longer than 64 characters"),
    ],
    ids=str,
)  # fmt: skip
def test_an_account_that_is_not_taken_says_why(row: dict[str, str], why: str) -> None:
    found = an_account(**row)
    assert isinstance(found, Left)
    assert found.why == why


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_no_row_has_a_name_that_ramal_user_add_refuses(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a SIP address"):
        new_name(name)
    called = {"alias_username": "desk", "alias_domain": "", "username": "alice", "domain": ""}
    for left in (
        an_account(password="x", username=name),
        a_phone(username=name),
        alias(called | {"username": name}, "b.test", SERVED),
        alias(called | {"alias_username": name}, "b.test", SERVED),
        group({"username": name, "domain": "", "grp": "long"}, "b.test", SERVED),
    ):
        assert isinstance(left, Left)
        assert left.why == NAMELESS
        assert left.what.isprintable()


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
        ({"left": None}, "it has no time that can be read"),
        ({"q": None}, "its q cannot be read"),
        ({"cseq": None}, "its cseq cannot be read"),
        ({"cseq": 2**31}, "its cseq cannot be read"),
        ({"instance": '"<urn:uuid:1>" Evil: x"'}, "its instance cannot stand in a Contact"),
        ({"sip_instance": "<urn:uuid:1\r\n>"}, "its instance cannot stand in a Contact"),
        ({"instance": "<urn:uuid:1\\>"}, "its instance cannot stand in a Contact"),
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


def test_who_hung_up_is_said_only_where_the_rows_tell_it() -> None:
    [alone] = events(method="BYE")
    [of_another] = events({("a", "c")}, method="BYE")
    *_, of_one_row = events(duration=61)
    assert isinstance(of_one_row, CallEnded)
    assert (alone.by, of_another.by, of_one_row.by) == ("", "", "")


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
        ({"at": None}, "it has no time that can be read"),
        ({"at": None, "method": "BYE"}, "it has no time that can be read"),
        ({"at": -1}, "it has no time that can be read"),
        ({"at": 10**15, "method": "BYE"}, "it has no time that can be read"),
        ({"setuptime": -1}, "its setuptime or duration is no time of a call"),
        ({"setuptime": 1001}, "its setuptime or duration is no time of a call"),  # it would begin before 1970
        ({"setuptime": 4_294_967_295, "at": 1_790_000_000_000}, "its setuptime or duration is no time of a call"),
        ({"duration": -1}, "its setuptime or duration is no time of a call"),
        ({"duration": 2**63}, "its setuptime or duration is no time of a call"),
        ({"ms_duration": 10**20}, "its setuptime or duration is no time of a call"),
    ],
    ids=str,
)
def test_a_row_of_no_call_says_why(row: dict[str, Any], why: str) -> None:
    assert events(**row).why == why


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["INVITE", "BYE"]), st.integers(200, 699))
def test_the_same_row_is_the_same_event_however_often_it_is_read(
    tag: str, call_id: str, method: str, code: int
) -> None:
    row = {"callid": call_id, "from_tag": tag, "method": method, "sip_code": str(code)}
    one, two = events(**row), events(**row)
    if not isinstance(one, Left):
        assert [event_id(event) for event in one] == [event_id(event) for event in two]


_ANY = st.none() | st.integers() | st.decimals() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)


@given(st.fixed_dictionaries(dict.fromkeys(("left", "q", "cseq", "reg_id", "instance", "callid"), _ANY)))
def test_whatever_a_row_of_location_holds_is_a_command_or_left_out(row: dict[str, Any]) -> None:
    found = a_phone(**row)
    if isinstance(found, Phone):
        sent = msgspec.json.encode(found.registration)
        assert msgspec.json.decode(sent, type=Registration) == found.registration


@given(
    st.fixed_dictionaries(dict.fromkeys(("at", "setuptime", "duration", "ms_duration", "to_tag"), _ANY)),
    st.sampled_from(["INVITE", "BYE"]),
)
def test_whatever_a_row_of_acc_holds_is_events_or_left_out(row: dict[str, Any], method: str) -> None:
    found = events(**row, method=method)
    for event in () if isinstance(found, Left) else found:
        Happened("ramal.Call", "ramal", event_id(event), event.call_id, event.at)
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


def test_a_bye_alone_ends_a_call() -> None:
    [ended] = events(method="BYE")
    assert isinstance(ended, CallEnded)
