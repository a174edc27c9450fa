"""The port's contract (runtime/log/port.py), on every implementation.

Over 400 lines: one suite, which every log passes whole.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import pytest

from events.limits import RECORD_BYTES
from events.topics import AUDIT, BINDINGS, DEAD, REGISTRAR_COMMANDS, REGISTRATIONS, TOPICS
from runtime.errors import Fenced, LogRefused
from runtime.log.port import Append, Batch, Log, OutOfRange, Record, Subscription

TOPIC = REGISTRAR_COMMANDS
Logs = Callable[[], Awaitable[Log]]


def record(number: int, partition: int = 0, topic: str = TOPIC) -> Append:
    return Append(topic, partition, b"key", str(number).encode(), (("n", str(number).encode()), ("empty", b"")))


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(r.value or b"-1") for r in records]


async def read_all(log: Log, topic: str, partition: int, begin: int = 0, end: int | None = None) -> list[Record]:
    """What is there now."""
    if end is None:
        end = (await log.bounds(topic, partition)).end
    found: list[Record] = []
    async with contextlib.aclosing(log.read(topic, partition, begin, end, committed=True)) as reading:
        async for batch in reading:
            found.extend(batch)
    return found


async def read_until(log: Log, topic: str, partition: int, last: int) -> list[int]:
    """What committed readers see, once they see this: a transaction may appear after its acknowledgement."""
    async with asyncio.timeout(20):
        while (found := numbers(await read_all(log, topic, partition)))[-1:] != [last]:
            pass
    return found


class Member:
    """A subscription, what it was given, and what it was told."""

    def __init__(self, log: Log, group: str = "g", begin_at: int | str | None = None) -> None:
        self.got: dict[int, list[int]] = {}
        self.told: list[tuple[str, int]] = []
        self.begin_at = begin_at
        self.subscription: Subscription = log.subscribe(TOPIC, group, self._assigned, self._revoked)

    def _assigned(self, partition: int) -> None:
        self.told.append(("assigned", partition))
        if not isinstance(self.begin_at, str):
            self.subscription.begin(partition, self.begin_at)

    def _revoked(self, partition: int) -> None:
        self.told.append(("revoked", partition))

    async def poll(self, timeout: float = 0.2) -> Batch:
        batch = await self.subscription.poll(timeout)
        for partition, records in batch.items():
            self.got.setdefault(partition, []).extend(numbers(records))
        return batch

    async def until(self, condition: Callable[[], bool], *others: "Member") -> None:
        """Polls this member and others until it is so."""
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.gather(self.poll(), *(other.poll() for other in others))


def everything(partitions: int = 4) -> frozenset[int]:
    return frozenset(range(partitions))


async def test_positions_are_consecutive_per_partition_and_in_the_order_given(log: Log) -> None:
    first = await log.append([record(n, n % 3) for n in range(10)])
    second = await log.append([record(n, 1) for n in range(3)])
    assert [p.partition for p in first] == [n % 3 for n in range(10)]
    for partition in range(3):
        offsets = [p.offset for p in first if p.partition == partition]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    assert [p.offset for p in second] == [3, 4, 5]


async def test_a_record_is_read_as_it_was_written(log: Log) -> None:
    headers = (("h", b"\x01"), ("h", b"2"), ("", b""))
    (position,) = await log.append([Append(TOPIC, 2, b"\x00\xffkey", b"value", headers)])
    await log.append([Append(TOPIC, 2, None, b""), Append(TOPIC, 2, b"k", None)])
    found = await read_all(log, TOPIC, 2)
    assert (found[0].partition, found[0].offset, found[0].timestamp) == position
    assert (found[0].key, found[0].value) == (b"\x00\xffkey", b"value")
    assert tuple(found[0].headers) == headers
    assert [(r.key, r.value, list(r.headers)) for r in found[1:]] == [(None, b"", []), (b"k", None, [])]


async def test_concurrent_appends_keep_each_callers_order(log: Log) -> None:
    async def caller(name: int) -> None:
        for n in range(20):
            await log.append([record(name * 1000 + n, 0), record(name * 1000 + n, 1)])

    await asyncio.gather(*(caller(name) for name in range(8)))
    for partition in (0, 1):
        found = numbers(await read_all(log, TOPIC, partition))
        assert len(found) == 160
        for name in range(8):
            assert [n % 1000 for n in found if n // 1000 == name] == list(range(20))


async def test_every_position_is_where_the_record_is(log: Log) -> None:
    appended = [[record(call * 100 + n, n % 4) for n in range(30)] for call in range(10)]
    positions = await asyncio.gather(*(log.append(records) for records in appended))
    for records, places in zip(appended, positions, strict=True):
        for sent, place in zip(records, places, strict=True):
            (found,) = await read_all(log, TOPIC, place.partition, place.offset, place.offset + 1)
            assert (found.value, found.timestamp) == (sent.value, place.timestamp)


async def test_timestamps_never_go_backwards_in_a_partition(log: Log) -> None:
    for n in range(5):
        await log.append([record(n), record(n)])
    stamps = [r.timestamp for r in await read_all(log, TOPIC, 0)]
    assert stamps == sorted(stamps)


async def test_nothing_to_append_is_no_error(log: Log) -> None:
    assert await log.append([]) == []


@pytest.mark.parametrize(
    "refused",
    [
        Append(TOPIC, 0, b"k", b"x" * (RECORD_BYTES + 1)),
        Append(TOPIC, 0, b"k" * RECORD_BYTES, b"xx"),
        Append(TOPIC, 0, b"k", b"", (("h", b"x" * RECORD_BYTES),)),
        Append(TOPIC, 0, None, None),
        Append(TOPIC, 99, b"k", b"v"),
        Append("no.such.topic", 0, b"k", b"v"),
    ],
    ids=["large value", "large key", "large header", "neither", "no such partition", "no such topic"],
)
async def test_a_refused_record_blocks_no_other(log: Log, refused: Append) -> None:
    with pytest.raises(LogRefused):
        await log.append([record(1), refused, record(2)])
    assert [p.offset for p in await log.append([record(3)])] == [0]
    assert numbers(await read_all(log, TOPIC, 0)) == [3]


async def test_the_largest_records_pass_also_many_at_once(log: Log) -> None:
    value = b"x" * (RECORD_BYTES - 1)
    positions = await log.append([Append(TOPIC, 0, b"k", value) for _ in range(6)])
    assert [p.offset for p in positions] == list(range(6))
    assert [len(r.value or b"") for r in await read_all(log, TOPIC, 0)] == [len(value)] * 6


async def test_one_append_may_be_larger_than_a_batch(log: Log) -> None:
    positions = await log.append([record(n, n % 2) for n in range(5000)])
    assert [p.offset for p in positions if p.partition == 1] == list(range(2500))
    assert numbers(await read_all(log, TOPIC, 0)) == list(range(0, 5000, 2))


async def test_bounds_and_partitions(log: Log) -> None:
    assert await log.bounds(TOPIC, 1) == (0, 0)
    await log.append([record(n, 1) for n in range(3)])
    assert await log.bounds(TOPIC, 1) == (0, 3)
    assert await log.partitions(TOPIC) == 4
    assert await log.partitions(DEAD) == 1
    with pytest.raises(KeyError):
        await log.partitions("no.such.topic")


async def test_topics_are_made_once_and_checked(log: Log) -> None:
    assert await log.create_topics(4) == []
    assert await log.check_topics(4) == []
    wrong = await log.check_topics(8)
    assert len(wrong) == sum(topic.partitions is None for topic in TOPICS)
    assert all("4 partitions" in sentence and "8" in sentence for sentence in wrong)


async def test_offset_at_finds_the_first_record_at_or_after_a_time(log: Log) -> None:
    (first,) = await log.append([record(0)])
    later = first
    while later.timestamp == first.timestamp:
        (later,) = await log.append([record(1)])
    assert await log.offset_at(TOPIC, 0, 0) == 0
    assert await log.offset_at(TOPIC, 0, first.timestamp) == 0
    assert first.offset < await log.offset_at(TOPIC, 0, first.timestamp + 1) <= later.offset
    assert await log.offset_at(TOPIC, 0, later.timestamp + 60_000) == later.offset + 1
    assert await log.offset_at(TOPIC, 1, 0) == 0


async def test_read_stops_at_its_end_and_starts_at_the_logs_start(log: Log) -> None:
    await log.append([record(n) for n in range(10)])
    assert numbers(await read_all(log, TOPIC, 0, 3, 7)) == [3, 4, 5, 6]
    assert await read_all(log, TOPIC, 0, 4, 4) == []
    assert await read_all(log, TOPIC, 1, 0, 0) == []


async def test_a_read_whose_end_is_not_there_ends_with_an_alarm(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for implementation in ("kafka.log", "embedded.reads"):
        monkeypatch.setattr(f"runtime.log.{implementation}.END_SECONDS", 0.1)
    await log.append([record(n) for n in range(3)])
    got: list[Record] = []

    async def read() -> None:
        async for records in log.read(TOPIC, 0, 1, 5):
            got.extend(records)

    with pytest.raises(OutOfRange, match="partition 0: position 5 is beyond the log's end 3"):
        await read()
    assert numbers(got) == [1, 2]


async def test_an_endless_read_goes_on_with_what_is_appended_later(log: Log) -> None:
    await log.append([record(0)])
    found: list[int] = []
    arrived = asyncio.Event()

    async def follow() -> None:
        async for batch in log.read(TOPIC, 0, 0):
            found.extend(numbers(batch))
            arrived.set()

    task = asyncio.create_task(follow())
    for n in (1, 2, 3):
        await asyncio.wait_for(arrived.wait(), 10)
        arrived.clear()
        await log.append([record(n)])
    await asyncio.wait_for(arrived.wait(), 10)
    assert found == [0, 1, 2, 3]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_a_member_gets_all_partitions_and_records_in_order(log: Log) -> None:
    await log.append([record(n, n % 4) for n in range(100)])
    member = Member(log)
    await member.until(lambda: sum(map(len, member.got.values())) == 100)
    assert member.got == {p: list(range(p, 100, 4)) for p in range(4)}
    assert member.subscription.assigned() == everything()
    assert member.subscription.joined()
    await member.subscription.stop()


async def test_poll_gives_no_more_than_asked_for_and_none_is_lost(log: Log) -> None:
    await log.append([record(n) for n in range(50)])
    member = Member(log)
    while len(member.got.get(0, [])) < 50:
        batch = await member.subscription.poll(1, max_records=7)
        assert sum(map(len, batch.values())) <= 7
        member.got.setdefault(0, []).extend(numbers(batch.get(0, ())))
    assert member.got[0] == list(range(50))


async def test_nothing_is_delivered_before_begin(log: Log) -> None:
    await log.append([record(n) for n in range(5)])
    member = Member(log, begin_at="later")
    await member.until(lambda: member.subscription.assigned() == everything())
    assert await member.poll(1.0) == {}
    member.subscription.begin(0, 3)
    await member.until(lambda: bool(member.got))
    assert member.got == {0: [3, 4]}


async def test_seek_goes_forwards_and_backwards(log: Log) -> None:
    await log.append([record(n) for n in range(10)])
    member = Member(log)
    await member.until(lambda: len(member.got.get(0, [])) == 10)
    member.subscription.seek(0, 2)
    await member.until(lambda: len(member.got[0]) == 18)
    assert member.got[0][10:] == list(range(2, 10))
    await log.append([record(n) for n in range(10, 20)])
    member.subscription.seek(0, 15)
    await member.until(lambda: len(member.got[0]) >= 23)
    assert member.got[0][18:] == list(range(15, 20))


async def test_a_paused_partition_is_silent_until_begun_and_others_go_on(log: Log) -> None:
    await log.append([record(0, 0), record(0, 1)])
    member = Member(log)
    await member.until(lambda: set(member.got) == {0, 1})
    member.subscription.pause(0)
    await log.append([record(1, 0), record(1, 1)])
    await member.until(lambda: member.got[1] == [0, 1])
    assert await member.poll(0.5) == {}
    assert member.got[0] == [0]
    member.subscription.begin(0, 0)
    await member.until(lambda: member.got[0] == [0, 0, 1])


async def test_without_an_offset_it_goes_on_where_the_group_committed(log: Log) -> None:
    await log.append([record(n) for n in range(10)])
    assert await log.committed(TOPIC, "g") == {}
    first = Member(log)
    await first.until(lambda: 0 in first.got)
    await first.subscription.commit({0: 6})
    assert await log.committed(TOPIC, "g") == {0: 6}
    assert await log.committed(TOPIC, "other") == {}
    await first.subscription.stop()
    second = Member(log)
    await second.until(lambda: bool(second.got))
    assert second.got == {0: [6, 7, 8, 9]}


async def test_a_position_beyond_the_end_is_an_alarm_and_the_others_go_on(log: Log) -> None:
    await log.append([record(0, 0), record(0, 1)])
    member = Member(log, begin_at="later")
    await member.until(lambda: member.subscription.assigned() == everything())
    member.subscription.begin(0, 5)
    with pytest.raises(OutOfRange) as alarm:
        await member.until(lambda: False)
    assert alarm.value.partition == 0
    member.subscription.begin(1, 0)
    await member.until(lambda: bool(member.got))
    assert member.got == {1: [0]}
    member.subscription.begin(0, 0)
    await member.until(lambda: 0 in member.got)


async def test_the_end_itself_is_a_position(log: Log) -> None:
    await log.append([record(0)])
    member = Member(log, begin_at="later")
    await member.until(lambda: member.subscription.assigned() == everything())
    member.subscription.begin(0, 1)
    assert await member.poll(0.5) == {}
    await log.append([record(1)])
    await member.until(lambda: bool(member.got))
    assert member.got == {0: [1]}


async def test_members_share_the_partitions_when_they_join_and_leave(logs: Logs) -> None:
    log, other = await logs(), await logs()
    one = Member(log, begin_at=0)
    await one.until(lambda: one.subscription.assigned() == everything())
    two = Member(other, begin_at=0)
    await one.until(
        lambda: len(one.subscription.assigned()) == 2 and len(two.subscription.assigned()) == 2,
        two,
    )
    assert one.subscription.assigned() | two.subscription.assigned() == everything()
    # Who keeps a partition is not told to give it up.
    assert {p for told, p in one.told if told == "revoked"} == two.subscription.assigned()
    assert [p for told, p in one.told if told == "assigned"] == [0, 1, 2, 3]
    await log.append([record(7, p) for p in range(4)])
    await one.until(lambda: len(one.got) + len(two.got) >= 4, two)
    assert set(two.got) == two.subscription.assigned()
    assert one.subscription.assigned() <= set(one.got)
    await two.subscription.stop()
    assert two.subscription.assigned() == frozenset()
    await one.until(lambda: one.subscription.assigned() == everything())
    assert len(one.told) == 8


async def test_what_a_member_keeps_goes_on_without_a_gap_or_a_repetition(logs: Logs) -> None:
    log, other = await logs(), await logs()
    one, two = Member(log, begin_at=0), Member(other, begin_at=0)
    await one.until(lambda: one.subscription.assigned() == everything())
    count = 0

    async def write() -> None:
        nonlocal count
        await log.append([record(count, p) for p in range(4)])
        count += 1

    while len(two.subscription.assigned()) < 2:
        await asyncio.gather(write(), one.poll(), two.poll())
    await two.subscription.stop()
    while one.subscription.assigned() != everything():
        await asyncio.gather(write(), one.poll())
    kept = everything() - {p for told, p in one.told if told == "revoked"}
    assert len(kept) == 2
    await one.until(lambda: all(one.got.get(p, [])[-1:] == [count - 1] for p in range(4)))
    assert all(one.got[p] == list(range(count)) for p in kept)


async def test_a_commit_for_a_partition_that_is_not_ours_is_dropped_silently(logs: Logs) -> None:
    log, other = await logs(), await logs()
    await log.append([record(n, p) for n in range(3) for p in range(4)])
    one, two = Member(log), Member(other)
    await one.until(lambda: one.subscription.assigned() == everything())
    await one.until(lambda: len(one.subscription.assigned()) == len(two.subscription.assigned()) == 2, two)
    await one.subscription.commit(dict.fromkeys(range(4), 1))
    assert set(await log.committed(TOPIC, "g")) == one.subscription.assigned()
    await one.subscription.stop()
    await one.subscription.commit({0: 2})


async def test_two_groups_get_everything_each(log: Log) -> None:
    await log.append([record(n, n % 4) for n in range(8)])
    one, two = Member(log, "one"), Member(log, "two")
    await one.until(lambda: all(sum(map(len, m.got.values())) == 8 for m in (one, two)), two)


async def test_a_transaction_is_read_whole_and_a_later_instance_fences_the_earlier(logs: Logs) -> None:
    zombie, owner = await logs(), await logs()
    await zombie.append_transaction("registrar-0", [record(n, 0, BINDINGS) for n in range(3)])
    await zombie.append_transaction("registrar-0", [record(3, 0, BINDINGS), record(30, 1, BINDINGS)])
    await owner.append_transaction("registrar-0", [record(4, 0, BINDINGS)])
    with pytest.raises(Fenced):
        await zombie.append_transaction("registrar-0", [record(99, 0, BINDINGS)])
    await owner.append_transaction("registrar-0", [record(5, 0, BINDINGS)])
    await zombie.append_transaction("registrar-1", [record(31, 1, BINDINGS)])
    assert await read_until(owner, BINDINGS, 0, 5) == [0, 1, 2, 3, 4, 5]
    assert await read_until(owner, BINDINGS, 1, 31) == [30, 31]


async def test_after_fenced_the_next_call_is_a_first_one_again(logs: Logs) -> None:
    one, two = await logs(), await logs()
    await one.append_transaction("t", [record(0, 0, BINDINGS)])
    await two.append_transaction("t", [])
    with pytest.raises(Fenced):
        await one.append_transaction("t", [record(99, 0, BINDINGS)])
    await one.append_transaction("t", [record(1, 0, BINDINGS)])
    with pytest.raises(Fenced):
        await two.append_transaction("t", [record(99, 0, BINDINGS)])
    assert await read_until(one, BINDINGS, 0, 1) == [0, 1]


async def test_a_refused_transaction_leaves_nothing_and_the_next_goes_on(log: Log) -> None:
    await log.append_transaction("t", [record(0, 0, BINDINGS)])
    with pytest.raises(LogRefused):
        await log.append_transaction("t", [record(1, 0, BINDINGS), Append(BINDINGS, 0, b"k", b"x" * RECORD_BYTES * 2)])
    await log.append_transaction("t", [record(2, 0, BINDINGS)])
    assert await read_until(log, BINDINGS, 0, 2) == [0, 2]


async def test_many_transactional_ids_are_no_burden(log: Log) -> None:
    for n in range(12):
        await log.append_transaction(f"t{n}", [record(n, 0, BINDINGS)])
    await log.append_transaction("t0", [record(12, 0, BINDINGS)])
    assert await read_until(log, BINDINGS, 0, 12) == list(range(13))


async def test_topics_do_not_mix(log: Log) -> None:
    await log.append([record(1, 0, REGISTRATIONS), record(2, 0, AUDIT), record(3, 0)])
    assert [numbers(await read_all(log, topic, 0)) for topic in (REGISTRATIONS, AUDIT, TOPIC)] == [[1], [2], [3]]


async def test_stop_ends_a_poll_that_waits(log: Log) -> None:
    member = Member(log)
    await member.until(lambda: member.subscription.joined())
    waiting = asyncio.create_task(member.subscription.poll(30))
    await asyncio.sleep(0)
    await member.subscription.stop()
    assert await asyncio.wait_for(waiting, 5) == {}
