"""C15: what others ask of `acc` works on ours: CDRs of INVITE and BYE rows, as in OpenSIPS' and Kamailio's texts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cdr.config import Settings
from cdr.handler import CdrHandler
from events.topics import CALLS
from runtime.database.port import Database
from runtime.log.embedded.log import EmbeddedLog
from runtime.store import EmbeddedStore
from tests.kit.call_stories import Story, append, missed, talk
from tests.kit.locator import open_database

pytestmark = pytest.mark.integration

# The columns, and the conditions on callid and both tags, are those of the procedures `opensips_cdrs` and
# `kamailio_cdrs` of their documents: a call is an INVITE row that has a BYE row of either direction.
ANSWERED = """
SELECT i.callid, i.src_user, i.src_domain, i.dst_user, i.dst_domain, i.dst_ouser, i.src_ip,
 UNIX_TIMESTAMP(MIN(b.time)) - UNIX_TIMESTAMP(i.time) AS duration
FROM acc i JOIN acc b ON b.method = 'BYE' AND b.callid = i.callid
 AND ((b.from_tag = i.from_tag AND b.to_tag = i.to_tag) OR (b.from_tag = i.to_tag AND b.to_tag = i.from_tag))
WHERE i.method = 'INVITE' AND i.cdr_id = '0' GROUP BY i.id ORDER BY i.callid
"""
# What OpenSIPS' control panel shows of CDRs that the acc module made itself.
SHOWN = """
SELECT callid, from_tag, to_tag, sip_code, sip_reason, setuptime, created, time, duration, ms_duration
FROM acc WHERE method = 'INVITE' AND sip_code = '200' AND duration > 0 ORDER BY callid
"""


@pytest.fixture
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    store = EmbeddedStore(tmp_path / "log.db")
    log = EmbeddedLog(store, 1)
    await log.start()
    database = await open_database(request, "mysql", store)
    handler = CdrHandler(log, database, Settings())
    await handler.restore(0)
    stories = [
        talk("alice", "bob", last=61_000, call_id="a"),
        Story(call_id="b").attempted("carol", "dave").branch().answered().wait(5000).ended("callee"),
        missed("alice", "bob", call_id="c"),
        Story(call_id="d").attempted().failed(486, "Busy Here"),
    ]
    await log.append([append(event, 1) for story in stories for event in story.events])
    end = (await log.bounds(CALLS, 0)).end
    await handler.handle({0: [r async for batch in log.read(CALLS, 0, 0, end) for r in batch]})
    yield database
    await log.stop()
    await database.stop()
    await store.stop()


async def test_c15_cdrs_made_of_invite_and_bye_rows_are_right(database: Database) -> None:
    assert [(*row[:-1], int(row[-1])) for row in await database.query(ANSWERED)] == [
        ("a", "alice", "example.test", "bob", "example.test", "bob", "192.0.2.4", 61),
        ("b", "carol", "example.test", "dave", "example.test", "dave", "192.0.2.4", 5),
    ]


async def test_c15_cdrs_as_the_acc_module_makes_them_are_right(database: Database) -> None:
    rows = await database.query(SHOWN)
    assert [(row[0], row[3], row[5], row[8], row[9]) for row in rows] == [
        ("a", "200", 2, 61, 61_000),
        ("b", "200", 0, 5, 5000),
    ]


async def test_c15_the_versions_that_opensips_asks_for_are_there(database: Database) -> None:
    rows = await database.query(
        "SELECT table_name, table_version FROM version WHERE table_name IN ('acc', 'missed_calls')"
    )
    assert {name: int(version) for name, version in rows} == {"acc": 7, "missed_calls": 5}


async def test_c10_failed_calls_have_their_row_too(database: Database) -> None:
    rows = await database.query("SELECT callid, sip_code, sip_reason FROM acc WHERE sip_code <> '200' ORDER BY callid")
    assert rows == [("c", "487", "Request Terminated"), ("d", "486", "Busy Here")]
