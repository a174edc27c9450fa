"""The registrar's decisions, line by line of the checklist: given a history, when a command comes, then this."""

import msgspec
import pytest

from events import limits
from events.commands import Contact, ExpireContacts, RegisterContacts, Registration, RemoveContacts, RemoveFlow, ReplyTo
from events.registrations import AorState, BindingsRecorded, Kind, binding_id
from registrar.config import Policy
from registrar.decider import MEMORY_MS, REMEMBERED, Refusal, decide, evolve, grant, is_over
from runtime.errors import ConfigError

AOR = "alice@example.test"
DESK = "sip:alice@192.0.2.4:5062"
MOBILE = "sip:alice@192.0.2.9"
START = 1_700_000_000_000
SECOND = 1000
POLICY = Policy()


class Aor:
    """One AOR under test: commands go in one after the other, as from its partition."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.state = AorState()
        self.policy = policy
        self.now = START
        self.offset = 100
        self.sent = 0

    def given(self, *args, **kwargs) -> "Aor":
        assert isinstance(self.register(*args, **kwargs), BindingsRecorded)
        return self

    def register(
        self,
        *contacts: str | Contact,
        call_id: str = "call-1",
        cseq: int | None = None,
        branch: str | None = None,
        command_id: str | None = None,
        aor: str = AOR,
        **more,
    ):
        self.sent += 1
        command = RegisterContacts(
            id=command_id or f"id-{self.sent}",
            reply=ReplyTo("edge-1", "boot", START + 10**9),
            user=AOR,
            aor=aor,
            register=Registration(
                call_id=call_id,
                cseq=self.sent if cseq is None else cseq,
                branch=branch or f"z9hG4bK{self.sent}",
                contacts=tuple(Contact(c) if isinstance(c, str) else c for c in contacts),
                **more,
            ),
        )
        return self.when(command)

    def expire(self):
        return self.when(ExpireContacts("expiry", AOR))

    def remove(self, contact: str | None = None):
        return self.when(RemoveContacts("removal", AOR, "olga", contact))

    def lose(self, path: str):
        return self.when(RemoveFlow("loss", AOR, path))

    def when(self, command):
        self.offset += 1
        before = self.state
        decision = decide(self.state, command, self.now, 3, self.offset, self.policy)
        if isinstance(decision, BindingsRecorded):
            self.state = evolve(self.state, decision)
        assert before == self.state or isinstance(decision, BindingsRecorded)
        return decision

    def later(self, seconds: float) -> "Aor":
        self.now += round(seconds * SECOND)
        return self

    @property
    def contacts(self) -> list[str]:
        return [binding.contact for binding in self.state.bindings]


def kinds(decision: object) -> list[str]:
    assert isinstance(decision, BindingsRecorded), decision
    return [str(change.kind) for change in decision.changes]


def refused(decision: object, status: int, name: str | None = None) -> Refusal:
    assert isinstance(decision, Refusal), decision
    assert decision.status == status
    assert name in (None, decision.name)
    return decision


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
    aor = Aor(Policy(default_expires=240))
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


def test_r14_423_says_the_minimum_and_changes_nothing():
    aor = Aor().given(DESK)
    refusal = refused(aor.register(Contact(MOBILE, expires=59)), 423)
    assert refusal.headers == (("Min-Expires", "60"),)
    assert aor.contacts == [DESK]


@pytest.mark.parametrize(("minimum", "requested"), [(60, 60), (4000, 3600), (4000, 3999)])
def test_r14_no_423_from_the_minimum_or_one_hour_on(minimum, requested):
    aor = Aor(Policy(min_expires=minimum, max_expires=5000, default_expires=5000))
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
    aor = Aor(Policy(max_contacts=2, overflow="refuse")).given(DESK).given(MOBILE)
    refused(aor.register("sip:third@192.0.2.3"), 403, "too-many-contacts")
    assert kinds(aor.register(DESK)) == ["refreshed"]


def test_r29_a_request_that_removes_one_may_add_one():
    aor = Aor(Policy(max_contacts=2)).given(DESK).given(MOBILE)
    assert kinds(aor.register(Contact(DESK, expires=0), "sip:third@192.0.2.3")) == ["unregistered", "created"]


def test_r29_the_one_not_refreshed_for_longest_leaves():
    aor = Aor(Policy(max_contacts=2)).given(DESK).later(1).given(MOBILE).later(1)
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
    aor = Aor(Policy(max_contacts=3)).given(DESK, call_id="one", user_agent="Desk").later(1)
    aor.given(MOBILE, call_id="two", user_agent="Mobile").later(1)
    aor.given("sip:alice@192.0.2.9:5070", call_id="one", user_agent="Other").later(1)
    aor.given("sip:alice@192.0.2.9:5071", call_id="three", user_agent="Desk")
    assert DESK not in aor.contacts


def test_r29_contacts_of_one_register_do_not_displace_each_other():
    aor = Aor(Policy(max_contacts=3)).given(MOBILE, call_id="mobile", user_agent="Mobile").later(1)
    aor.given(DESK, "sip:alice@192.0.2.4:5064", call_id="desk", user_agent="Desk").later(1)
    aor.given("sip:third@192.0.2.3", call_id="third")
    assert MOBILE not in aor.contacts


def test_r29_more_contacts_in_one_register_than_an_aor_may_have_is_403_by_either_policy():
    aor = Aor(Policy(max_contacts=2, overflow="replace-oldest")).given(DESK)
    refused(aor.register(*(f"sip:{n}@192.0.2.3" for n in "abc")), 403)
    assert aor.contacts == [DESK]


def test_r29_contacts_in_one_register_are_limited():
    contacts = [f"sip:a{n}@192.0.2.3" for n in range(limits.CONTACTS_PER_REGISTER + 1)]
    refused(Aor(Policy(max_contacts=100)).register(*contacts), 403, "too-many-contacts-in-one")
    assert kinds(Aor(Policy(max_contacts=100)).register(*contacts[:-1])) == ["created"] * 16


def test_r29_a_lowered_limit_does_not_stop_refreshes():
    aor = Aor().given(DESK).given(MOBILE)
    aor.policy = Policy(max_contacts=1)
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


def test_r35_a_reg_id_without_instance_is_ignored():
    aor = Aor().given(Contact(DESK, reg_id=1))
    assert aor.state.bindings[0].reg_id is None
    assert kinds(aor.register(Contact(DESK, reg_id=2))) == ["refreshed"]


# Ends


def test_r31_a_binding_ends_at_its_time_and_grace():
    aor = Aor().given(DESK).later(301.999)
    assert aor.expire() is None
    assert kinds(aor.later(0.001).expire()) == ["expired"]
    assert aor.contacts == []
    assert aor.expire() is None


def test_r31_a_refresh_before_the_end_leaves_no_expired():
    aor = Aor().given(DESK).later(299).given(DESK).later(5)
    assert aor.expire() is None


def test_r31_a_refresh_within_the_grace_is_a_refresh():
    aor = Aor().given(DESK).later(301)
    assert kinds(aor.register(DESK)) == ["refreshed"]


def test_r31_after_the_grace_the_old_binding_has_expired_and_a_new_one_is_made():
    aor = Aor().given(DESK).later(302)
    assert kinds(aor.register(DESK)) == ["expired", "created"]
    assert len(aor.contacts) == 1


def test_r31_expiry_ends_only_what_is_over():
    aor = Aor().given(DESK).later(100).given(MOBILE).later(202)
    assert kinds(aor.expire()) == ["expired"]
    assert aor.contacts == [MOBILE]


def test_r31_the_end_of_one_binding_takes_no_grace_from_another():
    aor = Aor().given(DESK).later(1).given(MOBILE, call_id="call-2").later(301)
    assert kinds(aor.expire()) == ["expired"]
    assert kinds(aor.register(MOBILE, call_id="call-2")) == ["refreshed"]


def test_r32_a_first_one_is_created_a_refresh_refreshed_a_smaller_time_shortened():
    aor = Aor()
    assert kinds(aor.register(DESK)) == ["created"]
    assert kinds(aor.later(10).register(DESK)) == ["refreshed"]
    assert kinds(aor.later(10).register(Contact(DESK, expires=60))) == ["shortened"]


def test_r32_the_binding_keeps_its_id_and_its_birth_through_refreshes():
    aor = Aor().given(DESK).later(10).given(DESK)
    [binding] = aor.state.bindings
    assert binding.id == binding_id(3, 101, 0)
    assert (binding.created, binding.updated) == (START, START + 10 * SECOND)


def test_r33_path_values_are_stored_in_order():
    path = ("<sip:token@edge;lr>", "<sip:p1@example.test;lr>")
    aor = Aor().given(DESK, path=path)
    assert aor.state.bindings[0].path == path


def test_r43_an_operators_removal_carries_the_name_and_the_next_refresh_creates():
    aor = Aor().given(DESK).given(MOBILE)
    decision = aor.remove(DESK)
    assert kinds(decision) == ["unregistered"]
    assert decision.by == "operator:olga"
    assert decision.reply is None
    assert aor.contacts == [MOBILE]
    assert kinds(aor.register(DESK)) == ["created"]


ONE, OTHER, OUTER = ("<sip:one@edges;lr>", "<sip:other@edges;lr>", "<sip:outer.example.test;lr>")


def test_n11_a_closed_connection_ends_the_bindings_whose_first_path_is_its_own_and_no_other():
    aor = (
        Aor().given(DESK, path=(ONE, OUTER)).given("sip:second@192.0.2.4", path=(ONE,)).given(MOBILE, path=(OTHER, ONE))
    )
    decision = aor.given("sip:pathless@192.0.2.9").lose(ONE)
    assert kinds(decision) == ["deactivated"] * 2
    assert (decision.by, decision.reply) == ("flow-lost", None)
    assert aor.contacts == [MOBILE, "sip:pathless@192.0.2.9"]


def test_n11_a_binding_that_was_refreshed_by_another_connection_stays():
    aor = Aor().given(DESK, path=(ONE,)).given(DESK, path=(OTHER,))
    assert aor.lose(ONE) is None
    assert aor.contacts == [DESK]


def test_n11_a_closed_connection_without_bindings_leaves_no_record():
    assert Aor().lose(ONE) is None
    aor = Aor().given(DESK, path=(ONE,))
    assert kinds(aor.lose(ONE)) == ["deactivated"]
    assert aor.lose(ONE) is None


def test_r19_a_late_copy_does_not_revive_what_went_with_its_connection():
    aor = Aor().given(DESK, path=(ONE,), cseq=5)
    aor.lose(ONE)
    refused(aor.register(DESK, path=(ONE,), cseq=5), 500)
    assert kinds(aor.register(DESK, path=(OTHER,), cseq=6)) == ["created"]


def test_r43_an_operator_may_remove_all():
    assert kinds(Aor().given(DESK).given(MOBILE).remove()) == ["unregistered"] * 2


def test_r43_a_removal_of_nothing_is_recorded_too():
    assert kinds(Aor().remove(DESK)) == []


# The same contact twice in one request: RFC 3261 is silent; each is applied in turn


def test_the_same_contact_twice_is_applied_in_turn():
    aor = Aor()
    assert kinds(aor.register(Contact(DESK, expires=300), Contact(DESK, expires=100))) == ["created"]
    assert aor.state.bindings[0].granted == 100
    assert kinds(aor.register(DESK, Contact(DESK, expires=0))) == ["unregistered"]
    assert kinds(aor.register(MOBILE, Contact(MOBILE, expires=0))) == []
    assert aor.contacts == []


# Widths


@pytest.mark.parametrize(
    ("contact", "more", "name"),
    [
        (Contact("sip:a@" + "h" * limits.CONTACT), {}, "contact-too-long"),
        (Contact(DESK, params=";" + "p" * limits.CONTACT_PARAMS), {}, "contact-params-too-long"),
        (Contact(DESK, instance="i" * (limits.INSTANCE + 1)), {}, "instance-too-long"),
        (Contact(DESK, instance="i", reg_id=0), {}, "bad-reg-id"),
        (Contact(DESK), {"call_id": "c" * (limits.CALL_ID + 1)}, "call-id-too-long"),
        (Contact(DESK), {"branch": "b" * (limits.BRANCH + 1)}, "branch-too-long"),
        (Contact(DESK), {"received": "r" * (limits.RECEIVED + 1)}, "received-too-long"),
        (Contact(DESK), {"path": ("p" * 512, "p" * 512)}, "path-too-long"),
        (Contact(DESK), {"cseq": 2**31}, "bad-cseq"),
        (Contact(DESK), {"methods": 2**31}, "bad-methods"),
        (Contact(DESK), {"aor": "u" * (limits.USERNAME + 1) + "@example.test"}, "aor-too-long"),
        (Contact(DESK), {"aor": "u@" + "d" * (limits.DOMAIN + 1)}, "aor-too-long"),
        (Contact(DESK), {"aor": "example.test"}, "aor-without-user"),
        (Contact(DESK, expires=-1), {}, "bad-expires"),
    ],
)
def test_e24_what_does_not_fit_the_tables_is_a_named_400(contact, more, name):
    refused(Aor().register(contact, **more), 400, name)


def test_e24_a_user_agent_is_cut():
    aor = Aor().given(DESK, user_agent="u" * 1000)
    assert len(aor.state.bindings[0].user_agent) == limits.USER_AGENT


def test_r27_no_6xx_and_time_never_goes_back():
    aor = Aor().given(DESK)
    aor.now -= 5 * SECOND
    decision = aor.register(DESK)
    assert decision.state.at == START


def test_nothing_of_an_ended_aor_matters_after_32_seconds():
    aor = Aor().given(DESK).given(Contact(DESK, expires=0))
    assert not is_over(aor.state, aor.now + MEMORY_MS)
    assert is_over(aor.state, aor.now + MEMORY_MS + 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_expires": 0},
        {"max_expires": 59},
        {"default_expires": 301},
        {"expires_deviation": 51},
        {"max_contacts": 0},
        {"grace": -1},
        {"snapshot_interval": 0.0},
    ],
)
def test_a_policy_that_contradicts_itself_names_its_key(wrong):
    with pytest.raises(ConfigError, match=f"registrar.{next(iter(wrong))}"):
        Policy(**wrong)


def test_events_survive_encoding():
    decision = Aor().given(Contact(DESK, q=0.5, instance="<i>")).register(Contact(DESK, expires=0))
    assert msgspec.json.decode(msgspec.json.encode(decision), type=BindingsRecorded) == decision
    assert decision.changes[0].kind is Kind.UNREGISTERED


def test_c16_each_kind_of_change_is_told_with_all_that_is_known_of_the_binding():
    phone = Contact(DESK, expires=300, instance="<urn:uuid:1>", reg_id=1)
    sent = {"received": "sip:192.0.2.4:5062;transport=udp", "socket": "udp:192.0.2.1:5060", "user_agent": "Desk 1"}
    aor, told = Aor(), {}

    def tell(decision: BindingsRecorded) -> None:
        told.update((change.kind, (change.contact, decision)) for change in decision.changes)

    tell(aor.register(phone, **sent))
    tell(aor.register(phone, **sent))
    tell(aor.register(msgspec.structs.replace(phone, expires=200), **sent))
    tell(aor.register(msgspec.structs.replace(phone, expires=0), **sent))
    tell(aor.register(Contact(MOBILE, expires=60, path=("<sip:edge;lr>",))))
    tell(aor.lose("<sip:edge;lr>"))
    tell(aor.register(Contact(MOBILE, expires=60)))
    aor.now += 1000 * SECOND
    tell(aor.expire())

    assert set(told) == set(Kind)
    for kind in (Kind.REFRESHED, Kind.SHORTENED):  # as it was created, and ends
        contact, decision = told[kind]
        [binding] = decision.state.bindings
        assert (decision.aor, contact, binding.instance, binding.reg_id) == (AOR, DESK, "<urn:uuid:1>", 1)
        assert binding.granted in (200, 300)
        assert (binding.received, binding.socket, binding.user_agent) == tuple(sent.values())
    assert told[Kind.UNREGISTERED][1].by == AOR
    assert told[Kind.DEACTIVATED][1].by == "flow-lost"
    assert told[Kind.EXPIRED][1].by == "expiry"


def test_c20_who_is_forgotten_has_no_binding_and_nothing_is_remembered_of_former_ones():
    aor = Aor().given(DESK, MOBILE)

    decision = aor.when(RemoveContacts("r", AOR, "olga", None, forget=True))

    assert decision.forgotten
    assert [change.kind for change in decision.changes] == [Kind.UNREGISTERED] * 2
    assert decision.state == AorState(at=aor.now)
    assert is_over(decision.state, aor.now + 1)
