"""Holds a consumer group to one database. Members that wrote to different ones (somebody tries a second database on a
log that serves) would each leave the other's tables without the partitions that they have.

Whoever commits an offset for the group has written that position to the tables before. So

    the group has committed, and the tables have   they were lost, or are another database: who has them does not join
    no position at all                             the group, and `ramal rebuild` makes them the log's
    a partition that is another member's stays     that member writes to another database: an alarm, and no more, since
    below what the group has committed             which of them is right only people know. An older copy of the same
                                                   tables (a dump loaded, a failover) moves on, and is no alarm
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

from prometheus_client import Gauge

from runtime.database.positions import Positions
from runtime.errors import DatabaseRefused, Unavailable
from runtime.log.port import Log

ASK_SECONDS = 1.0
"""Until the first question is asked again, while it is not answered or the tables are empty."""
NOT_OURS = "does not join the group"
LOOK_SECONDS = 20.0
SURE_SECONDS = 60.0
"""So long has a partition to stand still: longer than it takes the group to give those of a dead member to another."""

_FOREIGN = Gauge(
    "ramal_foreign_partitions", "Partitions that a member of our group writes to another database.", ["topic"]
)

log = logging.getLogger("ramal.database")


class OneDatabase:
    """What a member of `group` knows of whether all of them write the tables of `positions`."""

    def __init__(
        self,
        log_: Log,
        topic: str,
        group: str,
        positions: Positions,
        ours: Callable[[], Collection[int]],
        rebuild: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ours`: the partitions assigned to us; `rebuild`: the command that makes the tables anew."""
        self._log, self._topic, self._group = log_, topic, group
        self._positions = positions
        self._ours = ours
        self._rebuild = rebuild
        self._clock = clock
        self._still: dict[int, tuple[int, float]] = {}
        """By partition that is another member's, and that the tables are behind with: their position, and since when
        it is that."""
        self._gauge = _FOREIGN.labels(topic)
        self.reason = ""
        """What people have to know; "" while all is well."""

    async def admitted(self) -> None:
        """Returns once we may join the group; waits for ever while the tables are not the group's."""
        while (why := await self._refusal()) is not None:
            if self.reason != why:
                log.log(logging.CRITICAL if why.startswith(NOT_OURS) else logging.WARNING, why, extra=self._extra())
            self.reason = why
            await asyncio.sleep(ASK_SECONDS)
        if self.reason:
            log.info("the tables are the group's", extra=self._extra())
        self.reason = ""

    async def watch(self) -> None:
        """Looks at the others' partitions, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (Unavailable, DatabaseRefused):
                continue  # whoever reads and writes says so

    async def look(self) -> None:
        """One look. Raises Unavailable or DatabaseRefused."""
        # First what was committed: the tables had it then.
        committed = await self._log.committed(self._topic, self._group)
        there = await self._positions.all()
        foreign = [number for number in self._foreign(committed, there) if await self._has_more(number, there)]
        self._gauge.set(len(foreign))
        if foreign:
            numbers = ", ".join(str(number) for number in foreign)
            why = (
                f"another member of the group {self._group} writes to another database: nothing comes into these"
                f" tables of {self._topic} {numbers}. End the one that is wrong"
            )
            if self.reason != why:
                log.critical(why, extra=self._extra())
            self.reason = why
        elif self.reason:
            log.info("all members write to one database again", extra=self._extra())
            self.reason = ""

    def _foreign(self, committed: Mapping[int, int], there: Mapping[int, int]) -> list[int]:
        """The partitions that others write elsewhere."""
        now, ours = self._clock(), self._ours()
        behind = {
            number: there.get(number, 0)
            for number, offset in committed.items()
            if number not in ours and there.get(number, 0) < offset
        }
        self._still = {
            number: self._still[number] if self._still.get(number, (-1, now))[0] == at else (at, now)
            for number, at in behind.items()
        }
        return sorted(number for number, (_, since) in self._still.items() if now - since >= SURE_SECONDS)

    async def _has_more(self, number: int, there: Mapping[int, int]) -> bool:
        """Whether the log has more of the partition than the tables; one that lost its end may have less."""
        return (await self._log.bounds(self._topic, number)).end > there.get(number, 0)

    async def _refusal(self) -> str | None:
        """Why we may not join now."""
        try:
            committed = await self._log.committed(self._topic, self._group)
            if not any(committed.values()) or any((await self._positions.all()).values()):
                return None
        except (Unavailable, DatabaseRefused) as error:
            return f"cannot ask whether these are the tables of the group {self._group}: {error}"
        return (
            f"{NOT_OURS} {self._group}: that has {self._topic} in its tables, and these have none."
            f" Is RAMAL_MYSQL_DATABASE right? If it is, and the rows were lost: `{self._rebuild}`"
        )

    def _extra(self) -> dict[str, object]:
        return {"group": self._group, "topic": self._topic}
