"""How many octets a record of each type is in the log: `.venv/bin/python bench/sizes.py ramal-data`.

Of an embedded system's file, running or not: key, value and headers. Over Kafka they are the same, and some 20 octets
more each, before many together are compressed.
"""
# ruff: noqa: T201

import sqlite3
import sys
from pathlib import Path

from runtime.log.embedded.sql import ROW_BITS

SIZES = f"""
    SELECT topic, COALESCE(JSON_EXTRACT(CAST(value AS TEXT), '$.type'), 'tombstone') AS type, COUNT(*),
        AVG(COALESCE(LENGTH(key), 0) + COALESCE(LENGTH(value), 0) + COALESCE(LENGTH(headers), 0))
    FROM log_record JOIN log_partition ON log_partition.id = log_record.id >> {ROW_BITS}
    GROUP BY topic, type ORDER BY topic, type
"""  # noqa: S608  # a number of ours


def main(directory: Path) -> int:
    """Prints a line for each type; the exit code."""
    with sqlite3.connect(f"file:{directory / 'ramal.db'}?mode=ro", uri=True) as file:
        found = file.execute(SIZES).fetchall()
    print(f"{'topic':20} {'type':30} {'records':>8} {'octets':>8}")
    for topic, type_, records, octets in found:
        print(f"{topic:20} {type_:30} {records:8} {octets:8.0f}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "ramal-data")))
