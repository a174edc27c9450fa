"""What the locator's tests share: a registrar that writes plausible truths, and what `location` must show."""

import dataclasses
import itertools
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from events.commands import ReplyTo
from events.registrations import (
    AorState,
    Binding,
    BindingsRecorded,
    Change,
    Claimed,
    Kind,
    RegistrationEvent,
    binding_id,
)
from events.topics import REGISTRATIONS
from events.wire import CLAIM, COMMAND_OFFSET, cloud_event, encode
from locator.decider import Truth
from runtime.config import MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from runtime.database.port import Database
from runtime.database.sqlite import SQLiteDatabase
from runtime.log.port import Append, Log
from runtime.store import EmbeddedStore

START = 1_700_000_000_000
ENDS = (Kind.UNREGISTERED, Kind.EXPIRED, Kind.DEACTIVATED)
DATABASES = ["sqlite", *(pytest.param(server, marks=pytest.mark.integration) for server in ("mysql", "mysql9"))]
_FRESH = {"mysql": "fresh_database", "mysql9": "fresh_mysql9_database"}

Shown = set[tuple[str, str, str, str]]
"""AOR, contact, received, path."""


def mysql_settings(server: object, database: str, **more: object) -> MySQL:
    """Settings for a database on the `mysql` fixture."""
    at = SimpleNamespace(**vars(server))
    return MySQL(at.host, at.port, at.user, Secret(at.password), database, **more)


async def open_database(request: pytest.FixtureRequest, kind: str, store: EmbeddedStore) -> Database:
    """A migrated database of one of DATABASES; the test closes it, and the store."""
    database: Database
    if kind in _FRESH:
        server = request.getfixturevalue(kind)
        database = MySQLDatabase(mysql_settings(server, request.getfixturevalue(_FRESH[kind])))
    else:
        database = SQLiteDatabase(store)
    await database.start()
    await database.migrate()
    return database


@dataclasses.dataclass
class Scribe:
    """Writes truths of one partition as a registrar would."""

    partition: int = 0
    claim: int = 0
    now: int = START
    states: dict[str, AorState] = dataclasses.field(default_factory=dict)
    told: list[tuple[int, BindingsRecorded]] = dataclasses.field(default_factory=list)
    """All that was written with the claim in force, with its time."""
    numbers: "itertools.count[int]" = dataclasses.field(default_factory=itertools.count)

    def register(
        self,
        aor: str,
        contact: str,
        expires: int = 60,
        *,
        received: str = "sip:192.0.2.1:5060;transport=udp",
        path: Sequence[str] = (),
        kind: Kind | None = None,
        reply: ReplyTo | None = None,
        **more: object,
    ) -> BindingsRecorded:
        """A binding made or refreshed."""
        command = next(self.numbers)
        state = self.states.get(aor, AorState())
        old = next((b for b in state.bindings if b.contact == contact), None)
        binding = Binding(
            id=old.id if old else binding_id(self.partition, command, 0),
            contact=contact,
            call_id="call",
            cseq=command + 1,
            expires=self.now + expires * 1000,
            granted=expires,
            created=old.created if old else self.now,
            updated=self.now,
            received=received,
            path=tuple(path),
            socket="udp:192.0.2.100:5060",
            user_agent="phone",
            **more,
        )
        kept = tuple(b for b in state.bindings if b.contact != contact)
        kind = kind or (Kind.REFRESHED if old else Kind.CREATED)
        return self._record(aor, [Change(kind, binding.id, contact)], (*kept, binding), reply)

    def end(
        self, aor: str, contact: str, kind: Kind = Kind.UNREGISTERED, reply: ReplyTo | None = None
    ) -> BindingsRecorded:
        """A binding ended; nothing changes when there is none."""
        next(self.numbers)
        state = self.states.get(aor, AorState())
        gone = [Change(kind, b.id, contact) for b in state.bindings if b.contact == contact]
        return self._record(aor, gone, tuple(b for b in state.bindings if b.contact != contact), reply)

    def _record(
        self, aor: str, changes: Sequence[Change], bindings: tuple[Binding, ...], reply: ReplyTo | None
    ) -> BindingsRecorded:
        state = AorState(self.now, bindings)
        self.states[aor] = state
        event = BindingsRecorded(f"id{len(self.told)}", aor, f"user {aor}", tuple(changes), state, reply)
        self.told.append((self.now, event))
        return event

    def append(self, event: RegistrationEvent, claim: int | None = None) -> Append:
        """The record of an event."""
        headers = cloud_event("x", "registrar", "i")
        key = b""
        if isinstance(event, BindingsRecorded):
            key = event.aor.encode()
            headers += ((COMMAND_OFFSET, b"0"), (CLAIM, b"%d" % (self.claim if claim is None else claim)))
        return Append(REGISTRATIONS, self.partition, key, encode(event), headers)

    def shown(self, at: int) -> Shown:
        """What `location` showed at a time: rows as the last truth until then has them, whose time is not over."""
        states: dict[str, AorState] = {}
        for when, event in self.told:
            if when <= at:
                states[event.aor] = event.state
        return {
            (aor, b.contact, b.received, ",".join(b.path))
            for aor, state in states.items()
            for b in state.bindings
            if b.expires > at
        }


def truths(events: Sequence[RegistrationEvent], begin: int = 1, claim: int = 0) -> list[Truth]:
    """Events as they are read, from an offset on."""
    return [
        Truth(offset, offset if isinstance(event, Claimed) else claim, event)
        for offset, event in enumerate(events, begin)
    ]


async def claim(log: Log, scribe: Scribe, name: str = "registrar-1 boot") -> int:
    """Makes the scribe the writer of its partition."""
    (position,) = await log.append([scribe.append(Claimed(name))])
    scribe.claim = position.offset
    return position.offset
