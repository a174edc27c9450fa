"""When the registrar looks at which AOR: not before its time, not for ever, not all at once."""

from hypothesis import given
from hypothesis import strategies as st

from events.registrations import AorState, Binding, Gone, Seen
from registrar.decider import MEMORY_MS
from registrar.expiry import expire
from registrar.partition import Agenda, Partition
from registrar.truths import encode

AOR = "alice@example.test"
GRACE = 2000


def state(*ends: int, answered: tuple[int, ...] = (), removed: tuple[int, ...] = ()) -> AorState:
    return AorState(
        at=0,
        bindings=tuple(Binding(n, f"sip:{n}@h", "c", 1, end, 60, 0, 0) for n, end in enumerate(ends)),
        seen=tuple(Seen("i", "c", 1, "b", at) for at in answered),
        gone=tuple(Gone("sip:x@h", "c", 1, at) for at in removed),
    )


def keep(partition: Partition, new: AorState, old: AorState | None = None) -> None:
    partition.keep(AOR, encode(new), new, old or AorState())


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 10**7)), max_size=50), st.integers(0, 10**7))
def test_whatever_is_due_is_taken_once_and_nothing_before_its_time(notes, now):
    agenda = Agenda()
    for aor, at in notes:
        agenda.put(aor, at)
    taken = agenda.take(now, 10**6)
    assert set(taken) <= {aor for aor, at in notes if at < now}
    assert set(taken) >= {aor for aor, at in notes if at < now - 1000}
    assert agenda.take(now, 10**6) == []
    assert set(taken) | set(agenda.take(2 * 10**7, 10**6)) == {aor for aor, _ in notes}


def test_no_more_is_taken_at_once_than_asked_for_and_the_rest_is_not_forgotten():
    agenda = Agenda()
    for number in range(10):
        agenda.put(f"u{number}", 5000)
    assert [len(agenda.take(10_000, 4)) for _ in range(4)] == [4, 4, 2, 0]


def test_an_aor_falls_due_with_its_first_binding_and_grace_and_without_one_with_its_memory():
    partition = Partition(0, 0, GRACE)
    assert partition.falls_due(state(70_000, 60_000)) == 62_000
    assert partition.falls_due(state(answered=(5,), removed=(7,))) == 7 + MEMORY_MS


def test_r31_a_shortened_time_is_noticed_and_a_refreshed_one_put_back():
    partition = Partition(0, 0, GRACE)
    keep(partition, state(300_000))
    keep(partition, state(60_000), state(300_000))
    assert expire(partition, 61_000) == []
    assert len(expire(partition, 63_001)) == 1
    keep(partition, state(400_000), state(60_000))
    assert expire(partition, 320_000) == []
    assert len(expire(partition, 403_001)) == 1


def test_an_aor_is_forgotten_when_the_commands_of_its_time_are_decided_and_not_by_the_clock_alone():
    """R19: a batch that was stuck for a minute still meets the copies that it would have met in time."""
    partition = Partition(0, 0, GRACE)
    keep(partition, state(removed=(5,)))
    late = 5 + MEMORY_MS + 10_000
    assert expire(partition, late) == []
    assert AOR in partition.states
    partition.time = late
    assert expire(partition, late + MEMORY_MS + 2000) == []
    assert AOR not in partition.states


def test_an_aor_that_asks_for_shorter_and_longer_times_in_turn_does_not_fill_the_agenda():
    partition = Partition(0, 0, GRACE)
    before = AorState()
    for now in range(0, 10_000_000, 1000):
        after = state(now + (60_000 if now // 1000 % 2 else 300_000))
        keep(partition, after, before)
        before = after
        assert expire(partition, now) == []
    assert sum(map(len, partition.agenda._aors.values())) <= 302


def test_bindings_are_counted_and_an_empty_state_of_an_unknown_aor_is_not_kept():
    partition = Partition(0, 0, GRACE)
    keep(partition, state(1, 2))
    assert partition.bindings == 2
    keep(partition, state(removed=(5,)), state(1, 2))
    assert partition.bindings == 0
    keep(partition, AorState(at=9), state(removed=(5,)))
    assert (partition.states, partition.changed) == ({}, {AOR})
    partition.changed.clear()
    keep(partition, AorState(at=10))
    assert (partition.states, partition.changed) == ({}, set())
