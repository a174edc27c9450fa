"""Where an AOR can be reached: the query by which any edge routes, and its page on the edge's HTTP."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from runtime.database.port import Database
from runtime.errors import DatabaseUnavailable

# The database's own clock comes with the rows: no edge's clock counts (DESIGN section 7). An AOR has few.
SQL = (
    "SELECT contact, received, path, socket, q, sip_instance, expires, contact_id, CURRENT_TIMESTAMP FROM location"
    " WHERE username = %s AND domain = %s ORDER BY contact_id"
)


class Target(msgspec.Struct, frozen=True):
    """One binding as an edge routes by it."""

    contact: str
    received: str
    """The source as a SIP URI; "" when the column is empty."""
    path: str
    """Path values, comma-separated; the owner's token comes first."""
    socket: str
    q: float
    instance: str
    expires: int
    """Unix seconds."""
    id: int


async def look_up(database: Database, aor: str, grace: int = 5) -> list[Target]:
    """The bindings of a canonical AOR (`alice@example.test`) that have not ended; raises DatabaseUnavailable.

    One that ended no longer than `grace` seconds ago still counts.
    """
    user, _, domain = aor.rpartition("@")
    rows = await database.query(SQL, (user, domain))
    return [
        Target(contact, received or "", path or "", socket or "", float(q), instance or "", int(expires), int(id_))
        for contact, received, path, socket, q, instance, expires, id_, now in rows
        if expires > _unix(now) - grace
    ]


def _unix(now: datetime | str) -> float:
    """Seconds of CURRENT_TIMESTAMP in UTC, which MySQL gives as a datetime and SQLite as text."""
    at = datetime.fromisoformat(now) if isinstance(now, str) else now
    return at.replace(tzinfo=UTC).timestamp()


def location_page(database: Database, grace: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of `GET /location/{aor}`: a JSON list of targets; 503 while the database is away."""

    async def page(request: web.Request) -> web.StreamResponse:
        try:
            targets = await look_up(database, request.match_info["aor"], grace)
        except DatabaseUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.Response(body=msgspec.json.encode(targets), content_type="application/json")

    return page
