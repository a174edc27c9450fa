"""An embedded log that has lost its end: as after an unclean election, or, from 0 on, a topic made anew."""

import sqlite3

from runtime.log.embedded.sql import ROW_BITS
from runtime.store import EmbeddedStore

LAST = (1 << ROW_BITS) - 1


async def shorten(store: EmbeddedStore, topic: str, end: int, partition: int = 0) -> None:
    """The partition ends here now."""

    def write(connection: sqlite3.Connection) -> None:
        [(id_,)] = connection.execute(
            "SELECT id FROM log_partition WHERE topic = ? AND partition = ?", (topic, partition)
        )
        connection.execute("DELETE FROM log_record WHERE id >> ? = ? AND id & ? >= ?", (ROW_BITS, id_, LAST, end))
        connection.execute("UPDATE log_partition SET end_offset = ? WHERE id = ?", (end, id_))

    await store.write(write)
