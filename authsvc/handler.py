"""`Authenticate`, `FindUser` and `FlowLost` in; commands to the registrar, replies to edges and the audit out.

What can be decided at once is decided and appended with its batch. A record whose user is not known yet is
parked (see `parking`); one task decides the parked ones when look-ups end or their deadlines pass, and appends
those of many users together. A user is waiting until that append is durable, so what a later batch brings of
the same user is never appended before it.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from prometheus_client import Counter, Gauge

from authsvc.decider import (
    Accept,
    Called,
    Decision,
    Facts,
    Needs,
    Refuse,
    Rules,
    State,
    decide,
    evolve,
    find,
    give_up,
    named_by,
)
from authsvc.memory.lockouts import Lockouts
from authsvc.memory.nonces import Replays
from authsvc.memory.parking import Parked, Parking
from authsvc.records import REASONS, Answers
from authsvc.restore import used_before
from authsvc.users.directory import Users
from authsvc.users.remembered import Key
from events.commands import AuthCommand, Authenticate, FindUser, FlowLost
from events.topics import AUDIT, AUTH_COMMANDS, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import Decoder, Poisoned
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.apart import append_or_drop
from runtime.log.port import Append, Batch, Log, Record
from runtime.metrics import dropped

log = logging.getLogger("ramal.authsvc")

GROUP = "authsvc"
NONCES = 100_000
"""Windows of nonces remembered per partition; about 300 bytes each."""
TICK_SECONDS = 0.1
"""How often the deadlines of parked commands are looked at."""
RETRY_SECONDS = 0.2
LONGEST_SECONDS = 10.0
"""No command waits longer than this, whatever deadline it names."""

_decode: Decoder[AuthCommand] = Decoder(AuthCommand)

LOGINS = Counter("ramal_authsvc_logins", "Log-ins decided, by the status that says so; 200 is accepted.", ["status"])
LOOKUPS = Counter("ramal_authsvc_lookups", "Who is called, by status; 200 is somebody or nobody.", ["status"])
FLOWS_LOST = Counter("ramal_authsvc_flows_lost", "Closed connections by which somebody had registered.")
PARKED = Gauge("ramal_authsvc_parked_commands", "Commands that wait for a look-up.")

DeadLetter = Callable[[Record, str], Awaitable[None]]
_Verdict = Decision | Called | None
"""What is decided on a command; None: what a `FlowLost` says is done."""


class _Place:
    """All that is remembered of one partition."""

    __slots__ = ("parking", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.parking = Parking()


class AuthHandler:
    """Drives the decider from `auth.commands` (see `runtime.worker.Handler`)."""

    topic = AUTH_COMMANDS
    group = GROUP
    dead_letters = True

    def __init__(
        self,
        log_: Log,
        users: Users,
        rules: Rules,
        *,
        lockout: tuple[int, int],
        parked: int,
        dead_letter: DeadLetter,
        keep_lost_flows: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lockout`: failures and seconds; `parked`: the most that may wait; `dead_letter` takes what is poisoned."""
        self._keep_lost_flows = keep_lost_flows
        self._log = log_
        self._users = users
        self._rules = rules
        self._lockout = lockout
        self._most_parked = parked
        self._room = 0
        """How many more may be parked from the batch in hand."""
        self._dead_letter = dead_letter
        self._clock = clock
        self._now = clock()
        self._answers = Answers()
        self._places: dict[int, _Place] = {}
        self._waiting_for: dict[Key, set[tuple[int, Key]]] = {}
        """By what is looked up, whose commands wait for it."""
        self._ready: dict[tuple[int, Key], None] = {}
        self._wake = asyncio.Event()
        self._ticking = False
        self._task: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys((200, *REASONS), 0)
        users.found = self._found

    def start(self) -> None:
        """Begins to answer parked commands."""
        self._task = asyncio.create_task(self._answer_parked(), name="authsvc parked")

    async def stop(self) -> None:
        """Ends it; what is parked is read again by the partition's next owner."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def restore(self, partition: int) -> int | None:
        """Begins with nothing remembered, so nonces that the finished commands may have used are stale."""
        for topic in (AUTH_COMMANDS, REGISTRAR_COMMANDS, EDGE_REPLIES, AUDIT):
            self._answers.partitions[topic] = await self._log.partitions(topic)
        begin = (await self._log.committed(self.topic, self.group)).get(partition)
        floor, suspects = await used_before(self._log, self.topic, partition, begin) if begin else (-1, frozenset())
        replays = Replays(self._rules.nonce_seconds, NONCES, floor, suspects)
        self._places[partition] = _Place(State(replays, Lockouts(*self._lockout)))
        # Whoever sent what the log has lost was answered, or heard 503: on with what it has.
        return None if floor is None else begin

    def release(self, partition: int) -> None:
        """Forgets the partition and what waits in it."""
        self._places.pop(partition, None)

    def owns(self, user: Key) -> bool:
        """Whether the commands of a user are decided here."""
        partitions = self._answers.partitions.get(AUTH_COMMANDS)
        return partitions is not None and partition_of("@".join(user), partitions) in self._places

    def enrolled_anew(self, users: Collection[Key]) -> None:
        """These have other HA1s now: neither what is remembered nor failures with the old ones count any more."""
        self._users.forget(users)
        for place in self._places.values():
            for user in users:
                place.state.lockouts.forgiven("@".join(user))

    async def users_gone(self, aors: Collection[str]) -> None:
        """Has the bindings of these ended, whose users are none any more. Raises LogUnavailable."""
        await self._append([self._answers.user_gone(aor, secrets.token_hex(10)) for aor in aors])

    async def handle(self, batch: Batch) -> Mapping[int, int]:
        """Decides a batch and appends what came of it; returns what may be committed."""
        self._users.tick()
        self._now = self._clock()
        self._room = self._most_parked - self._parked()
        out: list[Append] = []
        places = [(p, self._places[p], records) for p, records in batch.items() if p in self._places]
        for partition, place, records in places:
            for record in records:
                try:
                    command = _decode(record.value)
                except Poisoned as error:
                    await self._dead_letter(record, str(error))
                    continue
                if isinstance(command, FlowLost):  # true however late; nobody waits for it
                    FLOWS_LOST.inc()
                    if self._keep_lost_flows:
                        continue
                elif record.timestamp > command.reply.deadline:
                    dropped("late-command")
                    continue
                self._take(partition, place, record, command, out)
            if records:
                place.parking.seen(records[-1].offset + 1)
        self._count()
        await self._append(out)
        return {partition: place.parking.committable() for partition, place, _ in places}

    def _take(self, partition: int, place: _Place, record: Record, command: AuthCommand, out: list[Append]) -> None:
        """Decides one command, or parks it."""
        user = _subject(command)
        verdict: _Verdict
        if user in place.parking:
            if not self._full():
                self._park(place, user, record, command)
                return
            verdict = self._give_up(command)
        else:
            verdict = self._decide(place, command, record.timestamp)
            if isinstance(verdict, Needs):
                if not self._full() and self._wait(verdict, partition, user, command):
                    self._park(place, user, record, command)
                    return
                verdict = self._give_up(command)
        self._finish(place, command, verdict, record.timestamp, out)

    def _decide(self, place: _Place, command: AuthCommand, at: int) -> _Verdict:
        """The decision by what is known now."""
        if isinstance(command, FindUser):
            return find(self._rules, command.domain, self._users.called((command.name, command.domain)))
        if isinstance(command, FlowLost):
            return None
        user = self._users.user((command.digest.username, command.digest.realm))
        decision = decide(self._rules, place.state, command, Facts(user), at)
        if decision is Needs.OWNER:
            facts = Facts(user, self._users.owner(named_by(command.aor)))
            decision = decide(self._rules, place.state, command, facts, at)
        return decision

    def _give_up(self, command: AuthCommand) -> Refuse | None:
        """The decision when what is needed will not be known in time; a `FlowLost` needs nothing."""
        return None if isinstance(command, FlowLost) else give_up(self._rules, _subject(command)[1])

    def _finish(self, place: _Place, command: AuthCommand, verdict: _Verdict, at: int, out: list[Append]) -> None:
        """Remembers a verdict and adds its records."""
        if isinstance(command, Authenticate) and isinstance(verdict, (Accept, Refuse)):
            evolve(place.state, command, verdict, at)
            self._answers.write(out, command, verdict, at)
            self._counts[200 if isinstance(verdict, Accept) else verdict.status] += 1
        elif isinstance(command, FindUser) and isinstance(verdict, (Called, Refuse)):
            out.append(self._answers.found(command, verdict))
            LOOKUPS.labels(str(verdict.status if isinstance(verdict, Refuse) else 200)).inc()
        elif isinstance(command, FlowLost):
            out.append(self._answers.flow_lost(command))

    def _count(self) -> None:
        """Tells the metrics, once a batch."""
        for status, count in self._counts.items():
            if count:
                LOGINS.labels(str(status)).inc(count)
                self._counts[status] = 0

    def _full(self) -> bool:
        if self._room > 0:
            return False
        dropped("parking-full")
        return True

    def _park(self, place: _Place, user: Key, record: Record, command: AuthCommand) -> None:
        self._room -= 1
        left = min((command.reply.deadline - record.timestamp) / 1000, LONGEST_SECONDS)
        place.parking.park(user, Parked(record, self._now + left, command))
        self._arm()

    def _wait(self, needs: Needs, partition: int, user: Key, command: AuthCommand) -> bool:
        """Has what is needed looked up; False when there is no room."""
        key = user
        if needs is Needs.OWNER and isinstance(command, Authenticate):
            key = named_by(command.aor)
        taken = self._users.ask_user(key) if needs is Needs.USER else self._users.ask_called(key)
        if taken:
            self._waiting_for.setdefault(key, set()).add((partition, user))
        return taken

    def _parked(self) -> int:
        return sum(len(place.parking) for place in self._places.values())

    def _found(self, keys: Collection[Key]) -> None:
        """A look-up has ended: whoever waited for it is decided."""
        for key in keys:
            for waiting in self._waiting_for.pop(key, ()):
                self._ready[waiting] = None
        self._wake.set()

    def _arm(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Marks whose deadline has passed; comes again while anything is parked."""
        self._ticking = False
        now = self._clock()
        parked = self._parked()
        PARKED.set(parked)
        for partition, place in self._places.items():
            for user in place.parking.overdue(now):
                self._ready[partition, user] = None
        if self._ready:
            self._wake.set()
        if parked:
            self._arm()
        else:
            self._waiting_for.clear()  # of look-ups that ended without telling

    async def _answer_parked(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._answer_ready()
            except Exception:  # a bug: they stay parked, and are decided again when their deadlines pass
                log.exception("parked commands could not be answered; it goes on")

    async def _answer_ready(self) -> None:
        """Decides for those whose look-up has ended or whose deadline has passed, and appends what came of it."""
        ready, self._ready = self._ready, {}
        self._users.tick()
        self._now = self._clock()
        out: list[Append] = []
        decided: list[tuple[int, _Place, Key, int]] = []
        for partition, user in ready:
            place = self._places.get(partition)
            if place is None:
                continue
            count = await self._answer(partition, place, user, out)
            if count:
                decided.append((partition, place, user, count))
        self._count()
        await self._append_answers(out)
        for partition, place, user, count in decided:
            if self._places.get(partition) is not place:
                continue
            place.parking.leave(user, count)
            if user in place.parking:
                self._ready[partition, user] = None
                self._wake.set()

    async def _answer(self, partition: int, place: _Place, user: Key, out: list[Append]) -> int:
        """Decides what waits of one user as far as it can be; returns how many commands that were."""
        count = 0
        for record, until, command in place.parking.of(user):
            try:
                verdict: _Verdict
                if until <= self._now:
                    verdict = self._give_up(command)
                else:
                    verdict = self._decide(place, command, record.timestamp)
                if isinstance(verdict, Needs):
                    self._wait(verdict, partition, user, command)
                    break
                self._finish(place, command, verdict, record.timestamp, out)
            except Exception:  # a bug of ours: this command is a dead letter, the others go on
                log.exception("a parked command could not be decided", extra={"aor": "@".join(user)})
                try:
                    await self._dead_letter(record, "the handler failed (see the log)")
                except LogUnavailable:
                    break  # it is tried again when its deadline passes
            count += 1
        return count

    async def _append_answers(self, out: list[Append]) -> None:
        """Appends answers to parked commands, while anybody may still wait for them.

        To write one twice is harmless (its id is that of the command), to leave it out costs a 503.
        """
        until = self._clock() + LONGEST_SECONDS / 2
        while True:
            try:
                await self._append(out)
            except LogUnavailable:
                if self._clock() >= until:
                    dropped("late-answer", len(out))
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _append(self, out: Sequence[Append]) -> None:
        """Appends all; what the log will never take is left out, alone. Raises LogUnavailable.

        So is what is for a partition that is away: whoever waits for it hears 503, and the others are not kept.
        """
        if not out:
            return
        try:
            await append_or_drop(self._log, out)
        except LogRefused as error:
            if len(out) > 1:
                for each in out:
                    await self._append([each])
                return
            log.error("the log refused an answer", extra={"topic": out[0].topic, "cause": str(error)})
            dropped("refused-answer")


def _subject(command: AuthCommand) -> Key:
    """Whose commands a command keeps its order with; name and domain."""
    if isinstance(command, Authenticate):
        return command.digest.username, command.digest.realm
    if isinstance(command, FindUser):
        return command.name, command.domain
    name, _, domain = command.user.rpartition("@")
    return name, domain
