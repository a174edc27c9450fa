"""The embedded log's tables, and the statements on them; everything here runs in the store's threads.

A record's row id is its partition's number and its offset (`ROW_BITS`), so that a partition's records lie
together and need no index. The next offset is kept apart from the records: one that was given is never given
again, however many records are deleted. Retention deletes from a partition's start. Compaction goes through
the new part of a compacted partition once and deletes what a later record of the same key replaces.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from events.topics import Topic
from runtime.errors import Fenced, LogRefused
from runtime.log.port import Append, Bounds, Position

ROW_BITS = 44
"""Bits of a row id that are the offset."""
CHUNK = 2000
"""Rows that cleaning handles in one transaction, so that nobody waits long behind it."""
READ_BYTES = 4 * 1024 * 1024
"""A read ends after the record that reaches this."""
TOMBSTONE_MS = 24 * 3600 * 1000
"""How long a compacted topic keeps the mark of a deleted key for readers that are behind."""
VACUUM_PAGES = 4096
"""Free pages that are kept for reuse; more are given back to the disk."""

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS log_partition (
        id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
        begin_offset INTEGER NOT NULL DEFAULT 0, end_offset INTEGER NOT NULL DEFAULT 0,
        timestamp INTEGER NOT NULL DEFAULT 0, cleaned_offset INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, partition)) STRICT""",
    """CREATE TABLE IF NOT EXISTS log_record (
        id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB) STRICT""",
    """CREATE TABLE IF NOT EXISTS log_latest (
        partition_id INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL, deleted_at INTEGER,
        PRIMARY KEY (partition_id, key)) STRICT, WITHOUT ROWID""",
    """CREATE INDEX IF NOT EXISTS log_latest_deleted ON log_latest (partition_id, deleted_at)
        WHERE deleted_at IS NOT NULL""",
    """CREATE TABLE IF NOT EXISTS log_committed (
        topic TEXT NOT NULL, consumer_group TEXT NOT NULL, partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL, PRIMARY KEY (topic, consumer_group, partition)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS log_writer (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode


class StoredRecord(NamedTuple):
    """A record as read (`runtime.log.port.Record`)."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Part(NamedTuple):
    """One partition, and its number in row ids."""

    id: int
    partition: int

    @property
    def first(self) -> int:
        """The row id of offset 0."""
        return self.id << ROW_BITS

    @property
    def beyond(self) -> int:
        """The first row id after all of the partition's."""
        return (self.id + 1) << ROW_BITS


class Chunk(NamedTuple):
    """Some records of a partition, its range, and the offset to go on at."""

    records: list[StoredRecord]
    bounds: Bounds
    next: int


def create(connection: sqlite3.Connection, topics: Mapping[str, int]) -> list[str]:
    """Makes the tables, and those topics that have no partition yet; returns their names."""
    for statement in SCHEMA:
        connection.execute(statement)
    there = {topic for (topic,) in connection.execute("SELECT DISTINCT topic FROM log_partition")}
    missing = [topic for topic in topics if topic not in there]
    connection.executemany(
        "INSERT INTO log_partition (topic, partition) VALUES (?, ?)",
        [(topic, number) for topic in missing for number in range(topics[topic])],
    )
    return missing


def parts(connection: sqlite3.Connection) -> dict[str, list[Part]]:
    """All topics' partitions in order."""
    found: dict[str, list[Part]] = {}
    for id_, topic, partition in connection.execute(
        "SELECT id, topic, partition FROM log_partition ORDER BY topic, partition"
    ):
        found.setdefault(topic, []).append(Part(id_, partition))
    return found


def append(
    connection: sqlite3.Connection, records: Sequence[Append], parts: Mapping[str, Sequence[Part]], now_ms: int
) -> list[Position]:
    """Writes records; a partition's timestamps never go backwards, whatever the clock does."""
    ends: dict[int, list[int]] = {}
    rows = []
    positions = []
    for topic, partition, key, value, headers in records:
        id_ = parts[topic][partition].id
        end = ends.get(id_)
        if end is None:
            row = connection.execute("SELECT end_offset, timestamp FROM log_partition WHERE id = ?", (id_,)).fetchone()
            if row is None:
                raise LogRefused(f"{topic}: there is no partition {partition}")
            end = ends[id_] = [row[0], max(row[1], now_ms)]
        offset, timestamp = end
        end[0] = offset + 1
        rows.append((id_ << ROW_BITS | offset, timestamp, key, value, _pack(tuple(headers)) if headers else None))
        positions.append(Position(partition, offset, timestamp))
    connection.executemany("INSERT INTO log_record VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "UPDATE log_partition SET end_offset = ?, timestamp = ? WHERE id = ?",
        [(offset, timestamp, id_) for id_, (offset, timestamp) in ends.items()],
    )
    return positions


def next_epoch(connection: sqlite3.Connection, transactional_id: str) -> int:
    """Fences the earlier writers of this id."""
    (epoch,) = connection.execute(
        "INSERT INTO log_writer VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        (transactional_id,),
    ).fetchone()
    return int(epoch)


def check_epoch(connection: sqlite3.Connection, transactional_id: str, epoch: int) -> None:
    """Raises Fenced when a later writer has taken this id over."""
    if connection.execute("SELECT epoch FROM log_writer WHERE id = ?", (transactional_id,)).fetchone() != (epoch,):
        raise Fenced(f"a later writer has taken over {transactional_id}")


def bounds(connection: sqlite3.Connection, part: Part) -> Bounds:
    """The range of a partition."""
    return Bounds(
        *connection.execute("SELECT begin_offset, end_offset FROM log_partition WHERE id = ?", (part.id,)).fetchone()
    )


def read(connection: sqlite3.Connection, part: Part, begin: int, end: int | None, limit: int) -> Chunk:
    """At most `limit` records and about READ_BYTES, from `begin` to before `end`."""
    records: list[StoredRecord] = []
    size = 0
    with_end = part.beyond if end is None else part.first + end
    # One transaction, so that the range is the one that these records were read in.
    connection.execute("BEGIN")
    try:
        range_ = bounds(connection, part)
        for id_, timestamp, key, value, headers in connection.execute(
            "SELECT id, timestamp, key, value, headers FROM log_record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (part.first + begin, with_end, limit),
        ):
            records.append(
                StoredRecord(
                    part.partition, id_ - part.first, timestamp, key, value, _unpack(headers) if headers else ()
                )
            )
            size += len(value or b"") + len(key or b"") + 100
            if size >= READ_BYTES:
                break
    finally:
        connection.execute("COMMIT")
    if len(records) >= limit or size >= READ_BYTES:
        return Chunk(records, range_, records[-1].offset + 1)
    return Chunk(records, range_, max(begin, range_.end if end is None else min(end, range_.end)))


def offset_at(connection: sqlite3.Connection, part: Part, timestamp: int) -> int:
    """The first offset at or after this time, found by halving: timestamps grow with offsets."""
    low, high = bounds(connection, part)
    found = high
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            "SELECT id, timestamp FROM log_record WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
            (part.first + middle, part.first + high),
        ).fetchone()
        if row is None:
            high = middle
        elif row[1] >= timestamp:
            found = int(row[0] - part.first)
            high = middle
        else:
            low = int(row[0] - part.first) + 1
    return found


def commit_offsets(connection: sqlite3.Connection, topic: str, group: str, offsets: Iterable[tuple[int, int]]) -> None:
    """Stores a group's next offsets."""
    connection.executemany(
        "INSERT INTO log_committed VALUES (?, ?, ?, ?) "
        "ON CONFLICT (topic, consumer_group, partition) DO UPDATE SET next_offset = excluded.next_offset",
        [(topic, group, partition, offset) for partition, offset in offsets],
    )


def committed(connection: sqlite3.Connection, topic: str, group: str) -> dict[int, int]:
    """A group's next offsets by partition."""
    return dict(
        connection.execute(
            "SELECT partition, next_offset FROM log_committed WHERE topic = ? AND consumer_group = ?", (topic, group)
        ).fetchall()
    )


def expire(connection: sqlite3.Connection, topic: Topic, part: Part, now_ms: int) -> bool:
    """Deletes a chunk of records older than the topic's retention; True when there is more to do."""
    cut = offset_at(connection, part, now_ms - topic.retention_ms)
    begin = bounds(connection, part).begin
    if cut <= begin:
        return False
    until = min(cut, begin + CHUNK)
    connection.execute("DELETE FROM log_record WHERE id >= ? AND id < ?", (part.first + begin, part.first + until))
    connection.execute("UPDATE log_partition SET begin_offset = ? WHERE id = ?", (until, part.id))
    return until < cut


def compact(connection: sqlite3.Connection, part: Part, now_ms: int) -> bool:
    """Compacts a chunk of what is new, and forgets old tombstones; True when there is more to do."""
    cleaned, end = connection.execute(
        "SELECT cleaned_offset, end_offset FROM log_partition WHERE id = ?", (part.id,)
    ).fetchone()
    rows = connection.execute(
        "SELECT id, key, CASE WHEN value IS NULL THEN timestamp END FROM log_record "
        "WHERE id >= ? AND id < ? AND key IS NOT NULL ORDER BY id LIMIT ?",
        (part.first + cleaned, part.beyond, CHUNK),
    ).fetchall()
    for id_, key, deleted_at in rows:
        earlier = connection.execute(
            "SELECT id FROM log_latest WHERE partition_id = ? AND key = ?", (part.id, key)
        ).fetchone()
        if earlier:
            connection.execute("DELETE FROM log_record WHERE id = ?", earlier)
        connection.execute(
            "INSERT OR REPLACE INTO log_latest (partition_id, key, id, deleted_at) VALUES (?, ?, ?, ?)",
            (part.id, key, id_, deleted_at),
        )
    more = len(rows) == CHUNK
    connection.execute(
        "UPDATE log_partition SET cleaned_offset = ? WHERE id = ?",
        (rows[-1][0] - part.first + 1 if more else end, part.id),
    )
    old = connection.execute(
        "DELETE FROM log_latest WHERE (partition_id, key) IN (SELECT partition_id, key FROM log_latest "
        "WHERE partition_id = ? AND deleted_at < ? LIMIT ?) RETURNING id",
        (part.id, now_ms - TOMBSTONE_MS, CHUNK),
    ).fetchall()
    connection.executemany("DELETE FROM log_record WHERE id = ?", old)
    return more or len(old) == CHUNK


def vacuum(connection: sqlite3.Connection) -> None:
    """Gives free pages back to the disk, a few at a time, when there are many."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free > VACUUM_PAGES:
        # Python's sqlite3 takes one step of this statement, whatever number it is given: one page.
        for _ in range(VACUUM_PAGES // 4):
            connection.execute("PRAGMA incremental_vacuum(1)")
