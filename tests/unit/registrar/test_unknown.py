"""E19: what a newer version wrote into a state outlives a decision of this one."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import AorState, Binding, BindingsRecorded, Gone, Seen
from events.wire import encode
from registrar.config import Policy
from registrar.decider import decide
from registrar.truths import decode_state
from registrar.unknown import carry, has_unknown

AOR = "alice@example.test"
NOW = 1_700_000_000_000
DESK, MOBILE = "sip:alice@192.0.2.4:5062", "sip:alice@192.0.2.9"

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
unknown_fields = st.dictionaries(st.from_regex(r"x_[a-z]{1,5}", fullmatch=True), values, max_size=3)
tails = st.lists(values, max_size=2)


def binding(number: int, contact: str) -> Binding:
    return Binding(number, contact, f"call-{number}", 1, NOW + 60_000, 60, NOW, NOW)


def command(*contacts: Contact, call_id: str = "call-1", cseq: int = 9) -> RegisterContacts:
    return RegisterContacts(
        "id-9", ReplyTo("edge-1", "boot", NOW + 9_000), AOR, AOR, Registration(call_id, cseq, "z9hG4bK9", contacts)
    )


def newer(fields: dict[str, Any], of_bindings: list[dict[str, Any]], of_seen: list[Any], of_gone: list[Any]) -> bytes:
    """A state as a version that knows more has encoded it."""
    state = AorState(
        NOW,
        (binding(1, DESK), binding(2, MOBILE)),
        (Seen("id-1", "call-1", 1, "z9hG4bK1", NOW),),
        (Gone("sip:alice@192.0.2.7", "call-3", 3, NOW),),
    )
    plain = msgspec.to_builtins(state)
    plain |= fields
    for one, more in zip(plain["bindings"], of_bindings, strict=True):
        one |= more
    plain["seen"] = [[*plain["seen"][0], *of_seen]]
    plain["gone"] = [[*plain["gone"][0], *of_gone]]
    return encode(plain)


@given(unknown_fields, st.lists(unknown_fields, min_size=2, max_size=2), tails, tails)
def test_e19_unknown_fields_live_as_long_as_what_they_belong_to(
    fields: dict[str, Any], of_bindings: list[dict[str, Any]], of_seen: list[Any], of_gone: list[Any]
) -> None:
    before = newer(fields, of_bindings, of_seen, of_gone)
    state = decode_state(before)
    assert has_unknown(before, state) == any([fields, *of_bindings, of_seen, of_gone])
    recorded = decide(state, command(Contact(DESK), Contact("sip:new@x")), NOW + 1_000, 0, 9, Policy())
    assert isinstance(recorded, BindingsRecorded)
    after = carry(before, encode(recorded.state))
    assert decode_state(after) == recorded.state, "what is known is as this version has decided it"
    plain = json.loads(after)
    assert {k: v for k, v in plain.items() if k in fields} == fields
    for one, more in zip(plain["bindings"][:2], of_bindings, strict=True):
        assert {k: v for k, v in one.items() if k in more} == more
    assert not plain["bindings"][2].keys() - set(Binding.__struct_fields__)
    assert plain["seen"][0][5:] == of_seen
    assert plain["gone"][0][4:] == of_gone


def test_e19_fields_of_a_binding_that_ends_end_with_it() -> None:
    before = newer({}, [{"x_a": 1}, {"x_b": 2}], [], [])
    recorded = decide(decode_state(before), command(Contact(DESK, expires=0)), NOW + 1_000, 0, 9, Policy())
    assert isinstance(recorded, BindingsRecorded)
    after = carry(before, encode(recorded.state))
    assert [b.get("x_b") for b in json.loads(after)["bindings"]] == [2]
    assert b"x_a" not in after


def test_a_state_of_this_version_has_nothing_unknown_however_its_defaults_are_spelled() -> None:
    state = AorState(NOW, (binding(1, DESK),))
    assert not has_unknown(encode(state), state)
    spelled = msgspec.json.encode({"gone": [], "seen": [], **msgspec.to_builtins(state)})
    assert spelled != encode(state)
    assert not has_unknown(spelled, decode_state(spelled))
