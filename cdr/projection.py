"""The way of partitions into the tables of calls: what is known of each, and a batch of several as one transaction.

The handler writes the tables that are read, a rebuild their shadows.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cdr.decider import Known, Limits, decide
from cdr.state import Call, call_of
from cdr.tables import Change, Finished, Tables, known, statements
from events.calls import CallEvent
from runtime.database.port import Advance, Database
from runtime.database.positions import Position

Events = Sequence[tuple[int, CallEvent]]
"""Events, each with its offset."""


@dataclasses.dataclass(slots=True)
class Partition:
    """What this process knows of a partition that is its own."""

    number: int
    at: Position
    known: dict[Call, Known] = dataclasses.field(default_factory=dict)
    """Those not used for longest first."""

    def learn(self, changes: Mapping[Call, Known]) -> None:
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

        Raises PositionConflict, DatabaseRefused or DatabaseUnavailable; then nothing has changed here either.
        """
        await self._look_up(parts)
        changes = [Change(partition.number, decide(events, partition.known)) for partition, events, _ in parts]
        made, finished = statements(self._database, self._tables, changes, self._limits)
        advances = [
            Advance(self._tables.projection, partition.number, partition.at.next, end, partition.at.claim)
            for partition, _, end in parts
        ]
        await self._database.transact(made, *advances)
        for (partition, _, end), change in zip(parts, changes, strict=True):
            partition.at = Position(end, partition.at.claim)
            partition.learn(change.decision.changed)
            if self._seen is not None:
                self._seen.update(map(hash, change.decision.changed))
        return finished

    async def _look_up(self, parts: Sequence[Part]) -> None:
        """Asks the tables, once, what must be known before these events can be decided."""
        asked = [{call_of(event) for _, event in part.events}.difference(part.partition.known) for part in parts]
        if self._seen is not None:
            asked = [{call for call in calls if hash(call) in self._seen} for calls in asked]
        found = await known(self._database, self._tables, (call for calls in asked for call in calls))
        for part, calls in zip(parts, asked, strict=True):
            part.partition.known.update({call: found[call] for call in calls if call in found})
