"""The registrar's decisions, line by line of the checklist: what is added, refreshed, removed, and copies of it."""

import pytest

from events.commands import Contact
from events.registrations import binding_id
from registrar.config import Policy
from registrar.decider import REMEMBERED, grant, is_over
from tests.kit.aor import DESK, MOBILE, SECOND, START, Aor, kinds, refused

# Step 6


def test_r08_a_query_answers_with_all_bindings_and_changes_nothing():
    aor = Aor().given(DESK).given(MOBILE)
    decision = aor.register()
    assert kinds(decision) == []
    assert [b.contact for b in decision.state.bindings] == [DESK, MOBILE]
    assert decision.reply is not None


def test_r08_a_query_of_an_unknown_aor_leaves_nothing_to_remember():
    decision = Aor().register()
    assert kinds(decision) == []
    assert is_over(decision.state, START + 1)


def test_r09_star_with_expires_0_removes_every_binding():
    aor = Aor().given(DESK).given(MOBILE, call_id="call-2")
    assert kinds(aor.register(star=True, expires=0, call_id="call-3")) == ["unregistered", "unregistered"]
    assert aor.contacts == []


@pytest.mark.parametrize("more", [{"expires": None}, {"expires": 1}, {"expires": 300}])
def test_r10_star_needs_expires_0(more):
    aor = Aor().given(DESK)
    refused(aor.register(star=True, **more), 400, "bad-star")
    assert aor.contacts == [DESK]


def test_r10_star_stands_alone():
    aor = Aor().given(DESK)
    refused(aor.register(MOBILE, star=True, expires=0), 400, "bad-star")
    assert aor.contacts == [DESK]


@pytest.mark.parametrize("cseq", [6, 7])
def test_r11_star_with_a_cseq_not_higher_for_one_binding_removes_nothing_at_all(cseq):
    aor = Aor().given(MOBILE, call_id="call-2").given(DESK, call_id="call-1", cseq=7)
    refused(aor.register(star=True, expires=0, call_id="call-1", cseq=cseq), 500)
    assert aor.contacts == [MOBILE, DESK]


def test_r11_star_with_a_higher_cseq_removes_all():
    aor = Aor().given(MOBILE, call_id="call-2").given(DESK, call_id="call-1", cseq=7)
    assert kinds(aor.register(star=True, expires=0, call_id="call-1", cseq=8)) == ["unregistered"] * 2


# Step 7: times


@pytest.mark.parametrize(
    ("parameter", "header", "granted"),
    [(100, 200, 100), (None, 200, 200), (None, None, 240), (9999, None, 300), (None, 2**32 - 1, 300)],
)
def test_r12_the_parameter_then_the_header_then_the_default_is_the_time_requested(parameter, header, granted):
    aor = Aor(Policy(expires_deviation=0, default_expires=240))
    aor.given(Contact(DESK, expires=parameter), expires=header)
    [binding] = aor.state.bindings
    assert binding.granted == granted
    assert binding.expires == START + granted * SECOND


def test_r13_a_deviation_takes_times_apart_and_only_downwards():
    policy = Policy(expires_deviation=20)
    times = {grant(300, binding_id(1, offset, 0), policy) for offset in range(200)}
    assert min(times) >= 240
    assert max(times) <= 300
    assert len(times) > 30


def test_r13_what_a_phone_asks_for_first_it_gets_whole():
    for _ in range(20):
        [binding] = Aor(Policy(expires_deviation=50)).later(7).given(DESK).state.bindings
        assert binding.granted == Policy().default_expires


def test_r13_a_deviation_alone_shortens_no_binding_that_is_there():
    aor = Aor(Policy(expires_deviation=50)).given(DESK)
    for _ in range(20):
        aor.given(DESK)
        assert kinds(aor.later(1).register(DESK)) == ["refreshed"]
    assert kinds(aor.register(Contact(DESK, expires=100))) == ["shortened"]


def test_r14_423_says_the_minimum_and_changes_nothing():
    aor = Aor().given(DESK)
    refusal = refused(aor.register(Contact(MOBILE, expires=59)), 423)
    assert refusal.headers == (("Min-Expires", "60"),)
    assert aor.contacts == [DESK]


@pytest.mark.parametrize(("minimum", "requested"), [(60, 60), (4000, 3600), (4000, 3999)])
def test_r14_no_423_from_the_minimum_or_one_hour_on(minimum, requested):
    aor = Aor(Policy(expires_deviation=0, min_expires=minimum, max_expires=5000, default_expires=5000))
    assert kinds(aor.register(Contact(DESK, expires=requested))) == ["created"]
    assert aor.state.bindings[0].granted == requested


def test_r15_expires_0_removes_that_contact_alone():
    aor = Aor().given(DESK).given(MOBILE)
    assert kinds(aor.register(Contact(DESK, expires=0))) == ["unregistered"]
    assert aor.contacts == [MOBILE]


def test_r15_an_expires_0_header_removes_those_without_their_own_time():
    aor = Aor().given(DESK).given(MOBILE)
    assert kinds(aor.register(DESK, Contact(MOBILE, expires=100), expires=0)) == ["unregistered", "shortened"]
    assert aor.contacts == [MOBILE]


def test_r15_removing_an_unknown_contact_changes_nothing_and_succeeds():
    assert kinds(Aor().given(MOBILE).register(Contact(DESK, expires=0))) == []


# Step 7: which binding


def test_r16_no_port_is_not_port_5060():
    aor = Aor().given("sip:alice@192.0.2.4").given("sip:alice@192.0.2.4:5060")
    assert len(aor.contacts) == 2


def test_r16_no_transport_is_not_transport_udp():
    aor = Aor().given("sip:alice@192.0.2.4").given("sip:alice@192.0.2.4;transport=udp")
    assert len(aor.contacts) == 2


def test_r16_an_unknown_parameter_counts_only_where_both_have_it():
    aor = Aor().given("sip:alice@192.0.2.4;x=1").given("sip:alice@192.0.2.4;x=2")
    assert len(aor.contacts) == 2
    assert kinds(aor.register("sip:alice@192.0.2.4")) == ["refreshed"]
    assert aor.contacts == ["sip:alice@192.0.2.4", "sip:alice@192.0.2.4;x=2"]


def test_r16_equal_text_wins_over_equal_meaning():
    aor = Aor().given("sip:alice@192.0.2.4;x=1").given("sip:alice@192.0.2.4;x=2")
    aor.given("sip:alice@192.0.2.4")
    aor.given("sip:alice@192.0.2.4;x=2")
    assert aor.contacts == ["sip:alice@192.0.2.4", "sip:alice@192.0.2.4;x=2"]


def test_r16_what_is_removed_is_every_binding_that_is_equal():
    aor = Aor().given("sip:alice@192.0.2.4;x=1").given("sip:alice@192.0.2.4;x=2")
    assert kinds(aor.register(Contact("sip:alice@192.0.2.4", expires=0))) == ["unregistered"] * 2


def test_r16_host_and_escapes_compare_by_meaning():
    aor = Aor().given("sip:%61lice@Phone.Example.test")
    assert kinds(aor.register("sip:alice@phone.example.test")) == ["refreshed"]


def test_r17_a_contact_not_stored_is_added():
    assert kinds(Aor().given(DESK).register(MOBILE)) == ["created"]


@pytest.mark.parametrize(("call_id", "cseq"), [("other", 1), ("call-1", 8)])
@pytest.mark.parametrize(("expires", "kind"), [(300, "refreshed"), (0, "unregistered")])
def test_r17_another_call_id_or_a_higher_cseq_updates_or_removes(call_id, cseq, expires, kind):
    aor = Aor().given(DESK, cseq=7)
    assert kinds(aor.register(Contact(DESK, expires=expires), call_id=call_id, cseq=cseq)) == [kind]
    for binding in aor.state.bindings:
        assert (binding.call_id, binding.cseq) == (call_id, cseq)


@pytest.mark.parametrize("cseq", [7, 6, 0])
@pytest.mark.parametrize("expires", [300, 0])
def test_r18_the_same_call_id_with_a_cseq_not_higher_is_500_and_changes_nothing(cseq, expires):
    aor = Aor().given(DESK, cseq=7)
    refused(aor.register(Contact(DESK, expires=expires), cseq=cseq), 500)
    assert aor.contacts == [DESK]


# Copies


def test_r19_a_retransmission_is_answered_again_and_changes_nothing():
    aor = Aor().given(DESK, cseq=7, branch="z9hG4bKx", received="sip:192.0.2.4:5062", path=("<sip:a@p;lr>",))
    first = aor.state.bindings
    decision = aor.later(31).register(
        DESK, cseq=7, branch="z9hG4bKx", received="sip:192.0.2.4:9999", path=("<sip:b@p;lr>",)
    )
    assert kinds(decision) == []
    assert decision.state.bindings == first
    assert decision.reply is not None


def test_r19_a_repeated_command_is_answered_again_and_changes_nothing():
    aor = Aor().given(Contact(DESK, expires=0), command_id="same")
    aor.given(DESK, cseq=9)
    assert kinds(aor.register(Contact(DESK, expires=0), command_id="same", cseq=1)) == []
    assert aor.contacts == [DESK]


def test_r19_after_32_seconds_a_copy_is_a_request_like_any_other():
    aor = Aor().given(DESK, cseq=7, branch="z9hG4bKx")
    refused(aor.later(32.001).register(DESK, cseq=7, branch="z9hG4bKx"), 500)


@pytest.mark.parametrize("seconds", [0, 32])
def test_r19_a_late_copy_revives_nothing(seconds):
    aor = Aor().given(DESK, cseq=1).given(Contact(DESK, expires=0), cseq=3)
    refused(aor.later(seconds).register(DESK, cseq=2), 500)
    assert aor.contacts == []
    assert kinds(aor.register(DESK, cseq=4)) == ["created"]


def test_r19_a_removal_that_overtook_its_registration_wins():
    aor = Aor().given(Contact(DESK, expires=0), cseq=2)
    refused(aor.register(DESK, cseq=1), 500)


def test_r19_a_late_copy_revives_nothing_after_star():
    aor = Aor().given(star=True, expires=0, cseq=2)
    refused(aor.register(DESK, cseq=1), 500)
    assert kinds(aor.register(DESK, cseq=1, call_id="other")) == ["created"]


def test_r19_removal_by_another_call_id_also_forbids_the_first_ones_copies():
    aor = Aor().given(DESK, call_id="a", cseq=5).later(40).given(Contact(DESK, expires=0), call_id="b", cseq=1)
    refused(aor.register(DESK, call_id="a", cseq=5), 500)


def test_r19_what_is_remembered_is_bounded():
    aor = Aor()
    for _ in range(3 * REMEMBERED):
        aor.given(DESK)
        aor.given(Contact(f"sip:x@192.0.2.{aor.sent}", expires=0))
    assert len(aor.state.seen) == REMEMBERED
    assert len(aor.state.gone) == REMEMBERED
