"""What became of a call: any order and any repetition of its events tells the same (C04 to C12)."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdr.decider import Limits, StoredCall, decide, is_open, record, timed_out
from cdr.rows import Rows, rows
from cdr.state import BRANCHES, DIALOGS, Call, State, call_of, evolve, fitted, from_text, to_text
from events.calls import CallEvent, event_id
from events.cdrs import CallRecord
from events.limits import CALL_ID
from tests.kit.call_stories import START, Story, missed, talk

STEPS = (
    "attempted branch rings branch_ends answered refreshed ended failed cancelled redirected silent".split()  # noqa: SIM905  # words
)
LIMITS = Limits(300_000, 86_400_000, 60_000)


def fold(events: list[CallEvent]) -> State:
    state = State()
    for event in events:
        state = evolve(state, event)
    return state


def told(story: Story) -> CallRecord:
    return record(call_of(story.events[0]), fold(story.events))


def shown(story: Story) -> Rows:
    return rows(3, call_of(story.events[0]), StoredCall(fold(story.events), 7, 9), LIMITS)


# --- any order -------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[CallEvent]:
    """Events of one call, sensible or not, told by up to three edges whose clocks differ."""
    story = Story(call_id="c")
    steps: list[Any] = draw(
        st.lists(
            st.tuples(
                st.sampled_from(STEPS),
                st.integers(0, 3),
                st.integers(-500, 5000),
                st.sampled_from(["edge-1", "edge-2", "edge-3"]),
            ),
            min_size=1,
            max_size=14,
        )
    )
    for name, number, wait, edge in steps:
        story.wait(wait).edge = edge
        tag, branch = f"t{number}", f"b{number}"
        if name == "attempted":
            story.attempted(caller=f"u{number}")
        elif name == "branch":
            story.branch(branch)
        elif name == "rings":
            story.rings(branch, tag)
        elif name == "branch_ends":
            story.branch_ends(200, branch)
        elif name == "answered":
            story.answered(tag, branch, session_expires=number * 600)
        elif name == "refreshed":
            story.refreshed(number)
        elif name == "ended":
            story.ended("callee" if number % 2 else "caller", tag)
        elif name == "failed":
            story.failed((404, 486, 480, 603)[number])
        elif name == "silent":
            state = fold(story.events)
            late = timed_out(Call("c", "ft", 1), state, LIMITS, story.now + 10**9) if story.events else None
            story.events += [late] if late else []
        else:
            getattr(story, name)()
    return story.events or Story(call_id="c").attempted().events


@settings(max_examples=400, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_c03_any_permutation_with_repetitions_folds_to_the_same_state(
    events: list[CallEvent], shuffle: random.Random
) -> None:
    expected = fold(events)
    copies = events + [event for event in events for _ in range(shuffle.randint(0, 2))]
    shuffle.shuffle(copies)
    again = fold(copies)

    assert to_text(again) == to_text(expected)
    assert record(call_of(events[0]), again) == record(call_of(events[0]), expected)
    assert from_text(to_text(again)) == again


@settings(max_examples=300, deadline=None)
@given(histories())
def test_c06_times_of_a_record_never_run_backwards_and_durations_are_their_differences(events: list[CallEvent]) -> None:
    made = record(call_of(events[0]), fold(events))

    times = [made.attempted, *(time for time in (made.rang, made.answered, made.ended) if time)]
    assert times == sorted(times)
    assert made.talk_ms == (made.ended - made.answered if made.answered and made.ended else 0)
    assert made.setup_ms >= 0
    assert not (made.answered and made.setup_ms != made.answered - made.attempted)


@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(1, 5))
def test_events_in_batches_change_the_same_as_at_once(events: list[CallEvent], size: int) -> None:
    at_once = decide(list(enumerate(events)), {}).changed
    known: dict[Call, StoredCall] = {}
    for start in range(0, len(events), size):
        known.update(decide(list(enumerate(events))[start : start + size], known).changed)

    assert known == at_once


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=150), st.randoms(use_true_random=False))
def test_what_is_kept_of_a_flood_is_bounded_and_the_same_in_any_order(
    flood: list[tuple[int, int]], shuffle: random.Random
) -> None:
    story = Story(call_id="c").attempted()
    for number, at in flood:
        story.now = START + at
        story.edge = f"edge-{number}"
        story.branch(f"b{number}").answered(f"t{number}").ended(to_tag=f"t{number}")
    events = list(story.events)
    expected = fold(events)
    shuffle.shuffle(events)

    assert to_text(fold(events)) == to_text(expected)
    assert len(expected.answers) <= DIALOGS
    assert len(expected.branches) <= BRANCHES


def test_c03_the_same_message_seen_by_two_edges_has_one_id_and_other_facts_have_another() -> None:
    here, there = Story(call_id="c").attempted().answered(), Story(call_id="c", edge="edge-2", now=START + 9)
    there.attempted(caller="somebody").answered("other")

    assert event_id(here.events[0]) == event_id(there.events[0])
    assert event_id(here.events[1]) != event_id(there.events[1])
    assert event_id(here.events[0]) != event_id(Story(call_id="c", cseq=2).attempted().events[0])
    assert event_id(Story(call_id="c").ended("caller").events[0]) == event_id(
        Story(call_id="c").ended("callee").events[0]
    )


# --- one call --------------------------------------------------------------------------------------------------------


def test_c05_c06_c07_an_answered_call_has_its_times_parties_and_who_hung_up() -> None:
    story = talk(ring=2000, last=61_500)
    story.events[-1] = Story(story.call_id, now=story.now, edge="edge-2").ended(
        "callee", reason='Q.850;cause=16;text="Normal"', cause=16
    ).events[0]  # fmt: skip

    assert told(story) == CallRecord(
        call_id=story.call_id,
        from_tag="ft",
        cseq=1,
        outcome="answered",
        attempted=START,
        to_tag="tt",
        caller="alice@example.test",
        callee="bob@example.test",
        ours=True,
        dialled="sip:bob@example.test",
        answered_by="sip:bob@192.0.2.9",
        rang=START + 50,
        answered=START + 2050,
        ended=START + 63_550,
        setup_ms=2050,
        talk_ms=61_500,
        code=200,
        phrase="OK",
        reason='Q.850;cause=16;text="Normal"',
        cause=16,
        hung_up="callee",
        edges=("edge-1", "edge-2"),
        source="192.0.2.4:5060",
        caller_transport="udp",
        callee_transport="tls",
        caller_agent="Desk 1.0",
        callee_agent="Soft 2",
        codecs=("opus",),
        branches=1,
    )


def test_c08_of_five_phones_one_answers_one_record_and_no_missed_call() -> None:
    story = Story().attempted()
    for n in range(5):
        story.branch(f"b{n}").rings(f"b{n}", f"t{n}")
    story.wait(3000).answered("t3", "b3")
    for n in (0, 1, 2, 4):
        story.branch_ends(487, f"b{n}")
    story.wait(1000).ended(to_tag="t3")
    made = told(story)

    assert (made.outcome, made.missed, made.branches, made.to_tag) == ("answered", False, 5, "t3")
    assert shown(story).missed is None
    assert [row.method for row in shown(story).acc] == ["INVITE", "BYE"]


@pytest.mark.parametrize(
    ("ending", "outcome", "is_missed"),
    [
        (lambda s: s.failed(480), "failed", True),
        (lambda s: s.failed(408), "failed", True),
        (lambda s: s.cancelled(), "cancelled", True),
        (lambda s: s.failed(500), "failed", True),  # they rang
        (lambda s: s.failed(486), "failed", False),
        (lambda s: s.failed(600), "failed", False),
        (lambda s: s.failed(603), "failed", False),
        (lambda s: s.redirected(), "redirected", False),
    ],
)
def test_c09_of_five_phones_none_answers_at_most_one_missed_call(ending: Any, outcome: str, is_missed: bool) -> None:
    story = Story().attempted()
    for n in range(5):
        story.branch(f"b{n}").rings(f"b{n}", f"t{n}")
    ending(story.wait(5000))
    made = shown(story)

    assert made.record is not None
    assert (made.record.outcome, made.record.missed, made.record.branches) == (outcome, is_missed, 5)
    assert (made.missed is not None) is is_missed
    assert [row.method for row in made.acc] == ["INVITE"]
    if made.missed:
        assert (made.missed.dst_user, made.missed.dst_domain) == ("bob", "example.test")


@pytest.mark.parametrize(("code", "is_missed"), [(404, False), (480, True), (403, False), (484, False)])
def test_c10_a_call_that_goes_nowhere_is_a_failed_record(code: int, is_missed: bool) -> None:
    made = told(Story().attempted().wait(20).failed(code, "No"))

    assert (made.outcome, made.code, made.phrase, made.branches) == ("failed", code, "No", 0)
    assert made.missed is is_missed
    assert (made.setup_ms, made.talk_ms, made.answered) == (20, 0, 0)


def test_a_call_of_nobody_of_ours_is_never_missed() -> None:
    assert not told(Story().attempted(callee="", dialled="sip:x@elsewhere.test").branch().rings().cancelled()).missed


def test_c11_the_bye_of_another_edge_ends_the_one_record() -> None:
    story = Story().attempted().branch().rings().answered()
    story.edge = "edge-2"
    made = told(story.wait(500).ended())

    assert (made.edges, made.talk_ms, made.incomplete) == (("edge-1", "edge-2"), 500, False)


def test_c12_without_a_bye_the_session_timer_ends_it_and_a_late_bye_corrects_that() -> None:
    story = Story().attempted().branch().wait(100).answered(session_expires=1800)
    state, call = fold(story.events), call_of(story.events[0])
    assert is_open(state)
    assert timed_out(call, state, LIMITS, START + 100 + 1_859_999) is None
    end = timed_out(call, state, LIMITS, START + 100 + 1_860_000)
    assert end is not None
    story.events.append(end)
    made = told(story)
    assert (made.ended, made.hung_up, made.estimated) == (START + 100 + 1_800_000, "timeout", True)

    story.wait(1000).ended()
    made = told(story)
    assert (made.ended, made.hung_up, made.estimated) == (START + 1100, "caller", False)


def test_c12_a_refresh_keeps_it_open_and_makes_an_older_time_out_void() -> None:
    story = Story().attempted().branch().answered(session_expires=600)
    call = call_of(story.events[0])
    end = timed_out(call, fold(story.events), LIMITS, START + 10**7)
    assert end is not None
    story.events.append(end)
    story.wait(500_000).refreshed(session_expires=600)
    state = fold(story.events)
    assert is_open(state)
    assert timed_out(call, state, LIMITS, START + 500_000 + 659_999) is None
    assert timed_out(call, state, LIMITS, START + 500_000 + 660_000) is not None


def test_c12_a_refresh_without_a_timer_ends_the_timer_and_an_early_one_says_nothing_of_the_answer() -> None:
    """RFC 4028 section 7.2; RFC 3311 section 5.1: an UPDATE may come before the 2xx to its INVITE."""
    early = Story().attempted().branch().wait(10).refreshed(session_expires=0).wait(10).answered(session_expires=600)
    assert timed_out(call_of(early.events[0]), fold(early.events), LIMITS, START + 20 + 660_000) is not None

    early.wait(1000).refreshed(refresh=3, session_expires=0)
    state = fold(early.events)
    assert timed_out(call_of(early.events[0]), state, LIMITS, START + 20 + LIMITS.call - 1) is None
    assert timed_out(call_of(early.events[0]), state, LIMITS, START + 20 + LIMITS.call) is not None


def test_c12_without_a_session_timer_the_longest_call_ends_it() -> None:
    story = Story().attempted().branch().answered()
    call, state = call_of(story.events[0]), fold(story.events)
    assert timed_out(call, state, LIMITS, START + LIMITS.call - 1) is None
    end = timed_out(call, state, LIMITS, START + LIMITS.call)
    assert end is not None
    assert end.end == START + LIMITS.call


def test_c12_a_set_up_whose_edge_died_is_closed_as_failed_and_missed() -> None:
    story = Story().attempted().branch().wait(200).rings()
    call = call_of(story.events[0])
    end = timed_out(call, fold(story.events), LIMITS, START + 200 + LIMITS.setup)
    assert end is not None
    story.events.append(end)
    made = told(story)

    assert (made.outcome, made.code, made.estimated, made.missed) == ("failed", 0, True, True)
    assert made.ended == START + 200
    assert shown(story).acc == []


def test_a_bye_alone_makes_an_incomplete_record_of_what_its_token_says() -> None:
    made = told(Story(now=START).ended("callee", begun=START - 60_000))

    assert (made.outcome, made.incomplete, made.hung_up) == ("answered", True, "callee")
    assert (made.attempted, made.answered, made.ended, made.talk_ms) == (START - 60_000, 0, START, 0)
    assert (made.caller, made.callee) == ("sip:alice@example.test", "sip:bob@example.test")
    assert [row.method for row in shown(Story().ended()).acc] == ["BYE"]


def test_of_two_phones_that_answered_at_once_the_call_is_the_one_that_lasted() -> None:
    story = Story().attempted().branch("b1").branch("b2").answered("t1", "b1").wait(5).answered("t2", "b2")
    story.wait(100).ended(to_tag="t2")
    assert is_open(fold(story.events))
    made = told(story.wait(9000).ended("callee", to_tag="t1"))

    assert (made.to_tag, made.answered, made.ended, made.hung_up) == ("t1", START, START + 9105, "callee")


def test_a_cancel_that_crosses_the_answer_is_an_answered_call() -> None:
    made = told(Story().attempted().branch().wait(10).cancelled().wait(1).answered().wait(50).ended())

    assert (made.outcome, made.code, made.missed) == ("answered", 200, False)


def test_a_bye_before_the_answer_leaves_the_call_failed() -> None:
    made = told(Story().attempted().branch().rings().ended().wait(5).failed(487, "Request Terminated"))

    assert (made.outcome, made.code) == ("failed", 487)


def test_c15_acc_is_as_opensips_writes_it() -> None:
    story = Story(now=START + 900).attempted(caller="alice", callee="bob").branch()
    story.wait(1300).answered().wait(2001).ended("callee")
    invite, bye = shown(story).acc

    assert invite[:12] == (
        (7 << 10 | 3) << 1, "INVITE", "ft", "tt", story.call_id, "200", "OK",
        "2023-11-14 22:13:22", 3, 2001, 2, "2023-11-14 22:13:20",
    )  # fmt: skip
    assert bye[:12] == (
        invite.id + 1, "BYE", "tt", "ft", story.call_id, "200", "OK",
        "2023-11-14 22:13:24", 0, 0, 0, "2023-11-14 22:13:20",
    )  # fmt: skip
    assert (invite.src_user, invite.src_domain, invite.dst_user, invite.dst_domain, invite.dst_ouser) == (
        "alice", "example.test", "bob", "example.test", "bob",
    )  # fmt: skip
    assert (bye.src_user, bye.dst_user) == ("bob", "alice")


def test_e24_texts_that_are_too_long_are_cut_and_names_stay_different() -> None:
    long = "x" * 10_000
    story = Story(call_id=long, from_tag=long).attempted(caller=long, agent=long, source=long, codecs=(long,) * 99)
    story.branch(long).rings(long, long).answered(long, contact=long, agent=long).ended(reason=long, to_tag=long)
    other = Story(call_id=f"{long}y", from_tag=long).attempted()

    assert call_of(story.events[0]) != call_of(other.events[0])
    assert len(call_of(story.events[0]).call_id) == CALL_ID
    assert fitted("short", 64) == "short"
    made = shown(story)
    assert made.cdr is not None
    assert max(len(field) for field in made.cdr[:-1] if isinstance(field, str)) <= 1040
    assert max(len(field) for row in made.acc for field in row if isinstance(field, str)) <= 255


def test_missed_has_its_row_and_its_record() -> None:
    made = shown(missed(callee="carol"))

    assert made.missed is not None
    assert (made.missed.sip_code, made.missed.time, made.missed.setuptime) == ("487", "2023-11-14 22:13:20", 9)
