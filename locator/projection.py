"""The way of partitions into the tables: what is known of each, and a batch of several as one transaction.

The handler writes the tables that are read with it, a rebuild their shadows.
"""

import dataclasses
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from locator.decider import ChangeKey, Decision, StoredBinding, Truth, decide, unsure
from locator.tables import Tables, statements, stored_bindings
from runtime.database.port import Advance, Database
from runtime.database.positions import Position

REPEATS = 4096
"""Truths of a partition by which a repetition is known. One that was written twice is written in one batch of Kafka's,
which is at most 1 MiB: some 2,000 truths."""


@dataclasses.dataclass(slots=True)
class Partition:
    """What this process knows of a partition that is its own."""

    number: int
    at: Position
    known: dict[int, StoredBinding] = dataclasses.field(default_factory=dict)
    """Those not used for longest first."""
    told: dict[ChangeKey, None] = dataclasses.field(default_factory=dict)
    """What was applied last, in order."""

    def learn(self, decision: Decision) -> None:
        """Takes over what a committed transaction changed."""
        for id_, value in decision.known.items():
            self.known.pop(id_, None)
            if value is not None:
                self.known[id_] = value
        self.told |= decision.told
        for oldest in list(islice(self.told, max(0, len(self.told) - REPEATS))):
            del self.told[oldest]

    def forget(self, limit: int) -> None:
        """Keeps this many bindings; never in the middle of a batch, which has looked them up."""
        while len(self.known) > limit:
            del self.known[next(iter(self.known))]


class Part(NamedTuple):
    """Records of one partition, to be committed with the position behind them."""

    partition: Partition
    truths: Sequence[Truth]
    end: int


class Projection:
    """Applies the truth to a set of tables."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables

    async def look_up(self, partition: Partition, truths: Sequence[Truth]) -> None:
        """Asks the tables what must be known before these records can be decided."""
        unknown = unsure(truths, partition.at.claim, partition.told).difference(partition.known)
        if unknown:
            partition.known.update(await stored_bindings(self._database, self._tables, unknown))

    async def write(self, parts: Sequence[Part]) -> list[Decision]:
        """Commits records and positions of all parts in one transaction; they were looked up before.

        Raises PositionConflict, DatabaseRefused or DatabaseUnavailable; then nothing has changed here either.
        """
        decisions = [decide(p.number, truths, p.at.claim, p.known, p.told) for p, truths, _ in parts]
        advances = [
            Advance(self._tables.projection, partition.number, partition.at.next, end, decision.claim)
            for (partition, _, end), decision in zip(parts, decisions, strict=True)
        ]
        await self._database.transact(statements(self._database, self._tables, decisions), *advances)
        for (partition, _, end), decision in zip(parts, decisions, strict=True):
            partition.at = Position(end, decision.claim)
            partition.learn(decision)
        return decisions
