"""The locator's decider: rows, history and replies of a batch."""

import pytest

from events.commands import ReplyTo
from events.registrations import AorState, Binding, BindingsRecorded, Change, Claimed, Kind
from locator.decider import LAPSED, Decision, Interval, Location, StoredBinding, decide, place, unsure
from locator.projection import REPEATS, Partition
from runtime.database.positions import Position
from tests.kit.locator import START, Scribe, truths

ALICE = "alice@example.test"
DESK = "sip:alice@192.0.2.4:5062"
REPLY = ReplyTo("edge-1", "boot", START + 2000)


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


def _rows(decision: Decision) -> list[Location]:
    return [row for row in decision.rows.values() if row is not None]


def _spans(decision: Decision) -> list[tuple[str, int, int | None, str | None]]:
    return [
        (i.began, i.since_ms - START, None if i.until_ms is None else i.until_ms - START, i.ended)
        for i in decision.began
    ]


def _known(event: BindingsRecorded) -> dict[int, StoredBinding]:
    return {
        b.id: StoredBinding(place(b.contact, b.received, ",".join(b.path)), b.expires) for b in event.state.bindings
    }


def test_a_created_binding_is_a_row_an_interval_and_a_reply(scribe: Scribe) -> None:
    event = scribe.register(
        ALICE, DESK, 60, path=("<sip:t@edge;lr>", "<sip:p;lr>"), q=0.5, instance="<urn:x>", reg_id=1, reply=REPLY,
        params=";q=0.5", methods=5,
    )  # fmt: skip
    decision = decide(3, truths([event]), 0, {})
    assert _rows(decision) == [
        Location(
            contact_id=event.state.bindings[0].id,
            username="alice",
            domain="example.test",
            contact=DESK,
            received="sip:192.0.2.1:5060;transport=udp",
            path="<sip:t@edge;lr>,<sip:p;lr>",
            expires=(START + 60_000) // 1000,
            q=0.5,
            callid="call",
            cseq=1,
            last_modified="2023-11-14 22:13:20",
            user_agent="phone",
            socket="udp:192.0.2.100:5060",
            methods=5,
            sip_instance="<urn:x>",
            reg_id=1,
            params=";q=0.5",
            granted=60,
            expires_ms=START + 60_000,
            created_ms=START,
            updated_ms=START,
            partition_no=3,
        )
    ]
    assert _spans(decision) == [("created", 0, None, None)]
    assert decision.answered == [event]


def test_seconds_are_rounded_up_so_that_nobody_ends_early(scribe: Scribe) -> None:
    scribe.now += 1
    (row,) = _rows(decide(0, truths([scribe.register(ALICE, DESK)]), 0, {}))
    assert row.expires == (START + 1000) // 1000 + 60


def test_a_record_that_changes_nothing_is_answered_all_the_same(scribe: Scribe) -> None:
    event = scribe.end(ALICE, DESK, reply=REPLY)
    decision = decide(0, truths([event]), 0, {})
    assert (decision.rows, decision.began, decision.ended, decision.answered) == ({}, [], {}, [event])


def test_the_last_of_several_records_decides_the_row(scribe: Scribe) -> None:
    events = [scribe.register(ALICE, DESK, 60), scribe.register(ALICE, DESK, 90), scribe.register(ALICE, DESK, 120)]
    assert [row.granted for row in _rows(decide(0, truths(events), 0, {}))] == [120]
    events.append(scribe.end(ALICE, DESK))
    decision = decide(0, truths(events), 0, {})
    assert decision.rows == {events[0].state.bindings[0].id: None}
    assert decision.ended == {}


def test_a_refresh_from_the_same_place_touches_no_history(scribe: Scribe) -> None:
    known = _known(scribe.register(ALICE, DESK))
    scribe.now += 30_000
    decision = decide(0, truths([scribe.register(ALICE, DESK)]), 0, known)
    assert (decision.began, decision.ended) == ([], {})
    assert len(_rows(decision)) == 1


@pytest.mark.parametrize("moved", [{"received": "sip:198.51.100.7:9"}, {"path": ["<sip:other;lr>"]}])
def test_a_refresh_from_elsewhere_ends_the_interval_and_begins_another(scribe: Scribe, moved: dict[str, str]) -> None:
    first = scribe.register(ALICE, DESK)
    scribe.now += 30_000
    second = scribe.register(ALICE, DESK, **moved)
    decision = decide(0, truths([second], begin=7), 0, _known(first))
    assert [(e.until_ms - START, e.ended, e.ended_offset) for e in decision.ended.values()] == [
        (30_000, "refreshed", 7)
    ]
    assert _spans(decision) == [("refreshed", 30_000, None, None)]
    both = decide(0, truths([first, second]), 0, {})
    assert both.ended == {}
    assert _spans(both) == [("created", 0, 30_000, "refreshed"), ("refreshed", 30_000, None, None)]


def test_c17_a_refresh_after_the_granted_time_leaves_a_gap(scribe: Scribe) -> None:
    known = _known(scribe.register(ALICE, DESK, 60))
    scribe.now += 61_000
    decision = decide(0, truths([scribe.register(ALICE, DESK)]), 0, known)
    assert [(e.until_ms - START, e.ended) for e in decision.ended.values()] == [(60_000, LAPSED)]
    assert _spans(decision) == [("refreshed", 61_000, None, None)]


def test_c17_an_expired_binding_ended_when_its_granted_time_was_over(scribe: Scribe) -> None:
    first = scribe.register(ALICE, DESK, 60)
    scribe.now += 63_000
    decision = decide(0, truths([scribe.end(ALICE, DESK, Kind.EXPIRED)]), 0, _known(first))
    assert [(e.until_ms - START, e.ended) for e in decision.ended.values()] == [(60_000, "expired")]
    assert list(decision.rows.values()) == [None]


def test_c17_a_binding_removed_in_its_time_ended_then(scribe: Scribe) -> None:
    first = scribe.register(ALICE, DESK, 60)
    scribe.now += 10_000
    decision = decide(0, truths([scribe.end(ALICE, DESK)]), 0, _known(first))
    assert [(e.until_ms - START, e.ended, e.ended_by) for e in decision.ended.values()] == [
        (10_000, "unregistered", f"user {ALICE}")
    ]


def test_a_refresh_of_an_unknown_binding_closes_what_may_be_open_and_begins_an_interval(scribe: Scribe) -> None:
    first = scribe.register(ALICE, DESK)
    scribe.now += 5000
    decision = decide(0, truths([scribe.register(ALICE, DESK)]), 0, {})
    assert list(decision.ended) == [first.state.bindings[0].id]
    assert _spans(decision) == [("refreshed", 5000, None, None)]


def test_a_change_whose_binding_is_not_in_the_state_is_an_end() -> None:
    event = BindingsRecorded("i", ALICE, "u", (Change(Kind.CREATED, 5, DESK),), AorState(START))
    assert decide(0, truths([event]), 0, {}).rows == {5: None}


def test_e16_a_record_of_an_older_claim_changes_nothing_and_is_not_answered(scribe: Scribe) -> None:
    zombie = scribe.register(ALICE, DESK, reply=REPLY)
    batch = [*truths([Claimed("new")], begin=9), *truths([zombie], begin=10, claim=4)]
    decision = decide(0, batch, 4, {})
    assert (decision.rows, decision.began, decision.answered, decision.void) == ({}, [], [], 1)
    assert decision.claim == 9
    assert decide(0, truths([zombie], begin=10, claim=4), 9, {}).void == 1
    assert decide(0, truths([zombie], begin=10, claim=9), 9, {}).answered == [zombie]


def test_e16_the_highest_claim_counts_even_without_its_claimed(scribe: Scribe) -> None:
    event = scribe.register(ALICE, DESK)
    assert decide(0, truths([event], begin=10, claim=8), 4, {}).claim == 8


def test_only_bindings_that_do_not_begin_here_are_looked_up(scribe: Scribe) -> None:
    old = scribe.register(ALICE, "sip:old@x")
    new = scribe.register(ALICE, DESK)
    again = scribe.register(ALICE, DESK)
    assert unsure(truths([new, again])) == set()
    assert unsure(truths([scribe.register(ALICE, "sip:old@x"), Claimed("x")])) == {old.state.bindings[0].id}


def test_a_creation_that_is_repeated_or_void_makes_nothing_so_what_was_before_is_looked_up(scribe: Scribe) -> None:
    made = scribe.register(ALICE, DESK, 10)
    scribe.now += 20_000
    late = scribe.register(ALICE, DESK, 10)
    wanted = {made.state.bindings[0].id}
    told = decide(0, truths([made]), 0, {}).told
    assert unsure(truths([made, late]), 0, told) == wanted
    assert unsure([*truths([made], begin=9, claim=3), *truths([late], begin=10, claim=4)], 4) == wanted
    (ending,) = decide(0, truths([made, late]), 0, _known(made), told).ended.values()
    assert (ending.ended, ending.until_ms) == (LAPSED, START + 10_000)


def test_an_aor_without_user_and_a_time_beyond_the_calendar_are_rows() -> None:
    binding = Binding(1, DESK, "c", 1, 10**18, 1, 0, 10**18)
    event = BindingsRecorded("i", "example.test", "u", (Change(Kind.CREATED, 1, DESK),), AorState(START, (binding,)))
    (row,) = _rows(decide(0, truths([event]), 0, {}))
    assert (row.username, row.domain, row.last_modified) == ("", "example.test", "9999-12-31 23:59:59")


def test_who_ended_it_fits_its_column(scribe: Scribe) -> None:
    event = scribe.register(ALICE, DESK)
    long = BindingsRecorded("i", ALICE, "operator:" + "x" * 300, event.changes, event.state)
    began: list[Interval] = decide(0, truths([long]), 0, {}).began
    assert [len(interval.began_by) for interval in began] == [255]


def test_truths_that_stand_on_the_log_twice_are_applied_and_answered_once(scribe: Scribe) -> None:
    events = [scribe.register(ALICE, DESK, reply=REPLY), scribe.end(ALICE, DESK)]  # all at one time
    decision = decide(0, truths([*events, *events]), 0, {})
    assert _spans(decision) == [("created", 0, 0, "unregistered")]
    assert (decision.repeated, decision.answered) == (2, [events[0]])
    again = decide(0, truths(events, begin=9), 0, {}, decision.told)
    assert (again.repeated, again.began, again.rows, again.answered) == (2, [], {}, [])


def test_a_command_that_changes_nothing_is_answered_as_often_as_it_stands_there(scribe: Scribe) -> None:
    event = scribe.end(ALICE, DESK, reply=REPLY)
    decision = decide(0, truths([event, event]), 0, {})
    assert (decision.repeated, decision.answered) == (0, [event, event])


def test_what_is_remembered_to_know_repetitions_is_bounded(scribe: Scribe) -> None:
    partition = Partition(0, Position(0, -1))
    events = [scribe.register(ALICE, DESK) for _ in range(REPEATS + 10)]
    for event in events:
        partition.learn(decide(0, truths([event]), 0, {}))
    assert len(partition.told) == REPEATS
    assert decide(0, truths([events[-1]]), 0, {}, partition.told).repeated == 1
    assert decide(0, truths([events[0]]), 0, {}, partition.told).repeated == 0
