"""Look-ups of AORs: what one wake-up asks for goes in one query, and the last answers serve while the database is away.

While queries are under way, further look-ups gather and go together when one has ended. A query that fails or
takes too long ends them all: from then on answers come from what this edge last looked up, at once, until a probe
finds the database again.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec

from edge.core.actions import Location, LookUp, is_contact
from edge.outside.location import Names, find, find_contacts, find_known
from runtime.database.port import Database
from runtime.errors import DatabaseUnavailable
from runtime.metrics import dropped
from runtime.tasks import Tasks
from sipcore.telephone import NumberRule

log = logging.getLogger("ramal.edge")

SECONDS = 1.0
"""What a query may take before the last known answers are given."""
UNDER_WAY = 2
"""Queries at one time."""
BATCH = 200
"""AORs in one query."""
GATHERED = 20_000
"""Look-ups that wait for their query; more are answered with what is known."""
REMEMBERED = 100_000
"""AORs and Contacts whose last answer is kept; the one asked for longest ago goes first."""
RETRY = 0.3
"""Seconds between two probes while the database is away."""
_PROBE = "SELECT contact_id FROM location LIMIT 1"

Answers = list[tuple[int, Location]]


class Locations:
    """Where AORs can be reached, from the tables or from memory."""

    def __init__(
        self,
        database: Database,
        grace: int,
        located: Callable[[Answers], None],
        rules: Mapping[str, NumberRule] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`located` is told of every look-up, never from within `look_up`; `rules` of numbers by served domain."""
        self._database = database
        self._grace = grace
        self._located = located
        self._names = Names(rules or {})
        self._clock = clock
        self._waiting: dict[str, list[int]] = {}
        self._count = 0
        """Look-ups that wait for their query."""
        self._tasks = Tasks(self._ended)
        self._last: OrderedDict[str, Location] = OrderedDict()
        """By AOR or Contact as it was asked for; only those with targets."""
        self._learnt = (0.0, 0.0)
        """The clock and the database's time at the last row."""
        self.away = False
        """Whether the last query failed."""

    def look_up(self, lookups: list[LookUp]) -> None:
        """Answers these look-ups within about a second."""
        if self.away or self._count + len(lookups) > GATHERED:
            if not self.away:
                dropped("lookup-overload", len(lookups))
            answers = [(lookup.id, self._last_known(lookup.aor)) for lookup in lookups]
            asyncio.get_running_loop().call_soon(self._located, answers)
            return
        self._count += len(lookups)
        for lookup in lookups:
            self._waiting.setdefault(lookup.aor, []).append(lookup.id)
        self._go_on()

    async def stop(self) -> None:
        """Drops what waits and ends what is under way."""
        self._waiting.clear()
        await self._tasks.stop()

    def _go_on(self) -> None:
        while self._waiting and len(self._tasks) < UNDER_WAY and not self.away:
            batch, self._waiting = self._waiting, {}
            if len(batch) > BATCH:
                aors = list(batch)
                self._waiting = {aor: batch[aor] for aor in aors[BATCH:]}
                batch = {aor: batch[aor] for aor in aors[:BATCH]}
            self._count -= sum(map(len, batch.values()))
            self._tasks.begin(self._ask(batch), "look-up")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("an answer broke", exc_info=error)
        self._go_on()

    async def _ask(self, batch: dict[str, list[int]]) -> None:
        """Answers all of a batch, and takes from it what is answered."""
        try:
            async with asyncio.timeout(SECONDS):
                await self._find(batch)
        except (DatabaseUnavailable, TimeoutError) as error:
            self._went_away(str(error) or "no answer in time")
        except Exception:  # a bug: its callers get what is known, the next ones are served
            log.exception("a look-up broke")
        if batch:
            self._answer(batch, {aor: self._last_known(aor) for aor in batch})

    async def _find(self, batch: dict[str, list[int]]) -> None:
        last = self._last
        contacts = list(filter(is_contact, batch))
        names = {aor: self._names.of(aor) for aor in batch if not is_contact(aor)}
        own = {aor for aor in names if (known := last.get(aor)) is not None and known.aor == aor}
        found, now = await find(self._database, names, own, self._grace) if names else ({}, 0.0)
        if contacts:
            by_contact, then = await find_contacts(self._database, contacts, self._grace)
            found |= by_contact
            now = max(now, then)
        if now:
            self._learnt = self._clock(), now
        reached = {}
        for aor, located in found.items():
            if located.targets:
                reached[aor] = last[aor] = located
                last.move_to_end(aor)
            else:
                last.pop(aor, None)
        while len(last) > REMEMBERED:
            last.popitem(last=False)
        if reached:
            self._answer(batch, reached)
        if not batch:
            return
        unknown = {aor: names[aor] for aor in batch if not found[aor].known and aor in names}
        for aor in await find_known(self._database, unknown):
            found[aor] = msgspec.structs.replace(found[aor], known=True)
        self._answer(batch, {aor: found[aor] for aor in batch})

    def _answer(self, batch: dict[str, list[int]], answers: Mapping[str, Location]) -> None:
        self._located([(id_, located) for aor, located in answers.items() for id_ in batch.pop(aor)])

    def _last_known(self, aor: str) -> Location:
        known = self._last.get(aor)
        if known is None:
            return Location(aor, away=True)
        at, then = self._learnt
        live = then + self._clock() - at - self._grace
        kept = [index for index, target in enumerate(known.targets) if target.expires > live]
        targets = tuple([known.targets[index] for index in kept])
        owners = tuple([known.owners[index] for index in kept]) if known.owners else ()
        return Location(known.aor, targets, known=True, away=True, owners=owners)

    def _went_away(self, cause: str) -> None:
        if self.away:
            return
        self.away = True
        log.warning("look-ups are answered with what is known", extra={"cause": cause})
        batch, self._waiting, self._count = self._waiting, {}, 0
        self._tasks.begin(self._come_back(), "look-up")
        if batch:
            self._answer(batch, {aor: self._last_known(aor) for aor in list(batch)})

    async def _come_back(self) -> None:
        """Probes until the database answers."""
        while self.away:
            try:
                async with asyncio.timeout(SECONDS):
                    await self._database.query(_PROBE)
            except (DatabaseUnavailable, TimeoutError):
                await asyncio.sleep(RETRY)
            except Exception:  # a bug: said, and tried again
                log.exception("the database could not be asked")
                await asyncio.sleep(RETRY)
            else:
                self.away = False
                log.info("look-ups are answered by the database")
