"""authsvc's handler and what is no REGISTER: calls and their first edge, who is called, closed connections."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import msgspec
import pytest

from authsvc.config import AuthSettings
from authsvc.handler import AuthHandler
from authsvc.restore import used_before
from authsvc.users.directory import Users
from authsvc.users.ha1 import User, from_password
from authsvc.users.remembered import Key
from events.commands import (
    AuthCommand,
    Authenticate,
    FindUser,
    FlowLost,
    RegisterContacts,
    Registration,
    RemoveFlow,
    ReplyTo,
)
from events.replies import Authenticated, Found, Refused, Reply
from events.topics import AUTH_COMMANDS, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import Decoder, encode
from runtime.errors import LogRefused, Unavailable
from runtime.log.port import Append, Bounds, Position
from runtime.metrics import drops
from tests.kit.invites import ALICE, AT, DOMAINS, NOW, REALM, RULES, invite
from tests.kit.memory_log import MemoryLog, Read

PATH = "<sip:token@edges;lr>"
replies: Decoder[Reply] = Decoder(Reply)
commands: Decoder[Any] = Decoder(RegisterContacts | RemoveFlow)


def register(user: str = "alice") -> Authenticate:
    asked = invite(user, method="REGISTER", request=None)
    return msgspec.structs.replace(asked, register=Registration(f"call-{user}", 1, "z9hG4bK1"))


# --- the handler ----------------------------------------------------------------


class RefusingLog(MemoryLog):
    """It `refuses` records whose value has these octets."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = b"\x00"

    async def append(self, records: Sequence[Append]) -> list[Position]:
        if any(self.refuses in (record.value or b"") for record in records):
            raise LogRefused("too large")
        return await super().append(records)

    def replies(self) -> list[Any]:
        return [replies(record.value) for record in self.appended if record.topic == EDGE_REPLIES]

    def commands(self) -> list[Any]:
        return [commands(record.value) for record in self.appended if record.topic == REGISTRAR_COMMANDS]


class Directory:
    """Whoever has a password, an alias or a number here, once the gate opens."""

    name = "directory"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False
        self.names = {"alice", "bob"}
        self.aliases: dict[Key, Key] = {("desk", REALM): ("alice", REALM)}
        self.numbers: dict[Key, Key] = {("+554833812800", REALM): ("bob", REALM)}

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.away:
            raise Unavailable

    async def find(self, keys: Collection[Key]) -> dict[Key, User]:
        await self._answer()
        return {key: from_password(*key, f"secret-{key[0]}") for key in keys if key[0] in self.names}

    async def find_aliases(self, keys: Collection[Key]) -> dict[Key, Key]:
        await self._answer()
        return {key: self.aliases[key] for key in keys if key in self.aliases}

    async def find_numbers(self, keys: Collection[Key]) -> dict[Key, Key]:
        await self._answer()
        return {key: self.numbers[key] for key in keys if key in self.numbers}


class Service:
    """A handler with its partition 0 restored."""

    def __init__(self, *, parked: int = 100, keep_lost_flows: bool = False) -> None:
        self.log = RefusingLog()
        self.directory = Directory()
        self.clock = 1000.0
        settings = AuthSettings(parked=parked)
        there = self.directory
        self.users = users = Users(settings, DOMAINS, None, [there], there, there, clock=lambda: self.clock)
        self.handler = AuthHandler(
            self.log,  # type: ignore[arg-type]  # the calls it makes
            users,
            RULES,
            lockout=(3, 60),
            parked=parked,
            dead_letter=_no_dead_letter,
            keep_lost_flows=keep_lost_flows,
            clock=lambda: self.clock,
        )
        self.offset = 0

    async def stop(self) -> None:
        """Ends the handler, and the look-ups that it asked for."""
        await self.handler.stop()
        await self.users.stop()

    async def give(self, *given: AuthCommand, timestamp: int = AT) -> dict[int, int]:
        """Hands a batch over; returns what may be committed."""
        records = []
        for command in given:
            records.append(Read(0, self.offset, timestamp, b"key", encode(command)))
            self.offset += 1
        return dict(await self.handler.handle({0: records}))

    async def find(self, name: str, domain: str = REALM) -> Found | Refused:
        """The answer to a `FindUser`."""
        before = len(self.log.appended)
        await self.give(who(name, domain))
        await self.log.until(before + 1)
        reply = self.log.replies()[-1]
        assert isinstance(reply, Found | Refused)
        assert (reply.id, reply.edge, reply.boot) == ("find-1", "edge-1", "boot-1")
        return reply


async def _no_dead_letter(record: Any, cause: str) -> None:
    raise AssertionError(cause)


def who(name: str, domain: str = REALM) -> FindUser:
    return FindUser("find-1", ReplyTo("edge-1", "boot-1", AT + 2000), name, domain)


def lost(user: str = ALICE) -> FlowLost:
    return FlowLost("lost-1", ReplyTo("edge-1", "boot-1", AT + 2000), user, ALICE, PATH)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    await made.handler.restore(0)
    made.handler.start()
    yield made
    await made.stop()


async def test_a28_the_reply_to_a_caller_goes_to_the_edges_partition(service: Service) -> None:
    await service.give(invite(), invite(edge="edge-2"))
    await service.log.until(2)
    assert service.log.replies() == [
        Authenticated("alice-edge-1-1", "edge-1", "boot-1", ALICE),
        Authenticated("alice-edge-2-1", "edge-2", "boot-1", ALICE, ("edge-1", "boot-1")),
    ]
    assert [(r.partition, r.key) for r in service.log.appended] == [
        (partition_of("edge-1", 4), b"edge-1"),
        (partition_of("edge-2", 4), b"edge-2"),
    ]


async def test_y36_copies_that_wait_for_one_look_up_are_told_the_first_in_their_order(service: Service) -> None:
    service.directory.gate.clear()
    await service.give(invite())
    assert await service.give(invite(edge="edge-2")) == {0: 0}
    service.directory.gate.set()
    await service.log.until(2)
    assert [reply.first for reply in service.log.replies()] == [None, ("edge-1", "boot-1")]


async def test_y32_a_name_is_a_users_an_aliass_or_a_numbers_however_it_is_written(service: Service) -> None:
    for name in ("bob", "+55 48 3381-2800", "4833812800", "554833812800", "(48) 3381.2800"):
        assert await service.find(name) == Found("find-1", "edge-1", "boot-1", f"bob@{REALM}")
    assert await service.find("desk") == Found("find-1", "edge-1", "boot-1", ALICE)
    for name in ("nobody", "+55 48 3381-2801", "2800", "", "nul\x00", "x" * 65):
        assert await service.find(name) == Found("find-1", "edge-1", "boot-1")
    assert await service.find("bob", "elsewhere.test") == Found("find-1", "edge-1", "boot-1")


async def test_y32_an_alias_may_be_a_number_in_another_spelling_and_counts_before_the_directorys(
    service: Service,
) -> None:
    service.directory.aliases["4833812800", REALM] = ("alice", REALM)
    assert (await service.find("+55 48 3381-2800")) == Found("find-1", "edge-1", "boot-1", ALICE)


async def test_a_user_of_that_very_name_counts_before_alias_and_number(service: Service) -> None:
    service.directory.names |= {"desk", "+554833812800"}
    assert await service.find("desk") == Found("find-1", "edge-1", "boot-1", f"desk@{REALM}")
    assert await service.find("+554833812800") == Found("find-1", "edge-1", "boot-1", f"+554833812800@{REALM}")


async def test_a_user_found_is_named_by_his_canonical_aor(service: Service) -> None:
    service.directory.names.add("josé")
    assert await service.find("josé") == Found("find-1", "edge-1", "boot-1", f"jos%C3%A9@{REALM}")


async def test_a18_who_cannot_be_found_now_is_503_and_who_was_found_before_still_is(service: Service) -> None:
    await service.find("bob")
    await service.find("4833812800")
    service.directory.away = True
    service.clock += 400
    assert (await service.find("bob")) == Found("find-1", "edge-1", "boot-1", f"bob@{REALM}")
    assert (await service.find("4833812800")) == Found("find-1", "edge-1", "boot-1", f"bob@{REALM}")
    refused = await service.find("carol")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.headers) == (503, (("Retry-After", "5"),))


async def test_a18_who_is_not_found_by_the_deadline_is_503(service: Service) -> None:
    service.directory.gate.clear()
    await service.give(who("bob"))
    service.clock += 3
    await service.log.until(1)
    [refused] = service.log.replies()
    assert refused.status == 503


async def test_a22_who_waits_to_be_found_holds_up_nobody_else(service: Service) -> None:
    await service.find("bob")
    service.directory.gate.clear()
    await service.give(who("carol"))
    assert await service.find("bob") == Found("find-1", "edge-1", "boot-1", f"bob@{REALM}")


async def test_a27_a_users_number_is_his_to_register_and_call_as(service: Service) -> None:
    await service.give(invite("bob", aor=f"+554833812800@{REALM}"), invite("alice", aor=f"4833812800@{REALM}"))
    await service.log.until(3)
    answers = {reply.id: reply for reply in service.log.replies()}
    assert answers["bob-edge-1-1"].user == f"bob@{REALM}"
    assert answers["alice-edge-1-1"].status == 403


async def test_n11_a_closed_connection_becomes_a_command_of_its_aor(service: Service) -> None:
    assert await service.give(lost()) == {0: 1}
    assert service.log.commands() == [RemoveFlow("lost-1", ALICE, PATH)]
    [record] = service.log.appended
    assert (record.partition, record.key) == (partition_of(ALICE, 4), ALICE.encode())
    assert ("ce_type", b"ramal.RemoveFlow") in record.headers


async def test_n11_it_comes_after_the_registrations_by_that_connection_that_still_wait(service: Service) -> None:
    service.directory.gate.clear()
    await service.give(register())
    await service.give(lost())
    assert service.log.appended == []
    service.directory.gate.set()
    await service.log.until(2)
    assert [type(command) for command in service.log.commands()] == [RegisterContacts, RemoveFlow]


async def test_n11_a_closed_connection_stays_closed_however_late_that_is_read(service: Service) -> None:
    late = drops("late-command")
    await service.give(lost(), timestamp=AT + 60_000)
    assert service.log.commands() == [RemoveFlow("lost-1", ALICE, PATH)]
    service.directory.gate.clear()
    await service.give(register())
    await service.give(lost())
    service.clock += 3
    await service.log.until(3)
    assert [reply.status for reply in service.log.replies()] == [503]
    assert len(service.log.commands()) == 2
    assert drops("late-command") == late


async def test_n11_bindings_of_a_closed_connection_may_be_kept_till_they_expire() -> None:
    service = Service(keep_lost_flows=True)
    await service.handler.restore(0)
    assert await service.give(lost()) == {0: 1}
    assert service.log.appended == []
    await service.stop()


async def test_n11_where_nothing_more_may_wait_a_closed_connection_is_told_at_once() -> None:
    service = Service(parked=1)
    await service.handler.restore(0)
    service.directory.gate.clear()
    await service.give(register(), lost())
    assert [type(command) for command in service.log.commands()] == [RemoveFlow]
    await service.stop()


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "after a look-up"])
async def test_an_answer_that_the_log_refuses_costs_no_other_answer(service: Service, waiting: bool) -> None:
    refused = drops("refused-answer")
    if waiting:
        service.directory.gate.clear()
    else:
        await service.find("alice")
        await service.find("bob")
    before = len(service.log.appended)
    service.log.refuses = b"bob"
    asked = (invite("bob"), invite(), invite(edge="edge-2"))
    await service.give(*asked)
    service.directory.gate.set()
    await service.log.until(before + 2)
    ids = [reply.id for reply in service.log.replies()[before:]]
    assert sorted(ids) == ["alice-edge-1-1", "alice-edge-2-1"]
    assert drops("refused-answer") == refused + 1


async def test_a09_only_requests_with_credentials_have_used_nonces() -> None:
    class Log(RefusingLog):
        async def bounds(self, topic: str, partition: int) -> Bounds:
            return Bounds(0, 3)

        async def offset_at(self, topic: str, partition: int, timestamp: int) -> int:
            return 1

        async def read(self, topic: str, partition: int, begin: int, end: int) -> AsyncIterator[list[Read]]:
            values = [encode(lost()), encode(who("bob")), encode(invite())]
            yield [Read(0, n, AT, None, value) for n, value in enumerate(values) if begin <= n < end]

    floor, used = await used_before(Log(), AUTH_COMMANDS, 0, 3)  # type: ignore[arg-type]  # the calls it makes
    assert (floor, len(used)) == (NOW - 2, 1)
