"""What authsvc has to notice of enrolments: that there are new ones, and that passwords in the directory have changed.

New rows are looked for once a second, by one query over an index, whoever wrote them: the console, a command, another
authsvc. What was remembered of such a user counts no more, so who enrols can log in at once. Whose password has changed
is asked of the directory in bulk, 100 names a search, and never for one registration (CHECKLIST A24).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

from prometheus_client import Counter

from authsvc.users.accounts import Account
from authsvc.users.enrolled import Enrolled, changed_since, page, retiring
from authsvc.users.leavers import Look, judge
from authsvc.users.remembered import Key
from authsvc.users.retiring import LEFT, over_for
from runtime.database.port import Database
from runtime.errors import DatabaseRefused, Unavailable

log = logging.getLogger("ramal.authsvc")

NOTICE_SECONDS = 1.0
WINDOW_MS = 120_000
"""By how much the clock of who writes a row may be behind ours."""
TWICE = 2
"""A row is noticed so often: a look-up that was under way at the first time may remember what was before it."""
PAUSE_SECONDS = 0.2
MOST_PERCENT = 10
"""If the directory has fewer of those who have enrolled than all but so many, it is believed of nobody."""
RETIRED = Counter("ramal_authsvc_enrolments_retired", "Enrolments that ended: a password changed, or a user left.")


class Accounts(Protocol):
    """The directory."""

    async def accounts(self, keys: Collection[Key]) -> dict[Key, Account]:
        """What it says of these users; raises Unavailable."""
        ...


class Watch:
    """Two tasks of one authsvc."""

    def __init__(
        self,
        database: Database,
        directory: Accounts,
        owns: Callable[[Key], bool],
        enrolled_anew: Callable[[Collection[Key]], None],
        *,
        check_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`owns`: whether a user is ours to check; `check_seconds`: 0 for never; `clock` in Unix seconds."""
        self._database = database
        self._directory = directory
        self._owns = owns
        self._enrolled_anew = enrolled_anew
        self._check_seconds = check_seconds
        self._clock = clock
        self._missed: frozenset[Key] = frozenset()
        """Whom the directory did not have at the check before."""
        self._noticed: dict[Key, tuple[int, int]] = {}
        self._since = self._now()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins."""
        self._tasks = [asyncio.create_task(self._every(NOTICE_SECONDS, self.notice), name="enrolments noticed")]
        if self._check_seconds:
            self._tasks.append(asyncio.create_task(self._every(self._check_seconds, self.check), name="enrolments"))

    async def stop(self) -> None:
        """Ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await do()
            except (Unavailable, DatabaseRefused) as error:
                log.debug("enrolments cannot be looked at now", extra={"cause": str(error)})
            except Exception:
                log.exception("a look at enrolments failed; it goes on")

    async def notice(self) -> None:
        """Lets go of what is remembered of those whose rows are new. Raises Unavailable."""
        now = self._now()
        rows = await changed_since(self._database, self._since - WINDOW_MS)
        self._since = now
        noticed: dict[Key, tuple[int, int]] = {}
        anew = []
        for key, at in rows:
            before, times = self._noticed.get(key, (at, 0))
            times = times if before == at else 0
            if times < TWICE:
                anew.append(key)
            noticed[key] = at, min(times + 1, TWICE)
        self._noticed = noticed
        if anew:
            self._enrolled_anew(anew)

    async def check(self) -> None:
        """Retires enrolments whose user's password has changed since, or who has left. Raises Unavailable.

        Who leaves is judged as for registrations (`authsvc.users.leavers`): his name may be another's one day, who must
        not be reached by the old password.
        """
        missed, self._missed = self._missed, frozenset()
        gone: dict[Key, Enrolled] = {}
        looked_at = 0
        after: Key | None = None
        while rows := await page(self._database, after, "retired_at = 0"):
            if ours := [row for row in rows if self._owns(row.key)]:
                looked_at += len(ours)
                accounts = await self._directory.accounts([row.key for row in ours])
                gone |= {row.key: row for row in ours if row.key not in accounts}
                await self._retire(
                    (row, why)
                    for row in ours
                    if (account := accounts.get(row.key))
                    and (why := over_for(row.password_changed, row.modified, account))
                )
            after = rows[-1].key
            await asyncio.sleep(PAUSE_SECONDS)
        judgement = judge(Look(looked_at, gone.keys()), missed, MOST_PERCENT)
        await self._retire((gone[key], LEFT) for key in judgement.leavers)
        self._missed = frozenset(judgement.suspects)

    async def _retire(self, rows: Iterable[tuple[Enrolled, str]]) -> None:
        over = list(rows)
        if not over:
            return
        await self._database.transact([retiring(row, why, self._now()) for row, why in over])
        RETIRED.inc(len(over))
        for row, why in over:
            log.warning(
                "an enrolment is over: the user must enrol again (the console's page /enroll, or `ramal enroll`)",
                extra={"user": "@".join(row.key), "reason": why},
            )

    def _now(self) -> int:
        return int(self._clock() * 1000)
