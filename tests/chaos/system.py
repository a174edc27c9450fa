"""The stack, its load and its checks in one hand: what a scenario uses."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp

from events.topics import partition_of
from registrar.config import Policy
from runtime.config import Sources
from tests.chaos import invariants
from tests.chaos.invariants import BrokenPromise, Tables
from tests.chaos.ledger import LedgerReader
from tests.chaos.load import EXPIRES, Intent, Load, Phone, Sent
from tests.chaos.probes import Probe, Prober
from tests.chaos.rig import NotInTime, Stack

FULL = os.environ.get("RAMAL_CHAOS") == "full"
RATE = 150 if FULL else 80
CYCLES = 5 if FULL else 1
WARM = 8.0 if FULL else 1.5
OUTAGE = 10.0 if FULL else 7.0
"""Seconds: more than SESSION."""
MIN_EXPIRES = 2
SESSION = 6.0
"""The consumers' session time-out, seconds."""
PHONES, NEWCOMERS = 300, 100
USERS = PHONES + NEWCOMERS
CALLERS = 2
"""Users behind those, of calls."""
STILL = 15
"""So often the log is read again until nothing was written meanwhile."""
NOTED = 0.25
"""Seconds between two looks at how long the edges have waited for a CPU."""
SAMPLE = 5
"""One 200 of so many is looked up at once through another edge (E01)."""


@dataclasses.dataclass(slots=True)
class Told:
    """The figures of one scenario, for the summary."""

    name: str
    answers: Counter[str] = dataclasses.field(default_factory=Counter)
    recovered: list[float] = dataclasses.field(default_factory=list)
    """Seconds from the end of each disturbance until all partitions and edges gave 200."""
    slowest_ms: float = 0.0
    looked_up: int = 0
    void: int = 0
    """Records of zombies, skipped by everybody."""
    late: int = 0
    """Commands that the registrar dropped for their deadline."""
    repeated: int = 0
    """Commands on the registrar's topic that were there before, under the same id."""

    def line(self) -> str:
        """One line of the summary."""
        answers = " ".join(f"{status}:{count}" for status, count in sorted(self.answers.items()))
        recovered = ",".join(f"{seconds:.1f}" for seconds in self.recovered) or "-"
        return (
            f"{self.name:52} {answers:44} recovered after {recovered} s, slowest {self.slowest_ms:.0f} ms,"
            f" {self.looked_up} look-ups, {self.void} void, {self.late} late,"
            f" {self.repeated} repeated"
        )


class System:
    """One stack under test; scenarios follow one another on it."""

    def __init__(self, stack: Stack) -> None:
        described = stack.description()
        self.stack = stack
        self.domain: str = described["domain"]
        self.edges = stack.edges("udp")
        self.tables = Tables(described["mysql"])
        self.reader = LedgerReader(_bootstrap(described["kafka"]), _policy(stack.process("registrar-1").environ()))
        users = [(f"u{n:05d}", f"secret-u{n:05d}") for n in range(USERS)]
        self.load = Load(self.domain, self.edges, users, uptime=stack.uptime)
        self.load.acknowledged = self._look_up_at_once
        self.prober = Prober(self.domain, self.edges)
        self.told: list[Told] = []
        self.now = Told("start")
        self.look_up_now = True
        """Whether an edge must show what was just acknowledged: not while MySQL is disturbed."""
        self._seen = 0
        self._session = aiohttp.ClientSession()
        self._http = {name: http for name, http in stack.http().items() if name in self.edges}
        self.sentinels: list[Phone] = []
        self._newcomers = iter(self.load.phones[PHONES:])
        self._noting: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Takes a phone of each partition out of the load for `recovered`, and registers every phone once."""
        self._noting = asyncio.create_task(self._note_waits())
        await self.reader.read()
        count = len(self.reader.ledger.pages)
        by_partition: dict[int, Phone] = {}
        for phone in self.load.phones[:PHONES]:
            by_partition.setdefault(partition_of(phone.aor, count), phone)
        self.sentinels = list(by_partition.values())
        gate = asyncio.Semaphore(20)

        async def once(phone: Phone) -> None:
            async with gate:
                await self.load.act(phone)

        await asyncio.gather(*(once(phone) for phone in self.phones()))

    async def _note_waits(self) -> None:
        """If we wake up late, so does everybody: nothing else here holds up the loop while requests are judged."""
        stalled, due = 0.0, time.time()
        while True:
            now = time.time()
            stalled += max(0.0, now - due)
            self.stack.uptime.note_stalled(now, stalled)
            self.stack.note_waits()
            due = time.time() + NOTED
            await asyncio.sleep(NOTED)

    def phones(self) -> list[Phone]:
        """Those that the load moves."""
        return [phone for phone in self.load.phones[:PHONES] if phone not in self.sentinels]

    def newcomers(self, count: int) -> list[Phone]:
        """Phones that were never heard of before."""
        return list(itertools.islice(self._newcomers, count))

    @contextlib.asynccontextmanager
    async def scenario(self, name: str) -> AsyncIterator[Told]:
        """Verifies after the block; its figures are kept for the summary."""
        self.now = Told(name)
        self.told.append(self.now)
        self.load.answers.clear()
        self.load.took.clear()
        ledger = self.reader.ledger
        void, late, repeated = ledger.void, ledger.late, ledger.repeated
        try:
            yield self.now
        finally:
            await self.load.stop()
            self.now.answers.update(self.load.answers)
            self.now.slowest_ms = max(self.load.took, default=0.0) * 1000
        await self.verify()
        self.now.void, self.now.late = ledger.void - void, ledger.late - late
        self.now.repeated = ledger.repeated - repeated

    @contextlib.asynccontextmanager
    async def under_load(self, name: str, rate: float = RATE) -> AsyncIterator[Told]:
        """A scenario with load and probes from a little before the block until a little after it."""
        async with self.scenario(name) as told:
            self.prober.start()
            self.load.start(rate, self.phones())
            try:
                await self.moved(WARM)
                yield told
                await self.moved(WARM)
            finally:
                await self.load.stop()
                self.probes = await self.prober.stop()

    probes: Sequence[Probe] = ()

    async def moved(self, seconds: float) -> None:
        """Lets the load run: a length of load, not a wait for something to happen."""
        await asyncio.sleep(seconds)

    async def recovered(self, seconds: float, *, edges: Sequence[str] | None = None) -> float:
        """Waits until a phone of every partition got 200, and every edge gave one; raises NotInTime."""
        began = time.monotonic()
        names = list(edges or self.edges)

        async def one(phone: Phone, order: list[str]) -> None:
            for edge in order:
                await self.register(phone, seconds - (time.monotonic() - began), edge=edge)

        async with asyncio.TaskGroup() as group:
            for index, phone in enumerate(self.sentinels):
                group.create_task(one(phone, names[index % len(names) :] + names[: index % len(names)]))
        took = time.monotonic() - began
        self.now.recovered.append(took)
        return took

    async def routed(self, phone: Phone) -> set[frozenset[str] | str]:
        """All that the edges say of where they would route a phone's calls."""
        looks = (invariants.look_up(self._session, http, phone.aor) for http in self._http.values())
        return set(await asyncio.gather(*looks))

    def refused_since(self, began: float, others: Sequence[Phone] = ()) -> list[str]:
        """Requests since then that were not answered 200 or 401, but for those of `others`."""
        return [
            str(sent)
            for phone in self.load.phones
            if phone not in others
            for sent in phone.history
            if sent.exchange.sent >= began
            and (sent.exchange.answer is None or sent.exchange.answer.status not in (200, 401))
        ]

    async def register(self, phone: Phone, seconds: float, expires: int = EXPIRES, edge: str | None = None) -> None:
        """Registers a phone, again and again until it gets 200; raises NotInTime."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            sent = await self.load.register(phone, Intent(phone.contact(), expires), edge=edge)
            if sent is not None and sent.exchange.answer is not None and sent.exchange.answer.status == 200:
                return
            await asyncio.sleep(0.05)
        raise NotInTime(f"{phone.aor} through {edge or 'any edge'}: no 200 within {seconds:.0f} s\n{phone.report()}")

    async def dropped(self, name: str) -> float:
        """How often the services dropped something by this name, since each was started."""
        count = 0.0
        for http in self.stack.http().values():
            async with self._session.get(f"http://{http}/metrics") as response:
                for line in (await response.text()).splitlines():
                    if line.startswith("ramal_drops_total") and f'name="{name}"' in line:
                        count += float(line.rpartition(" ")[2])
        return count

    def unmoved(self, began: float, ended: float) -> None:
        """Asserts that probes sent in this time were answered; call it after the load."""
        uptime = self.stack.uptime
        wrong = [w for p in self.probes if began <= p.exchange.sent <= ended and (w := p.wrong(uptime))]
        if wrong:
            raise BrokenPromise("requests that need no backend were held up:\n" + "\n".join(wrong[:20]))

    async def verify(self) -> None:
        """All invariants; raises BrokenPromise with a report of everything that does not hold."""
        await self.stack.all_ready(60)
        self.load.judge()
        lines = [f"load: {v}" for v in self.load.violations[:3]]
        lines += [f"load: {v.partition(chr(10))[0]}" for v in self.load.violations[3:10]]
        if len(self.load.violations) > 10:
            lines.append(f"load: and {len(self.load.violations) - 10} more")
        self.load.violations.clear()
        lines += await self._standing()
        if lines:
            raise BrokenPromise("\n".join(lines))

    async def _standing(self) -> list[str]:
        """What does not hold of the log, the tables and the edges, all read while no truth was written."""
        ledger = self.reader.ledger
        for _ in range(STILL):
            ends = await self.reader.read()
            behind = await invariants.projection_caught_up(self.tables, ends, 15.0)
            rows, history = await self.tables.location(), await self.tables.history()
            wrong = await invariants.look_up_everywhere(self._http, self.load.phones[:PHONES], ledger.states)
            late = invariants.lingering(ledger.states, time.time())
            if await self.reader.read() == ends and not late:
                break
            await asyncio.sleep(1.0)  # a binding's time has come: its end is being written
        else:
            behind.append("the log does not come to rest")
        lines = [f"projection: {b}" for b in behind]
        lines += [f"log: {v}" for v in ledger.violations[:10]]
        ledger.violations.clear()
        expected = invariants.rows_of(ledger.states)
        by_aor = {phone.aor: phone for phone in self.load.phones}
        differ = dict.fromkeys(invariants.differing(expected, rows), "is not as the log says")
        broken = invariants.broken_promises(self.load.phones, ledger.states)
        lines += [f"history: {h}" for h in invariants.broken_history(history, expected)[:10]]
        for title, found in (("rows", differ), ("promise", broken), ("look-up", wrong), ("late", late)):
            lines += invariants.tell(title, found, by_aor, ledger, rows)
        return lines

    async def _look_up_at_once(self, phone: Phone, sent: Sent) -> None:
        self._seen += 1
        others = [name for name in self._http if name != sent.exchange.edge and self._must_show(name)]
        if self._seen % SAMPLE or not others:
            return
        edge = others[self._seen // SAMPLE % len(others)]
        found = await invariants.look_up(self._session, self._http[edge], phone.aor)
        self.now.looked_up += 1
        # Asked again: a disturbance may have begun meanwhile.
        right = isinstance(found, frozenset) and phone.may_have(found)
        if not right and self._must_show(edge):
            shown = found if isinstance(found, str) else sorted(found)
            self.load.violations.append(f"E01: {edge} shows {shown} after {sent}\n{phone.report()}")

    def _must_show(self, edge: str) -> bool:
        """Whether this edge must show at once what was acknowledged."""
        return self.look_up_now and edge not in self._avoided

    _avoided: frozenset[str] = frozenset()

    @contextlib.asynccontextmanager
    async def hung_edge(self, name: str) -> AsyncIterator[None]:
        """An edge stopped inside the block, and not asked."""
        self.avoid(name)
        try:
            async with self.stack.hung(name):
                yield
        finally:
            self.avoid()

    def avoid(self, *edges: str) -> None:
        """Look-ups are not asked of these edges now; without any: of all again."""
        self._avoided = frozenset(edges)

    async def close(self) -> None:
        """Ends load, probes and sessions; not the stack."""
        if self._noting is not None:
            self._noting.cancel()
        self.load.close()
        self.prober.close()
        await self._session.close()


def _policy(environ: Mapping[str, str]) -> Policy:
    return Sources(environ, {}).section(Policy, "registrar")


def _bootstrap(kafka: object) -> str:
    """stack.json's `kafka`: the address, or an object that has it."""
    if isinstance(kafka, dict):
        return str(kafka.get("bootstrap") or f"{kafka['host']}:{kafka['port']}")
    return str(kafka)
