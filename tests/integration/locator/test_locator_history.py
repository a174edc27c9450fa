"""C17: who was registered at a time, by the history, is what `location` showed then."""

import asyncio
import contextlib
import dataclasses
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.registrations import Claimed, Kind
from locator.history import Place, Registration, history, known_since, page_at, registered_at
from locator.projection import Part, Partition, Projection
from locator.tables import LIVE
from runtime.database.port import Database, Statement
from runtime.database.positions import Position, begin_at
from runtime.database.sqlite import SQLiteDatabase
from runtime.store import EmbeddedStore
from tests.kit.locator import DATABASES, START, Scribe, open_database, truths

USERS = ["alice@example.test", "bob@example.test"]
PLACES = ["sip:192.0.2.1:1", "sip:192.0.2.1:2", ""]


@dataclasses.dataclass(frozen=True)
class Step:
    """Something that happens some seconds after what was before."""

    after: int
    user: str
    contact: str
    kind: str
    place: str
    expires: int


STEPS = st.lists(
    st.builds(
        Step,
        after=st.sampled_from([0, 0, 1, 5, 20, 40, 61, 100]),
        user=st.sampled_from(USERS),
        contact=st.sampled_from(["sip:a@x", "sip:b@x"]),
        kind=st.sampled_from(["register", "register", "register", "shorten", "unregister", "expire", "deactivate"]),
        place=st.sampled_from(PLACES),
        expires=st.sampled_from([10, 30, 60]),
    ),
    max_size=25,
)


def happen(scribe: Scribe, step: Step) -> None:
    """Writes the truth of a step."""
    scribe.now += step.after * 1000
    if step.kind == "register":
        scribe.register(step.user, step.contact, step.expires, received=step.place)
    elif step.kind == "shorten":
        scribe.register(step.user, step.contact, 3, received=step.place)
    else:
        kinds = {"unregister": Kind.UNREGISTERED, "expire": Kind.EXPIRED, "deactivate": Kind.DEACTIVATED}
        scribe.end(step.user, step.contact, kinds[step.kind])


async def check(database: Database, steps: Sequence[Step], chunks: random.Random, remembered: int) -> None:
    """Applies a history in batches of random sizes and asks about every time at which anything may have changed.

    A part of it stands on the log twice, as a batch does that was written twice.
    """
    tables = ("location", "registration_history", "projection_offset")
    at = Position(0, -1)
    await database.transact(
        [*(Statement(f"DELETE FROM {table}") for table in tables), begin_at(database, LIVE.projection, 0, at)]
    )
    scribe, partition, projection = Scribe(), Partition(0, at), Projection(database, LIVE)
    for step in steps:
        happen(scribe, step)
    events = [event for _, event in scribe.told]
    first, last = sorted(chunks.randint(0, len(events)) for _ in range(2))
    told = truths([Claimed("r"), *events[:last], *events[first:last], *events[last:]], begin=0)
    while told:
        count = chunks.randint(1, len(told))
        batch, told = told[:count], told[count:]
        await projection.look_up(partition, batch)
        await projection.write([Part(partition, batch, batch[-1].offset + 1)])
        partition.forget(remembered)
    moments = {when for when, _ in scribe.told}
    moments |= {b.expires for _, event in scribe.told for b in event.state.bindings}
    for moment in sorted({m + d for m in moments for d in (-1, 0, 1)}):
        found = await registered_at(database, moment)
        assert len({(r.aor, r.contact) for r in found}) == len(found)
        assert {(r.aor, r.contact, r.received, r.path) for r in found} == scribe.shown(moment), moment - START
    for moment in sorted(moments)[-3:]:
        assert sorted(await in_pages(database, moment), key=repr) == sorted(
            await registered_at(database, moment), key=repr
        )
    for user in USERS:
        assert {(r.aor, r.contact) for r in await registered_at(database, scribe.now, user)} == {
            shown[:2] for shown in scribe.shown(scribe.now) if shown[0] == user
        }


async def in_pages(database: Database, moment: int) -> list[Registration]:
    """The same, two at a time."""
    found: list[Registration] = []
    after: Place | None = None
    while page := await page_at(database, moment, 2, after):
        found += [one for _, one in page]
        after = page[-1][0]
    return found


@contextlib.asynccontextmanager
async def sqlite() -> AsyncIterator[Database]:
    """A fresh database in a file of its own, in memory: what is asked here is not whether disks keep things."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        store = EmbeddedStore(Path(directory) / "tables.db")
        database = SQLiteDatabase(store)
        await database.start()
        await database.migrate()
        yield database
        await database.stop()
        await store.stop()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, chunks=st.randoms(use_true_random=False), remembered=st.sampled_from([0, 1, 100]))
def test_c17_who_was_registered_then_is_what_location_showed(
    steps: list[Step], chunks: random.Random, remembered: int
) -> None:
    async def run() -> None:
        async with sqlite() as database:
            await check(database, steps, chunks, remembered)

    asyncio.run(run())


@pytest.mark.integration
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, chunks=st.randoms(use_true_random=False), remembered=st.sampled_from([0, 100]))
def test_c17_on_mariadb(
    request: pytest.FixtureRequest, tmp_path: Path, steps: list[Step], chunks: random.Random, remembered: int
) -> None:
    async def run() -> None:
        database = await open_database(request, "mysql", EmbeddedStore(tmp_path / "unused.db"))
        try:
            await check(database, steps, chunks, remembered)
        finally:
            await database.stop()

    asyncio.run(run())


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_history_of_an_aor_says_where_from_when_to_when_and_by_whom(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    store = EmbeddedStore(tmp_path / "t.db")
    database = await open_database(request, kind, store)
    assert await known_since(database) is None
    assert await history(database, USERS[0]) == []
    at = Position(0, -1)
    await database.transact([begin_at(database, LIVE.projection, 0, at)])
    scribe = Scribe()
    scribe.register(USERS[0], "sip:a@x", received="sip:1")
    scribe.now += 10_000
    scribe.register(USERS[0], "sip:a@x", received="sip:2", path=["<sip:p;lr>"])
    scribe.register(USERS[1], "sip:b@x")
    scribe.now += 10_000
    scribe.end(USERS[0], "sip:a@x")
    batch = truths([Claimed("r"), *(event for _, event in scribe.told)], begin=0)
    await Projection(database, LIVE).write([Part(Partition(0, at), batch, len(batch))])
    first, second = await history(database, USERS[0])
    assert (first.contact, first.received, first.since, first.until) == ("sip:a@x", "sip:1", START, START + 10_000)
    assert (first.began, first.ended, first.expires) == ("created", "refreshed", None)
    assert (second.path, second.since, second.until) == ("<sip:p;lr>", START + 10_000, START + 20_000)
    assert (second.ended, second.ended_by, second.user_agent) == ("unregistered", f"user {USERS[0]}", "phone")
    (lasting,) = await history(database, USERS[1])
    assert (lasting.until, lasting.expires) == (None, START + 70_000)
    assert await known_since(database) == START
    await database.stop()
    await store.stop()
