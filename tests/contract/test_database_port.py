"""The database port: one suite on SQLite, on MariaDB and on MySQL 9."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from events.registrations import Kind
from runtime.database.port import Advance, Database, Statement
from runtime.database.sqlite import SQLiteDatabase
from runtime.errors import DatabaseRefused, DatabaseUnavailable, PositionConflict
from runtime.store import EmbeddedStore
from tests.kit.locator import DATABASES, open_database

ROWS = "SELECT id, text, number FROM sample ORDER BY id"


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An open database with an empty table `sample`, migrated."""
    store = EmbeddedStore(tmp_path / "ramal.db")
    opened = await open_database(request, request.param, store)
    await opened.transact(
        [Statement("CREATE TABLE sample (id INTEGER PRIMARY KEY NOT NULL, text VARCHAR(1024), number INTEGER)")]
    )
    yield opened
    await opened.stop()
    await store.stop()


async def _position(database: Database, partition: int = 0) -> tuple[int, int]:
    rows = await database.query(
        "SELECT next_offset, claim FROM projection_offset WHERE projection = %s AND partition_no = %s",
        ("location", partition),
    )
    return rows[0][0], rows[0][1]


async def _start_at(database: Database, offset: int, claim: int, partition: int = 0) -> None:
    await database.transact(
        [
            Statement(
                "INSERT INTO projection_offset (projection, partition_no, next_offset, claim) VALUES (%s, %s, %s, %s)",
                ("location", partition, offset, claim),
            )
        ]
    )


def _insert(number: int, text: str | None = "x") -> Statement:
    return Statement("INSERT INTO sample (id, text) VALUES (%s, %s)", (number, text))


TEXTS = [
    "",
    "it's",
    'a "quoted" one',
    "back\\slash\\",
    "%s %d %% 100%",
    "line\r\nbreak\ttab",
    "nul\0inside",
    "\x1a",
    "; DROP TABLE sample; --",
    "Telefonapparat Müller ☎ 😀",
    "‮rtl",
]


@pytest.mark.parametrize("text", TEXTS)
async def test_every_text_comes_back_as_it_was(database: Database, text: str) -> None:
    await database.transact([_insert(1, text)])
    await database.transact([database.upsert("sample", ["id", "text", "number"], ["id"], [(2, text, 7)])])
    assert await database.query(ROWS) == [(1, text, None), (2, text, 7)]
    assert await database.query("SELECT id FROM sample WHERE text = %s ORDER BY id", (text,)) == [(1,), (2,)]


async def test_e24_text_that_is_no_unicode_is_refused_and_the_next_call_works(database: Database) -> None:
    with pytest.raises(DatabaseRefused):
        await database.transact([_insert(1, "latin \udce9")])
    await database.transact([_insert(2)])
    assert await database.query("SELECT id FROM sample") == [(2,)]


async def test_numbers_and_enumerations_come_back_as_numbers_and_text(database: Database) -> None:
    await database.transact([_insert(1, Kind.CREATED)])
    assert await database.query("SELECT text FROM sample WHERE id = %s", (True,)) == [("created",)]
    assert await database.query("SELECT %s * 2 FROM sample", (0.25,)) in ([(0.5,)], [(Decimal("0.50"),)])


async def test_what_is_no_value_for_a_column_is_refused(database: Database) -> None:
    with pytest.raises(DatabaseRefused):
        await database.transact([Statement("INSERT INTO sample (id, text) VALUES (%s, %s)", (1, object()))])
    with pytest.raises(DatabaseRefused):
        await database.query("SELECT %s", ([],))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT NO_SUCH_FUNCTION(1)",
        "SELECT ABS(1, 2)",
        "SELECT 1 UNION SELECT 1, 2",
        "INSERT INTO sample (id, text) VALUES (1)",
        "SELECT FROM WHERE",
    ],
)
async def test_a_statement_that_the_server_will_never_carry_out_is_refused_and_no_outage(
    database: Database, sql: str
) -> None:
    with pytest.raises(DatabaseRefused):
        await database.transact([_insert(1), Statement(sql)])
    with pytest.raises(DatabaseRefused):
        await database.query(sql)
    assert await database.query(ROWS) == []


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    await database.transact([_insert(1)])
    with pytest.raises(DatabaseRefused):
        await database.transact([_insert(2), _insert(1), _insert(3)])
    assert await database.query("SELECT id FROM sample") == [(1,)]


async def test_transactions_that_wait_for_each_others_rows_are_both_done(database: Database) -> None:
    """One of them is given up by the server, rolled back, and begun again."""
    await database.transact([_insert(1), _insert(2)])
    slowly = [] if isinstance(database, SQLiteDatabase) else [Statement("DO SLEEP(0.3)")]

    def counting(*ids: int) -> list[Statement]:
        first, second = (
            Statement("UPDATE sample SET number = COALESCE(number, 0) + 1 WHERE id = %s", (each,)) for each in ids
        )
        return [first, *slowly, second]

    await asyncio.gather(database.transact(counting(1, 2)), database.transact(counting(2, 1)))

    assert await database.query(ROWS) == [(1, "x", 2), (2, "x", 2)]


async def test_upsert_overwrites_all_but_the_key(database: Database) -> None:
    await database.transact([_insert(1, "old"), _insert(2, "kept")])
    rows = [(1, "new", 5), (3, None, None)]
    await database.transact([database.upsert("sample", ["id", "text", "number"], ["id"], rows)])
    assert await database.query(ROWS) == [(1, "new", 5), (2, "kept", None), (3, None, None)]


async def test_upsert_of_key_columns_alone_leaves_rows_as_they_are(database: Database) -> None:
    await _start_at(database, 7, 3)
    columns = ["projection", "partition_no", "next_offset", "claim"]
    rows = [("location", 0, 0, -1), ("location", 1, 0, -1)]
    await database.transact([database.upsert("projection_offset", columns, columns, rows)])
    assert await _position(database) == (7, 3)
    assert await _position(database, 1) == (0, -1)


async def test_upsert_of_a_real_batch_is_one_statement(database: Database) -> None:
    rows = [(n, "t" * 600, n) for n in range(500)]
    await database.transact([database.upsert("sample", ["id", "text", "number"], ["id"], rows)])
    assert await database.query("SELECT COUNT(*), SUM(number) FROM sample") == [(500, 124750)]


async def test_the_position_moves_with_the_rows(database: Database) -> None:
    await _start_at(database, 10, 4)
    await database.transact([_insert(1)], Advance("location", 0, 10, 13, 4))
    await database.transact([_insert(2)], Advance("location", 0, 13, 14, 9))
    assert await _position(database) == (14, 9)
    assert await database.query("SELECT id FROM sample ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(("expected", "claim"), [(9, 4), (11, 4), (10, 3)])
async def test_another_position_or_a_higher_claim_is_a_conflict_and_writes_nothing(
    database: Database, expected: int, claim: int
) -> None:
    await _start_at(database, 10, 4)
    with pytest.raises(PositionConflict):
        await database.transact([_insert(1)], Advance("location", 0, expected, 20, claim))
    assert await database.query(ROWS) == []
    assert await _position(database) == (10, 4)
    await database.transact([_insert(2)], Advance("location", 0, 10, 11, 4))
    assert await _position(database) == (11, 4)


async def test_several_positions_move_together_or_not_at_all(database: Database) -> None:
    for partition in range(3):
        await _start_at(database, 10, 4, partition=partition)
    good = [Advance("location", n, 10, 11 + n, 4) for n in range(3)]
    with pytest.raises(PositionConflict):
        await database.transact([_insert(1)], *good[:2], Advance("location", 2, 9, 20, 4))
    assert await database.query(ROWS) == []
    await database.transact([_insert(2)], *good)
    assert await database.query("SELECT partition_no, next_offset, claim FROM projection_offset ORDER BY 1") == [
        (0, 11, 4),
        (1, 12, 4),
        (2, 13, 4),
    ]


async def test_a_missing_position_is_a_conflict(database: Database) -> None:
    await _start_at(database, 0, -1, partition=1)
    with pytest.raises(PositionConflict):
        await database.transact([_insert(1)], Advance("location", 0, 0, 5, 0))
    with pytest.raises(PositionConflict):
        await database.transact([_insert(1)], Advance("other", 1, 0, 5, 0))
    assert await database.query(ROWS) == []


async def test_a_refused_row_leaves_the_position(database: Database) -> None:
    await _start_at(database, 10, 4)
    with pytest.raises(DatabaseRefused):
        await database.transact([_insert(1), _insert(1)], Advance("location", 0, 10, 11, 4))
    assert await _position(database) == (10, 4)


async def test_of_two_writers_at_one_position_one_wins(database: Database) -> None:
    await _start_at(database, 0, -1)
    outcomes = await asyncio.gather(
        *(database.transact([_insert(n)], Advance("location", 0, 0, n + 1, 0)) for n in range(4)),
        return_exceptions=True,
    )
    won = [n for n, outcome in enumerate(outcomes) if outcome is None]
    assert len(won) == 1
    assert all(isinstance(o, PositionConflict) for o in outcomes if o is not None)
    assert await database.query("SELECT id FROM sample") == [(won[0],)]
    assert await _position(database) == (won[0] + 1, 0)


async def test_what_is_committed_is_seen_by_the_next_query(database: Database) -> None:
    for number in range(20):
        await database.transact([_insert(number)])
        assert (
            await asyncio.gather(*(database.query("SELECT COUNT(*) FROM sample") for _ in range(3)))
            == [[(number + 1,)]] * 3
        )


async def test_e24_a_field_longer_than_its_column_is_refused(database: Database) -> None:
    columns = ["contact_id", "username", "contact", "expires"]
    for row in [(1, "u" * 65, "sip:a@b", 5), (1, "u", "sip:a@b", -1), (1, "u", None, 5)]:
        with pytest.raises(DatabaseRefused):
            await database.transact([database.upsert("location", columns, ["contact_id"], [row])])
    await database.transact([database.upsert("location", columns, ["contact_id"], [(1, "u" * 64, "sip:a@b", 5)])])


async def test_users_are_compared_with_their_case(database: Database) -> None:
    columns = ["contact_id", "username", "domain", "contact", "expires"]
    rows = [(1, "Alice", "a.test", "sip:a", 5), (2, "alice", "a.test", "sip:b", 5), (3, "älice", "a.test", "sip:c", 5)]
    await database.transact([database.upsert("location", columns, ["contact_id"], rows)])
    assert await database.query("SELECT contact_id FROM location WHERE username = %s", ("alice",)) == [(2,)]


async def test_ids_up_to_63_bits_are_kept(database: Database) -> None:
    columns = ["contact_id", "username", "contact", "expires"]
    await database.transact(
        [database.upsert("location", columns, ["contact_id"], [(2**63 - 1, "u", "sip:a", 2**32 - 1)])]
    )
    assert await database.query("SELECT contact_id, expires FROM location") == [(2**63 - 1, 2**32 - 1)]


async def test_migrating_twice_applies_nothing(database: Database) -> None:
    assert await database.migrate() == []


async def test_e14_a_dropped_table_is_made_again(database: Database) -> None:
    await database.transact([Statement("DROP TABLE location")])
    with pytest.raises(DatabaseUnavailable):
        await database.query("SELECT * FROM location")
    assert await database.migrate() == ["001_location"]
    assert await database.query("SELECT * FROM location") == []
    assert await database.migrate() == []


async def test_tables_made_before_contacts_were_indexed_get_the_index(database: Database) -> None:
    sqlite = type(database).__name__ == "SQLiteDatabase"
    drop = "DROP INDEX location_contact_idx" if sqlite else "DROP INDEX contact_idx ON location"
    indexes = (
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'location'"
        if sqlite
        else "SELECT DISTINCT index_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name = 'location'"
    )
    whole = sorted(await database.query(indexes))
    await database.transact([Statement(drop)])
    await database.transact([Statement("DELETE FROM schema_version WHERE number = 3")])
    assert sorted(await database.query(indexes)) != whole
    assert await database.migrate() == ["003_contacts"]
    assert sorted(await database.query(indexes)) == whole
    await database.transact([Statement("DELETE FROM schema_version WHERE number = 3")])
    assert await database.migrate() == ["003_contacts"]
    assert sorted(await database.query(indexes)) == whole


@pytest.mark.parametrize("database", DATABASES[1:], indirect=True)
async def test_rows_as_wide_as_declared_become_as_wide_as_what_is_in_them(database: Database) -> None:
    """Only those of few rows by themselves: nobody registers while a table is copied."""
    columns = (
        "SELECT table_name, column_name, column_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name IN ('location', 'registration_history')"
    )
    registered = ["contact_id", "username", "domain", "contact", "expires", "callid", "user_agent"]
    row = (1, "alice", "a.test", "sip:a", 5, "c@a", "Ünïcode 1.0")
    narrow = sorted(map(str, await database.query(columns)))
    assert not [column for column in narrow if "'char" in column]
    await database.transact([database.upsert("location", registered, ["contact_id"], [row])])
    widths = ((64, ("username", "domain", "socket")), (255, ("received", "callid", "cflags", "sip_instance", "attr")))
    changes = [f"MODIFY {name} CHAR({width})" for width, names in widths for name in names]
    await database.transact(
        [
            Statement(f"ALTER TABLE location {', '.join(changes)}, MODIFY user_agent CHAR(255) DEFAULT '' NOT NULL"),
            Statement("ALTER TABLE registration_history MODIFY username CHAR(64), MODIFY domain CHAR(64)"),
            Statement("DELETE FROM schema_version WHERE number = 9"),
        ]
    )
    assert sorted(map(str, await database.query(columns))) != narrow
    assert await database.migrate() == ["009_narrow_rows"]
    assert sorted(map(str, await database.query(columns))) == narrow
    assert await database.query(f"SELECT {', '.join(registered)} FROM location") == [row]
    await database.transact([Statement("DELETE FROM schema_version WHERE number = 9")])
    assert await database.migrate() == ["009_narrow_rows"]
    assert sorted(map(str, await database.query(columns))) == narrow


async def test_checksums_are_equal_for_equal_rows_in_any_order(database: Database) -> None:
    checksum = database.checksum(["id", "text", "number"])

    async def now() -> int:
        return int((await database.query(f"SELECT {checksum} FROM sample"))[0][0])

    def rows(*values: tuple[int, str | None, int | None]) -> Statement:
        return database.upsert("sample", ["id", "text", "number"], ["id"], values)

    assert await now() == 0
    await database.transact([rows((1, "a", 1), (2, None, 2), (3, "", 3))])
    first = await now()
    await database.transact([Statement("DELETE FROM sample"), rows((3, "", 3))])
    await database.transact([rows((2, None, 2), (1, "a", 1))])
    assert await now() == first != 0
    for other in [(2, "", 2), (2, "NULL", 2), (2, None, None), (2, "a", 1)]:
        await database.transact([rows(other)])
        assert await now() != first


async def test_a_shadow_is_empty_has_the_keys_and_takes_its_tables_place(database: Database) -> None:
    await database.transact([_insert(1, "old")])
    await _start_at(database, 10, 4)
    for _ in range(2):  # one that was left behind is dropped
        await database.transact([*database.shadow("sample"), *database.shadow("location")])
    columns = ["id", "text", "number"]
    for text in ("first", "second"):
        await database.transact([database.upsert("sample_shadow", columns, ["id"], [(2, text, None)])])
    with pytest.raises(DatabaseRefused):
        await database.transact([Statement("INSERT INTO sample_shadow (id) VALUES (2)")])
    assert await database.query(ROWS) == [(1, "old", None)]
    await database.transact(database.swap(["sample", "location"]), Advance("location", 0, 10, 10, 4))
    assert await database.query(ROWS) == [(2, "second", None)]
    with pytest.raises(DatabaseUnavailable):
        await database.query("SELECT * FROM sample_shadow")
    with pytest.raises(DatabaseRefused):
        await database.transact([Statement("INSERT INTO sample (id) VALUES (2)")])


async def test_a_swap_with_another_position_changes_nothing(database: Database) -> None:
    await database.transact([_insert(1)])
    await _start_at(database, 10, 4)
    await database.transact(database.shadow("sample"))
    with pytest.raises(PositionConflict):
        await database.transact(database.swap(["sample"]), Advance("location", 0, 9, 9, 4))
    assert await database.query("SELECT id FROM sample") == [(1,)]
    assert await database.query("SELECT id FROM sample_shadow") == []


async def test_stop_returns_and_later_calls_are_told(database: Database) -> None:
    await database.stop()
    with pytest.raises(DatabaseUnavailable):
        await database.query("SELECT 1")
    await database.start()
