"""The registrar's decisions: ends, removals, what is told, and what does not fit."""

import msgspec
import pytest

from edge.core.flow import Flow
from edge.core.tokens.path import FlowTokens
from events import limits
from events.commands import Contact, RemoveContacts
from events.registrations import AorState, BindingsRecorded, Kind, binding_id
from registrar.config import Policy
from registrar.decider import MEMORY_MS, is_over
from runtime.errors import ConfigError
from tests.kit.aor import AOR, DESK, MOBILE, SECOND, START, Aor, kinds, refused
from tests.kit.edge import KEYS, TCP, UDP


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


def test_r43_a_kick_names_the_connections_to_close_each_once_and_a_removal_names_none():
    aor = Aor().given(DESK, path=(ONE, OUTER)).given("sip:second@192.0.2.4", path=(ONE,)).given(MOBILE, path=(OTHER,))
    decision = aor.kick()
    assert kinds(decision) == ["deactivated"] * 3
    assert (decision.by, decision.closes) == ("operator:olga", (ONE, OTHER))
    assert kinds(aor.register(DESK, path=(ONE,))) == ["created"]
    assert aor.kick(MOBILE).closes == ()
    assert aor.remove(DESK).closes == ()


def path_of(edge: str, flow: Flow) -> str:
    return FlowTokens(KEYS, edge, "b00t", "sip.example.test").names(flow).path


HERE, THERE, CONNECTION = path_of("edge-1", UDP), path_of("edge-2", UDP), path_of("edge-2", TCP)


def test_n03_the_edge_whose_udp_flow_a_phone_has_left_by_another_edge_is_told():
    phone = Contact(DESK, instance="<urn:uuid:1>")
    aor = Aor().given(phone, path=(THERE, OUTER))
    assert aor.register(phone, path=(THERE, OUTER)).closes == ()
    moved = aor.register(Contact(MOBILE, instance="<urn:uuid:1>"), path=(HERE,))
    assert (kinds(moved), moved.closes, moved.reply.edge) == (["refreshed"], (THERE,), "edge-1")
    assert aor.register(phone, path=(path_of("edge-1", TCP),)).closes == ()  # the edge that asks has it in its answer
    assert Aor().given(DESK, path=(THERE,)).register(Contact(DESK, expires=0)).closes == (THERE,)


@pytest.mark.parametrize("left", [CONNECTION, ONE, OUTER], ids=["a connection", "no token", "a proxy"])
def test_n03_nobody_is_told_of_a_connection_or_of_what_is_no_flow_of_an_edge(left: str):
    assert Aor().given(DESK, path=(left,)).register(DESK, path=(HERE,)).closes == ()


def test_n03_a_flow_by_which_another_phone_of_the_user_is_reached_goes_on_being_pinged():
    aor = Aor().given(DESK, path=(THERE,)).given(MOBILE, path=(THERE,))
    assert aor.register(DESK, path=(HERE,)).closes == ()
    assert aor.register(MOBILE, path=(HERE,)).closes == (THERE,)


def test_n03_of_what_is_over_by_its_time_nobody_is_told():
    aor = Aor().given(DESK, path=(THERE,)).later(400)
    assert aor.register(DESK, path=(HERE,)).closes == ()


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


def test_r42_a_user_who_is_gone_loses_all_bindings_and_a_late_copy_brings_none_back():
    aor = Aor().given(DESK).given(MOBILE)
    decision = aor.deactivate()
    assert kinds(decision) == ["deactivated"] * 2
    assert (decision.by, decision.reply) == ("user-gone", None)
    assert aor.deactivate() is None
    refused(aor.register(DESK, cseq=1), 500, "cseq-not-higher")
    assert kinds(aor.register(DESK)) == ["created"]
