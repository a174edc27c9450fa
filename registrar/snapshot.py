"""Snapshots off the hot path: the last states of changed AORs, and with the last of them the watermark.

All of one partition goes into one transaction under the partition's own id, so that the broker fences
whoever owned it before. Only very many are split; then the parts before the last carry the watermark that
was in force: states newer than it are harmless, since the truths behind it are whole states and are applied
again, and if the writer was a zombie, its older states have its older watermark beside them.
"""

from collections.abc import Callable, Sequence

from registrar.partition import Partition
from registrar.truths import snapshot, watermark
from runtime.log.port import Append, Log

AT_ONCE = 1_000
"""AORs in one transaction: handing them over holds up the loop, some 30 µs each."""
BYTES_AT_ONCE = 16 * 1024 * 1024


def snapshots_id(partition: int) -> str:
    """The transactional id of a partition's snapshots."""
    return f"registrar-{partition}"


def has_news(partition: Partition) -> bool:
    """Whether anything changed since the last time."""
    return bool(partition.changed) or partition.mark() != partition.marked


async def write_snapshots(target: Log, partition: Partition, still_ours: Callable[[], bool]) -> None:
    """Writes what changed since the last time; raises Fenced, LogUnavailable, LogRefused.

    The log must have fenced everybody else under this id, and no higher claim been there after it.
    """
    mark, number = partition.mark(), partition.number
    changed, partition.changed = partition.changed, set()
    states = partition.states
    parts = _parts([snapshot(number, aor, states.get(aor)) for aor in changed])
    try:
        for part in parts:
            if not still_ours():
                return
            part.append(watermark(number, mark if part is parts[-1] else partition.marked))
            await target.append_transaction(snapshots_id(number), part)
    except BaseException:
        # Unknown whether written: once more does no harm.
        partition.changed |= changed
        raise
    partition.marked = mark


def _parts(records: Sequence[Append]) -> list[list[Append]]:
    """The records in transactions of bounded count and size; at least one, perhaps empty."""
    parts: list[list[Append]] = [[]]
    size = 0
    for record in records:
        length = len(record.value or b"") + 200
        if parts[-1] and (len(parts[-1]) >= AT_ONCE or size + length > BYTES_AT_ONCE):
            parts.append([])
            size = 0
        parts[-1].append(record)
        size += length
    return parts
