"""The console's questions on every database: the same rows, a page at a time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console import calls, registrations
from runtime.database.port import Database, Statement
from runtime.store import EmbeddedStore
from tests.kit.locator import DATABASES, open_database

NOW = 4_000_000_000_000
"""Later than any clock here: nothing that is registered then has ended."""
SINCE = 1_700_000_000_000
USERS = ("alice", "Alice", "bob", "b_b", "carol%", "élise", "zoë!")


@pytest.fixture(params=DATABASES)
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    store = EmbeddedStore(tmp_path / "tables.db")
    database = await open_database(request, request.param, store)
    await database.transact([*_registered(database), *_called(database)])
    yield database
    await database.stop()
    await store.stop()


def _registered(database: Database) -> list[Statement]:
    """Two contacts of everybody; the first of each was registered before, too."""
    columns = (
        "contact_id",
        "username",
        "domain",
        "contact",
        "received",
        "expires",
        "expires_ms",
        "user_agent",
        "socket",
    )
    rows = [
        (
            n,
            user,
            "example.test",
            f"sip:{n}@10.0.0.{n}",
            f"sip:10.0.0.{n}:5060;transport=udp",
            1,
            NOW,
            f"Phone {n}",
            "e-1",
        )
        for n, user in enumerate((*USERS, *USERS), 2**63 - 100)
    ]
    past = ("contact_id", "began_offset", "partition_no", "username", "domain", "contact", "received", "path", "socket")
    past += ("user_agent", "since_ms", "began", "began_by", "until_ms")
    history = [
        (*row[:1], 1, 0, *row[1:5], "", "e-1", row[7], SINCE, "created", row[1], SINCE + 500) for row in rows[:7]
    ]
    history += [(*row[:1], 2, 0, *row[1:5], "", "e-1", row[7], SINCE + 500, "created", row[1], None) for row in rows]
    return [
        database.upsert("location", columns, ("contact_id",), rows),
        database.upsert("registration_history", past, ("contact_id", "began_offset"), history),
    ]


def _called(database: Database) -> list[Statement]:
    columns = ("id", "call_id", "caller", "callee", "dialled", "outcome", "code", "attempted_ms", "state", "published")
    rows = [
        (
            n << 10,
            f"c{n}",
            f"{USERS[n % 7]}@example.test",
            "bob@example.test",
            f"100{n}",
            "failed",
            480 + n % 7,
            SINCE + n // 2,
            "[]",
            1,
        )
        for n in range(20)
    ]
    return [database.upsert("cdrs", columns, ("id",), rows)]


async def test_registrations_come_in_pages_each_once(tables: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrations, "PAGE", 3)
    for query, expected in (
        ({}, 14),
        ({"at": str(SINCE + 600)}, 14),
        ({"at": str(SINCE + 100)}, 7),
        ({"at": str(SINCE - 1)}, 0),
    ):
        seen, after = [], ""
        while after is not None:
            found = await registrations.page(tables, {**query, "after": after})
            seen += [(row["aor"], row["contact"]) for row in found["rows"]]
            after = found["after"]
        assert len(seen) == len(set(seen)) == expected
    assert await registrations.count(tables, {}) == {"total": 14}


@pytest.mark.parametrize(
    ("search", "everywhere", "expected"),
    [
        ("ali", "", 2),
        ("Ali", "", 2),
        ("ALICE", "all", 4),
        ("b_", "", 2),
        ("_", "all", 2),
        ("%", "all", 2),
        ("!", "all", 2),
        ("élise@example.", "", 2),
        ("bob@elsewhere", "", 0),
        ("phone", "all", 14),
        ("'", "all", 0),
        ("\\", "all", 0),
    ],
)
async def test_a_search_finds_the_same_on_every_database(
    tables: Database, search: str, everywhere: str, expected: int
) -> None:
    query = {"search": search, "in": everywhere}
    assert await registrations.count(tables, query) == {"total": expected}
    assert len((await registrations.page(tables, query))["rows"]) == expected
    assert len((await registrations.page(tables, query | {"at": str(SINCE + 600)}))["rows"]) == expected


async def test_calls_come_in_pages_the_latest_first(tables: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PAGE", 3)
    seen, after = [], ""
    while after is not None:
        found = await calls.page(tables, {"after": after})
        seen += [row["call_id"] for row in found["rows"]]
        after = found["after"]
    assert seen == [f"c{n}" for n in reversed(range(20))]
    found = await calls.page(tables, {"user": "carol%", "code": "484"})
    assert [row["call_id"] for row in found["rows"]] == ["c18", "c11", "c4"]
