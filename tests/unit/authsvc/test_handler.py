"""authsvc.handler: what is appended, what waits, what may be committed.

Over 400 lines: one handler between commands and answers, and what each source of users does to it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authsvc.config import AuthSettings
from authsvc.decider import Rules
from authsvc.handler import AuthHandler
from authsvc.users.directory import Users
from authsvc.users.ha1 import User, from_password
from authsvc.users.remembered import Key
from events.commands import Authenticate, Digest, RegisterContacts, Registration, ReplyTo
from events.replies import Refused
from events.topics import AUDIT, AUTH_COMMANDS, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import Decoder, encode
from runtime.config import Domain
from runtime.errors import LogUnavailable, PartitionAway, Unavailable
from runtime.log.port import Append, Bounds, Position
from runtime.logs import JsonFormatter
from runtime.metrics import drops
from sipcore import digest, nonce
from tests.kit.memory_log import MemoryLog, Read

REALM = "example.test"
KEYS = {"k1": b"0123456789abcdef"}
NOW = 1_800_000_000
AT = NOW * 1000

registers: Decoder[RegisterContacts] = Decoder(RegisterContacts)
refusals: Decoder[Refused] = Decoder(Refused)


class ReadableLog(MemoryLog):
    """It has `records` to read, and may be `away`, or `broken` by a bug."""

    def __init__(self) -> None:
        super().__init__()
        self.away = self.broken = False
        self.gone: set[tuple[str, int]] = set()
        """Partitions that are away."""
        self.records: list[Read] = []
        self.tried = asyncio.Event()

    async def append(self, records: Sequence[Append]) -> list[Position]:
        self.tried.set()
        if self.broken:
            raise ZeroDivisionError
        if self.away:
            raise LogUnavailable
        if not self.gone.isdisjoint((record.topic, record.partition) for record in records):
            raise PartitionAway
        return await super().append(records)

    async def read(self, topic: str, partition: int, begin: int, end: int) -> AsyncIterator[list[Read]]:
        found = [record for record in self.records if begin <= record.offset < end]
        if found:
            yield found

    async def bounds(self, topic: str, partition: int) -> Bounds:
        return Bounds(0, max((record.offset + 1 for record in self.records), default=0))

    async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
        return next((record.offset for record in self.records if record.timestamp >= timestamp), 5)

    def of(self, topic: str) -> list[Append]:
        return [record for record in self.appended if record.topic == topic]

    def refused(self) -> list[Refused]:
        return [refusals(record.value) for record in self.of(EDGE_REPLIES)]


class Source:
    """Every user has the password `secret-NAME`, once the gate opens."""

    name = "source"
    away = False

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.absent: set[str] = set()
        self.broken = False

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        await self.gate.wait()
        if self.broken:
            raise Unavailable
        return {key: from_password(*key, f"secret-{key[0]}") for key in keys if key[0] not in self.absent}

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        return {}


class Service:
    """A handler with its partition 0 restored."""

    def __init__(self, parked: int = 100) -> None:
        self.log = ReadableLog()
        self.source = Source()
        self.dead: list[tuple[int, str]] = []
        self.clock = 1000.0
        settings = AuthSettings(parked=parked)
        sources = [self.source]
        self.users = users = Users(settings, {REALM: Domain()}, None, sources, self.source, clock=lambda: self.clock)
        self.handler = AuthHandler(
            self.log,  # type: ignore[arg-type]  # the calls it makes
            users,
            Rules({REALM: Domain()}, KEYS, 300),
            lockout=(3, 60),
            parked=parked,
            dead_letter=self._dead,
            clock=lambda: self.clock,
        )
        self.offset = 0

    async def stop(self) -> None:
        """Ends the handler, and the look-ups that it asked for."""
        await self.handler.stop()
        await self.users.stop()

    async def _dead(self, record: Any, cause: str) -> None:
        self.dead.append((record.offset, cause))

    async def give(self, *commands: Authenticate | bytes, timestamp: int = AT) -> dict[int, int]:
        """Hands a batch over; returns what may be committed."""
        records = []
        for command in commands:
            value = command if isinstance(command, bytes) else encode(command)
            records.append(Read(0, self.offset, timestamp, b"key", value))
            self.offset += 1
        return dict(await self.handler.handle({0: records}))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    await made.handler.restore(0)
    made.handler.start()
    yield made
    await made.stop()


def command(
    user: str = "alice", cseq: int = 1, *, password: str = "", aor: str = "", salt: bytes = b"salt"
) -> Authenticate:
    value = nonce.make(KEYS, REALM, NOW, salt, "192.0.2.4")
    ha1 = digest.ha1("MD5", user, REALM, password or f"secret-{user}")
    response = digest.expected_response("MD5", ha1, "REGISTER", "sip:x", value, "auth", cseq, "c")
    return Authenticate(
        f"{user}-{cseq}",
        ReplyTo("edge-1", "boot-1", AT + 2000),
        Digest(user, REALM, value, "sip:x", response, "MD5", "auth", cseq, "c"),
        "REGISTER",
        "192.0.2.4",
        aor or f"{user}@{REALM}",
        Registration(f"call-{user}", cseq, "z9hG4bK1"),
    )


async def test_an_accepted_command_goes_to_the_registrar_by_its_aor_with_the_same_id_and_deadline(
    service: Service,
) -> None:
    service.source.gate.set()
    asked = command()
    await service.give(asked)
    await service.log.until(1)
    (append,) = service.log.appended
    assert (append.topic, append.partition) == (REGISTRAR_COMMANDS, partition_of(f"alice@{REALM}", 4))
    assert append.key == f"alice@{REALM}".encode()
    assert registers(append.value) == RegisterContacts(
        asked.id, asked.reply, f"alice@{REALM}", f"alice@{REALM}", asked.register
    )
    assert ("ce_id", b"alice-1") in append.headers


async def test_a25_no_digest_input_is_in_any_record_that_authsvc_writes(service: Service) -> None:
    service.source.gate.set()
    right, wrong = command(), command("bob", password="guess")
    await service.give(right, wrong)
    await service.log.until(3)
    for append in service.log.appended:
        for asked in (right, wrong):
            assert asked.digest.response.encode() not in (append.value or b"")
            assert asked.digest.nonce.encode() not in (append.value or b"")


async def test_a_refusal_goes_to_the_edges_partition_and_to_the_audit(service: Service) -> None:
    service.source.gate.set()
    await service.give(command(password="guess"))
    await service.log.until(2)
    reply, audit = service.log.appended
    assert (reply.topic, reply.partition, reply.key) == (EDGE_REPLIES, partition_of("edge-1", 4), b"edge-1")
    assert refusals(reply.value) == Refused("alice-1", "edge-1", "boot-1", 401, "Unauthorized")
    assert (audit.topic, audit.key) == (AUDIT, f"alice@{REALM}".encode())
    assert b"wrong response" in (audit.value or b"")


async def test_a30_a_refusal_by_lock_out_says_when_to_try_again(service: Service) -> None:
    service.source.gate.set()
    for cseq in range(1, 5):
        await service.give(command(cseq=cseq, password="guess"))
        await service.log.until(2 * cseq)
    last = service.log.refused()[-1]
    assert (last.status, last.headers) == (403, (("Retry-After", "60"),))


async def test_a22_who_waits_for_a_look_up_holds_up_nobody_else_and_the_commit_stays_below(service: Service) -> None:
    service.source.gate.set()
    await service.give(command("bob"))
    await service.log.until(1)
    service.source.gate.clear()
    assert await service.give(command("alice"), command("bob", 2)) == {0: 1}
    assert [record.key for record in service.log.appended[1:]] == [f"bob@{REALM}".encode()]
    assert await service.give(command("bob", 3)) == {0: 1}
    service.source.gate.set()
    await service.log.until(4)
    assert await service.give(command("bob", 4)) == {0: 5}


async def test_a_users_commands_are_appended_in_their_order_though_the_first_waits(service: Service) -> None:
    await service.give(command("alice", 1))
    await service.give(command("alice", 2), command("alice", 3))
    assert service.log.appended == []
    service.source.gate.set()
    await service.log.until(3)
    assert [registers(record.value).id for record in service.log.appended] == ["alice-1", "alice-2", "alice-3"]


async def test_order_holds_while_the_log_is_slow_to_take_the_first(service: Service) -> None:
    service.log.away = True
    await service.give(command("alice", 1))
    service.source.gate.set()
    await service.log.tried.wait()
    assert await service.give(command("alice", 2)) == {0: 0}
    service.log.away = False
    await service.log.until(2)
    assert [registers(record.value).id for record in service.log.appended] == ["alice-1", "alice-2"]


async def test_a18_who_still_waits_at_the_deadline_gets_503_with_retry_after(service: Service) -> None:
    await service.give(command())
    service.clock += 2.1
    await service.log.until(1)
    (refused,) = service.log.refused()
    assert (refused.status, refused.headers) == (503, (("Retry-After", "5"),))
    assert await service.give(command("bob")) == {0: 1}


async def test_a18_who_cannot_be_looked_up_gets_503_and_never_404(service: Service) -> None:
    service.source.gate.set()
    service.source.broken = True
    await service.give(command())
    await service.log.until(1)
    assert [refused.status for refused in service.log.refused()] == [503]


async def test_what_waits_is_bounded_and_beyond_it_is_503_at_once() -> None:
    service = Service(parked=2)
    await service.handler.restore(0)
    before = drops("parking-full")
    assert await service.give(*(command(f"u{n}") for n in range(5)), command("u0", 2)) == {0: 0}
    assert [(r.id, r.status) for r in service.log.refused()] == [
        ("u2-1", 503),
        ("u3-1", 503),
        ("u4-1", 503),
        ("u0-2", 503),
    ]
    assert drops("parking-full") == before + 4
    await service.stop()


async def test_e22_a_command_past_its_deadline_is_dropped_by_name(service: Service) -> None:
    before = drops("late-command")
    assert await service.give(command(), timestamp=AT + 2001) == {0: 1}
    assert service.log.appended == []
    assert drops("late-command") == before + 1


@pytest.mark.parametrize("value", [b"", b"{", b"null", b'{"type":"ramal.Authenticate"}', b"\xff\xfe", b"[" * 5000])
async def test_a_poisoned_record_is_a_dead_letter_and_the_others_go_on(service: Service, value: bytes) -> None:
    service.source.gate.set()
    await service.give(value, command())
    await service.log.until(1)
    assert [offset for offset, _ in service.dead] == [0]


async def test_a_bug_with_a_parked_command_makes_a_dead_letter_and_the_others_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = digest.expected_response

    def broken(algorithm: str, ha1: str, method: str, *rest: Any) -> str:
        if method == "BUG":
            raise ZeroDivisionError
        return real(algorithm, ha1, method, *rest)

    monkeypatch.setattr(digest, "expected_response", broken)
    await service.give(msgspec.structs.replace(command("bob"), method="BUG"), command("alice"))
    service.source.gate.set()
    await service.log.until(1)
    assert [offset for offset, _ in service.dead] == [0]
    assert await service.give(command("alice", 2)) == {0: 3}


async def test_a_bug_with_a_look_up_ends_in_503_and_leaves_nothing_behind(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.source, "gate", None)
    await service.give(command("alice"), command("bob"))
    service.clock += 3
    await service.log.until(2)
    assert {refused.status for refused in service.log.refused()} == {503}
    async with asyncio.timeout(5):
        while service.handler._waiting_for:  # noqa: ASYNC110  # the handler tells nobody
            await asyncio.sleep(0.02)


async def test_a_bug_with_the_answers_to_parked_commands_ends_nothing(service: Service) -> None:
    await service.give(command("bob"))
    service.log.broken = True
    service.source.gate.set()
    await service.log.tried.wait()
    service.log.broken = False
    await service.give(command("alice"))
    service.clock += 3
    await service.log.until(2)
    answered = {registers(record.value).id for record in service.log.of(REGISTRAR_COMMANDS)}
    assert answered | {refused.id for refused in service.log.refused()} == {"alice-1", "bob-1"}


async def test_the_log_being_away_is_the_workers_to_know(service: Service) -> None:
    service.source.gate.set()
    await service.give(command())
    await service.log.until(1)
    service.log.away = True
    with pytest.raises(LogUnavailable):
        await service.give(command(cseq=2))


async def test_a_partition_that_is_away_costs_its_own_aors_an_answer_and_holds_up_nobody_else(service: Service) -> None:
    service.source.gate.set()
    names = [f"u{number}" for number in range(12)]
    await service.give(*(command(name, 1) for name in names))  # who are they? parked
    await service.log.until(12)
    service.log.appended.clear()
    service.log.gone = {(REGISTRAR_COMMANDS, 1)}
    before = drops("partition-away")
    assert await service.give(*(command(name, 2) for name in names)) == {0: 24}
    written = {registers(record.value).aor for record in service.log.of(REGISTRAR_COMMANDS)}
    away = {f"{name}@{REALM}" for name in names if partition_of(f"{name}@{REALM}", 4) == 1}
    assert away
    assert written == {f"{name}@{REALM}" for name in names} - away
    assert drops("partition-away") == before + len(away)
    # Nor is a batch given back of which it is all there is.
    assert await service.give(command(next(iter(away)).partition("@")[0], 3)) == {0: 25}


async def test_a_released_partition_is_forgotten_and_what_waited_in_it_is_not_answered(service: Service) -> None:
    await service.give(command("alice"))
    service.handler.release(0)
    service.source.gate.set()
    await service.handler.restore(0)
    await service.give(command("bob"))
    await service.log.until(1)
    assert [record.key for record in service.log.appended] == [f"bob@{REALM}".encode()]


@pytest.mark.parametrize(
    ("finished", "at", "stale"),
    [
        (command(), AT, True),
        (command("bob"), AT, False),
        (command("bob"), AT + 1000, False),
        (command("bob"), AT + 2000, True),
        (b"poison", AT, False),
    ],
    ids=["used", "unused", "made just before", "too long before", "poisoned"],
)
async def test_a09_after_a_reassignment_a_nonce_is_stale_if_it_was_used_or_may_have_been(
    finished: Authenticate | bytes, at: int, stale: bool
) -> None:
    """A nonce that a phone is given now serves: else it would be challenged again and again for a second or two."""
    service = Service()
    service.source.gate.set()
    service.log.offsets = {0: 5}
    value = finished if isinstance(finished, bytes) else encode(finished)
    service.log.records = [Read(0, 4, at, None, value)]
    assert await service.handler.restore(0) == 5
    service.handler.start()
    await service.give(command(cseq=2))
    await service.log.until(1)
    assert [refused.stale for refused in service.log.refused()] == [True] * stale
    assert len(service.log.of(REGISTRAR_COMMANDS)) == (not stale)
    await service.stop()


async def test_a09_where_the_log_has_lost_its_end_it_goes_on_and_no_older_nonce_is_good() -> None:
    """To read before the position would wait for records that never come; which nonces they used nobody can tell."""
    service = Service()
    service.source.gate.set()
    service.log.offsets = {0: 5}
    service.log.read = _never  # type: ignore[method-assign,assignment]
    assert await service.handler.restore(0) is None
    service.handler.start()
    await service.give(command(), command("bob"))
    await service.log.until(2)
    assert [refused.stale for refused in service.log.refused()] == [True, True]
    await service.stop()


def _never(*_: object) -> AsyncIterator[list[Read]]:
    raise AssertionError("it was read")


async def test_a_topic_read_from_its_beginning_has_forgotten_no_nonce() -> None:
    service = Service()
    assert await service.handler.restore(0) is None


async def test_r07_an_aor_that_is_nobodys_is_404_and_somebody_elses_403(service: Service) -> None:
    service.source.gate.set()
    service.source.absent.add("nobody")
    await service.give(command(aor=f"nobody@{REALM}"), command("bob", aor=f"alice@{REALM}"))
    await service.log.until(3)
    assert {refused.id: refused.status for refused in service.log.refused()} == {"alice-1": 404, "bob-1": 403}


def test_the_topic_and_group_are_authsvcs() -> None:
    assert (AuthHandler.topic, AuthHandler.group, AuthHandler.dead_letters) == (AUTH_COMMANDS, "authsvc", True)


async def test_a_failure_that_counts_is_one_line_for_fail2ban_that_no_user_name_can_forge(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """As the manual has it: `<HOST>` is the address."""
    manual = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
    found = re.search(r"^failregex = (.*)$", manual, re.MULTILINE)
    assert found
    fails = re.compile(found[1].replace("<HOST>", r"(?P<host>[0-9a-f.:]+)"))
    caplog.set_level("INFO", "ramal.authsvc")
    service.source.gate.set()
    forger = 'x","source":"198.51.100.7'
    await service.give(command(password="wrong"), command(forger, password="wrong"))
    await service.log.until(4)

    lines = [JsonFormatter().format(record) for record in caplog.records]

    assert [match["host"] for line in lines if (match := fails.search(line))] == ["192.0.2.4", "192.0.2.4"]


async def test_s03_a_forged_address_is_not_told_to_fail2ban(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ramal.authsvc")
    service.source.gate.set()
    await service.give(msgspec.structs.replace(command(password="wrong"), source="203.0.113.9"))
    await service.log.until(2)

    assert [record.getMessage() for record in caplog.records] == []


async def test_a_lock_out_is_told(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ramal.authsvc")
    service.source.gate.set()
    for number in range(1, 5):
        await service.give(command(cseq=number, password="wrong"))
        await service.log.until(2 * number)

    assert [record.getMessage() for record in caplog.records] == ["authentication failed"] * 3 + ["locked out"]
