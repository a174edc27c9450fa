"""A partition's batches: sequence numbers, epochs, and what becomes of the callers."""

import struct
from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from events.limits import RECORD_BYTES
from events.topics import AUDIT, TOPICS, VIEW
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.kafka.append import KEPT_LONG
from runtime.log.kafka.lane import BATCH_BYTES, LAST_EPOCH, LAST_SEQUENCE, Batch, Lane, Producer, Whole, split
from runtime.log.port import Append

US = Producer(7, 0)
HEADER = struct.Struct(">qiibIhiqqqhii")
"""A batch's fields up to the number of its records."""


class Outcome:
    """What of a future a lane needs: no loop runs here."""

    def __init__(self) -> None:
        self.said: Any = None

    def done(self) -> bool:
        return self.said is not None

    def set_exception(self, error: Exception) -> None:
        self.said = error

    def set_result(self, _: None) -> None:
        self.said = "written"


def lane() -> Lane:
    return Lane(TopicPartition(f"x.{AUDIT}", 0))


def put(lane: Lane, count: int = 1, size: int = 1) -> Whole:
    """One more append waits."""
    outcome: Any = Outcome()
    whole = Whole(count, outcome)
    lane.waiting += split([Append(AUDIT, 0, b"k", b"x" * size)] * count, whole)
    return whole


def sent(lane: Lane, producer: Producer = US) -> Batch:
    batch = lane.to_send(producer)
    assert batch is not None
    return batch


def numbers(batch: Batch) -> tuple[int, int, int, int]:
    """Producer id, epoch, first sequence number, count: as the octets have them."""
    return HEADER.unpack_from(batch.octets)[-4:]


def said(whole: Whole) -> object:
    return type(whole.outcome.said) if isinstance(whole.outcome.said, Exception) else whole.outcome.said  # type: ignore[attr-defined]


def test_sequence_numbers_are_consecutive_over_batches_of_several_records() -> None:
    here = lane()
    for count, first in ((3, 0), (1, 3), (5, 4)):
        put(here, count)
        assert numbers(sent(here)) == (7, 0, first, count)
        here.written(first, 1000)
    assert here.sequence == 9


def test_appends_that_wait_together_are_one_batch_and_each_gets_its_positions() -> None:
    here = lane()
    first, second = put(here, 2), put(here, 3)
    assert numbers(sent(here)) == (7, 0, 0, 5)
    here.written(40, 1000)
    assert [p.offset for p in first.positions if p] == [40, 41]
    assert [p.offset for p in second.positions if p] == [42, 43, 44]
    assert said(first) == said(second) == "written"


def test_after_the_last_sequence_number_comes_0_also_within_a_batch() -> None:
    here = lane()
    put(here)
    sent(here)
    here.written(0, 0)
    here.sequence = LAST_SEQUENCE - 1
    put(here, 4)
    assert numbers(sent(here)) == (7, 0, LAST_SEQUENCE - 1, 4)
    here.written(1, 0)
    put(here)
    assert numbers(sent(here))[2] == 2


def test_what_is_not_settled_is_sent_again_as_it_was_and_nothing_overtakes_it() -> None:
    here = lane()
    put(here)
    first = sent(here)
    first.doubt = True
    put(here)
    assert sent(here) is first
    here.written(0, 0)
    assert numbers(sent(here)) == (7, 0, 1, 1)


def test_a_batch_in_doubt_that_nobody_waits_for_is_fenced_by_the_next_epoch() -> None:
    here = lane()
    whole = put(here)
    sent(here).doubt = True
    whole.give_up(2)
    put(here)
    here.let_go()
    assert numbers(sent(here)) == (7, 1, 0, 1)


def test_a_batch_that_was_certainly_not_written_leaves_its_numbers_to_the_next() -> None:
    here = lane()
    whole = put(here, 3)
    sent(here)
    whole.give_up(2)
    put(here)
    here.let_go()
    assert numbers(sent(here)) == (7, 0, 0, 1)


def test_a_batch_is_kept_while_one_of_its_callers_waits() -> None:
    here = lane()
    gone, waits = put(here), put(here)
    batch = sent(here)
    batch.doubt = True
    gone.give_up(2)
    here.let_go()
    assert sent(here) is batch
    here.written(5, 0)
    assert said(waits) == "written"


def test_what_its_caller_gave_up_before_it_was_sent_is_not_sent() -> None:
    here = lane()
    put(here, 2).give_up(2)
    put(here)
    assert numbers(sent(here))[3] == 1


@pytest.mark.parametrize("doubt", [False, True])
def test_a_refused_batch_of_one_append_takes_no_numbers_and_one_in_doubt_is_unknown(doubt: bool) -> None:
    here = lane()
    whole = put(here)
    sent(here).doubt = doubt
    here.refused("MESSAGE_TOO_LARGE")
    assert said(whole) is (LogUnavailable if doubt else LogRefused)
    put(here)
    assert numbers(sent(here)) == (7, int(doubt), 0, 1)


def test_appends_of_a_refused_batch_are_sent_alone_in_order_until_the_culprit_is_found() -> None:
    here = lane()
    first, culprit, last = put(here), put(here), put(here)
    later = put(here)
    assert numbers(sent(here))[3] == 4
    here.refused("INVALID_RECORD")
    assert numbers(sent(here)) == (7, 0, 0, 1)
    here.written(0, 0)
    assert numbers(sent(here)) == (7, 0, 1, 1)
    here.refused("INVALID_RECORD")
    for sequence in (1, 2):
        assert numbers(sent(here)) == (7, 0, sequence, 1)
        here.written(sequence, 0)
    assert [said(whole) for whole in (first, culprit, last, later)] == ["written", LogRefused, "written", "written"]


def test_a_break_in_the_sequence_begins_the_next_epoch_with_the_same_records_first() -> None:
    here = lane()
    here.sequence, here.producer = 12, US.id
    whole = put(here, 2)
    assert numbers(sent(here)) == (7, 0, 12, 2)
    later = put(here)
    here.out_of_sequence("OUT_OF_ORDER_SEQUENCE_NUMBER")
    assert numbers(sent(here)) == (7, 1, 0, 3)
    here.written(0, 0)
    assert [p.offset for p in (*whole.positions, *later.positions) if p] == [0, 1, 2]


def test_a_break_in_the_sequence_of_what_may_be_written_is_unknown_and_not_sent_again() -> None:
    here = lane()
    whole = put(here)
    sent(here).doubt = True
    here.out_of_sequence("OUT_OF_ORDER_SEQUENCE_NUMBER")
    assert said(whole) is LogUnavailable
    assert here.to_send(US) is None


def test_another_producer_id_begins_at_0_and_not_before_the_batch_under_way_is_settled() -> None:
    here, other = lane(), Producer(8, 3)
    put(here)
    first = sent(here)
    assert sent(here, other) is first
    here.written(0, 0)
    put(here)
    assert numbers(sent(here, other)) == (8, 3, 0, 1)


def test_epochs_end_and_another_producer_id_is_needed_then() -> None:
    here = lane()
    put(here)
    sent(here)
    here.written(0, 0)
    here.epoch = LAST_EPOCH
    assert not here.worn_out(US)
    whole = put(here)
    sent(here).doubt = True
    whole.give_up(2)
    here.let_go()
    assert here.worn_out(US)
    assert not here.worn_out(Producer(8, 0))
    put(here)
    assert numbers(sent(here, Producer(8, 0))) == (8, 0, 0, 1)


def test_what_is_there_at_an_unknown_place_is_not_acknowledged_and_not_sent_again() -> None:
    here = lane()
    whole = put(here, 2)
    sent(here)
    here.written(-1, -1)
    assert said(whole) is LogUnavailable
    put(here)
    assert numbers(sent(here)) == (7, 0, 2, 1)


def test_a_batch_is_no_larger_than_one_request_takes_and_order_stays() -> None:
    here = lane()
    large = [put(here, 1, RECORD_BYTES // 2) for _ in range(4)]
    small = put(here)
    counts = []
    while here.waiting:
        batch = sent(here)
        assert len(batch.octets) <= BATCH_BYTES
        counts.append(batch.count)
        here.written(sum(counts) - batch.count, 0)
    assert sum(counts) == 5
    assert [whole.positions[0].offset for whole in (*large, small) if whole.positions[0]] == [0, 1, 2, 3, 4]


def test_a_record_that_cannot_be_put_into_a_batch_is_its_callers_error_alone() -> None:
    here = lane()
    good = put(here)
    broken = put(here)
    here.waiting[1].records[0] = Append(AUDIT, 0, b"k", "no octets")  # type: ignore[arg-type]
    behind = put(here)
    for offset in (0, 1):
        assert numbers(sent(here))[3] == 1
        here.written(offset, 0)
    assert here.to_send(US) is None
    assert [said(whole) for whole in (good, broken, behind)] == ["written", TypeError, "written"]


def test_who_gives_up_hears_what_was_in_the_way() -> None:
    here = lane()
    whole = put(here)
    here.note("x.audit 0: NOT_LEADER_OR_FOLLOWER")
    whole.give_up(2.0)
    error: Any = whole.outcome.said  # type: ignore[attr-defined]
    assert str(error) == "no acknowledgement within 2.0 s: x.audit 0: NOT_LEADER_OR_FOLLOWER"


def test_nothing_is_left_of_a_lane_that_is_dropped() -> None:
    here = lane()
    first = put(here)
    sent(here)
    second = put(here)
    here.drop(LogUnavailable("closed"))
    assert said(first) is said(second) is LogUnavailable
    assert here.to_send(US) is None


def codec(batch: Batch) -> int:
    """As the octets have it."""
    return int(HEADER.unpack_from(batch.octets)[5]) & 7


@pytest.mark.parametrize(("count", "named"), [(3, 0), (4, 2), (40, 2)])
def test_batches_of_what_is_kept_for_long_are_compressed_where_records_repeat_each_other(
    count: int, named: int
) -> None:
    dense, plain = Lane(TopicPartition("x.registrations", 0), dense=True), lane()
    for each in (dense, plain):
        put(each, count, 800)
    batch = sent(dense)

    assert codec(batch) == named
    assert codec(sent(plain)) == 0
    assert (len(batch.octets) < 800 * count / 2) is bool(named)


def test_a_compressed_batch_is_read_as_it_was_written() -> None:
    here = Lane(TopicPartition("x.registrations", 0), dense=True)
    put(here, 30, 500)
    batches = MemoryRecords(sent(here).octets)

    read = list(batches.next_batch())

    assert [(record.offset, record.key, record.value) for record in read] == [(n, b"k", b"x" * 500) for n in range(30)]
    assert not batches.has_next()


def test_what_is_gone_within_a_day_is_not_worth_compressing() -> None:
    kept = {topic.name for topic in (*TOPICS, *VIEW)} & KEPT_LONG

    assert kept == {"registrations", "calls", "cdrs", "audit", "stats", "dead", *(topic.name for topic in VIEW)}
