"""Appends for several partitions of which one may be away: the others are not kept waiting for it."""

import asyncio
from collections.abc import Sequence

from runtime.errors import PartitionAway
from runtime.log.port import Append, Log, Position
from runtime.metrics import dropped


async def append_apart(log: Log, records: Sequence[Append]) -> list[Position | None]:
    """Appends records that do not rest on each other; None for one whose partition is away: nobody wrote it.

    Where none is away, it is one append like any other. Raises LogUnavailable (then nobody is told which were written)
    and LogRefused.
    """
    try:
        return list(await log.append(records))
    except PartitionAway:
        parts: dict[tuple[str, int], list[int]] = {}
        for index, record in enumerate(records):
            parts.setdefault((record.topic, record.partition), []).append(index)
        positions: list[Position | None] = [None] * len(records)
        appending = [_append(log, [records[index] for index in part]) for part in parts.values()]
        outcomes = await asyncio.gather(*appending, return_exceptions=True)
    failed: BaseException | None = None
    for part, outcome in zip(parts.values(), outcomes, strict=True):
        if isinstance(outcome, BaseException):
            failed = outcome
        elif outcome is not None:
            for index, position in zip(part, outcome, strict=True):
                positions[index] = position
    if failed is not None:
        raise failed
    return positions


async def append_or_drop(log: Log, records: Sequence[Append]) -> None:
    """The same where whoever waits for a record whose partition is away hears 503: it is dropped by name."""
    if away := (await append_apart(log, records)).count(None):
        dropped("partition-away", away)


async def _append(log: Log, records: Sequence[Append]) -> Sequence[Position] | None:
    try:
        return await log.append(records)
    except PartitionAway:
        return None
