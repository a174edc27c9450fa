"""C15: what others ask of `acc` works on ours: CDRs of INVITE and BYE rows, as in OpenSIPS' and Kamailio's texts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from cdr.config import Settings
from cdr.handler import CdrHandler
from cdr.rebuild import rebuild
from events.topics import CALLS
from ramal.backends import MySQLServer
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
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[EmbeddedLog, Database]]:
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
    yield log, database
    await log.stop()
    await database.stop()
    await store.stop()


@pytest.fixture
def database(site: tuple[EmbeddedLog, Database]) -> Database:
    return site[1]


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


# Procedures of this shape make CDRs of `acc` (opensips-cp's cdrviewer, Siremis): a cursor over INVITE rows that no CDR
# has, the first BYE of either direction, and the CDR's id into the rows of both.
PROCEDURE = """
CREATE PROCEDURE bill() BEGIN
 DECLARE done INT DEFAULT 0; DECLARE bye DATETIME; DECLARE began DATETIME; DECLARE call_id, caller, callee VARCHAR(255);
 DECLARE one, other VARCHAR(128);
 DECLARE open_calls_of_acc CURSOR FOR
  SELECT time, callid, from_tag, to_tag, src_user, dst_user FROM acc WHERE method = 'INVITE' AND cdr_id = '0';
 DECLARE CONTINUE HANDLER FOR SQLSTATE '02000' SET done = 1;
 OPEN open_calls_of_acc;
 calls_of_acc: LOOP
  FETCH open_calls_of_acc INTO began, call_id, one, other, caller, callee;
  IF done THEN LEAVE calls_of_acc; END IF;
  SET bye = NULL;
  SELECT time INTO bye FROM acc WHERE method = 'BYE' AND callid = call_id
   AND ((from_tag = one AND to_tag = other) OR (from_tag = other AND to_tag = one)) ORDER BY time LIMIT 1;
  SET done = 0;
  IF bye IS NOT NULL THEN
   INSERT INTO billed (caller, callee, seconds)
    VALUES (caller, callee, UNIX_TIMESTAMP(bye) - UNIX_TIMESTAMP(began));
   UPDATE acc SET cdr_id = LAST_INSERT_ID() WHERE callid = call_id
    AND ((from_tag = one AND to_tag = other) OR (from_tag = other AND to_tag = one));
  END IF;
 END LOOP;
 CLOSE open_calls_of_acc;
END
"""


async def test_c15_a_procedure_that_makes_cdrs_of_acc_makes_each_once_and_a_rebuild_does_not_undo_it(
    site: tuple[EmbeddedLog, Database], mysql: MySQLServer, fresh_database: str
) -> None:
    log, database = site
    where = {"host": mysql.host, "port": mysql.port, "user": mysql.user, "password": mysql.password}
    with pymysql.connect(**where, database=fresh_database, autocommit=True) as theirs, theirs.cursor() as cursor:
        cursor.execute("CREATE TABLE billed (id INT AUTO_INCREMENT PRIMARY KEY, caller TEXT, callee TEXT, seconds INT)")
        cursor.execute(PROCEDURE)

        def billed() -> list[tuple[Any, ...]]:
            cursor.execute("CALL bill()")
            cursor.execute("SELECT caller, callee, seconds FROM billed ORDER BY caller")
            return list(cursor.fetchall())

        assert billed() == [("alice", "bob", 61), ("carol", "dave", 5)]
        assert len(billed()) == 2
        marked = await database.query("SELECT id, cdr_id FROM acc WHERE cdr_id <> 0 ORDER BY id")
        assert len(marked) == 4
        assert (await rebuild(log, database, Settings(longest_call=10**9, longest_setup=10**9))).equal is True
        assert await database.query("SELECT id, cdr_id FROM acc WHERE cdr_id <> 0 ORDER BY id") == marked
        assert len(billed()) == 2
