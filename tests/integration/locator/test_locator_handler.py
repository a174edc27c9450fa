"""The locator on a real log and real tables: nothing is answered before it is committed, nothing is lost.

Over 400 lines: one site, on which each way to die between rows and replies is tried.
"""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.core.tokens.path import FlowTokens
from events.commands import ReplyTo
from events.registrations import AorState, Binding, BindingsRecorded, Change, Claimed, Kind, RegistrationEvent
from events.replies import CloseFlow, Registered, Reply
from events.topics import DEAD, EDGE_REPLIES, REGISTRATIONS, partition_of
from events.wire import CLAIM, Decoder
from locator.config import Settings
from locator.handler import LocatorHandler
from locator.service import Locator
from locator.tables import LIVE
from runtime.database import positions as positions_module
from runtime.database.port import Advance, Database, Row, Statement
from runtime.database.positions import Position, hold, position
from runtime.errors import DatabaseUnavailable, LogRefused, LogUnavailable
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Batch, PartitionFault, Record
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from runtime.worker import Lost
from tests.kit.edge import KEYS, UDP
from tests.kit.locator import DATABASES, START, Scribe, claim, open_database

ALICE, BOB = "alice@example.test", "bob@example.test"
DESK = "sip:alice@192.0.2.4:5062"
LATER = ReplyTo("edge-1", "boot", 2**53)

read_reply: Decoder[Registered] = Decoder(Registered)
read_any: Decoder[Reply] = Decoder(Reply)


@dataclasses.dataclass
class Site:
    """A log of one partition, tables, a locator's handler, and a registrar's hand."""

    log: EmbeddedLog
    database: Database
    handler: LocatorHandler
    scribe: Scribe
    next: int = 0

    async def write(self, *events: RegistrationEvent | Append) -> None:
        await self.log.append([e if isinstance(e, Append) else self.scribe.append(e) for e in events])

    async def records(self, begin: int, topic: str = REGISTRATIONS) -> list[Record]:
        partition = 0 if topic != EDGE_REPLIES else partition_of("edge-1", await self.log.partitions(topic))
        end = (await self.log.bounds(topic, partition)).end
        return [r async for batch in self.log.read(topic, partition, begin, end) for r in batch]

    async def batch(self, begin: int | None = None) -> Batch:
        """All that was not handled yet."""
        return {0: await self.records(self.next if begin is None else begin)}

    async def apply(self) -> None:
        offsets = await self.handler.handle(await self.batch())
        self.next = offsets[0]

    async def replies(self) -> list[str]:
        """Ids of the replies to edge-1, in order."""
        return [read_reply(r.value).id for r in await self.records(0, EDGE_REPLIES)]

    async def contacts(self) -> list[Any]:
        return [row[0] for row in await self.database.query("SELECT contact FROM location ORDER BY contact")]

    async def at(self) -> Position | None:
        return await position(self.database, LIVE.projection, 0)


class Between:
    """A database with something in front of its transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.before: Callable[[], Any] | None = None
        self.after: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def transact(self, statements: Sequence[Statement], *advances: Advance) -> None:
        if self.before is not None:
            await self.before()
        await self._database.transact(statements, *advances)
        if self.after is not None:
            await self.after()

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return await self._database.query(sql, values)


@pytest.fixture(params=DATABASES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A handler that has restored partition 0, with a claim in the log."""
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    database = await open_database(request, request.param, store)
    between: Any = Between(database)
    site = Site(log, between, LocatorHandler(log, between, Settings()), Scribe())
    site.next = await site.handler.restore(0)
    await claim(log, site.scribe)
    yield site
    await log.stop()
    await database.stop()
    await store.stop()


async def test_e01_the_reply_leaves_after_the_commit_and_says_all_bindings(site: Site) -> None:
    seen: list[tuple[list[Any], list[str]]] = []

    async def look() -> None:
        seen.append((await site.contacts(), await site.replies()))

    site.database.after = look  # type: ignore[attr-defined]
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event)
    await site.apply()
    assert seen == [([DESK], [])]
    (record,) = await site.records(0, EDGE_REPLIES)
    reply = read_reply(record.value)
    assert (reply.id, reply.edge, reply.boot, reply.at) == (event.id, "edge-1", "boot", START)
    assert reply.bindings == event.state.bindings
    assert record.key == b"edge-1"


async def test_n03_who_has_moved_is_answered_and_the_edge_whose_flow_on_udp_is_left_is_told(site: Site) -> None:
    left = FlowTokens(KEYS, "edge-2", "b00t", "sip.example.test").names(UDP).path
    site.scribe.now = int(time.time() * 1000)
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(msgspec.structs.replace(event, closes=(left,)))
    await site.apply()
    told = {}
    for number in range(await site.log.partitions(EDGE_REPLIES)):
        async for records in site.log.read(EDGE_REPLIES, number, 0, (await site.log.bounds(EDGE_REPLIES, number)).end):
            told |= {record.key: read_any(record.value) for record in records}
    assert told.pop(b"edge-2") == CloseFlow(event.id, "edge-2", "", left, ALICE)
    assert [(key, type(reply), reply.id) for key, reply in told.items()] == [(b"edge-1", Registered, event.id)]


async def test_e03_after_the_reply_to_a_deregistration_the_row_is_gone(site: Site) -> None:
    await site.write(site.scribe.register(ALICE, DESK), site.scribe.end(ALICE, DESK, reply=LATER))
    await site.apply()
    assert await site.contacts() == []
    assert len(await site.replies()) == 1


async def test_e02_no_reply_when_the_database_is_away_and_one_when_it_is_back(site: Site) -> None:
    async def away() -> None:
        raise DatabaseUnavailable("away")

    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event)
    site.database.before = away  # type: ignore[attr-defined]
    with pytest.raises(Lost) as lost:
        await site.apply()
    assert lost.value.partitions == {0}
    assert await site.replies() == []
    site.database.before = None  # type: ignore[attr-defined]
    site.handler.release(0)
    assert await site.handler.restore(0) == 0
    await site.apply()
    assert await site.replies() == [event.id]


async def test_e04_both_copies_of_a_register_are_answered_by_their_own_record(site: Site) -> None:
    first = site.scribe.register(ALICE, DESK, reply=LATER)
    site.scribe.now += 5
    copy = BindingsRecorded("copy", ALICE, "u", (), first.state, LATER)
    await site.write(first, copy)
    await site.apply()
    assert await site.replies() == [first.id, "copy"]
    assert await site.contacts() == [DESK]


async def test_a_reply_whose_deadline_is_over_is_dropped_by_name(site: Site) -> None:
    before = drops("late-reply")
    await site.write(site.scribe.register(ALICE, DESK, reply=ReplyTo("edge-1", "boot", START)))
    await site.apply()
    assert await site.replies() == []
    assert drops("late-reply") == before + 1
    assert await site.contacts() == [DESK]


async def test_the_replies_of_one_who_died_after_the_commit_are_sent_by_the_next(site: Site) -> None:
    async def broken(records: object) -> list[Any]:
        raise LogUnavailable("died here")

    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event)
    append, site.log.append = site.log.append, broken  # type: ignore[method-assign,assignment]
    with pytest.raises(LogUnavailable):
        await site.apply()
    site.log.append = append  # type: ignore[method-assign]
    successor = LocatorHandler(site.log, site.database, Settings())
    assert await successor.restore(0) == 2
    assert await site.replies() == [event.id]


@pytest.mark.parametrize("kind", ["no right to write", "no right to see"])
async def test_replies_that_the_log_will_never_take_hold_up_neither_rows_nor_restore(
    site: Site, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    append, partitions = site.log.append, site.log.partitions

    async def refusing(records: Sequence[Append]) -> list[Any]:
        if kind == "no right to write" and any(record.topic == EDGE_REPLIES for record in records):
            raise LogRefused("the broker refuses a record for edge.replies")
        return await append(records)

    async def hidden(topic: str) -> int:
        if kind == "no right to see" and topic == EDGE_REPLIES:
            raise KeyError("there is no topic edge.replies")
        return await partitions(topic)

    monkeypatch.setattr(site.log, "append", refusing)
    monkeypatch.setattr(site.log, "partitions", hidden)
    before = drops("reply-refused")
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event)
    await site.apply()
    assert await site.contacts() == [DESK]
    assert "edge.replies" in site.handler.replies_refused
    assert await LocatorHandler(site.log, site.database, Settings()).restore(0) == site.next
    assert drops("reply-refused") == before + 2
    monkeypatch.undo()
    await site.write(site.scribe.register(BOB, "sip:bob@192.0.2.5", reply=LATER))
    await site.apply()
    assert site.handler.replies_refused == ""
    assert len(await site.replies()) == 1


async def test_e16_replies_sent_again_are_none_of_a_zombie(site: Site) -> None:
    old = site.scribe.claim
    zombie = site.scribe.register(BOB, "sip:zombie@x", reply=LATER)
    await claim(site.log, site.scribe, "registrar-2")
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event, site.scribe.append(zombie, old))
    await site.apply()
    assert await site.replies() == [event.id]
    assert await site.contacts() == [DESK]
    await LocatorHandler(site.log, site.database, Settings()).restore(0)
    assert await site.replies() == [event.id, event.id]


async def test_of_two_locators_one_writes_and_the_other_restores(site: Site) -> None:
    other = LocatorHandler(site.log, site.database, Settings())
    await other.restore(0)
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(event)
    batch = await site.batch()
    await other.handle(batch)
    with pytest.raises(Lost) as lost:
        await site.handler.handle(batch)
    assert lost.value.partitions == {0}
    assert await site.replies() == [event.id]
    site.handler.release(0)
    assert await site.handler.restore(0) == 2


async def test_a_position_that_went_back_is_followed_back(site: Site) -> None:
    await site.write(site.scribe.register(ALICE, DESK))
    await site.apply()
    await site.database.transact([Statement("DELETE FROM projection_offset"), Statement("DELETE FROM location")])
    await site.write(site.scribe.register(BOB, "sip:bob@x"))
    with pytest.raises(Lost):
        await site.apply()
    site.handler.release(0)
    site.next = await site.handler.restore(0)
    assert site.next == 0
    await site.apply()
    assert await site.contacts() == [DESK, "sip:bob@x"]


async def test_a_log_that_lost_its_end_and_grew_anew_is_not_the_one_of_the_tables(site: Site, tmp_path: Path) -> None:
    """Its claims are lower than that of the tables: all would be void, and every phone hear 503, without a word."""
    await site.write(site.scribe.register(ALICE, DESK))
    await claim(site.log, site.scribe)
    await site.apply()
    assert await site.at() == Position(3, 2)
    store = EmbeddedStore(tmp_path / "anew.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    await claim(log, site.scribe)
    await log.append([site.scribe.append(site.scribe.register(ALICE, DESK)) for _ in range(4)])
    anew = LocatorHandler(log, site.database, Settings())
    with pytest.raises(PartitionFault, match="the tables were made from another log: no claim at offset 2"):
        await anew.restore(0)
    await log.stop()
    await store.stop()


async def test_a_batch_delivered_again_changes_nothing(site: Site) -> None:
    await site.write(site.scribe.register(ALICE, DESK), site.scribe.end(ALICE, DESK))
    await site.apply()
    before = await site.database.query("SELECT * FROM registration_history")
    await site.handler.handle(await site.batch(0))
    assert await site.at() == (3, 0)
    assert await site.contacts() == []
    assert await site.database.query("SELECT * FROM registration_history") == before


async def test_e24_a_truth_that_does_not_fit_stops_its_partition_there_and_is_no_dead_letter(site: Site) -> None:
    good = site.scribe.register(ALICE, DESK, reply=LATER)
    bad = site.scribe.register("x" * 65 + "@example.test", "sip:x@x", reply=LATER)
    after = site.scribe.register(BOB, "sip:bob@x", reply=LATER)
    await site.write(*[site.scribe.register(ALICE, DESK) for _ in range(5)], good, bad, after)
    for _ in range(3):
        with pytest.raises(Lost) as lost:
            await site.apply()
        assert lost.value.partitions == {0}
        assert await site.at() == (7, 0)
        assert site.handler.stopped() == ["x" * 65 + "@example.test"]
        assert await site.replies() == [good.id]
        site.handler.release(0)
        site.next = await site.handler.restore(0)
        assert site.next == 7
    assert await site.records(0, DEAD) == []


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{", ((CLAIM, b"0"),)),
        (b"null", ()),
        (None, ()),
        (b"\xff\x00", ()),
        (b'{"type":"ramal.Other"}', ()),
        (b"[" * 5000, ()),
    ],
)
async def test_a_record_that_nobody_can_read_is_put_aside_and_the_others_go_on(
    site: Site, value: bytes | None, headers: Any
) -> None:
    event = site.scribe.register(ALICE, DESK, reply=LATER)
    await site.write(Append(REGISTRATIONS, 0, b"k", value, headers), event)
    await site.apply()
    assert await site.replies() == [event.id]
    (dead,) = await site.records(0, DEAD)
    assert (dead.key, dict(dead.headers)["offset"]) == (b"k", b"1")
    assert await site.at() == (3, 0)


@pytest.mark.parametrize("header", [None, b"", b"-1", b"x", b"99999999999"])
async def test_e16_a_truth_without_a_possible_claim_is_put_aside(site: Site, header: bytes | None) -> None:
    event = site.scribe.register(ALICE, DESK)
    record = site.scribe.append(event)
    await site.write(record._replace(headers=() if header is None else ((CLAIM, header),)))
    await site.write(site.scribe.register(BOB, "sip:bob@x"))
    await site.apply()
    assert await site.contacts() == ["sip:bob@x"]
    assert len(await site.records(0, DEAD)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"type": "ramal.BindingsMoved"},
        lambda value: value | {"changes": [{"kind": "moved", "id": 1, "contact": DESK}]},
        lambda value: value | {"state": {"bindings": {}}},
        lambda value: {"type": "ramal.Moved"},
    ],
    ids=["type", "kind", "state", "another"],
)
async def test_e19_a_truth_that_is_not_known_stops_its_partition_and_is_no_dead_letter(
    site: Site, change: Callable[[Any], Any]
) -> None:
    before, after = (site.scribe.register(ALICE, contact, reply=LATER) for contact in (DESK, "sip:after@x"))
    record = site.scribe.append(site.scribe.register(BOB, "sip:bob@x", reply=LATER))
    unknown = record._replace(value=json.dumps(change(json.loads(record.value or b""))).encode())
    await site.write(before, unknown, after)
    for _ in range(2):  # it is not skipped when it comes again
        with pytest.raises(Lost) as lost:
            await site.apply()
        assert list(lost.value.stopped) == [0]
        assert "offset 2 is not known" in lost.value.stopped[0]
        site.handler.release(0)
        site.next = await site.handler.restore(0)
        assert site.next == 2
    assert await site.contacts() == [DESK]
    assert set(await site.replies()) == {before.id}
    assert await site.records(0, DEAD) == []


async def test_e16_e19_what_is_not_known_of_an_older_claim_is_void(site: Site) -> None:
    record = site.scribe.append(site.scribe.register(BOB, "sip:bob@x"))
    await site.write(Claimed("again"))
    await site.write(record._replace(value=b'{"type":"ramal.Moved"}'))
    site.scribe.claim = 1
    await site.write(site.scribe.register(ALICE, DESK))
    await site.apply()
    assert await site.contacts() == [DESK]
    assert await site.records(0, DEAD) == []


async def test_a_refresh_from_elsewhere_is_seen_by_a_locator_that_remembers_nothing(site: Site) -> None:
    site.handler = LocatorHandler(site.log, site.database, Settings(remembered=0))
    site.next = await site.handler.restore(0)
    for received in ("sip:192.0.2.1:1", "sip:192.0.2.1:1", "sip:192.0.2.1:2", "sip:192.0.2.1:2"):
        await site.write(site.scribe.register(ALICE, DESK, received=received))
        await site.apply()
        site.scribe.now += 1000
    rows = await site.database.query("SELECT received, since_ms, until_ms FROM registration_history ORDER BY since_ms")
    assert rows == [("sip:192.0.2.1:1", START, START + 2000), ("sip:192.0.2.1:2", START + 2000, None)]


async def test_while_a_rebuild_holds_the_positions_nothing_is_written_and_a_dead_one_is_taken_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.write(site.scribe.register(ALICE, DESK, reply=LATER))
    await site.database.transact([hold(LIVE.projection)])
    with pytest.raises(Lost):
        await site.apply()
    with pytest.raises(DatabaseUnavailable):
        await site.handler.restore(0)
    assert (await site.contacts(), await site.replies()) == ([], [])
    monkeypatch.setattr(positions_module, "HELD_SECONDS", 0.0)
    assert await site.handler.restore(0) == 0
    await site.apply()
    assert await site.contacts() == [DESK]
    assert await site.at() == (2, 0)


async def test_the_service_catches_up_and_answers_through_its_worker(site: Site) -> None:
    site.handler.release(0)
    events = [site.scribe.register(ALICE, DESK, reply=LATER) for _ in range(50)]
    await site.write(*events)
    service = Locator(site.log, site.database, Settings())
    assert service.not_ready() != []
    await service.start()
    try:
        async with (
            asyncio.timeout(20),
            contextlib.aclosing(site.log.read(EDGE_REPLIES, partition_of("edge-1", 1), 0)) as replies,
        ):
            answered: list[str] = []
            async for records in replies:
                answered += [read_reply(r.value).id for r in records]
                if len(answered) >= 50:
                    break
        assert answered == [event.id for event in events]
        async with asyncio.timeout(20):
            while service.not_ready():  # noqa: ASYNC110  # readiness is asked for, not told
                await asyncio.sleep(0.01)
    finally:
        await service.stop(5.0)


async def test_a_restore_beyond_the_logs_end_says_where_the_table_is_and_waits_for_nobody(site: Site) -> None:
    await site.database.transact([Statement("UPDATE projection_offset SET next_offset = 1000")])
    site.handler.release(0)
    assert await site.handler.restore(0) == 1000
    assert await site.replies() == []


async def test_unregistering_many_ends_each_interval(site: Site) -> None:
    users = [f"u{n}@example.test" for n in range(150)]
    await site.write(*[site.scribe.register(user, f"sip:{user}") for user in users])
    await site.apply()
    site.scribe.now += 10_000
    await site.write(*[site.scribe.end(user, f"sip:{user}", Kind.UNREGISTERED) for user in users[:140]])
    await site.apply()
    rows = await site.database.query(
        "SELECT until_ms, ended, COUNT(DISTINCT ended_by), COUNT(DISTINCT ended_offset), COUNT(*)"
        " FROM registration_history GROUP BY until_ms, ended ORDER BY COUNT(*)"
    )
    assert rows == [(None, None, 0, 0, 10), (START + 10_000, "unregistered", 140, 140, 140)]
    assert len(await site.contacts()) == 10


async def test_a_change_of_many_bindings_of_one_aor_is_one_row_each(site: Site) -> None:
    bindings = tuple(Binding(n, f"sip:{n}@x", "c", 1, START + 1000, 1, START, START) for n in range(1, 11))
    changes = tuple(Change(Kind.CREATED, b.id, b.contact) for b in bindings)
    await site.write(Claimed("again"))
    site.scribe.claim = 1
    await site.write(BindingsRecorded("i", ALICE, "u", changes, AorState(START, bindings)))
    await site.apply()
    assert len(await site.contacts()) == 10
