"""The registrar's decisions: all or nothing, paths, parameters, limits, instances."""

import msgspec
import pytest

from events import limits
from events.commands import Contact
from registrar.config import Policy
from registrar.decider import Refusal
from tests.kit.aor import DESK, MOBILE, POLICY, SECOND, Aor, kinds, refused

# All or nothing


@pytest.mark.parametrize(
    "third", [Contact("not a uri"), Contact("sip:c@192.0.2.3", q=7.0), Contact("sip:c@192.0.2.3", expires=5)]
)
def test_r20_of_three_contacts_with_a_bad_third_none_is_stored(third):
    aor = Aor().given(DESK)
    assert isinstance(aor.register(Contact(DESK, expires=0), MOBILE, third), Refusal)
    assert aor.contacts == [DESK]


@pytest.mark.parametrize("uri", ["tel:+5548999", "mailto:x@example.test", "urn:x:y", "TEL:1"])
def test_r20_a_contact_that_cannot_be_called_is_400_and_can_be_removed(uri):
    aor = Aor().given(DESK)
    refused(aor.register(MOBILE, uri), 400, "contact-not-sip")
    assert aor.contacts == [DESK]
    old = msgspec.structs.replace(aor.state.bindings[0], id=7, contact=uri)
    aor.state = msgspec.structs.replace(aor.state, bindings=(*aor.state.bindings, old))
    refused(aor.register(uri), 400, "contact-not-sip")
    assert kinds(aor.register(Contact(uri, expires=0))) == ["unregistered"]


def test_r33_a_contact_has_the_path_of_its_registration_or_one_of_its_own_or_none():
    own, elsewhere = Contact(MOBILE, path=("<sip:port@x;lr>",)), Contact("sip:third@192.0.2.3", path=())
    aor = Aor().given(DESK, own, elsewhere, path=("<sip:flow@x;lr>",), received="sip:192.0.2.4:5062;transport=udp")
    assert [(binding.path, bool(binding.received)) for binding in aor.state.bindings] == [
        (("<sip:flow@x;lr>",), True),
        (("<sip:port@x;lr>",), True),
        ((), False),
    ]
    assert kinds(aor.lose("<sip:flow@x;lr>")) == ["deactivated"]
    assert aor.contacts == [MOBILE, "sip:third@192.0.2.3"]


# Step 8


def test_r22_the_record_lists_other_phones_bindings_too():
    decision = Aor().given(DESK).later(100).register(MOBILE, call_id="call-2")
    assert [(b.contact, (b.expires - decision.state.at) // SECOND) for b in decision.state.bindings] == [
        (DESK, 200),
        (MOBILE, 300),
    ]


@pytest.mark.parametrize("q", [None, 0.0, 0.5, 0.123, 1.0])
def test_r24_q_is_kept(q):
    aor = Aor().given(Contact(DESK, q=q))
    assert aor.state.bindings[0].q == q


@pytest.mark.parametrize("q", [-0.1, 1.001, 0.1234])
def test_r24_a_bad_q_is_400(q):
    refused(Aor().register(Contact(DESK, q=q)), 400, "bad-q")


def test_r25_parameters_come_back_as_sent():
    uri, params = "sip:alice@192.0.2.4;unknown=1?Route=%3Csip:x%3E", ';Audio;q=0.5;+sip.x="A,b;C"'
    aor = Aor().given(Contact(uri, params=params, q=0.5))
    assert (aor.state.bindings[0].contact, aor.state.bindings[0].params) == (uri, params)


def test_r26_per_call_id_the_order_is_that_of_cseq():
    aor = Aor().given(DESK, cseq=2)
    refused(aor.register(Contact(DESK, expires=0), cseq=1), 500)
    assert aor.contacts == [DESK]


# Limits


def test_r29_by_policy_one_contact_too_many_is_403():
    aor = Aor(Policy(expires_deviation=0, max_contacts=2, overflow="refuse")).given(DESK).given(MOBILE)
    refused(aor.register("sip:third@192.0.2.3"), 403, "too-many-contacts")
    assert kinds(aor.register(DESK)) == ["refreshed"]


def test_r29_a_request_that_removes_one_may_add_one():
    aor = Aor(Policy(expires_deviation=0, max_contacts=2)).given(DESK).given(MOBILE)
    assert kinds(aor.register(Contact(DESK, expires=0), "sip:third@192.0.2.3")) == ["unregistered", "created"]


def test_r29_the_one_not_refreshed_for_longest_leaves():
    aor = Aor(Policy(expires_deviation=0, max_contacts=2)).given(DESK).later(1).given(MOBILE).later(1)
    aor.given(DESK).later(1)
    assert kinds(aor.register("sip:third@192.0.2.3")) == ["deactivated", "created"]
    assert aor.contacts == [DESK, "sip:third@192.0.2.3"]


def test_r29_a_phone_without_instance_that_restarts_from_other_ports_is_never_refused():
    aor = Aor().given(DESK, call_id="desk", user_agent="Desk")
    for port in range(5070, 5090):
        aor.later(1).given(f"sip:alice@192.0.2.9:{port}", call_id=f"boot-{port}", cseq=1, user_agent="Mobile")
    assert len(aor.contacts) == POLICY.max_contacts
    assert aor.contacts[-1] == "sip:alice@192.0.2.9:5089"


def test_r29_of_two_flows_of_one_call_id_and_user_agent_the_older_leaves_before_another_phone():
    aor = Aor().given(DESK, call_id="desk", user_agent="Desk")
    for port in range(5070, 5090):
        aor.later(1).given(f"sip:alice@192.0.2.9:{port}", call_id="mobile", user_agent="Mobile")
    assert DESK in aor.contacts
    assert aor.contacts[-1] == "sip:alice@192.0.2.9:5089"


def test_r29_another_user_agent_under_one_call_id_is_another_phone():
    aor = Aor(Policy(expires_deviation=0, max_contacts=3)).given(DESK, call_id="one", user_agent="Desk").later(1)
    aor.given(MOBILE, call_id="two", user_agent="Mobile").later(1)
    aor.given("sip:alice@192.0.2.9:5070", call_id="one", user_agent="Other").later(1)
    aor.given("sip:alice@192.0.2.9:5071", call_id="three", user_agent="Desk")
    assert DESK not in aor.contacts


def test_r29_contacts_of_one_register_do_not_displace_each_other():
    aor = Aor(Policy(expires_deviation=0, max_contacts=3)).given(MOBILE, call_id="mobile", user_agent="Mobile").later(1)
    aor.given(DESK, "sip:alice@192.0.2.4:5064", call_id="desk", user_agent="Desk").later(1)
    aor.given("sip:third@192.0.2.3", call_id="third")
    assert MOBILE not in aor.contacts


def test_r29_more_contacts_in_one_register_than_an_aor_may_have_is_403_by_either_policy():
    aor = Aor(Policy(expires_deviation=0, max_contacts=2, overflow="replace-oldest")).given(DESK)
    refused(aor.register(*(f"sip:{n}@192.0.2.3" for n in "abc")), 403)
    assert aor.contacts == [DESK]


def test_r29_contacts_in_one_register_are_limited():
    contacts = [f"sip:a{n}@192.0.2.3" for n in range(limits.CONTACTS_PER_REGISTER + 1)]
    refused(Aor(Policy(expires_deviation=0, max_contacts=100)).register(*contacts), 403, "too-many-contacts-in-one")
    assert kinds(Aor(Policy(expires_deviation=0, max_contacts=100)).register(*contacts[:-1])) == ["created"] * 16


def test_r29_a_lowered_limit_does_not_stop_refreshes():
    aor = Aor().given(DESK).given(MOBILE)
    aor.policy = Policy(expires_deviation=0, max_contacts=1)
    assert kinds(aor.register(DESK)) == ["refreshed"]


@pytest.mark.parametrize("reg_id", [None, 1])
def test_r30_the_same_instance_with_a_new_call_id_and_port_is_one_binding(reg_id):
    aor = Aor().given(Contact(DESK, instance="<urn:uuid:1>", reg_id=reg_id))
    [old] = aor.state.bindings
    moved = Contact("sip:alice@192.0.2.4:7777", instance="<urn:uuid:1>", reg_id=reg_id)
    assert kinds(aor.register(moved, call_id="after-restart", cseq=1)) == ["refreshed"]
    [new] = aor.state.bindings
    assert (new.id, new.contact, new.created) == (old.id, moved.uri, old.created)


def test_r30_a_late_copy_from_the_old_address_does_not_take_the_binding_back():
    aor = Aor().given(Contact(DESK, instance="<urn:uuid:1>"), cseq=5).later(300)
    aor.given(Contact("sip:alice@192.0.2.4:7777", instance="<urn:uuid:1>"), call_id="b", cseq=1)
    refused(aor.register(Contact(DESK, instance="<urn:uuid:1>"), cseq=5), 500)


def test_r30_two_flows_of_one_instance_are_two_bindings_even_with_one_uri():
    aor = Aor().given(Contact(DESK, instance="<urn:uuid:1>", reg_id=1))
    assert kinds(aor.register(Contact(DESK, instance="<urn:uuid:1>", reg_id=2))) == ["created"]


def test_r30_another_instance_at_a_known_uri_is_that_uris_binding():
    aor = Aor().given(Contact(DESK, instance="<urn:uuid:1>"))
    assert kinds(aor.register(Contact(DESK, instance="<urn:uuid:2>"))) == ["refreshed"]
