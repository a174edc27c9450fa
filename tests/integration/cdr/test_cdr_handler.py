"""cdr on a real log and real tables: rows and position together, records after them, nothing lost or doubled.

Over 400 lines: one site, on which each way to die between rows and records is tried.
"""

import asyncio
import dataclasses
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from cdr.closing import Closing
from cdr.config import Settings
from cdr.handler import CdrHandler
from cdr.service import Cdr
from events.calls import CallEvent
from events.cdrs import CallRecord
from events.topics import CALLS, CDRS, DEAD, partition_of
from events.wire import Decoder, header
from runtime.config import Kafka
from runtime.database.port import Advance, Database, Statement
from runtime.errors import DatabaseRefused, DatabaseUnavailable, LogUnavailable, PartitionAway
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Batch, Log, Position, Record
from runtime.logs import JsonFormatter
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from runtime.worker import Lost
from tests.kit.broker import brokers
from tests.kit.call_stories import START, Story, append, everything, missed, rows, talk
from tests.kit.locator import DATABASES, open_database

PARTITIONS = 2
read_record: Decoder[CallRecord] = Decoder(CallRecord)


@dataclasses.dataclass
class Between:
    """A log or a database with something in front of its writes."""

    inner: Any
    before: Callable[[], Any] | None = None
    after: Callable[[], Any] | None = None
    away: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    """Topics and partitions that take nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def _around(self, write: Callable[[], Any]) -> Any:
        if self.before is not None:
            self.before()
        result = await write()
        if self.after is not None:
            self.after()
        return result

    async def transact(self, statements: Sequence[Statement], *advances: Advance) -> None:
        await self._around(lambda: self.inner.transact(statements, *advances))

    async def append(self, records: Sequence[Append]) -> list[Position]:
        if any((record.topic, record.partition) in self.away for record in records):
            raise PartitionAway("nobody leads it")
        return await self._around(lambda: self.inner.append(records))


@dataclasses.dataclass
class Site:
    """A log, tables, and a handler that has all partitions."""

    log: Log
    database: Database
    handler: CdrHandler
    next: dict[int, int] = dataclasses.field(default_factory=dict)

    async def restore(self) -> None:
        for partition in range(PARTITIONS):
            self.next[partition] = await self.handler.restore(partition)

    def again(self, settings: Settings | None = None) -> None:
        """Another process in its place, which knows nothing."""
        self.handler = CdrHandler(self.log, self.database, settings or Settings())

    async def write(self, *events: CallEvent | Append) -> None:
        await self.log.append([e if isinstance(e, Append) else append(e, PARTITIONS) for e in events])

    async def read(self, topic: str, partition: int, begin: int = 0) -> list[Record]:
        end = (await self.log.bounds(topic, partition)).end
        return [r async for batch in self.log.read(topic, partition, begin, end) for r in batch]

    async def batch(self, at_most: int = 10**6) -> Batch:
        found = {n: (await self.read(CALLS, n, self.next[n]))[:at_most] for n in range(PARTITIONS)}
        return {n: records for n, records in found.items() if records}

    async def apply(self, at_most: int = 10**6) -> bool:
        """One batch of what was not handled yet; whether there was any."""
        batch = await self.batch(at_most)
        if batch:
            self.next.update(await self.handler.handle(batch))
        return bool(batch)

    async def records(self) -> list[CallRecord]:
        count = await self.log.partitions(CDRS)
        return [read_record(r.value) for n in range(count) for r in await self.read(CDRS, n)]


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, PARTITIONS)
    await log.start()
    database = await open_database(request, request.param, store)
    between_log: Any = Between(log)
    between: Any = Between(database)
    site = Site(between_log, between, CdrHandler(between_log, between, Settings()))
    await site.restore()
    yield site
    await log.stop()
    await database.stop()
    await store.stop()


async def count(site: Site, table: str, where: str = "1 = 1") -> int:
    return int((await site.database.query(f"SELECT COUNT(*) FROM {table} WHERE {where}"))[0][0])


async def test_a_call_is_open_until_it_ends_and_then_a_record(site: Site) -> None:
    story = Story().attempted().branch().wait(50).rings()
    await site.write(*story.events)
    await site.apply()
    assert await rows(site.database, "open_calls", ("caller", "callee", "progress")) == [
        ("alice@example.test", "bob@example.test", "ringing")
    ]
    assert await site.records() == []
    seen = len(story.events)
    await site.write(*story.wait(1000).answered().events[seen:])
    await site.apply()
    assert await rows(site.database, "open_calls", ("progress", "answered_ms")) == [("answered", START + 1050)]
    assert await rows(site.database, "acc", ("method", "duration")) == [("INVITE", 0)]
    seen = len(story.events)
    await site.write(*story.wait(4000).ended().events[seen:])
    await site.apply()
    assert await count(site, "open_calls") == 0
    assert await rows(site.database, "acc", ("method", "duration")) == [("INVITE", 4), ("BYE", 0)]
    (told,) = await site.records()
    assert (told.call_id, told.talk_ms, told.hung_up) == (story.call_id, 4000, "caller")
    assert await rows(site.database, "cdrs", ("call_id", "talk_ms", "published")) == [(story.call_id, 4000, 1)]


async def test_c02_a_record_on_cdrs_carries_its_cloudevents_attributes(site: Site) -> None:
    story = talk()
    await site.write(*story.events)
    await site.apply()
    (record,) = [r for n in range(PARTITIONS) for r in await site.read(CDRS, n)]
    assert record.key == story.call_id.encode()
    headers = dict(record.headers)
    assert len(headers.pop("ce_id")) == 32
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", headers.pop("ce_traceparent"))
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"ramal.CallRecord",
        "ce_source": b"cdr",
        "content-type": b"application/json",
        "ce_subject": story.call_id.encode(),
        "ce_time": b"2023-11-14T22:14:22.050Z",
        "ce_dataschema": b"urn:ramal:CallRecord:1",
    }


async def test_the_record_leaves_after_its_row_and_is_noted_after_the_acknowledgement(site: Site) -> None:
    seen: list[tuple[str, int]] = []

    async def note(what: str) -> None:
        seen.append((what, await count(site, "cdrs", "published = 0")))

    real = site.log.append

    async def noting(records: Sequence[Append]) -> list[Position]:
        await note("before")
        result = await real(records)
        await note("after")
        return result

    await site.write(*talk().events)
    site.log.append = noting  # type: ignore[method-assign]
    await site.apply()
    assert seen == [("before", 1), ("after", 1)]
    assert await count(site, "cdrs", "published = 1") == 1


async def test_c03_doubled_and_reordered_events_change_nothing(site: Site) -> None:
    stories = [talk(f"u{n}", f"v{n}") for n in range(20)]
    await site.write(*[event for story in stories for event in story.events])
    await site.apply()
    before = await everything(site.database)
    assert len(before["cdrs"]) == 20
    # The places of the last events that counted are the same, too: nothing counted.
    again = [event for story in stories for event in story.events] * 2
    random.Random(1).shuffle(again)
    await site.write(*again)
    await site.apply()
    assert await everything(site.database) == before
    assert len(await site.records()) == 20


async def test_a_late_event_corrects_the_record_and_it_is_published_again(site: Site) -> None:
    story = talk()
    late = [event for event in story.events if type(event).__name__ == "CallAttempted"]
    await site.write(*[event for event in story.events if event not in late])
    await site.apply()
    assert await rows(site.database, "cdrs", ("incomplete", "caller")) == [(1, "sip:alice@example.test")]
    site.again()
    await site.restore()
    await site.write(*late)
    await site.apply()
    assert await rows(site.database, "cdrs", ("incomplete", "caller")) == [(0, "alice@example.test")]
    assert [r.incomplete for r in await site.records()] == [True, False]


async def test_a_call_is_one_line_of_the_log_and_counts_once_whatever_is_corrected_later(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("ramal_cdr_calls_total", {"outcome": "answered"}) or 0.0

    caplog.set_level("INFO", "ramal.cdr")
    before, story = counted(), talk(last=75_000)
    late = [event for event in story.events if type(event).__name__ == "CallAttempted"]
    await site.write(*[event for event in story.events if event not in late])
    await site.apply()
    await site.write(*late)
    await site.apply()
    assert len(await site.records()) == 2
    (line,) = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.getMessage() == "call"]
    assert "bob@example.test" in line["callee"]
    assert (line["outcome"], line["code"], line["seconds"]) == ("answered", 200, 75)
    assert line["call_id"] == story.call_id
    assert counted() == before + 1


async def test_a_call_that_was_closed_and_lives_after_all_is_open_again(site: Site) -> None:
    story = Story().attempted().branch().rings().answered(session_expires=600)
    await site.write(*story.events)
    await site.apply()
    closing = Closing(site.log, site.database, site.handler, Settings(), now=lambda: START + 10**7)
    assert await closing.look() == 1
    await site.apply()
    assert (await count(site, "cdrs"), await count(site, "open_calls")) == (1, 0)
    story.wait(500_000).refreshed(session_expires=600)
    await site.write(story.events[-1])
    await site.apply()
    assert (await count(site, "cdrs"), await count(site, "open_calls")) == (0, 1)
    assert await rows(site.database, "acc", ("method", "duration")) == [("INVITE", 0)]


async def test_c12_nothing_is_closed_before_its_time_and_twice_is_once(site: Site) -> None:
    await site.write(*Story().attempted().branch().events)
    await site.apply()
    now = [START + 299_999]
    closing = Closing(site.log, site.database, site.handler, Settings(), now=lambda: now[0])
    assert await closing.look() == 0
    now[0] += 1
    assert await closing.look() == 1
    assert await closing.look() == 1  # it is not through the log yet
    await site.apply()
    assert await closing.look() == 0
    assert await rows(site.database, "cdrs", ("outcome", "code", "estimated", "missed")) == [("failed", 0, 1, 1)]
    assert len(await site.records()) == 1


async def test_c11_a_bye_alone_is_an_incomplete_record(site: Site) -> None:
    await site.write(*Story().ended("callee", begun=START - 5000).events)
    await site.apply()
    assert await rows(site.database, "cdrs", ("attempted_ms", "answered_ms", "incomplete", "hung_up")) == [
        (START - 5000, None, 1, "callee")
    ]
    assert await rows(site.database, "acc", ("method",)) == [("BYE",)]


async def test_of_two_cdrs_one_writes_and_the_other_restores(site: Site) -> None:
    other = CdrHandler(site.log, site.database, Settings())
    for partition in range(PARTITIONS):
        await other.restore(partition)
    await site.write(*talk().events, *talk().events)
    batch = await site.batch()
    await other.handle(batch)
    with pytest.raises(Lost) as lost:
        await site.handler.handle(batch)
    assert lost.value.partitions == set(batch)
    assert len(await site.records()) == 2


async def test_a_sleeper_does_not_note_as_published_what_it_did_not_publish(site: Site) -> None:
    story = talk()
    await site.write(*story.events)
    (number,) = await site.batch()
    real = site.database.transact

    async def slept(statements: Sequence[Statement], *advances: Advance) -> None:
        if advances and advances[0].expected == advances[0].next:
            # While it slept before its note, another one went on and corrected the record.
            await site.database.inner.transact(
                [Statement("UPDATE cdrs SET published = 0")],
                Advance("calls", number, advances[0].next, advances[0].next + 1, 0),
            )
        await real(statements, *advances)

    site.database.transact = slept  # type: ignore[method-assign]
    with pytest.raises(Lost):
        await site.apply()
    assert await count(site, "cdrs", "published = 0") == 1


@pytest.mark.parametrize("where", ["before rows", "after rows", "before records", "after records", "before note"])
async def test_c13_whoever_dies_at_any_step_leaves_what_the_next_one_completes(site: Site, where: str) -> None:
    stories = [talk(f"u{n}", f"v{n}") for n in range(5)] + [missed(f"u{n}") for n in range(5)]
    await site.write(*[event for story in stories for event in story.events])
    steps = {"transact": 0, "append": 0}

    def die(kind: str, step: int) -> Callable[[], None]:
        def check() -> None:
            steps[kind] += 1
            if steps[kind] == step:
                raise SystemError("killed here")

        return check

    between: Any = site.log if "records" in where else site.database
    kind, step = ("append", 1) if "records" in where else ("transact", 2 if "note" in where else 1)
    setattr(between, where.split()[0], die(kind, step))
    with pytest.raises(SystemError):
        await site.apply()
    between.before = between.after = None
    site.again()
    await site.restore()
    await site.apply()
    assert await count(site, "cdrs", "published = 1") == 10
    assert (await count(site, "acc"), await count(site, "missed_calls")) == (15, 5)
    told = await site.records()
    assert {r.call_id for r in told} == {story.call_id for story in stories}
    assert len(told) == (20 if where in ("after records", "before note") else 10)


async def test_without_the_database_nothing_is_published_and_with_it_all_is(site: Site) -> None:
    def away() -> None:
        raise DatabaseUnavailable("away")

    await site.write(*talk().events)
    site.database.before = away  # type: ignore[attr-defined]
    with pytest.raises(DatabaseUnavailable):
        await site.apply()
    assert await site.records() == []
    site.database.before = None  # type: ignore[attr-defined]
    await site.apply()
    assert len(await site.records()) == 1


async def test_without_the_log_the_rows_stand_and_the_records_follow(site: Site) -> None:
    def away() -> None:
        raise LogUnavailable("away")

    await site.write(*talk().events)
    site.log.before = away  # type: ignore[attr-defined]
    with pytest.raises(LogUnavailable):
        await site.apply()
    assert await count(site, "cdrs", "published = 0") == 1
    site.log.before = None  # type: ignore[attr-defined]
    await site.restore()
    assert not await site.apply()
    assert await count(site, "cdrs", "published = 1") == 1
    assert len(await site.records()) == 1


def talks(partition: int, count: int, prefix: str = "") -> list[Story]:
    """So many calls of one partition, answered and ended."""
    names = (f"{prefix}{n}@192.0.2.4" for n in range(20 * count + 20))
    return [talk(call_id=name) for name in names if partition_of(name, PARTITIONS) == partition][:count]


def ids(stories: Sequence[Story]) -> list[str]:
    return sorted(story.call_id for story in stories)


async def test_a_partition_of_cdrs_that_is_away_holds_up_no_rows_and_no_other_records(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdr.handler.TOGETHER", 2)
    site.log.away = {(CDRS, 1)}  # type: ignore[attr-defined]
    there, away = talks(0, 3), talks(1, 5)
    await site.write(*(event for story in (*there, *away) for event in story.events))
    await site.apply()
    assert ids(await site.records()) == ids(there)  # type: ignore[arg-type]  # has a Call-ID, too
    assert (await count(site, "cdrs"), await count(site, "cdrs", "published = 0")) == (8, 5)
    assert "partitions 1:" in site.handler.lacks()

    site.again()
    await site.restore()  # who is new begins, too
    more = talks(1, 2, "more-")
    await site.write(*(event for story in more for event in story.events))
    await site.apply()
    await site.handler.publish_rest()
    assert (await count(site, "cdrs"), await count(site, "cdrs", "published = 0")) == (10, 7)

    site.log.away.clear()  # type: ignore[attr-defined]
    await site.handler.publish_rest()
    assert ids(await site.records()) == ids([*there, *away, *more])  # type: ignore[arg-type]
    assert await count(site, "cdrs", "published = 0") == 0
    assert site.handler.lacks() == ""


async def test_a_record_that_waits_for_its_partition_and_is_corrected_meanwhile_is_published_once(site: Site) -> None:
    (story,) = talks(1, 1)
    site.log.away = {(CDRS, 1)}  # type: ignore[attr-defined]
    late = [event for event in story.events if type(event).__name__ == "CallAttempted"]
    await site.write(*[event for event in story.events if event not in late])
    await site.apply()
    await site.write(*late)
    await site.apply()
    site.log.away.clear()  # type: ignore[attr-defined]
    await site.handler.publish_rest()
    assert [record.incomplete for record in await site.records()] == [False]


async def test_c12_calls_of_a_partition_that_is_away_are_closed_once_it_is_back_and_others_before(site: Site) -> None:
    names = {number: talks(number, 1)[0].call_id for number in range(PARTITIONS)}
    await site.write(*(event for name in names.values() for event in Story(name).attempted().branch().events))
    await site.apply()
    closing = Closing(site.log, site.database, site.handler, Settings(), now=lambda: START + 10**6)
    site.log.away = {(CALLS, 1)}  # type: ignore[attr-defined]
    await closing.look()
    await site.apply()
    assert [record.call_id for record in await site.records()] == [names[0]]
    site.log.away.clear()  # type: ignore[attr-defined]
    await closing.look()
    await site.apply()
    assert [record.call_id for record in await site.records()] == [names[0], names[1]]


async def test_over_the_wire_a_partition_of_cdrs_that_nobody_leads_is_waited_for_once(site: Site) -> None:
    there, away = talks(0, 2), talks(1, 2)
    async with brokers(f"t.{CDRS}", PARTITIONS, {}) as both:
        both.partitions[1].leader = -1
        log = KafkaLog(Kafka(bootstrap=both.bootstrap, request_timeout=1.0), "t.", PARTITIONS, "test")
        await log.start()
        try:
            site.handler = handler = CdrHandler(log, site.database, Settings())
            await site.restore()
            await site.write(*(event for story in (there[0], away[0]) for event in story.events))
            with pytest.raises(LogUnavailable):
                await site.apply()
            await site.restore()
            await site.write(*(event for story in (there[1], away[1]) for event in story.events))
            await site.apply()
            assert await count(site, "cdrs") == 4

            both.partitions[1].leader = 1
            async with asyncio.timeout(15):
                while handler.lacks():
                    await handler.publish_rest()
                    await asyncio.sleep(0.05)
            published = [[read_record(value).call_id for value in both.partitions[n].values] for n in range(PARTITIONS)]
            assert published[1] == [story.call_id for story in away]
            assert set(published[0]) == {story.call_id for story in there}  # what was in doubt stands twice
        finally:
            await log.stop()


@pytest.mark.parametrize("value", [b"{", None, b"\xff", b'{"type":"ramal.Other"}', b"[" * 5000])
async def test_c18_a_poisoned_event_goes_to_dead_letters_and_the_others_go_on(site: Site, value: bytes | None) -> None:
    before = drops("poisoned-call-event")
    await site.write(Append(CALLS, 0, b"k", value), *talk().events)
    await site.apply()
    (dead,) = await site.read(DEAD, 0)
    assert (dead.key, header(dead.headers, "topic")) == (b"k", CALLS.encode())
    assert header(dead.headers, "cause")
    assert drops("poisoned-call-event") == before + 1
    assert await count(site, "cdrs") == 1


async def test_a_call_that_is_not_remembered_is_looked_up(site: Site) -> None:
    site.again(Settings(remembered=0))
    await site.restore()
    story = talk()
    for event in story.events:
        await site.write(event)
        await site.apply()
    assert await rows(site.database, "cdrs", ("call_id", "talk_ms")) == [(story.call_id, 60_000)]


async def test_c13_killed_at_random_points_under_200_calls_the_tables_are_as_without(
    site: Site, tmp_path: Path
) -> None:
    rng = random.Random(7)
    events = [e for n in range(200) for e in (talk if n % 3 else missed)(f"u{n}", f"v{n}", call_id=f"c{n}").events]
    rng.shuffle(events)
    await site.write(*events)

    def perhaps() -> None:
        if rng.random() < 0.3:
            raise SystemError("killed here")

    deaths = 0
    for between in (site.log, site.database):
        between.before = between.after = perhaps  # type: ignore[attr-defined]
    async with asyncio.timeout(120):
        while True:
            try:
                await site.restore()
                while await site.apply(at_most=rng.randint(1, 120)):
                    pass
                break
            except SystemError:
                deaths += 1
                site.again()
    for between in (site.log, site.database):
        between.before = between.after = None  # type: ignore[attr-defined]
    assert deaths > 5
    disturbed = await everything(site.database)
    assert {r.call_id for r in await site.records()} == {f"c{n}" for n in range(200)}

    for table in ("acc", "missed_calls", "cdrs", "open_calls", "projection_offset"):
        await site.database.transact([Statement(f"DELETE FROM {table}")])
    site.again()
    await site.restore()
    await site.apply()
    assert await everything(site.database) == disturbed


async def test_the_service_catches_up_through_its_worker_and_is_ready(site: Site) -> None:
    for partition in range(PARTITIONS):
        site.handler.release(partition)
    service = Cdr(site.log, site.database, Settings())
    assert service.not_ready() != []
    await service.start()
    try:
        await site.write(*[event for _ in range(50) for event in talk().events])
        async with asyncio.timeout(20):
            while len(await site.records()) < 50 or service.not_ready():  # noqa: ASYNC110  # readiness is asked for
                await asyncio.sleep(0.02)
    finally:
        await service.stop(5.0)
    assert await count(site, "cdrs", "published = 1") == 50


async def test_a_record_that_the_tables_refuse_becomes_a_dead_letter_and_the_others_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that an event says can be refused, but a table that somebody changed may."""
    for partition in range(PARTITIONS):
        site.handler.release(partition)
    real = site.database.inner.transact  # type: ignore[attr-defined]

    async def refuses(statements: Sequence[Statement], *advances: Advance) -> None:
        if any("poison" in str(s) for s in statements):
            raise DatabaseRefused("no")
        await real(statements, *advances)

    monkeypatch.setattr(site.database.inner, "transact", refuses)  # type: ignore[attr-defined]
    service = Cdr(site.log, site.database, Settings())
    await service.start()
    try:
        good = [talk(call_id=f"good{n}") for n in range(10)]
        bad = Story(call_id="poison").attempted()
        events = [event for story in good for event in story.events]
        await site.write(*events[:30], *bad.events, *events[30:])
        async with asyncio.timeout(30):
            while len(await site.records()) < 10:  # noqa: ASYNC110  # topics tell nobody here
                await asyncio.sleep(0.02)
    finally:
        await service.stop(5.0)
    assert [dead.key for dead in await site.read(DEAD, 0)] == [b"poison"]


async def test_a_conflict_of_one_partition_does_not_hold_the_other(site: Site) -> None:
    stories = [talk(call_id=f"c{n}") for n in range(20)]
    await site.write(*[event for story in stories for event in story.events])
    await site.database.transact(
        [Statement("UPDATE projection_offset SET next_offset = 1 WHERE projection = 'calls' AND partition_no = 1")]
    )
    with pytest.raises(Lost) as lost:
        await site.apply()
    assert lost.value.partitions == {1}
    assert set(lost.value.offsets) == {0}
    assert await count(site, "cdrs", "partition_no = 0") > 0
    assert await count(site, "cdrs", "partition_no = 1") == 0
