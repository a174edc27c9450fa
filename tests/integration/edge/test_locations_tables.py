"""Where AORs can be reached: one query for many, aliases and numbers in it, on SQLite and MariaDB; and without them.

Over 400 lines: one query, by every kind of name, on each database.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.actions import Location, LookUp
from edge.outside import lookups as lookups_module
from edge.outside.location import Names, bases, canonical_user, find, find_contacts, find_known, look_up, plain, time_of
from edge.outside.lookups import Locations
from runtime.database.port import Database, Row, Statement
from runtime.errors import DatabaseUnavailable
from runtime.metrics import drops
from runtime.store import EmbeddedStore
from sipcore.telephone import NumberRule
from sipcore.uri import parse_uri
from tests.kit.locator import DATABASES, open_database

DEADLINE = 10.0
HERE = "example.test"
RULES = {HERE: NumberRule("55", "48")}
SOON = 3600


class Tables:
    """A database that can go away, stand still, or be waited for; counts what is asked."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked: list[str] = []
        self.away = self.still = False
        self.gate: asyncio.Event | None = None
        self._ids = iter(range(1, 1_000_000))

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        self.asked.append(sql)
        if self.gate:
            await self.gate.wait()
        if self.still:
            await asyncio.Event().wait()
        if self.away:
            raise DatabaseUnavailable("gone")
        return await self.database.query(sql, values)

    async def bind(self, aor: str, contact: str = "", expires: int = SOON, **columns: object) -> int:
        """A row of `location`, which ends in so many seconds; its id."""
        user, _, domain = aor.rpartition("@")
        row: dict[str, Any] = {
            "contact_id": next(self._ids),
            "username": user,
            "domain": domain,
            "contact": contact or f"sip:{user}@h",
            "expires": int(time.time()) + expires,
            **columns,
        }
        await self._insert("location", row)
        return int(row["contact_id"])

    async def unbind(self, id_: int) -> None:
        await self.database.transact([Statement("DELETE FROM location WHERE contact_id = %s", (id_,))])

    async def alias(self, alias: str, user: str) -> None:
        names = [part for text in (alias, user) for part in text.rpartition("@")[::2]]
        await self._insert(
            "dbaliases", dict(zip(("alias_username", "alias_domain", "username", "domain"), names, strict=True))
        )

    async def subscriber(self, name: str) -> None:
        await self._insert("subscriber", {"username": name, "domain": HERE})

    async def history(self, user: str) -> None:
        row = {"contact_id": next(self._ids), "began_offset": 1, "partition_no": 0, "username": user, "domain": HERE}
        texts = dict.fromkeys(("contact", "received", "path", "socket", "user_agent", "began", "began_by"), "")
        await self._insert("registration_history", {**row, **texts, "since_ms": 1})

    async def _insert(self, table: str, row: dict[str, object]) -> None:
        marks = ", ".join(["%s"] * len(row))
        sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
        await self.database.transact([Statement(sql, list(row.values()))])


class Asking:
    """Locations, and who waits for what they find."""

    def __init__(self, tables: Tables, grace: int = 5) -> None:
        self.answers: dict[int, asyncio.Future[Location]] = {}
        self.calls: list[int] = []
        """How many answers came together."""
        self.now = 1000.0
        self.locations = Locations(tables, grace, self._located, RULES, lambda: self.now)  # type: ignore[arg-type]

    def _located(self, answers: list[tuple[int, Location]]) -> None:
        self.calls.append(len(answers))
        for id_, located in answers:
            self.answers[id_].set_result(located)

    def begin(self, *aors: str) -> list["asyncio.Future[Location]"]:
        """Look-ups of one wake-up."""
        loop = asyncio.get_running_loop()
        ids = range(len(self.answers), len(self.answers) + len(aors))
        self.answers.update({id_: loop.create_future() for id_ in ids})
        self.locations.look_up([LookUp(id_, aor) for id_, aor in zip(ids, aors, strict=True)])
        return [self.answers[id_] for id_ in ids]

    async def __call__(self, *aors: str) -> list[Location]:
        async with asyncio.timeout(DEADLINE):
            return list(await asyncio.gather(*self.begin(*aors)))

    async def back(self) -> None:
        """Until the probe has found the database."""
        async with asyncio.timeout(DEADLINE):
            while self.locations.away:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.01)


@pytest.fixture(params=DATABASES)
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tables]:
    async with contextlib.AsyncExitStack() as stack:
        store = EmbeddedStore(tmp_path / "tables.db")
        stack.push_async_callback(store.stop)
        database = await open_database(request, request.param, store)
        stack.push_async_callback(database.stop)
        yield Tables(database)


@pytest.fixture
async def sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Tables]:
    """Where it does not matter which database it is."""
    store = EmbeddedStore(tmp_path / "tables.db")
    database = await open_database(request, "sqlite", store)
    yield Tables(database)
    await database.stop()
    await store.stop()


@pytest.fixture
async def ask(tables: Tables) -> AsyncIterator[Asking]:
    asking = Asking(tables)
    yield asking
    await asking.locations.stop()


@pytest.fixture
async def lite(sqlite: Tables) -> AsyncIterator[Asking]:
    asking = Asking(sqlite)
    yield asking
    await asking.locations.stop()


def contacts(found: Location) -> list[str]:
    return [target.contact for target in found.targets]


ALICE, BOB, CAROL = (f"{name}@{HERE}" for name in ("alice", "bob", "carol"))


async def test_a_database_says_what_time_it_is_in_utc(tables: Tables) -> None:
    assert await time_of(tables.database) == pytest.approx(time.time(), abs=2.0)


async def test_many_aors_are_one_query_and_each_has_its_bindings_in_order(ask: Asking, tables: Tables) -> None:
    second = await tables.bind(ALICE, "sip:a2@h", contact_id=900, q=0.5, received="sip:192.0.2.1:5;transport=udp")
    first = await tables.bind(ALICE, "sip:a1@h", path="<sip:t@s;lr>", socket="udp:h:1", sip_instance='"<urn:\\x>"')
    await tables.bind(BOB)
    await tables.bind("bob@other.test", "sip:other@h")
    found = await ask(ALICE, BOB, CAROL, "bob@other.test", "alice@other.test")
    assert len(tables.asked) == 2, "the second asks what is known of the two without bindings"
    assert tables.asked[0].count("SELECT JSON") == 2
    assert [contacts(each) for each in found] == [["sip:a1@h", "sip:a2@h"], ["sip:bob@h"], [], ["sip:other@h"], []]
    assert [each.known for each in found] == [True, True, False, True, False]
    assert [each.aor for each in found[:3]] == [ALICE, BOB, CAROL]
    one, two = found[0].targets
    assert (one.id, one.path, one.socket, one.instance, one.q) == (first, "<sip:t@s;lr>", "udp:h:1", '"<urn:\\x>"', 1.0)
    assert (two.id, two.received, two.path, two.instance, two.q) == (
        second,
        "sip:192.0.2.1:5;transport=udp",
        "",
        "",
        0.5,
    )
    assert abs(one.expires - time.time() - SOON) < 60


@pytest.mark.parametrize("text", ['"', "\\", "\\u0041", "\t", "\x01", "'", "%s %d", "ü☎😀", "\x7f", "{}[],", "</a>"])
async def test_every_text_of_a_binding_is_read_as_it_is(tables: Tables, text: str) -> None:
    await tables.bind(ALICE, f"sip:{text}", path=text, sip_instance=text)
    (target,) = await look_up(tables.database, ALICE)
    assert (target.contact, target.path, target.instance) == (f"sip:{text}", text, text)


async def test_an_ended_binding_is_left_out_after_the_grace_and_still_makes_the_aor_known(
    ask: Asking, tables: Tables
) -> None:
    await tables.bind(ALICE, "sip:in-grace@h", expires=-2)
    await tables.bind(ALICE, "sip:over@h", expires=-60)
    await tables.bind(BOB, expires=-60)
    alice, bob = await ask(ALICE, BOB)
    assert contacts(alice) == ["sip:in-grace@h"]
    assert (bob.targets, bob.known) == ((), True)


async def test_y32_an_alias_is_followed_once_and_in_the_same_query(ask: Asking, tables: Tables) -> None:
    await tables.bind(ALICE)
    await tables.alias(f"desk@{HERE}", ALICE)
    await tables.alias(f"twice@{HERE}", f"desk@{HERE}")
    await tables.alias("desk@other.test", BOB)
    (desk,) = await ask(f"desk@{HERE}")
    assert len(tables.asked) == 1
    assert (desk.aor, contacts(desk), desk.known) == (ALICE, ["sip:alice@h"], True)
    twice, other, away = await ask(f"twice@{HERE}", "desk@other.test", f"desk@{HERE}")
    assert (twice.aor, twice.targets, twice.known) == (f"desk@{HERE}", (), True)
    assert (other.aor, other.targets, other.known) == (BOB, (), True)
    assert away == desk


async def test_an_aors_own_live_bindings_go_before_those_of_an_alias(ask: Asking, tables: Tables) -> None:
    id_ = await tables.bind(BOB)
    await tables.bind(ALICE)
    await tables.alias(BOB, ALICE)
    for _ in range(2):
        assert [contacts(each) for each in await ask(BOB)] == [["sip:bob@h"]]
    await tables.unbind(id_)
    for _ in range(2):
        (bob,) = await ask(BOB)
        assert (bob.aor, contacts(bob)) == (ALICE, ["sip:alice@h"])


async def test_an_aor_found_before_is_asked_for_without_aliases_unless_it_is_gone(ask: Asking, tables: Tables) -> None:
    id_ = await tables.bind(ALICE)
    await ask(ALICE)
    await ask(ALICE)
    assert "dbaliases" in tables.asked[0]
    assert "dbaliases" not in tables.asked[1]
    await tables.unbind(id_)
    (alice,) = await ask(ALICE)
    assert not alice.targets
    assert len(tables.asked) == 5


async def test_y32_names_that_need_escapes_are_found_in_both_spellings(ask: Asking, tables: Tables) -> None:
    jose = f"jos%C3%A9@{HERE}"
    await tables.bind(jose, "sip:jose@h")
    await tables.alias(f"chefão@{HERE}", f"josé@{HERE}")
    await tables.subscriber("zoë")
    boss, zoe = await ask(f"chef%C3%A3o@{HERE}", f"zo%C3%AB@{HERE}")
    assert (boss.aor, contacts(boss)) == (jose, ["sip:jose@h"])
    assert zoe.known
    assert not zoe.targets


@pytest.mark.parametrize("dialled", ["4833812800", "554833812800", "+554833812800", "(48)%203381-2800"])
async def test_y32_a_number_is_found_however_it_is_spelled(ask: Asking, tables: Tables, dialled: str) -> None:
    await tables.bind(f"4833812800@{HERE}", "sip:number@h")
    (found,) = await ask(f"{dialled}@{HERE}")
    assert (found.aor, contacts(found)) == (f"4833812800@{HERE}", ["sip:number@h"])
    assert len(tables.asked) == 1


async def test_y32_a_numbers_alias_is_found_however_it_is_spelled(ask: Asking, tables: Tables) -> None:
    await tables.bind(ALICE)
    await tables.alias(f"+554833812800@{HERE}", ALICE)
    await tables.alias(f"*11@{HERE}", ALICE)
    await tables.alias("+554833812800@other.test", BOB)
    found = await ask(f"4833812800@{HERE}", f"+554833812800@{HERE}", f"*11@{HERE}", "4833812800@other.test")
    assert [each.aor for each in found] == [ALICE, ALICE, ALICE, "4833812800@other.test"]


async def test_who_is_known_without_bindings(ask: Asking, tables: Tables) -> None:
    await tables.subscriber("alice")
    await tables.history("bob")
    await tables.history("bob")
    names = (ALICE, BOB, CAROL, f"Alice@{HERE}", f"alice%20@{HERE}", "alice@other.test")
    assert [each.known for each in await ask(*names)] == [True, True, False, False, False, False]
    assert await find_known(tables.database, {}) == set()


@pytest.mark.parametrize("aor", ["", "@", HERE, "x" * 65 + "@" + HERE, "x@" + "y" * 65, "%FF@" + HERE, "%00@" + HERE])
async def test_an_aor_that_no_table_can_have_is_unknown(ask: Asking, aor: str) -> None:
    assert await ask(aor) == [Location(aor)]


async def test_the_query_goes_by_the_indexes(tables: Tables) -> None:
    names = {aor: Names(RULES).of(aor) for aor in (f"u{i}@{HERE}" for i in range(300))}
    for i in range(300):
        await tables.bind(f"u{i}@{HERE}")
    before = tables.database

    class Explained:
        async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
            plans.append(await before.query(f"EXPLAIN {prefix}{sql}", values))
            return []

    prefix = "QUERY PLAN " if type(before).__name__ == "SQLiteDatabase" else ""
    plans: list[list[Row]] = []
    some = {aor: names[aor] for aor in list(names)[:3]}
    await find(Explained(), some)  # type: ignore[arg-type]
    await find_known(Explained(), some)  # type: ignore[arg-type]
    text = str(plans)
    assert "account_idx" in text
    assert "SCAN" not in text, "SQLite reads a whole table"
    assert "'ALL'" not in text, "MariaDB reads a whole table"


async def test_look_ups_of_one_wake_up_are_one_query_and_one_answer(lite: Asking, sqlite: Tables) -> None:
    await sqlite.bind(ALICE)
    await sqlite.bind(BOB)
    assert len(await lite(ALICE, BOB, ALICE)) == 3
    assert len(sqlite.asked) == 1
    assert lite.calls == [3]


async def test_look_ups_gather_while_two_queries_are_under_way(lite: Asking, sqlite: Tables) -> None:
    for aor in (ALICE, BOB, CAROL):
        await sqlite.bind(aor)
    sqlite.gate = asyncio.Event()
    begun = [future for aor in (ALICE, BOB, CAROL, ALICE, BOB, CAROL) for future in lite.begin(aor)]
    async with asyncio.timeout(DEADLINE):
        while len(sqlite.asked) < 2:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0)
        sqlite.gate.set()
        assert [contacts(each) for each in await asyncio.gather(*begun)] == [
            ["sip:alice@h"],
            ["sip:bob@h"],
            ["sip:carol@h"],
        ] * 2
    assert len(sqlite.asked) == 3


async def test_a_crowd_is_asked_for_in_batches(lite: Asking, sqlite: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups_module, "BATCH", 10)
    for i in range(35):
        await sqlite.bind(f"u{i}@{HERE}")
    found = await lite(*(f"u{i}@{HERE}" for i in range(35)))
    assert [contacts(each) for each in found] == [[f"sip:u{i}@h"] for i in range(35)]
    assert len(sqlite.asked) == 4


@pytest.mark.parametrize("how", ["away", "still"])
async def test_e02_without_the_database_the_last_known_bindings_are_given(
    lite: Asking, sqlite: Tables, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(lookups_module, "SECONDS", 0.2)
    await sqlite.bind(ALICE)
    await sqlite.alias(f"desk@{HERE}", ALICE)
    before = await lite(ALICE, f"desk@{HERE}")
    setattr(sqlite, how, True)
    for _ in range(2):
        alice, desk, bob = await lite(ALICE, f"desk@{HERE}", BOB)
        assert (alice.aor, alice.targets, alice.known, alice.away) == (ALICE, before[0].targets, True, True)
        assert (desk.aor, desk.targets, desk.away) == (ALICE, before[1].targets, True)
        assert bob == Location(BOB, away=True)
    setattr(sqlite, how, False)
    await lite.back()
    assert await lite(ALICE, BOB) == [before[0], Location(BOB)]


async def test_e02_while_the_database_is_away_nobody_waits(lite: Asking, sqlite: Tables) -> None:
    sqlite.away = True
    await lite(ALICE)
    asked = len(sqlite.asked)
    begun = lite.begin(ALICE, BOB)
    assert not begun[0].done(), "never from within look_up"
    await asyncio.sleep(0)
    assert [each.result().away for each in begun] == [True, True]
    assert all("LIMIT 1" in sql for sql in sqlite.asked[asked:])


async def test_those_who_wait_are_answered_when_the_first_query_fails(
    lite: Asking, sqlite: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups_module, "SECONDS", 0.2)
    sqlite.still = True
    begun = [future for aor in (ALICE, BOB, CAROL, ALICE) for future in lite.begin(aor)]
    async with asyncio.timeout(DEADLINE):
        assert all(each.away for each in await asyncio.gather(*begun))
    assert sum("JSON" in sql for sql in sqlite.asked) == 2


async def test_a_last_known_binding_ends_when_its_time_is_over(lite: Asking, sqlite: Tables) -> None:
    await sqlite.bind(ALICE, "sip:short@h", expires=100)
    await sqlite.bind(ALICE, "sip:long@h", expires=200)
    await lite(ALICE)
    sqlite.away = True
    lite.now += 103
    assert contacts((await lite(ALICE))[0]) == ["sip:short@h", "sip:long@h"]
    lite.now += 50
    assert contacts((await lite(ALICE))[0]) == ["sip:long@h"]
    lite.now += 100
    (alice,) = await lite(ALICE)
    assert (alice.targets, alice.known, alice.away) == ((), True, True)


async def test_what_is_remembered_is_bounded_and_only_what_was_found(
    lite: Asking, sqlite: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups_module, "REMEMBERED", 2)
    ids = [await sqlite.bind(aor) for aor in (ALICE, BOB, CAROL)]
    for aor in (ALICE, BOB, ALICE, CAROL, f"nobody@{HERE}"):
        await lite(aor)
    assert set(lite.locations._last) == {ALICE, CAROL}
    await sqlite.unbind(ids[0])
    await lite(ALICE)
    assert set(lite.locations._last) == {CAROL}


async def test_more_look_ups_than_are_bounded_get_what_is_known(
    lite: Asking, sqlite: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drops("lookup-overload")
    monkeypatch.setattr(lookups_module, "GATHERED", 2)
    alice, bob, carol = await lite(ALICE, BOB, CAROL)
    assert all(each.away for each in (alice, bob, carol))
    assert drops("lookup-overload") == before + 3
    assert not (await lite(ALICE))[0].away


async def test_a_bug_in_a_look_up_holds_up_nobody_else(lite: Asking, sqlite: Tables) -> None:
    await sqlite.bind(BOB)
    good, sqlite.database = sqlite.database, None  # type: ignore[assignment]
    assert await lite(ALICE) == [Location(ALICE, away=True)]
    sqlite.database = good
    assert contacts((await lite(BOB))[0]) == ["sip:bob@h"]


async def test_stopping_ends_what_is_under_way_and_what_waits(lite: Asking, sqlite: Tables) -> None:
    sqlite.still = True
    begun = [future for aor in (ALICE, BOB, CAROL) for future in lite.begin(aor)]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        await lite.locations.stop()
    assert not any(each.done() for each in begun)


@given(st.text(max_size=20))
def test_a_name_is_found_by_its_canonical_form_and_back(name: str) -> None:
    try:
        spelled = canonical_user(name)
    except UnicodeEncodeError:
        return  # a lone surrogate stands in no table
    assert spelled.isascii()
    assert plain(spelled) == name


@given(st.from_regex(r"(%[0-9A-F]{2}|[a-z;])*", fullmatch=True))
def test_a_user_part_that_no_name_has_is_none(user: str) -> None:
    name = plain(user)
    assert name is None or canonical_user(name) == user


# --- by Contact -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "asked_for"),
    [
        ("sip:bob@x.invalid;transport=ws", "sip:bob@x.invalid;transport=ws"),
        ("sip:bob@x.invalid;transport=ws", "sip:bob@x.invalid;transport=ws;ob"),
        ("sip:bob@x.invalid;transport=ws", "sips:bob@X.INVALID;transport=ws"),
        ("sip:bob@192.0.2.4:5062", "sip:bob@192.0.2.4:5062"),
        ("sip:bob@192.0.2.4:5062?subject=x", "sip:bob@192.0.2.4:5062"),
        ("sip:[2001:db8::4]:5062", "sip:[2001:db8::4]:5062"),
        ("sip:a;b=c@h;d", "sip:a;b=c@h;d"),
        ("sip:jos%C3%A9@h", "sip:jos%c3%a9@h"),
    ],
)
async def test_a_live_contact_is_found_with_whose_it_is(
    ask: Asking, tables: Tables, registered: str, asked_for: str
) -> None:
    await tables.bind(f"bob@{HERE}", registered)
    await tables.bind(f"carol@{HERE}", "sip:carol@192.0.2.4:5062")
    (found,) = await ask(asked_for)
    assert ([target.contact for target in found.targets], found.owners) == ([registered], (f"bob@{HERE}",))
    assert found.known


@pytest.mark.parametrize(
    "other", ["sip:bob@x.invalidx", "sip:bo@x.invalid", "sip:Bob@x.invalid", "sip:bob@x.invalid:5060"]
)
async def test_a_contact_that_ended_or_is_another_is_not_found(ask: Asking, tables: Tables, other: str) -> None:
    await tables.bind(f"bob@{HERE}", "sip:bob@x.invalid;transport=ws", -60)
    await tables.bind(f"bob@{HERE}", other)
    (found,) = await ask("sip:bob@x.invalid;transport=ws")
    assert (found.targets, found.owners, found.known) == ((), (), False)


async def test_all_who_have_a_contact_are_found_in_the_order_in_which_they_came(ask: Asking, tables: Tables) -> None:
    for name in ("bob", "mallory"):
        await tables.bind(f"{name}@{HERE}", "sip:bob@192.168.1.10")
    (found,) = await ask("sip:bob@192.168.1.10")
    assert found.owners == (f"bob@{HERE}", f"mallory@{HERE}")


async def test_aors_and_contacts_of_one_wake_up_are_asked_for_together_and_served_while_the_database_is_away(
    ask: Asking, tables: Tables
) -> None:
    await tables.bind(f"bob@{HERE}", "sip:bob@x.invalid;transport=ws")
    names = (f"bob@{HERE}", "sip:bob@x.invalid;transport=ws", "sip:nobody@x.invalid", f"nobody@{HERE}")
    before = await ask(*names)
    assert [len(found.targets) for found in before] == [1, 1, 0, 0]
    tables.away = True
    for _ in range(2):
        after = await ask(*names)
        assert [(len(found.targets), found.away) for found in after] == [(1, True), (1, True), (0, True), (0, True)]
        assert after[1].owners == (f"bob@{HERE}",)


async def test_a_thousand_contacts_are_looked_up_at_once(ask: Asking, tables: Tables) -> None:
    await tables.bind(f"bob@{HERE}", "sip:700@H.invalid")
    found = await ask(*(f"sip:{number}@H.invalid" for number in range(1000)))
    assert [number for number, each in enumerate(found) if each.targets] == [700]


async def test_a_contact_is_found_by_an_index(tables: Tables) -> None:
    await tables.database.transact(
        [
            tables.database.upsert(
                "location",
                ("contact_id", "username", "domain", "contact", "expires"),
                ("contact_id",),
                [(number, f"u{number}", HERE, f"sip:u{number}@h;x", 1) for number in range(2000)],
            )
        ]
    )
    await find_contacts(tables, ["sip:u7@h"])  # type: ignore[arg-type]
    explain = "EXPLAIN QUERY PLAN " if type(tables.database).__name__ == "SQLiteDatabase" else "EXPLAIN "
    values = [text for base in bases(parse_uri("sip:u7@h")) for text in (base, f"{base};", f"{base}@")]
    plan = " ".join(map(str, await tables.database.query(explain + tables.asked[-1], values)))
    assert "contact_idx" in plan, plan
    assert "2000" not in plan
    assert "SCAN" not in plan
