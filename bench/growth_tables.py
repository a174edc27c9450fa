"""The tables of bench/growth.py: filled in bulk, and what a refresh, a move and a look-up cost in them."""

import random
import time
from collections.abc import Iterator

from growth_phones import COPIED, aor, now, spent, state

from edge.outside.location import Names, find
from events.registrations import BindingsRecorded, Change, Kind, binding_id
from locator.config import Settings
from locator.decider import Truth, location
from locator.projection import Part, Partition, Projection
from locator.tables import LIVE, LOCATION_COLUMNS, stored_bindings
from ramal.backends import MySQLServer
from runtime.config import MySQL
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Statement
from runtime.database.positions import Position, begin_at

REFRESHES = 3_000
"""Of each size in each round."""
TOGETHER = 100
"""Truths in one transaction of the locator."""
REMEMBERED = Settings().remembered
_BEGUN = (
    "INSERT INTO registration_history (contact_id, began_offset, partition_no, username, domain, contact, received,"
    " path, socket, user_agent, since_ms, began, began_by) SELECT contact_id, -1, partition_no, username, domain,"
    " contact, received, path, socket, user_agent, created_ms, 'created', '' FROM location"
)
_INDICES = {"account_idx": "username, domain", "contact_idx": "contact(128)"}
_ROOMY = (
    "SET GLOBAL innodb_fill_factor = 70",
    "ALTER TABLE registration_history FORCE",
    *(f"ALTER TABLE location DROP INDEX {name}, ADD INDEX {name} ({of})" for name, of in _INDICES.items()),
)
"""Rows copied in order fill pages to the brim, each of which the first move then splits. Among phones that have come
and gone in any order pages are full to about this much."""


class Tables:
    """The tables of one size, and the locator's way into them."""

    def __init__(self, server: MySQLServer, aors: int) -> None:
        self._aors, self._pid = aors, server.pid
        settings = MySQL(server.host, server.port, server.user, server.password, f"growth{aors}", timeout=120.0)  # type: ignore[arg-type]  # text
        self._database = MySQLDatabase(settings)
        self._projection = Projection(self._database, LIVE)
        self._partition = Partition(0, Position(0, -1))
        self._numbers = random.Random(aors)  # noqa: S311  # no secret
        self._cseq = 1
        self._moved: dict[int, int] = {}

    async def fill(self) -> None:
        """Some rows as the locator writes them, then copies of these by the database."""
        database, at = self._database, now()
        await database.start()
        await database.migrate()
        first = min(self._aors, COPIED)
        for start in range(0, first, 500):
            rows = [location(state(n, at).bindings[0], aor(n), 0) for n in range(start, min(first, start + 500))]
            await database.transact([database.upsert(LIVE.location, LOCATION_COLUMNS, ("contact_id",), rows)])
        for copied in range(first, self._aors, first):
            await database.transact([copy(first, copied)])
        for sql in (_BEGUN, *_ROOMY):
            await database.transact([Statement(sql)])
        # A locator that has run for an hour has met every phone.
        for start in range(0, min(self._aors, REMEMBERED), 5_000):
            ids = [binding_id(0, number + 1, 0) for number in range(start, min(self._aors, start + 5_000))]
            self._partition.known.update(await stored_bindings(database, LIVE, ids))
        await database.transact([begin_at(database, LIVE.projection, 0, self._partition.at)])

    async def octets(self) -> dict[str, float]:
        """Of a row of `location` and of its history, with their indices."""
        names = ("location", "registration_history")
        for name in names:
            await self._database.query(f"ANALYZE TABLE {name}")
        rows = await self._database.query(
            "SELECT table_name, data_length + index_length FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name IN (%s, %s)",
            names,
        )
        return {name: int(octets) / self._aors for name, octets in rows}

    async def refresh(self, times: int = REFRESHES, *, moved: bool = False) -> tuple[float, float]:
        """CPU-milliseconds of one refresh in this process, and in MariaDB; `moved`: from another port than before."""
        self._cseq += 1
        batches = [list(self._truths(moved)) for _ in range(0, times, TOGETHER)]
        worked, mysql, intervals = time.process_time(), spent(self._pid), 0
        for truths in batches:
            partition = self._partition
            end = partition.at.next + len(truths)
            numbered = [truth._replace(offset=partition.at.next + n) for n, truth in enumerate(truths)]
            await self._projection.look_up(partition, numbered)
            [decision] = await self._projection.write([Part(partition, numbered, end)])
            intervals += len(decision.began)
            partition.forget(REMEMBERED)
        worked, mysql = time.process_time() - worked, spent(self._pid) - mysql
        if intervals != (times if moved else 0):
            raise SystemExit(f"of {times} phones, {intervals} were found to have come from elsewhere")
        return 1000 * worked / times, 1000 * mysql / times

    def _truths(self, moved: bool) -> Iterator[Truth]:
        for number in self._numbers.sample(range(self._aors), TOGETHER):
            if moved:
                self._moved[number] = self._moved.get(number, 0) + 1
            after = state(number, now(), self._cseq, self._moved.get(number, 0))
            [binding] = after.bindings
            changes = (Change(Kind.REFRESHED, binding.id, binding.contact),)
            id_ = f"{number}-{self._cseq}-{self._numbers.random()}"
            yield Truth(0, 0, BindingsRecorded(id_, aor(number), aor(number), changes, after))

    async def look_up(self, times: int) -> tuple[list[float], list[float]]:
        """Milliseconds of the edge's question where an AOR is, one after the other, and of one that reads nothing."""
        took, idle = [], []
        for _ in range(times):
            name = aor(self._numbers.randrange(self._aors))
            began = time.perf_counter()
            found, _ = await find(self._database, {name: Names({}).of(name)})
            between = time.perf_counter()
            await self._database.query("SELECT 1")
            took.append(1000 * (between - began))
            idle.append(1000 * (time.perf_counter() - between))
            if len(found[name].targets) != 1:
                raise SystemExit(f"{name} is not in the tables")
        return took, idle

    async def stop(self) -> None:
        """Closes the connections."""
        await self._database.stop()


def told_apart(shift: int) -> dict[str, str]:
    """By column in which two phones differ, what it is of the phone that is so much further on, as SQL."""
    step = binding_id(0, 2, 0) - binding_id(0, 1, 0)
    return {
        "contact_id": f"contact_id + {shift * step}",
        "username": f"CONCAT('u', LPAD(SUBSTRING(username, 2) + {shift}, 7, '0'))",
        "contact": f"CONCAT('sip:u', LPAD(SUBSTRING(username, 2) + {shift}, 7, '0'), SUBSTRING(contact, 13))",
        "callid": f"CONCAT(SUBSTRING(username, 2) + {shift}, SUBSTRING(callid, LOCATE('-', callid)))",
    }


def copy(rows: int, shift: int) -> Statement:
    """Copies the first rows of `location` for the phones that are so much further on."""
    changed = told_apart(shift)
    columns = ", ".join(LOCATION_COLUMNS)
    chosen = ", ".join(changed.get(column, column) for column in LOCATION_COLUMNS)
    last = binding_id(0, rows, 0)
    return Statement(f"INSERT INTO location ({columns}) SELECT {chosen} FROM location WHERE contact_id <= {last}")  # noqa: S608  # ours
