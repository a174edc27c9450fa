"""A table of users that is missing, or that our account may not read, is told to whoever operates it (A18)."""

import asyncio
import contextlib

import pytest

from authsvc.users import outage
from authsvc.users.table import SubscriberUsers, add_user
from runtime.database.port import Database, Statement
from runtime.errors import DatabaseUnavailable

pytestmark = pytest.mark.integration

ALICE = ("alice", "example.test")


async def rename(database: Database, old: str, new: str) -> None:
    await database.transact([Statement(f"ALTER TABLE {old} RENAME TO {new}")])


async def test_a_table_of_users_that_is_missing_is_told_until_it_is_back(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "AWAY_SECONDS", 0.05)
    await add_user(database, *ALICE, "secret")
    users = SubscriberUsers(database)
    assert await users.find([ALICE])
    assert users.lost() == ""
    await rename(database, "subscriber", "elsewhere")
    for _ in range(3):
        with contextlib.suppress(DatabaseUnavailable):
            await users.find([ALICE])
    assert users.lost().startswith("the table subscriber cannot be asked: ")
    assert users.away
    (told,) = [vars(record) for record in caplog.records if record.message == "users cannot be looked up"]
    assert told["table"] == "subscriber"
    assert "subscriber" in told["cause"]
    assert await users.find_aliases([ALICE]) == {}
    assert users.lost(), "aliases say nothing of it"
    await rename(database, "elsewhere", "subscriber")
    async with asyncio.timeout(5):
        while users.lost():  # noqa: ASYNC110  # nobody logs in meanwhile: it finds out by itself
            await asyncio.sleep(0.02)
    assert await users.find([ALICE])
    assert "users can be looked up again" in caplog.text
    await users.stop()
