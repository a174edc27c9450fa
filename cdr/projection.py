"""The way of partitions into the tables of calls: what is known of each, and a batch of several as one transaction.

The handler writes the tables that are read, a rebuild their shadows.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cdr.decider import Decision, Limits, StoredCall, decide, forget
from cdr.forgetting import names_in
from cdr.keys import deleted
from cdr.state import Call, call_of
from cdr.tables import Change, Finished, Tables, statements, stored_calls, with_person
from events.calls import CallEvent
from events.people import PersonForgotten
from events.pseudonyms import person_of
from runtime.database.port import Advance, Database
from runtime.database.positions import Position
from runtime.database.rebuild import id_ranges

TOGETHER = 2000
"""Rows that are looked through in one query for somebody who is to be forgotten."""

Events = Sequence[tuple[int, CallEvent | PersonForgotten]]
"""Events, each with its offset."""


@dataclasses.dataclass(slots=True)
class Partition:
    """What this process knows of a partition that is its own."""

    number: int
    at: Position
    known: dict[Call, StoredCall] = dataclasses.field(default_factory=dict)
    """Those not used for longest first."""

    def learn(self, changes: Mapping[Call, StoredCall]) -> None:
        """Takes over what a committed transaction changed."""
        for call, value in changes.items():
            self.known.pop(call, None)
            self.known[call] = value

    def forget(self, limit: int) -> None:
        """Keeps this many calls; never in the middle of a batch, which has looked them up."""
        while len(self.known) > limit:
            del self.known[next(iter(self.known))]


class Part(NamedTuple):
    """Events of one partition, to be committed with the position behind them."""

    partition: Partition
    events: Events
    end: int


class Projection:
    """Applies events to a set of tables."""

    def __init__(self, database: Database, tables: Tables, limits: Limits, seen: set[int] | None = None) -> None:
        """`seen`: hashes of all calls that the tables have, if that is known; of others they are not asked."""
        self._database = database
        self._tables = tables
        self._limits = limits
        self._seen = seen

    async def write(self, parts: Sequence[Part]) -> list[Finished]:
        """Commits events and positions of all parts in one transaction; what is to be published of them.

        Raises PositionConflict, DatabaseRefused or DatabaseUnavailable; then nothing has changed here either. Where
        somebody is forgotten a part is written in several steps, of which those that were committed stay.
        """
        finished: list[Finished] = []
        rest = []
        for part in parts:
            finished += await self._forgetting(part)
            tail = [(offset, event) for offset, event in part.events if offset >= part.partition.at.next]
            rest.append(Part(part.partition, tail, part.end))
        finished += await self._write(rest)
        # Of a call that has changed twice the last record counts, and the one before may name who is forgotten.
        return list({each.id: each for each in finished}.values())

    async def _write(self, parts: Sequence[Part]) -> list[Finished]:
        events = [[(o, e) for o, e in part.events if not isinstance(e, PersonForgotten)] for part in parts]
        await self.look_up([part.partition for part in parts], events)
        changes = [
            Change(part.partition.number, decide(some, part.partition.known))
            for part, some in zip(parts, events, strict=True)
        ]
        made, finished = statements(self._database, self._tables, changes, self._limits)
        await self._database.transact(made, *(self._advance(partition, end) for partition, _, end in parts))
        for (partition, _, end), change in zip(parts, changes, strict=True):
            partition.at = Position(end, partition.at.claim)
            self._learn(partition, change.decision)
        return finished

    def _advance(self, partition: Partition, end: int) -> Advance:
        at = partition.at
        return Advance(self._tables.projection, partition.number, at.next, end, at.claim)

    def _learn(self, partition: Partition, decision: Decision) -> None:
        partition.learn(decision.changed)
        if self._seen is not None:
            self._seen.update(map(hash, decision.changed))

    async def _forgetting(self, part: Part) -> list[Finished]:
        """Writes a part up to behind its last record that says to forget somebody; mostly there is none."""
        finished: list[Finished] = []
        partition = part.partition
        for offset, event in part.events:
            if isinstance(event, PersonForgotten) and offset >= partition.at.next:
                before = [(o, e) for o, e in part.events if partition.at.next <= o < offset]
                finished += await self._write([Part(partition, before, offset)])
                finished += await self._forget(partition, person_of(event.person), offset)
        return finished

    async def _forget(self, partition: Partition, person: str, offset: int) -> list[Finished]:
        """Takes somebody out of the calls that the tables have, a few thousand at a time; then moves on."""
        finished: list[Finished] = []
        names = {person}
        for table in (self._tables.open, self._tables.cdrs):
            async for low, high in id_ranges(self._database, table, "id", partition.number, TOGETHER):
                found = await with_person(self._database, table, partition.number, (low, high), person)
                names.update(name for known in found.values() for name in names_in(known.state, person))
                decision = forget(person, offset, found)
                if decision.changed:
                    made, ended = statements(
                        self._database, self._tables, [Change(partition.number, decision)], self._limits
                    )
                    await self._database.transact(made, self._advance(partition, partition.at.next))
                    self._learn(partition, decision)
                    finished += ended
        gone = deleted(sorted(names)) if person else []
        await self._database.transact(gone, self._advance(partition, offset + 1))
        partition.at = Position(offset + 1, partition.at.claim)
        return finished

    async def look_up(self, partitions: Sequence[Partition], events: Sequence[Sequence[tuple[int, CallEvent]]]) -> None:
        """Asks the tables, once, what must be known before these events of each partition can be decided."""
        asked = [
            {call_of(event) for _, event in some}.difference(partition.known)
            for partition, some in zip(partitions, events, strict=True)
        ]
        if self._seen is not None:
            asked = [{call for call in calls if hash(call) in self._seen} for calls in asked]
        found = await stored_calls(self._database, self._tables, (call for calls in asked for call in calls))
        for partition, calls in zip(partitions, asked, strict=True):
            partition.known.update({call: found[call] for call in calls if call in found})

    async def put(self, partition: Partition, decision: Decision, end: int) -> None:
        """Commits what was decided elsewhere, with the position; the partition learns nothing of it."""
        made, _ = statements(self._database, self._tables, [Change(partition.number, decision)], self._limits)
        await self._database.transact(made, self._advance(partition, end))
        partition.at = Position(end, partition.at.claim)
        if self._seen is not None:
            self._seen.update(map(hash, decision.changed))
