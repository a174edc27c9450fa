"""C20: a call without somebody who was in it is still one, and whatever of him comes later is hidden, too."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdr.decider import StoredCall, decide, forget, record
from cdr.forgetting import hide, is_hidden, names_in, sides_of
from cdr.state import State, call_of, evolve, to_text
from events.calls import CallEvent, CallTransferred
from events.people import FORGOTTEN
from tests.kit.call_stories import Story, missed, talk

ALICE, BOB = "alice@example.test", "bob@example.test"


def fold(events: list[CallEvent]) -> State:
    state = State()
    for event in events:
        state = evolve(state, event)
    return state


def without(state: State, person: str) -> State:
    return hide(state, sides_of(state, person))


@pytest.mark.parametrize(("person", "name"), [(ALICE, "alice"), (BOB, "bob")])
def test_c20_nothing_of_a_person_is_left_and_counts_stay(person: str, name: str) -> None:
    story = talk()
    before, after = fold(story.events), without(fold(story.events), person)
    call = call_of(story.events[0])
    told, was = record(call, after), record(call, before)

    assert name in to_text(before)
    assert name not in to_text(after)
    assert ("192.0.2.4" in to_text(after)) == (person == BOB)
    for field in (
        "outcome",
        "attempted",
        "rang",
        "answered",
        "ended",
        "setup_ms",
        "talk_ms",
        "code",
        "hung_up",
        "ours",
    ):
        assert getattr(told, field) == getattr(was, field), field
    assert (told.caller, told.callee) == ((FORGOTTEN, BOB) if person == ALICE else (ALICE, FORGOTTEN))


def test_c20_a_missed_call_stays_missed() -> None:
    story = missed()

    told = record(call_of(story.events[0]), without(fold(story.events), BOB))

    assert (told.missed, told.callee) == (True, FORGOTTEN)


def test_a_stranger_and_whom_a_call_went_to_by_transfer_are_hidden_as_well() -> None:
    story = Story().attempted("carol", "bob").answered()
    story.events[0] = msgspec.structs.replace(story.events[0], caller="", callee="")
    story.events.append(
        CallTransferred(
            call_id=story.call_id, from_tag="ft", cseq=1, at=story.now, edge="e", to_tag="tt", by="caller", refer=2,
            target="sip:dave@example.test",
        )
    )  # fmt: skip
    state = fold(story.events)
    told = [record(call_of(story.events[0]), without(state, f"{n}@example.test")) for n in ("carol", "bob", "dave")]

    assert (told[0].caller, told[1].dialled, told[2].transferred_to) == (FORGOTTEN,) * 3


@pytest.mark.parametrize("person", ["mallory@example.test", "alice@other.test", "lice@example.test"])
def test_who_was_not_in_a_call_changes_nothing_of_it(person: str) -> None:
    state = fold(talk().events)

    assert without(state, person) is state
    assert not is_hidden(state)


def test_by_which_names_somebody_stood_in_a_call() -> None:
    story = Story().attempted("alice", "bob", dialled="sip:reception@example.test", from_uri="sip:4711@example.test")

    assert names_in(fold(story.events), BOB) == {"reception@example.test"}
    assert names_in(fold(story.events), ALICE) == {"4711@example.test"}


@given(st.permutations(range(len(talk().events))), st.integers(0, len(talk().events)), st.sampled_from([ALICE, BOB]))
def test_c20_what_comes_after_it_of_a_call_that_was_known_is_hidden_in_any_order(
    order: list[int], cut: int, person: str
) -> None:
    events = talk(call_id="c").events
    some = [events[number] for number in order]
    known = dict(decide(list(enumerate(some[:cut])), {}).changed)
    known |= forget(person, cut, known).changed
    was_hidden = any(is_hidden(each.state) for each in known.values())
    known |= decide([(cut + 1 + number, event) for number, event in enumerate(some[cut:])], known).changed

    [state] = [each.state for each in known.values()]
    if was_hidden and state.begin is not None:
        name = person.partition("@")[0]
        sides = state.begin.caller, state.begin.callee
        assert FORGOTTEN in sides
        assert name not in str(msgspec.to_builtins(state.begin))


def test_c20_to_forget_twice_changes_nothing_more() -> None:
    events = talk(call_id="c").events
    known = {call_of(events[0]): StoredCall(fold(events), 0, 6)}
    once = forget(ALICE, 9, known).changed

    assert [each.last for each in once.values()] == [9]
    assert forget(ALICE, 10, once).changed == {}
