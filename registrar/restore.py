"""Restoring a partition: claim it, read its snapshots, replay the truths behind them (DESIGN section 7).

The claim comes first: what an earlier owner writes after it is void, so all that counts lies before it.
"""

import logging
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic

from events.commands import ExpireContacts
from events.registrations import Claimed, Watermark
from events.topics import BINDINGS, REGISTRAR_COMMANDS, REGISTRATIONS
from events.truths import CLAIMED, check_state
from events.wire import COMMAND_OFFSET, Poisoned, cloud_event, encode, int_header
from registrar import metrics
from registrar.expiry import KIND
from registrar.partition import Partition
from registrar.snapshot import snapshots_id
from registrar.truths import (
    SOURCE,
    claim_of,
    decode_replayed,
    decode_state,
    decode_watermark,
    is_claim,
    is_watermark,
    watermark,
)
from runtime.errors import Fenced, LogUnavailable
from runtime.log.port import Append, Log, OutOfRange, PartitionFault, Record
from runtime.metrics import dropped

log = logging.getLogger("ramal.registrar")

MOST_FILLED = 1_000_000
"""Offsets of commands that are filled up where they were lost: some 20 s. Of more a person has to hear."""
FILLED_AT_ONCE = 5_000


async def restore(source: Log, number: int, writer: str, grace_ms: int, learn: Callable[[int], None]) -> Partition:
    """Claims the partition for `writer` and restores it; `learn` is told the claim's timestamp at once.

    Raises LogUnavailable, and PartitionFault for what this version cannot read: it keeps its bytes.
    """
    began = monotonic()
    [position] = await source.append(
        [
            Append(
                REGISTRATIONS,
                number,
                None,
                encode(Claimed(writer)),
                cloud_event(CLAIMED, SOURCE, f"{writer}:{number}"),
            )
        ]
    )
    learn(position.timestamp)
    partition = Partition(number, position.offset, grace_ms)
    states, mark = await _snapshots(source, number)
    if mark.through >= position.offset:
        # The topic was made anew, or has lost its end: all it has is read, and claims begin anew. Whoever restores
        # after us must know that, too: by then it may have grown past the snapshots' offset.
        log.error(
            "registrations ends before its snapshots",
            extra={"partition": number, "end": position.offset, "snapshots": mark.through},
        )
        mark = Watermark(-1, mark.command, -1)
        try:
            await source.append_transaction(snapshots_id(number), [watermark(number, mark)])
        except Fenced as error:
            raise LogUnavailable("snapshots were fenced meanwhile") from error
    replay = _Replay(number, states, mark)
    async with aclosing(source.read(REGISTRATIONS, number, mark.through + 1, position.offset)) as reading:
        async for records in reading:
            for record in records:
                replay.add(record)
    await _pass(source, number, replay.handled)
    partition.adopt(replay.states)
    partition.changed = replay.changed
    partition.handled = replay.handled
    partition.marked = mark
    metrics.CLAIMS.inc()
    metrics.RESTORE_SECONDS.set(monotonic() - began)
    log.info(
        "restored a partition",
        extra={
            "partition": number,
            "claim": position.offset,
            "aors": len(partition.states),
            "replayed": len(replay.changed),
            "milliseconds": round((monotonic() - began) * 1000),
        },
    )
    return partition


async def _pass(source: Log, number: int, handled: int) -> None:
    """Makes sure that commands go on behind the last one that was handled, where their topic has lost its end.

    A binding's id is made of its command's offset: none may stand for two commands. So what is missing up to `handled`
    is filled up with commands that do nothing. Raises LogUnavailable, and PartitionFault where it is too much.
    """
    end = (await source.bounds(REGISTRAR_COMMANDS, number)).end
    missing = handled + 1 - end
    if missing <= 0:
        return
    extra = {"partition": number, "end": end, "handled": handled}
    if missing > MOST_FILLED:
        raise OutOfRange(number, handled + 1, end)
    log.error("registrar.commands ends before what was decided; its offsets are filled up", extra=extra)
    for start in range(end, handled + 1, FILLED_AT_ONCE):
        ids = [f"lost:{number}:{offset}" for offset in range(start, min(start + FILLED_AT_ONCE, handled + 1))]
        await source.append(
            [
                Append(REGISTRAR_COMMANDS, number, b"", encode(ExpireContacts(id_, "")), cloud_event(KIND, SOURCE, id_))
                for id_ in ids
            ]
        )


async def _snapshots(source: Log, number: int) -> tuple[dict[str, bytes], Watermark]:
    """All last states in `bindings`, and up to where they are complete."""
    states: dict[str, bytes] = {}
    mark = Watermark(-1, -1, -1)
    bounds = await source.bounds(BINDINGS, number)
    async with aclosing(source.read(BINDINGS, number, bounds.begin, bounds.end, committed=True)) as reading:
        async for records in reading:
            for record in records:
                if record.key is None:
                    continue
                try:
                    if is_watermark(record):
                        mark = decode_watermark(record.value)
                    elif record.value is None:
                        states.pop(record.key.decode(), None)
                    else:
                        check_state(record.headers)
                        states[record.key.decode()] = record.value
                except (Poisoned, UnicodeDecodeError) as error:
                    raise PartitionFault(
                        number, f"the snapshot at offset {record.offset} is not known: {error}"
                    ) from error
    return states, mark


class _Replay:
    """Applies truths in order; those of an older claim than the highest seen are void (CHECKLIST E16)."""

    def __init__(self, number: int, states: dict[str, bytes], mark: Watermark) -> None:
        self._number = number
        self._by_time = mark.through < 0 and bool(states)
        """Offsets do not tell which truths the snapshots have, so none goes back in time."""
        self.states = states
        self.changed: set[str] = set()
        self.handled = mark.command
        self._claim = mark.claim

    def add(self, record: Record) -> None:
        """The next record of `registrations`. One of no registrar is void for everyone, and said so.

        Raises PartitionFault for a truth that this version cannot read: it is never skipped.
        """
        try:
            claim = claim_of(record)
        except Poisoned as error:
            dropped("unreadable-truth")
            log.error(
                "a record on registrations is no registrar's",
                extra={"partition": record.partition, "offset": record.offset, "cause": str(error)},
            )
            return
        if claim < self._claim:
            return
        self._claim = claim
        if is_claim(record.headers):
            return
        try:
            event = decode_replayed(record.value)
            self.handled = max(self.handled, int_header(record.headers, COMMAND_OFFSET))
            if self._by_time and self._is_older(bytes(event.state), event.aor):
                return
        except Poisoned as error:
            raise PartitionFault(self._number, f"the truth at offset {record.offset} is not known: {error}") from error
        self.states[event.aor] = bytes(event.state)
        self.changed.add(event.aor)

    def _is_older(self, state: bytes, aor: str) -> bool:
        known = self.states.get(aor)
        return known is not None and decode_state(state).at < decode_state(known).at
