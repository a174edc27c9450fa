"""Ends the bindings of users who are none any more (CHECKLIST R42): removed from where users are, or disabled there.

Every authsvc looks at the users of its own partitions of `auth.commands`, which are those that it remembers: so there
is no work done twice and no leader, and who is taken for gone here cannot log in by what another remembers. A look
that cannot be finished says nothing; the next one begins anew. What ends bindings is a command to the registrar.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Protocol

from prometheus_client import Counter, Gauge

from authsvc.decider import named_by
from authsvc.users.leavers import Look, judge
from authsvc.users.remembered import Key
from runtime.config import Domain
from runtime.database.keyset import following
from runtime.database.port import Database
from runtime.database.rebuild import chunks
from runtime.errors import LogRefused, Unavailable

log = logging.getLogger("ramal.authsvc")

AT_ONCE = 500
"""Users of one page; a pause follows it."""
PAUSE_SECONDS = 0.2
"""So a look costs the tables and the directory at most 2,500 names a second."""
NAMED = 5
"""Of many who are gone so many are named in the log."""
SPREAD = 0.1
"""The part of the interval by which looks come earlier or later."""

SWEEPS = Counter(
    "ramal_authsvc_sweeps",
    "Looks for users who have left, by outcome: done; refused, too many at once; away, somebody could not tell.",
    ["outcome"],
)
for _outcome in ("done", "refused", "away"):
    SWEEPS.labels(_outcome)
GONE = Gauge("ramal_authsvc_gone_users", "Registered, and in no source of users or disabled, at the last whole look.")
REFUSED = Gauge("ramal_authsvc_sweep_refused", "1 while so many users are gone that nobody's bindings end.")
DEACTIVATED = Counter("ramal_authsvc_deactivated_users", "Users whose bindings were ended because they are gone.")


class Directory(Protocol):
    """All sources of users as one."""

    async def gone(self, keys: Collection[Key]) -> set[Key]:
        """Those of these users that no source has in use; raises Unavailable where one cannot tell."""
        ...

    def left(self, keys: Collection[Key]) -> None:
        """These are gone: what is remembered of them counts no more."""
        ...


class Sweep:
    """Looks at everybody again and again."""

    def __init__(
        self,
        users: Directory,
        database: Database,
        domains: Mapping[str, Domain],
        owns: Callable[[Key], bool],
        end: Callable[[Collection[str]], Awaitable[None]],
        *,
        seconds: float,
        percent: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`owns`: whether a user is ours to look at; `end` appends the commands that end the bindings of AORs."""
        self._users = users
        self._database = database
        self._domains = domains
        self._owns = owns
        self._end = end
        self._seconds = seconds
        self._percent = percent
        self._jitter = jitter
        self._suspects: frozenset[Key] = frozenset()

    async def run(self) -> None:
        """Looks every `seconds`, more or less; for ever."""
        await asyncio.sleep(self._seconds * self._jitter())  # services that start together do not look together
        while True:
            try:
                await self.once()
            except Exception:
                log.exception("a look for users who have left failed; it goes on")
                self._suspects = frozenset()
            await asyncio.sleep(self._seconds * (1 - SPREAD + 2 * SPREAD * self._jitter()))

    async def once(self) -> None:
        """One look, and what follows from it."""
        suspects, self._suspects = self._suspects, frozenset()
        try:
            aors, look = await self._look()
            judgement = judge(look, suspects, self._percent)
            leavers = await self._still_gone(judgement.leavers)
            if leavers:
                self._users.left(leavers)
                await self._end([aors[key] for key in sorted(leavers)])
        except (Unavailable, LogRefused) as error:
            SWEEPS.labels("away").inc()
            log.info("nobody can say now who has left", extra={"cause": str(error)})
            return
        self._suspects = frozenset(judgement.suspects)
        GONE.set(len(look.gone))
        REFUSED.set(judgement.refused)
        DEACTIVATED.inc(len(leavers))
        SWEEPS.labels("refused" if judgement.refused else "done").inc()
        if judgement.refused:
            log.error(
                "so many users are gone at once that nobody's registration is ended; if it is true, restart authsvc"
                " with RAMAL_AUTHSVC_SWEEP_PERCENT=100 until they are ended",
                extra={
                    "gone": len(look.gone),
                    "registered": look.registered,
                    "among": [aors[key] for key in sorted(look.gone)[:NAMED]],
                },
            )

    async def _still_gone(self, keys: Collection[Key]) -> set[Key]:
        """Those of these who have not come back since the look found them gone, which may be minutes ago."""
        gone: set[Key] = set()
        for some in chunks(sorted(keys), AT_ONCE):
            gone |= await self._users.gone(some)
        return gone

    async def _look(self) -> tuple[dict[Key, str], Look]:
        """AORs of those who are gone, and the look; raises Unavailable."""
        registered = 0
        aors: dict[Key, str] = {}
        async for page in registered_users(self._database, self._domains):
            ours = {key: aor for key, aor in page.items() if self._owns(key)}
            if not ours:
                continue
            registered += len(ours)
            gone = await self._users.gone(ours)
            aors.update((key, ours[key]) for key in gone)
            await asyncio.sleep(PAUSE_SECONDS)
        return aors, Look(registered, aors.keys())


async def registered_users(database: Database, domains: Mapping[str, Domain]) -> AsyncIterator[dict[Key, str]]:
    """Everybody of these domains who has a binding, with his AOR, page by page; raises DatabaseUnavailable."""
    sql, values = "", list[object]()
    while True:
        rows = await database.query(
            f"SELECT DISTINCT username, domain FROM location {sql} ORDER BY username, domain LIMIT {AT_ONCE}",  # noqa: S608  # ours
            values,
        )
        aors = [f"{name}@{domain}" for name, domain in rows if domain in domains]
        yield {named_by(aor): aor for aor in aors}
        if len(rows) < AT_ONCE:
            return
        behind = following(("username", "domain"), rows[-1])
        sql, values = f"WHERE {behind.sql}", list(behind.values)
