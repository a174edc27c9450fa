"""Pages of a table without OFFSET: the next one begins behind the last row of the one before. PURE."""

from collections.abc import Sequence
from typing import Any

from runtime.database.port import Statement


def following(columns: Sequence[str], place: Sequence[Any], *, descending: bool = False) -> Statement:
    """The condition for rows behind a place in the order of these columns, as an index can serve it.

    MySQL reads no range for `(a, b) > (x, y)`; it does for `a >= x AND (a > x OR (a = x AND b > y))`.
    """
    beyond = "<" if descending else ">"
    sql, values = "", list[Any]()
    for column, value in zip(reversed(columns), reversed(place), strict=True):
        sql = f"{column} {beyond} %s" + (f" OR ({column} = %s AND ({sql}))" if sql else "")
        values = [value, *([value, *values] if values else [])]
    return Statement(f"({columns[0]} {beyond}= %s AND ({sql}))", [place[0], *values])
