"""Phones that register, refresh, deregister and come back at a bounded rate, and remember what they were promised.

What a phone may believe is a set of *possible* binding sets: a 200 leaves exactly one (that which it lists);
a 503 or silence leaves both, with the request done and not done ("not promised, never not done").
"""

import asyncio
import dataclasses
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tests.chaos.transactions import Exchange, Transactions
from tests.chaos.uptime import Uptime
from tests.kit.sip import Credentials, Message

DEADLINE = 2.0
SLACK = 1.0
"""For the way there and back; the edge's waiting for a CPU comes on top of it."""
DOCUMENTED = frozenset({200, 401, 503})
EXPIRES = 300
PATIENCE = 8.0
"""Seconds until a phone gives an edge up; timer F (32 s) would end later."""

ROUNDING = 0.501
"""Of the seconds left that a 200 tells."""

Bindings = frozenset[str]
Address = tuple[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Intent:
    """What a REGISTER asks for; `contact` None is `Contact: *` with Expires 0."""

    contact: str | None
    expires: int

    def applied(self, bindings: Bindings) -> Bindings:
        """The bindings once it is done."""
        if self.contact is None:
            return frozenset()
        return bindings | {self.contact} if self.expires else bindings - {self.contact}

    def __str__(self) -> str:
        return f"{self.contact or '*'} for {self.expires}"


@dataclasses.dataclass(slots=True, eq=False)
class Sent:
    """One REGISTER with credentials."""

    intent: Intent
    call_id: str
    cseq: int
    exchange: Exchange

    def __str__(self) -> str:
        e = self.exchange
        took = "" if e.took is None else f" after {e.took:.3f} s"
        status = e.answer.status if e.answer else f"no answer{f', late {e.late[0]}' if e.late else ''}"
        return (
            f"{e.sent:.3f} {e.edge} {self.call_id} CSeq {self.cseq}: {self.intent}"
            f" -> {status}{took}, {e.copies} retransmissions"
        )


@dataclasses.dataclass(slots=True, eq=False)
class Phone:
    """One user's phone and what it knows."""

    aor: str
    credentials: Credentials
    call_id: str
    host: str
    cseq: int = 0
    line: int = 0
    possible: frozenset[Bindings] = frozenset({frozenset()})
    last: Sent | None = None
    """The last 200."""
    granted: int = 0
    """Seconds it promised, of the last 200 that left a contact."""
    ends: dict[str, float] = dataclasses.field(default_factory=dict)
    """By contact, from when on it may have ended, by the last 200 that listed it."""
    busy: bool = False
    history: deque[Sent] = dataclasses.field(default_factory=lambda: deque(maxlen=24))

    def contact(self) -> str:
        """The Contact it uses now."""
        return f"sip:{self.credentials.user}-{self.line}@{self.host}"

    def certain(self) -> Bindings | None:
        """The bindings it was promised; None when a request without 200 may have changed them."""
        return next(iter(self.possible)) if len(self.possible) == 1 else None

    def may_have(self, bindings: Bindings, now: float | None = None) -> bool:
        """Whether these may be its bindings (now): some of `possible`, but for those that may have ended."""
        now = time.time() if now is None else now
        ended = {contact for contact, end in self.ends.items() if end <= now}
        return any(bindings <= possible and possible - bindings <= ended for possible in self.possible)

    def report(self) -> str:
        """Its requests, newest last, for people."""
        return "\n".join(
            [f"{self.aor}: possible {[sorted(b) for b in self.possible]}", *(f"    {s}" for s in self.history)]
        )


Acknowledged = Callable[[Phone, Sent], Awaitable[None]]


async def _nothing(_: Phone, __: Sent) -> None:
    return


class Load:
    """Runs the phones through rotating edges; everything that broke a rule is in `violations`."""

    def __init__(
        self,
        domain: str,
        edges: Mapping[str, Address],
        users: Sequence[tuple[str, str]],
        seed: int = 7,
        patience: float = PATIENCE,
        uptime: Uptime | None = None,
    ) -> None:
        """`users` are names and passwords; `patience`: seconds until a phone gives an edge up."""
        self.domain = domain
        self.edges = dict(edges)
        """By name; one that is added later gets only what is sent to it by name."""
        self._turns = list(edges)
        self.patience = patience
        self.uptime = uptime or Uptime()
        self.bound = DEADLINE + SLACK
        """Seconds within which an edge answers what it received."""
        self.violations: list[str] = []
        self.answers: Counter[str] = Counter()
        self.took: list[float] = []
        self.acknowledged: Acknowledged = _nothing
        self.transactions = Transactions(self._changed, seed)
        self._random = random.Random(seed)
        host = f"{self.transactions.local[0]}:{self.transactions.local[1]}"
        self.phones = [
            Phone(f"{user}@{domain}", Credentials(user, password, domain), f"{seed}-{user}@chaos", host)
            for user, password in users
        ]
        self._next_edge = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None
        self._judged: list[Exchange] = []
        self.scatter = False
        """Whether every packet also goes to a second edge, as a retransmission may that no affinity holds."""

    # -- what runs -----------------------------------------------------------------------------------

    def start(self, rate: float, phones: Sequence[Phone] | None = None) -> None:
        """Begins requests at `rate` a second; a phone has one at a time."""
        if self._driver is not None:
            raise RuntimeError("the load runs already")
        self._driver = asyncio.create_task(self._drive(rate, self.phones if phones is None else phones))

    async def stop(self) -> None:
        """No new requests; returns when those under way are over (bounded by their patience)."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.wait({self._driver})
            self._driver = None
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=4 * self.patience)

    def close(self) -> None:
        """Ends everything at once."""
        for task in (self._driver, *self._tasks):
            if task is not None:
                task.cancel()
        self.transactions.close()

    async def _drive(self, rate: float, phones: Sequence[Phone]) -> None:
        loop = asyncio.get_running_loop()
        began, count, index = loop.time(), 0, 0
        while True:
            due = int((loop.time() - began) * rate) - count
            for _ in range(min(due, 50)):
                for _ in range(len(phones)):
                    phone = phones[index % len(phones)]
                    index += 1
                    if not phone.busy:
                        phone.busy = True  # from now on, not from when its task runs
                        self._spawn(self.act(phone))
                        break
            count += due
            await asyncio.sleep(0.01)

    def _spawn(self, coroutine: Awaitable[object]) -> None:
        async def guarded() -> None:
            try:
                await coroutine
            except Exception as error:  # noqa: BLE001  # a phone that breaks is a broken test, told at the end
                self.violations.append(f"the test's phone broke: {error!r}")

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def act(self, phone: Phone) -> Sent | None:
        """The phone does whatever it wants next; returns the last request."""
        return await self.register(phone, self._wish(phone))

    def _wish(self, phone: Phone) -> Intent:
        certain = phone.certain()
        if certain is None and phone.history:
            return phone.history[-1].intent
        if not certain:
            if self._random.random() < 0.3:
                phone.line += 1
            return Intent(phone.contact(), EXPIRES)
        # More than its own contact is there: an earlier removal that never was. A phone cleans up.
        if certain != {phone.contact()}:
            return Intent(None, 0)
        chance = self._random.random()
        if chance < 0.85:
            return Intent(phone.contact(), EXPIRES)
        return Intent(phone.contact() if chance < 0.95 else None, 0)

    def refresh(self, phone: Phone) -> Intent:
        """That the phone be registered with its contact."""
        return Intent(phone.contact(), EXPIRES)

    def next_edge(self) -> str:
        """Edges in turn, as a Service without affinity."""
        self._next_edge += 1
        return self._turns[self._next_edge % len(self._turns)]

    def _another(self, edge: str) -> str:
        return self._turns[(self._turns.index(edge) + 1) % len(self._turns)]

    async def register(
        self, phone: Phone, intent: Intent, edge: str | None = None, call_id: str | None = None
    ) -> Sent | None:
        """One registration, challenges included; None when not even a challenge came."""
        phone.busy = True
        try:
            for attempt in range(4):
                sent, exchange = await self._register_once(phone, intent, edge or self.next_edge(), call_id)
                answer = exchange.answer
                if answer is None or answer.status != 401:
                    return sent
                if sent is not None and not answer.stale:
                    self._violated(phone, sent, "401 without stale to right credentials")
                if not phone.credentials.challenged(answer):
                    self._violated(phone, sent, "401 without a usable challenge")
                    return sent
                if attempt == 3:
                    self._violated(phone, sent, "challenged four times in a row")
            return sent
        finally:
            phone.busy = False

    async def _register_once(
        self, phone: Phone, intent: Intent, edge: str, call_id: str | None
    ) -> tuple[Sent | None, Exchange]:
        phone.cseq += 1
        packet, branch = self.packet(phone, intent, phone.cseq, call_id)
        with_credentials = bool(phone.credentials.nonce)
        copy_to = self.edges[self._another(edge)] if self.scatter else None
        exchange = await self.transactions.send(edge, self.edges[edge], branch, packet, self.patience, copy_to)
        self._judged.append(exchange)
        if not with_credentials:
            self._count(exchange)
            if exchange.answer is not None and exchange.answer.status not in (401, 503):
                self.violations.append(f"{phone.aor}: {exchange.answer.status} to a REGISTER without credentials")
            return None, exchange
        sent = Sent(intent, call_id or phone.call_id, phone.cseq, exchange)
        phone.history.append(sent)
        self._count(exchange)
        await self._learn(phone, sent)
        return sent, exchange

    def packet(self, phone: Phone, intent: Intent, cseq: int, call_id: str | None = None) -> tuple[bytes, str]:
        """The bytes of a REGISTER, with credentials if there is a nonce, and its branch."""
        branch = self.transactions.branch()
        uri = f"sip:{self.domain}"
        rows = [
            f"Contact: <{intent.contact}>" if intent.contact else "Contact: *",
            f"Expires: {intent.expires}",
        ]
        if phone.credentials.nonce:
            rows.append("Authorization: " + phone.credentials.answer("REGISTER", uri, branch[7:15]))
        aor, call_id = f"sip:{phone.aor}", call_id or phone.call_id
        return self.transactions.request("REGISTER", uri, aor, call_id, cseq, branch, rows), branch

    # -- what is learnt and judged ----------------------------------------------------------------------

    async def _learn(self, phone: Phone, sent: Sent) -> None:
        exchange, answer = sent.exchange, sent.exchange.answer
        done = frozenset(sent.intent.applied(bindings) for bindings in phone.possible)
        if answer is None or answer.status in (500, 503):
            phone.possible |= done
        if answer is None or answer.status == 401:
            return
        if answer.status == 200:
            left = answer.contacts
            listed = frozenset(left)
            phone.possible = done
            if not phone.may_have(listed):
                self._violated(phone, sent, f"200 lists {sorted(listed)}, expected one of {[sorted(b) for b in done]}")
            phone.possible, phone.last = frozenset({listed}), sent
            # Seconds left are rounded to the nearest, and were so many at the earliest when the request was sent.
            phone.ends = {c: exchange.sent + left[c] - ROUNDING for c in listed}
            if sent.intent.expires and sent.intent.contact:
                phone.granted = left.get(sent.intent.contact, 0)
                if not 0 < phone.granted <= sent.intent.expires:
                    self._violated(phone, sent, f"granted {phone.granted} of {sent.intent.expires} s")
            await self.acknowledged(phone, sent)
        elif answer.status == 503:
            if not answer.has("retry-after"):
                self._violated(phone, sent, "503 without Retry-After")
        elif answer.status == 500 and exchange.copies:
            self.answers["500 after a retransmission"] += 1
        else:
            self._violated(phone, sent, f"undocumented {answer.status}")

    def judge(self) -> None:
        """Adds a violation for each request since the last call that an edge received and did not answer in time."""
        for exchange in self._judged:
            end = exchange.answered or exchange.ended or exchange.sent
            received = self.uptime.received(exchange.edge, exchange.sendings, end)
            if received is None or end - received <= self.bound + self.uptime.waited(exchange.edge, received, end):
                continue
            if exchange.answer is not None:
                what = f"{exchange.answer.status} only"
            else:
                late = f", {exchange.late[0]} after {exchange.late[1] - exchange.sent:.1f} s" if exchange.late else ""
                what = f"no final response{late}"
            self.violations.append(
                f"{received:.3f} {exchange.edge} {exchange.branch}: {what} after {end - received:.3f} s"
                f" (sent at {[f'{at - exchange.sent:.3f}' for at in exchange.sendings]})"
            )
        self._judged.clear()

    def _count(self, exchange: Exchange) -> None:
        self.answers[str(exchange.answer.status) if exchange.answer else "none"] += 1
        if exchange.took is not None:
            self.took.append(exchange.took)

    def _changed(self, exchange: Exchange, answer: Message) -> None:
        first = exchange.answer.status if exchange.answer else 0
        if exchange.scattered and {first, answer.status} <= {200, 401, 503}:
            # Two edges answer for themselves: one may have run into its deadline, or have met a new authsvc.
            self.answers[f"{first} and {answer.status}"] += 1
            return
        self.violations.append(f"{exchange.sent:.3f} {exchange.edge} {exchange.branch}: {first}, then {answer.status}")

    def _violated(self, phone: Phone, sent: Sent | None, what: str) -> None:
        self.violations.append(f"{what}: {sent or 'without credentials'}\n{phone.report()}")
