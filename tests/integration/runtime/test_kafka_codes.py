"""What each of Kafka's error codes leads to, over the wire: written once, asked again, told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiokafka import errors

from events.topics import AUDIT
from runtime.config import Kafka
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.kafka import lane as kafka_lane
from runtime.log.kafka.codes import FETCH, LIST_OFFSETS, PRODUCE, Then, Written, meaning
from runtime.log.kafka.fetch import Fetcher, NoSuchOffset
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from tests.kit import broker as broker_kit
from tests.kit.broker import METADATA, PRODUCER_ID, Brokers, Error

TIMEOUT = 1.0
SOON = 0.5

STALE = (3, 5, 6, 8, 9, 13, 56, 72, 74, 75, 100, 103)
"""Codes after which clients of Kafka ask for metadata again."""
MAYBE = (-1, 3, 6, 7, 13, 20, 56)
"""Codes that may come for what was appended."""
PASSES = (-1, 2, 5, 6, 7, 8, 9, 13, 19, 20, 3, 51, 56, 72, 74, 75, 89, 100, 103, 999)
"""What a later try may get past."""
REFUSES = (10, 17, 18, 21, 29, 31, 32, 35, 42, 43, 44, 76, 87)
READ_PASSES = (-1, 3, 5, 6, 7, 8, 9, 13, 56, 72, 74, 75, 78, 89, 100, 103, 999)
READ_REFUSES = (17, 29, 31, 35, 42, 43)


@contextlib.asynccontextmanager
async def opened(partitions: int = 2) -> AsyncIterator[tuple[KafkaLog, Brokers]]:
    """A log on staged brokers, which it knows; one record is in each partition."""
    async with broker_kit.brokers(f"t.{AUDIT}", partitions, {}) as both:
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=TIMEOUT), "t.", partitions, "test")
        await log.start()
        try:
            await log.append([record(b"first", number) for number in range(partitions)])
            yield log, both
        finally:
            await log.stop()


def record(value: bytes = b"v", partition: int = 0) -> Append:
    return Append(AUDIT, partition, b"k", value)


async def metadata_after(both: Brokers, before: int) -> int:
    """How often it was asked for since; settled."""
    await asyncio.sleep(0.1)
    return both.asked[METADATA] - before


# -- Produce ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "written"), [(c, False) for c in PASSES] + [(c, True) for c in MAYBE])
async def test_what_a_later_try_gets_past_is_acknowledged_and_stands_once(code: int, written: bool) -> None:
    async with opened() as (log, both):
        part, before = both.partitions[0], both.asked[METADATA]
        part.staged[broker_kit.PRODUCE] = [Error(code, written)] * 2
        positions = await log.append([record(b"a"), record(b"b"), record(b"other", 1)])
        assert [(p.partition, p.offset) for p in positions] == [(0, 1), (0, 2), (1, 1)]
        assert part.values == [b"first", b"a", b"b"]
        assert part.batches[1:] == [part.batches[1]] * 3
        assert bool(await metadata_after(both, before)) == (code in STALE or code == 999)
        await log.append([record(b"c")])
        assert part.values[3:] == [b"c"]


@pytest.mark.parametrize("code", REFUSES)
async def test_what_is_refused_is_told_at_once_and_breaks_nothing_for_its_successors(code: int) -> None:
    async with opened() as (log, both):
        both.partitions[0].staged[broker_kit.PRODUCE] = [Error(code)]
        with pytest.raises(LogRefused, match=meaning(PRODUCE, code).name):
            await log.append([record(b"refused")])
        await log.append([record(b"next")])
        assert both.partitions[0].values == [b"first", b"next"]


async def test_of_appends_that_went_together_only_the_refused_one_fails() -> None:
    async with opened() as (log, both):
        part, append = both.partitions[0], both.partitions[0].append
        part.append = lambda octets: (87, -1) if b"culprit" in octets else append(octets)  # type: ignore[method-assign]
        outcomes = await asyncio.gather(
            *(log.append([record(value)]) for value in (b"a", b"culprit", b"b")), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [list, LogRefused, list]
        assert part.values == [b"first", b"a", b"b"]


async def test_a_duplicate_is_written_and_not_sent_again() -> None:
    async with opened() as (log, both):
        part = both.partitions[0]
        part.staged[broker_kit.PRODUCE] = [Error(46, written=True, offset=1), Error(46, written=True)]
        [position] = await log.append([record(b"a")])
        assert position.offset == 1
        with pytest.raises(LogUnavailable, match="does not say where"):
            await log.append([record(b"b")])
        await log.append([record(b"c")])
        assert part.values == [b"first", b"a", b"b", b"c"]
        assert [first for _, _, first, _ in part.batches] == [0, 1, 2, 3]


@pytest.mark.parametrize("code", [45, 59])
async def test_a_log_that_does_not_go_on_from_our_number_gets_the_records_under_the_next_epoch(code: int) -> None:
    async with opened() as (log, both):
        part = both.partitions[0]
        part.staged[broker_kit.PRODUCE] = [Error(code)]
        await log.append([record(b"a"), record(b"b")])
        await log.append([record(b"c"), record(b"other", 1)])
        assert part.values == [b"first", b"a", b"b", b"c"]
        (id_, *_), *_ = part.batches
        assert part.batches[1:] == [(id_, 0, 1, 2), (id_, 1, 0, 2), (id_, 1, 2, 1)]
        assert both.partitions[1].batches[-1] == (id_, 0, 1, 1)


@pytest.mark.parametrize("code", [47, 49, 90])
async def test_a_producer_id_that_is_not_ours_any_more_is_replaced(code: int) -> None:
    async with opened() as (log, both):
        part = both.partitions[0]
        part.staged[broker_kit.PRODUCE] = [Error(code)]
        await log.append([record(b"a"), record(b"other", 1)])
        await log.append([record(b"b"), record(b"more", 1)])
        assert part.values == [b"first", b"a", b"b"]
        assert both.partitions[1].values == [b"first", b"other", b"more"]
        assert both.asked[PRODUCER_ID] == 2
        assert part.batches[-1][0] != part.batches[0][0]


@pytest.mark.parametrize("code", [45, 47, 59, 10])
async def test_what_may_be_written_and_is_then_refused_is_unknown_and_not_written_again(code: int) -> None:
    async with opened() as (log, both):
        part = both.partitions[0]
        part.staged[broker_kit.PRODUCE] = [Error(6, written=True), Error(code)]
        with pytest.raises(LogUnavailable, match=meaning(PRODUCE, code).name):
            await log.append([record(b"a")])
        await log.append([record(b"b")])
        assert part.values == [b"first", b"a", b"b"]


async def test_a_leader_that_moved_after_the_append_gives_the_batch_s_place_elsewhere() -> None:
    async with opened() as (log, both):
        part = both.partitions[0]

        def moved(octets: bytes) -> tuple[int, int]:
            part.leader = 2
            return append(octets)

        append, part.append = part.append, moved  # type: ignore[method-assign]
        part.staged[broker_kit.PRODUCE] = [Error(6, written=True)]
        both.told[0] = 1  # and metadata hears of it late
        appending = asyncio.create_task(log.append([record(b"a"), record(b"other", 1)]))
        await asyncio.sleep(0.2)
        del both.told[0]
        assert [p.offset for p in await appending] == [1, 1]
        assert part.values == [b"first", b"a"]


async def test_while_one_partition_has_no_leader_the_others_of_its_broker_go_on() -> None:
    async with opened(3) as (log, both):
        both.partitions[0].staged[broker_kit.PRODUCE] = [Error(19)] * 1000
        stuck = asyncio.create_task(log.append([record(b"stuck"), record(b"with", 2)]))
        for number in range(20):
            async with asyncio.timeout(SOON):
                await log.append([record(b"%d" % number, 1)])
        assert len(both.partitions[1].values) == 21
        assert both.partitions[2].values == [b"first", b"with"]
        with pytest.raises(LogUnavailable, match="NOT_ENOUGH_REPLICAS"):
            await stuck


async def test_a_partition_whose_replicas_do_not_follow_holds_up_no_other_but_once() -> None:
    async with opened() as (log, both):
        both.partitions[0].staged[broker_kit.PRODUCE] = [Error(7, after=0.4)] * 3
        stuck = asyncio.create_task(log.append([record(b"stuck")]))
        async with asyncio.timeout(1):
            while both.partitions[0].asked[broker_kit.PRODUCE] < 3:
                await log.append([record(b"other", 1)])
                await asyncio.sleep(0.01)
        before = len(both.partitions[1].values)
        for _ in range(10):
            await log.append([record(b"other", 1)])
        assert both.partitions[0].asked[broker_kit.PRODUCE] == 3
        assert len(both.partitions[1].values) == before + 10
        with pytest.raises(LogUnavailable, match="REQUEST_TIMED_OUT"):
            await stuck
        await log.append([record(b"next")])
        assert both.partitions[0].values == [b"first", b"next"]


async def test_what_its_caller_gave_up_in_doubt_is_not_sent_again_and_could_not_be_written_late() -> None:
    async with opened() as (log, both):
        part = both.partitions[0]
        part.staged[broker_kit.PRODUCE] = [Error(7)] * 1000
        with pytest.raises(LogUnavailable, match="REQUEST_TIMED_OUT"):
            await log.append([record(b"given up")])
        part.staged.clear()
        await log.append([record(b"a")])
        assert part.values == [b"first", b"a"]
        id_, epoch, *_ = part.batches[-1]
        assert (epoch, part.producers[id_][0]) == (1, 1)


async def test_epochs_that_are_used_up_lead_to_another_producer_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_lane, "LAST_EPOCH", 0)
    async with opened() as (log, both):
        part = both.partitions[0]
        for value in (b"a", b"b"):
            part.staged[broker_kit.PRODUCE] = [Error(59)]
            await log.append([record(value), record(value, 1)])
        assert part.values == both.partitions[1].values == [b"first", b"a", b"b"]
        assert both.asked[PRODUCER_ID] == 3


@pytest.mark.parametrize("code", [14, 15, 31, 999])
async def test_a_producer_id_that_is_not_given_is_asked_for_again(code: int) -> None:
    async with broker_kit.brokers(f"t.{AUDIT}", 2, {}) as both:
        both.producer_ids = [Error(code), Error(code), Error(0)]
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=TIMEOUT), "t.", 2, "test")
        await log.start()
        await log.append([record(b"a")])
        assert both.partitions[0].values == [b"a"]
        both.producer_ids = [Error(31)]
        await log.stop()
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=0.3), "t.", 2, "test")
        await log.start()
        with pytest.raises(LogUnavailable, match="no producer id: CLUSTER_AUTHORIZATION_FAILED"):
            await log.append([record(b"b")])
        await log.stop()
        assert both.partitions[0].values == [b"a"]


# -- Fetch --------------------------------------------------------------------------------------------------


async def fetched(fetcher: Fetcher, partition: int, seconds: float = 5.0) -> list[bytes]:
    """What comes of a partition first, whatever is told of others meanwhile."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(LogUnavailable, NoSuchOffset):
                if records := (await fetcher.poll(0.5, 100)).get(partition):
                    return [r.value or b"" for r in records]


async def polled(fetcher: Fetcher) -> None:
    """Until it raises."""
    async with asyncio.timeout(5):
        while True:
            await fetcher.poll(0.5, 100)


@contextlib.asynccontextmanager
async def fetching(log: KafkaLog, partitions: int = 2) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(log._connected_client(), f"t.{AUDIT}", TIMEOUT)
    for number in range(partitions):
        fetcher.begin(number, 1)
    try:
        yield fetcher
    finally:
        await fetcher.stop()


@pytest.mark.parametrize("code", [*READ_PASSES, *READ_REFUSES, 2, 70, 71, 76, 106, 109])
async def test_an_error_of_one_partition_holds_up_no_other_and_it_is_asked_again(code: int) -> None:
    async with opened() as (log, both), fetching(log) as fetcher:
        before = both.asked[METADATA]
        both.partitions[0].staged[broker_kit.FETCH] = [Error(code)] * 4
        await log.append([record(b"a"), record(b"b", 1)])
        assert await fetched(fetcher, 1, SOON) == [b"b"]
        assert await fetched(fetcher, 0) == [b"a"]
        assert bool(await metadata_after(both, before)) == (code in STALE or code == 999)
        assert both.partitions[0].asked[broker_kit.FETCH] < 12


async def test_an_offset_that_is_not_there_is_told_and_the_others_keep_their_records() -> None:
    async with opened() as (log, both), fetching(log) as fetcher:
        fetcher.begin(0, 77)
        await log.append([record(b"b", 1)])
        assert await fetched(fetcher, 1) == [b"b"]
        fetcher.begin(0, 77)
        with pytest.raises(NoSuchOffset, match="partition 0 has no offset 77"):
            await polled(fetcher)
        assert fetcher.active
        assert both.partitions[0].asked[broker_kit.FETCH] >= 2


@pytest.mark.parametrize("code", [29, -1])
async def test_who_gets_nothing_at_all_is_told_why(code: int) -> None:
    async with opened() as (log, both), fetching(log) as fetcher:
        for part in both.partitions.values():
            part.staged[broker_kit.FETCH] = [Error(code)] * 3
        with pytest.raises(LogUnavailable, match=meaning(FETCH, code).name):
            await polled(fetcher)
        await log.append([record(b"a")])
        assert await fetched(fetcher, 0) == [b"a"]


async def test_a_broker_that_is_gone_holds_up_no_other() -> None:
    async with opened() as (log, both):
        both.partitions[0].leader = 2
        await log._connected_client().force_metadata_update()
        async with fetching(log) as fetcher:
            both._servers[1].close()
            for writer in list(both._writers):
                if writer.get_extra_info("sockname")[1] == both.ports[2]:
                    writer.close()
            for number in range(10):
                await log.append([record(b"%d" % number, 1)])
                assert await fetched(fetcher, 1, SOON) == [b"%d" % number]


async def test_what_comes_while_a_batch_is_handled_is_fetched_once() -> None:
    async with opened() as (log, both), fetching(log) as fetcher:
        for number in range(4):
            await log.append([record(b"%d" % number)])
            if number:
                await asyncio.sleep(0.05)  # it is here before it is asked for
            assert await fetched(fetcher, 0, SOON) == [b"%d" % number]
        assert both.partitions[0].fetches == sorted(set(both.partitions[0].fetches))


async def test_a_partition_that_begins_does_not_wait_for_a_fetch_of_others_that_waits() -> None:
    async with opened() as (log, both), fetching(log, 1) as fetcher:
        assert not await fetcher.poll(0.1, 100)  # this one waits for long
        fetcher.begin(1, 0)
        assert await fetched(fetcher, 1, SOON) == [b"first"]
        await log.append([record(b"a")])
        assert await fetched(fetcher, 0, SOON) == [b"a"]
        assert both.partitions[0].asked[broker_kit.FETCH] <= 5


# -- ListOffsets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", READ_PASSES)
async def test_offsets_are_asked_again_until_somebody_knows_them(code: int) -> None:
    async with opened() as (log, both):
        before = both.asked[METADATA]
        both.partitions[0].staged[broker_kit.LIST_OFFSETS] = [Error(code)] * 2
        assert await log.bounds(AUDIT, 0) == (0, 1)
        assert bool(await metadata_after(both, before)) == (code in STALE or code == 999)


@pytest.mark.parametrize("code", READ_REFUSES)
async def test_offsets_that_we_may_not_know_are_not_waited_for(code: int) -> None:
    async with opened() as (log, both):
        both.partitions[0].staged[broker_kit.LIST_OFFSETS] = [Error(code)]
        async with asyncio.timeout(SOON):
            with pytest.raises(LogUnavailable, match=meaning(LIST_OFFSETS, code).name):
                await log.bounds(AUDIT, 0)


# -- the tables ---------------------------------------------------------------------------------------------


def test_every_code_of_the_tables_is_tried_here() -> None:
    assert set(PRODUCE) == {0, 46, 45, 59, 47, 49, 90, *PASSES, *REFUSES} - {999}
    assert set(FETCH) == {0, 1, 2, 70, 71, 76, 106, 109, *READ_PASSES, *READ_REFUSES} - {999}
    assert set(LIST_OFFSETS) == {0, *READ_PASSES, *READ_REFUSES} - {999}


@pytest.mark.parametrize("table", [PRODUCE, FETCH, LIST_OFFSETS])
def test_what_says_to_aiokafka_that_metadata_is_stale_says_so_to_us(table: dict[int, object]) -> None:
    for code, error in errors.kafka_errors.items():
        if error.invalid_metadata:
            assert meaning(table, code).stale  # type: ignore[arg-type]


def test_what_is_certainly_not_written_is_never_what_may_come_after_an_append() -> None:
    for code in MAYBE:
        assert meaning(PRODUCE, code).written is Written.MAYBE
    for code in REFUSES:
        assert meaning(PRODUCE, code)[1:] == (Then.REFUSE, False, Written.NO)
