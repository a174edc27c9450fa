"""The tables made anew from the log, while the locator serves (`runtime.database.rebuild`).

From all of `registrations` where it still begins at 0, else from the snapshots on `bindings` and what came after
them; history that is older is taken over as it is.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec

from events.registrations import WATERMARK_KEY, AorState, Watermark
from events.topics import BINDINGS, REGISTRATIONS
from events.truths import check_state
from events.wire import Decoder, Poisoned
from locator.decider import Location, location
from locator.history import kept_since
from locator.projection import Part, Partition, Projection
from locator.retention import DAY_MS
from locator.tables import HISTORY_COLUMNS, LIVE, LOCATION_COLUMNS, SHADOW
from locator.truths import read
from runtime.database.port import Database, Statement
from runtime.database.positions import Position
from runtime.database.rebuild import START, TOGETHER, Progress, Rebuild, chunks, id_ranges
from runtime.log.port import Bounds, Log, PartitionFault, Record
from runtime.metrics import dropped

REMEMBERED = 100_000

_decode_state: Decoder[AorState] = Decoder(AorState)
_decode_watermark: Decoder[Watermark] = Decoder(Watermark)
_KEY = WATERMARK_KEY.encode()


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild made."""

    rows: int
    """Of `location`."""
    intervals: int
    """Of `registration_history`."""
    records: int
    """Read from the log."""
    seconds: float
    checksum: str
    """Over all of `location`, hexadecimal."""
    equal: bool | None
    """Whether the tables had been right, at equal offsets; None: there was nothing to compare with."""


async def rebuild(log: Log, database: Database, progress: Progress = lambda done, total: None) -> Rebuilt:
    """Makes the tables anew and swaps them in; also where they were dropped or emptied.

    `database` should wait for minutes, not seconds, where there are millions of rows: each partition's sum is one
    statement. Raises Unavailable, DatabaseRefused, PartitionFault (a truth or a snapshot that this version cannot
    read) or PositionConflict (another rebuild began meanwhile); then nothing is swapped.
    """
    started = time.monotonic()
    work = Rebuild(log, database, _Shadows(log, database), progress)
    equal = await work.run()
    rows, checksum = (await database.query(f"SELECT COUNT(*), {database.checksum(LOCATION_COLUMNS)} FROM location"))[0]  # noqa: S608  # ours
    intervals = (await database.query("SELECT COUNT(*) FROM registration_history"))[0][0]
    return Rebuilt(int(rows), int(intervals), work.done, time.monotonic() - started, f"{int(checksum):016x}", equal)


class _Shadows:
    """The shadows of `location` and its history."""

    topic = REGISTRATIONS
    projection = LIVE.projection
    tables = (LIVE.location, LIVE.history)
    together = TOGETHER

    def __init__(self, log: Log, database: Database) -> None:
        self._log = log
        self._database = database
        self._projection = Projection(database, SHADOW)
        self._partitions: dict[int, Partition] = {}
        self._kept: dict[int, int] = {}
        """By partition: history that began at or before this offset is taken over."""
        self._whole_since = 0
        """The log may have what was deleted by its age: only what ended later is compared."""

    async def begin(self, number: int, bounds: Bounds) -> Position:
        """From the snapshots, where the log does not begin at 0."""
        at = START if bounds.begin == 0 else await self._load_snapshots(number, bounds.begin)
        if kept := await kept_since(self._database):
            self._whole_since = kept + DAY_MS  # more may go while this lasts
        self._partitions[number] = Partition(number, at)
        self._kept[number] = at.next - 1
        await self._take_over_history(number, at.next - 1)
        return at

    async def apply(self, number: int, records: Sequence[Record], at: Position) -> Position:
        """Applies the truth."""
        partition = self._partitions[number]
        truths, strangers, _, unknown = read(records, partition.at.claim)
        if unknown:
            raise PartitionFault(number, f"the truth at offset {unknown[0].offset} is not known: {unknown[1]}")
        if strangers:
            dropped("poisoned-registration", len(strangers))
        await self._projection.look_up(partition, truths)
        await self._projection.write([Part(partition, truths, records[-1].offset + 1)])
        partition.forget(REMEMBERED)
        return partition.at

    async def finish(self, live: Sequence[Position]) -> None:
        """Nothing is left to do."""

    async def sums(self, number: int, *, live: bool) -> tuple[int, int, int, int, int]:
        """Of `location`, and of the history that is not taken over."""
        database = self._database
        location_table, history_table = LIVE[1:] if live else SHADOW[1:]
        rows = await database.query(
            "SELECT o.next_offset, l.n, l.c, h.n, h.c FROM projection_offset o,"  # noqa: S608  # ours
            f" (SELECT COUNT(*) AS n, {database.checksum(LOCATION_COLUMNS)} AS c FROM {location_table}"
            " WHERE partition_no = %s) l,"
            f" (SELECT COUNT(*) AS n, {database.checksum(HISTORY_COLUMNS)} AS c FROM {history_table}"
            " WHERE partition_no = %s AND began_offset > %s AND (until_ms IS NULL OR until_ms >= %s)) h"
            " WHERE o.projection = %s AND o.partition_no = %s",
            (number, number, self._kept[number], self._whole_since, LIVE.projection, number),
        )
        next_, location_count, location_sum, history_count, history_sum = rows[0]
        return int(next_), int(location_count), int(location_sum), int(history_count), int(history_sum)

    async def _load_snapshots(self, number: int, begin: int) -> Position:
        """Fills the shadow of `location` with the snapshots; the position after them."""
        mark = Watermark(begin - 1, -1, -1)
        end = (await self._log.bounds(BINDINGS, number)).end
        async for records in self._log.read(BINDINGS, number, 0, end, committed=True):
            states: dict[str, AorState] = {}
            for record in records:
                try:
                    if record.key == _KEY:
                        mark = _decode_watermark(record.value)
                    elif record.key is not None:
                        states[record.key.decode("utf-8", "replace")] = _state(record)
                except Poisoned as error:
                    raise PartitionFault(
                        number, f"the snapshot at offset {record.offset} is not known: {error}"
                    ) from error
            await self._put_states(number, states)
        return Position(max(begin, mark.through + 1), mark.claim)

    async def _put_states(self, number: int, states: Mapping[str, AorState]) -> None:
        """Rows as these states have them, in place of those of earlier states."""
        for aors in chunks(list(states)):
            users = [aor.rpartition("@")[::2] for aor in aors]
            mine = " OR ".join(["(username = %s AND domain = %s)"] * len(users))
            statements = [
                Statement(f"DELETE FROM {SHADOW.location} WHERE {mine}", [part for user in users for part in user])  # noqa: S608  # ours
            ]
            rows: list[Location] = [location(b, aor, number) for aor in aors for b in states[aor].bindings]
            if rows:
                statements.append(self._database.upsert(SHADOW.location, LOCATION_COLUMNS, ("contact_id",), rows))
            await self._database.transact(statements)

    async def _take_over_history(self, number: int, kept: int) -> None:
        """History from before the position: intervals as they are, those that ended later open again."""
        if kept < 0:
            return
        ending = ("until_ms", "ended", "ended_by", "ended_offset")
        columns = ", ".join(
            f"CASE WHEN ended_offset > %s THEN NULL ELSE {column} END" if column in ending else column
            for column in HISTORY_COLUMNS
        )
        async for low, high in id_ranges(self._database, LIVE.history, "contact_id", number):
            copy = Statement(
                f"INSERT INTO {SHADOW.history} ({', '.join(HISTORY_COLUMNS)}) SELECT {columns} FROM {LIVE.history}"  # noqa: S608  # ours
                " WHERE contact_id > %s AND contact_id <= %s AND partition_no = %s AND began_offset <= %s",
                (*[kept] * len(ending), low, high, number, kept),
            )
            await self._database.transact([copy])
        # A binding of the snapshots without an interval: its history is lost but for when it was made.
        async for low, high in id_ranges(self._database, SHADOW.location, "contact_id", number):
            begin = Statement(
                f"INSERT INTO {SHADOW.history} ({', '.join(HISTORY_COLUMNS[:13])})"  # noqa: S608  # ours
                " SELECT contact_id, %s, partition_no, username, domain, contact, COALESCE(received, ''),"
                " COALESCE(path, ''), COALESCE(socket, ''), user_agent, created_ms, 'created', ''"
                f" FROM {SHADOW.location} l WHERE contact_id > %s AND contact_id <= %s AND partition_no = %s"
                f" AND NOT EXISTS (SELECT 1 FROM {SHADOW.history} h"
                " WHERE h.contact_id = l.contact_id AND h.until_ms IS NULL)",
                (kept, low, high, number),
            )
            await self._database.transact([begin])


def _state(record: Record) -> AorState:
    if not record.value:
        return AorState()
    check_state(record.headers)
    return _decode_state(record.value)
