"""History is kept for so many days after a registration's end: what is asked of it stays right, and a rebuild too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.registrations import Claimed
from locator import retention
from locator.config import Settings
from locator.history import history, known_since, registered_at
from locator.projection import Part, Partition, Projection
from locator.rebuild import rebuild
from locator.retention import DAY_MS, Retention
from locator.service import Locator
from locator.tables import LIVE
from runtime.database.port import Database
from runtime.database.positions import Position, begin_at
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from tests.kit.locator import DATABASES, START, Scribe, claim, open_database, truths

USERS = [f"user{number}@example.test" for number in range(20)]


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    store = EmbeddedStore(tmp_path / "t.db")
    opened = await open_database(request, request.param, store)
    yield opened
    await opened.stop()
    await store.stop()


def happen(scribe: Scribe) -> None:
    """A day each user is registered for an hour, one after the other; the last two stay."""
    for user in USERS:
        scribe.register(user, "sip:a@x", 3600)
        scribe.now += 3_600_000
        if user not in USERS[-2:]:
            scribe.end(user, "sip:a@x")
        scribe.now += DAY_MS - 3_600_000


async def written(database: Database) -> Scribe:
    """A history of twenty days."""
    at = Position(0, -1)
    await database.transact([begin_at(database, LIVE.projection, 0, at)])
    scribe = Scribe()
    happen(scribe)
    batch = truths([Claimed("r"), *(event for _, event in scribe.told)], begin=0)
    await Projection(database, LIVE).write([Part(Partition(0, at), batch, len(batch))])
    return scribe


def old(database: Database, now: int, days: int = 5, *, mine: bool = True) -> Retention:
    async def clock(_: Database) -> float:
        return now / 1000

    return Retention(database, Settings(history_days=days), lambda: mine, clock)


async def test_what_ended_too_long_ago_goes_and_what_lasts_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TOGETHER", 3)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    scribe = await written(database)
    since = scribe.now - 5 * DAY_MS

    assert await old(database, scribe.now).look() == 15

    assert await known_since(database) == since
    assert [bool(await history(database, user)) for user in USERS] == [False] * 15 + [True] * 5
    assert await old(database, scribe.now).look() == 0
    assert await old(database, scribe.now + 100 * DAY_MS).look() == 3
    assert [bool(await history(database, user)) for user in USERS] == [False] * 18 + [True] * 2


async def test_who_was_registered_then_is_the_same_for_every_time_from_when_it_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    scribe = await written(database)
    times = range(START, scribe.now, DAY_MS // 4)
    before = {at: await registered_at(database, at) for at in times}

    await old(database, scribe.now).look()

    known = await known_since(database)
    assert known is not None
    assert any(at >= known and found for at, found in before.items())
    assert {at: await registered_at(database, at) for at in times if at >= known} == {
        at: found for at, found in before.items() if at >= known
    }


async def test_longer_keeping_does_not_bring_back_what_is_gone(database: Database) -> None:
    scribe = await written(database)
    await old(database, scribe.now, days=5).look()
    known = await known_since(database)

    await old(database, scribe.now, days=15).look()

    assert await known_since(database) == known


async def test_nothing_is_deleted_because_a_locators_own_clock_is_wrong(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(database)
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    assert await Retention(database, Settings(history_days=20 * 365), lambda: True).look() == 0
    assert await Retention(database, Settings(history_days=1), lambda: True).look() == 18


async def test_nothing_is_deleted_by_who_does_not_own_the_first_partition_or_is_told_to_keep_all(
    database: Database,
) -> None:
    scribe = await written(database)

    assert await old(database, scribe.now, mine=False).look() == 0
    async with asyncio.timeout(1):
        await old(database, scribe.now, days=0).run()  # at once

    assert await known_since(database) == START


@pytest.mark.parametrize("kind", DATABASES)
async def test_c14_a_rebuild_finds_tables_right_from_which_old_history_was_deleted(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    store = EmbeddedStore(tmp_path / "ramal.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    database = await open_database(request, kind, store)
    scribe = Scribe()
    await claim(log, scribe)
    happen(scribe)
    await log.append([scribe.append(event) for _, event in scribe.told if not isinstance(event, Claimed)])
    locator = Locator(log, database, Settings(history_days=0))
    await locator.start()
    try:
        async with asyncio.timeout(30):
            while len(await database.query("SELECT 1 FROM registration_history")) < len(USERS):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await old(database, scribe.now).look()
        assert len(await database.query("SELECT 1 FROM registration_history")) == 5

        rebuilt = await rebuild(log, database)

        assert rebuilt.equal is True
        assert await known_since(database) == scribe.now - 5 * DAY_MS
        assert await old(database, scribe.now).look() == 15
    finally:
        await locator.stop(5.0)
        await log.stop()
        await database.stop()
        await store.stop()
