"""Requests that need no backend, sent all the time: OPTIONS to each edge, REGISTER without credentials."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping

from tests.chaos.transactions import Exchange, Transactions
from tests.chaos.uptime import Uptime
from tests.kit.sip import Message

LIMIT = 0.5
EXPECTED = {"OPTIONS": 200, "REGISTER": 401}


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """One such request."""

    method: str
    exchange: Exchange

    def wrong(self, uptime: Uptime) -> str | None:
        """Why it was not answered as it should be, with allowance for the edge's wait for a CPU; None if it was."""
        answer, took = self.exchange.answer, self.exchange.took
        where = f"{self.exchange.sent:.3f} {self.method} to {self.exchange.edge}"
        if answer is None or took is None:
            return f"{where}: no answer"
        if answer.status != EXPECTED[self.method]:
            return f"{where}: {answer.status}"
        waited = uptime.waited(self.exchange.edge, self.exchange.sent, self.exchange.sent + took)
        return f"{where}: answered only after {took:.3f} s" if took > LIMIT + waited else None


class Prober:
    """Probes every edge with both methods, `every` seconds each."""

    def __init__(self, domain: str, edges: Mapping[str, tuple[str, int]], every: float = 0.25) -> None:
        self._domain = domain
        self._edges = edges
        self._every = every
        self._transactions = Transactions(_changed, seed=int(time.time()))
        self._tasks: list[asyncio.Task[None]] = []
        self._probes: list[Probe] = []

    def start(self) -> None:
        """Begins."""
        self._tasks = [
            asyncio.create_task(self._repeat(edge, address, method))
            for edge, address in self._edges.items()
            for method in EXPECTED
        ]

    async def stop(self) -> list[Probe]:
        """Ends, and gives all probes since the start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        probes, self._probes = self._probes, []
        return probes

    def close(self) -> None:
        """Ends everything at once."""
        for task in self._tasks:
            task.cancel()
        self._transactions.close()

    async def _repeat(self, edge: str, address: tuple[str, int], method: str) -> None:
        cseq = 0
        while True:
            cseq += 1
            branch = self._transactions.branch()
            uri, aor = f"sip:{self._domain}", f"sip:probe@{self._domain}"
            packet = self._transactions.request(method, uri, aor, f"probe-{branch}", cseq, branch)
            exchange = await self._transactions.send(edge, address, branch, packet, patience=4 * LIMIT)
            self._probes.append(Probe(method, exchange))
            await asyncio.sleep(self._every)


def _changed(_: Exchange, __: Message) -> None:
    """Two answers to one probe say nothing: it changes nothing."""
