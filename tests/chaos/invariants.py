"""What must hold after every disturbance, checked on the log, in MySQL and at every edge.

All checks read; none waits for the system but `projection_caught_up`, which is bounded.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import pymysql

from events.registrations import AorState
from tests.chaos.ledger import Ledger
from tests.chaos.load import ROUNDING, Phone

Rows = Mapping[str, Mapping[int, tuple[str, int]]]
"""By AOR and binding id: contact and expires in milliseconds."""

LINGERS_MS = 15_000
"""How long a binding may stay in the log after its time: grace, a tick, and a request for its end that was lost."""
SHOWN = 4
"""Offending AORs that a report tells in full."""


class BrokenPromise(AssertionError):
    """The report of all that did not hold."""


class Tables:
    """The projection as it is in MySQL, read on a thread, each read with a new connection."""

    def __init__(self, mysql: Mapping[str, Any]) -> None:
        self._where = {
            "host": mysql["host"], "port": int(mysql["port"]), "user": mysql["user"],
            "password": mysql["password"], "database": mysql["database"],
        }  # fmt: skip

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a statement; raises pymysql.MySQLError."""
        return await asyncio.to_thread(self._query, sql)

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        connection = pymysql.connect(**self._where, connect_timeout=5, read_timeout=10, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    async def location(self) -> dict[str, dict[int, tuple[str, int]]]:
        """`location`, by AOR and binding id."""
        rows: dict[str, dict[int, tuple[str, int]]] = {}
        for id_, user, domain, contact, expires in await self.query(
            "SELECT contact_id, username, domain, contact, expires_ms FROM location"
        ):
            rows.setdefault(f"{user}@{domain}", {})[int(id_)] = contact, int(expires)
        return rows

    async def positions(self) -> dict[int, int]:
        """The next offset of each partition."""
        return {
            int(partition): int(offset)
            for partition, offset in await self.query(
                "SELECT partition_no, next_offset FROM projection_offset WHERE projection = 'location'"
            )
        }

    async def history(self) -> list[tuple[int, int, int | None, str | None]]:
        """Intervals: binding id, offset of the begin, offset and kind of the end."""
        return [
            (int(id_), int(began), None if ended is None else int(ended), kind)
            for id_, began, ended, kind in await self.query(
                "SELECT contact_id, began_offset, ended_offset, ended FROM registration_history"
            )
        ]


async def projection_caught_up(tables: Tables, ends: Mapping[int, int], seconds: float) -> list[str]:
    """Waits until every partition's position is the log's end; what is behind after that long, one sentence each."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            positions = await tables.positions()
        except pymysql.MySQLError as error:
            positions, failed = {}, f" ({error})"
        else:
            failed = ""
        behind = [
            f"partition {p}: the projection is at {positions.get(p, 0)}, the log ends at {end}{failed}"
            for p, end in sorted(ends.items())
            if positions.get(p, 0) != end
        ]
        if not behind or time.monotonic() > deadline:
            return behind
        await asyncio.sleep(0.1)


def rows_of(states: Mapping[str, AorState]) -> dict[str, dict[int, tuple[str, int]]]:
    """What `location` must hold for these states."""
    return {
        aor: {binding.id: (binding.contact, binding.expires) for binding in state.bindings}
        for aor, state in states.items()
        if state.bindings
    }


def differing(expected: Rows, found: Rows) -> list[str]:
    """AORs whose rows are not those of the log."""
    return sorted(aor for aor in expected.keys() | found.keys() if expected.get(aor, {}) != found.get(aor, {}))


def broken_promises(phones: Iterable[Phone], states: Mapping[str, AorState]) -> dict[str, str]:
    """By AOR, in which way the state is none that its phone may have been promised."""
    broken = {}
    for phone in phones:
        state = states.get(phone.aor, AorState())
        contacts = frozenset(binding.contact for binding in state.bindings)
        if not phone.may_have(contacts):
            broken[phone.aor] = f"has {sorted(contacts)}"
            continue
        last = phone.last
        if last is None or not last.intent.expires or last.intent.contact not in contacts:
            continue
        binding = next(b for b in state.bindings if b.contact == last.intent.contact)
        # The decision is later than the sending, and the 200 tells the seconds left rounded to the nearest.
        promised = int((last.exchange.sent + phone.granted - ROUNDING) * 1000)
        if binding.expires < promised and binding.call_id == last.call_id:
            broken[phone.aor] = f"ends at {binding.expires}, promised until {promised}"
        elif binding.call_id == last.call_id and binding.cseq < last.cseq:
            broken[phone.aor] = f"is that of CSeq {binding.cseq}, acknowledged was {last.cseq}"
    return broken


def lingering(states: Mapping[str, AorState], now: float) -> dict[str, str]:
    """By AOR, a binding that should have ended long ago; `now` in seconds."""
    return {
        aor: f"has {binding.contact}, which should have ended at {binding.expires}"
        for aor, state in states.items()
        for binding in state.bindings
        if binding.expires + LINGERS_MS < now * 1000
    }


def broken_history(intervals: Sequence[tuple[int, int, int | None, str | None]], expected: Rows) -> list[str]:
    """Open intervals must be those of the live bindings, once each; nothing ends twice."""
    live = {id_ for rows in expected.values() for id_ in rows}
    still_open: list[int] = [id_ for id_, _, ended, _ in intervals if ended is None]
    broken = [f"binding {id_} has two open intervals" for id_ in set(still_open) if still_open.count(id_) > 1]
    broken += [f"binding {id_} lives but its history has ended" for id_ in sorted(live - set(still_open))]
    broken += [f"binding {id_} has ended but not in its history" for id_ in sorted(set(still_open) - live)]
    final: dict[int, int] = {}
    for id_, began, _, kind in intervals:
        if kind in ("unregistered", "expired", "deactivated"):
            if id_ in final:
                broken.append(f"binding {id_} ended twice, from {final[id_]} and {began}")
            final[id_] = began
    return broken


def contacts_in(document: Any) -> frozenset[str]:
    """Every `contact` of a JSON document, wherever it stands."""
    if isinstance(document, Mapping):
        own = document.get("contact")
        nested = frozenset().union(*(contacts_in(value) for value in document.values()))
        return nested | ({own} if isinstance(own, str) else frozenset())
    if isinstance(document, list):
        return frozenset().union(*(contacts_in(value) for value in document))
    return frozenset()


async def look_up(session: aiohttp.ClientSession, http: str, aor: str) -> frozenset[str] | str:
    """The contacts by which an edge would route to the AOR, or why it did not say."""
    try:
        async with session.get(f"http://{http}/location/{aor}", timeout=aiohttp.ClientTimeout(total=20)) as response:
            if response.status == 404:
                return frozenset()
            if response.status != 200:
                return f"HTTP {response.status}: {(await response.text())[:200]}"
            return contacts_in(await response.json())
    except (aiohttp.ClientError, TimeoutError) as error:
        return repr(error)


async def look_up_everywhere(
    edges: Mapping[str, str], phones: Sequence[Phone], states: Mapping[str, AorState]
) -> dict[str, str]:
    """By AOR, how an edge's look-up differs from the log's state; `edges`: HTTP addresses by name."""
    wrong: dict[str, str] = {}
    gate = asyncio.Semaphore(8)

    async def ask(name: str, http: str, aor: str, expected: frozenset[str]) -> None:
        async with gate:
            found = await look_up(session, http, aor)
        if found != expected:
            wrong.setdefault(
                aor, f"{name} shows {found if isinstance(found, str) else sorted(found)}, the log {sorted(expected)}"
            )

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(
            *(
                ask(name, http, phone.aor, frozenset(b.contact for b in states.get(phone.aor, AorState()).bindings))
                for phone in phones
                for name, http in edges.items()
            )
        )
    return wrong


def tell(title: str, by_aor: Mapping[str, str], phones: Mapping[str, Phone], ledger: Ledger, rows: Rows) -> list[str]:
    """A compact report of the first offending AORs: their requests, their records, their rows."""
    lines = []
    for aor, what in list(by_aor.items())[:SHOWN]:
        lines += [f"{title}: {aor} {what}", ledger.report(aor), f"  rows of {aor}: {rows.get(aor, {})}"]
        if phone := phones.get(aor):
            lines.append(phone.report())
    if len(by_aor) > SHOWN:
        lines.append(f"{title}: and {len(by_aor) - SHOWN} more AORs")
    return lines
