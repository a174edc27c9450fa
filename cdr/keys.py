"""The keys of the analysts' pseudonyms: table `person_keys`, apart from everything that analysts read.

Nothing of it is remembered between batches: a key that was deleted must be of no use from then on.
"""

import secrets
from collections.abc import Collection, Iterable

from runtime.database.port import Database, Statement
from runtime.errors import DatabaseUnavailable

KEY_BYTES = 32
_TOGETHER = 500


async def keys_of(database: Database, persons: Collection[str]) -> dict[str, bytes]:
    """Everybody's key; whoever has none is given one. Raises DatabaseUnavailable."""
    found = await _known(database, persons)
    if missing := [person for person in persons if person not in found]:
        # Somebody else may give them theirs at the same time: the first one counts.
        rows = [(person, secrets.token_hex(KEY_BYTES)) for person in missing]
        columns = ("person", "secret")
        await database.transact([database.upsert("person_keys", columns, columns, rows)])
        found |= await _known(database, missing)
        if len(found) < len(persons):
            raise DatabaseUnavailable("keys of persons vanished: somebody is being forgotten")
    return found


async def _known(database: Database, persons: Iterable[str]) -> dict[str, bytes]:
    wanted, found = list(persons), {}
    for start in range(0, len(wanted), _TOGETHER):
        some = wanted[start : start + _TOGETHER]
        marks = ", ".join(["%s"] * len(some))
        rows = await database.query(f"SELECT person, secret FROM person_keys WHERE person IN ({marks})", some)  # noqa: S608  # ours
        found.update({str(person): bytes.fromhex(secret) for person, secret in rows})
    return found


def deleted(persons: Iterable[str]) -> list[Statement]:
    """Makes nobody of their pseudonyms."""
    return [Statement("DELETE FROM person_keys WHERE person = %s", (person,)) for person in persons]
