"""authsvc as a service: a worker over the log, users from the tables and from a real OpenLDAP."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from authsvc.service import AuthService, build
from authsvc.users import table as subscriber
from authsvc.users.ha1 import User, from_password
from events.commands import (
    Authenticate,
    Contact,
    Digest,
    FindUser,
    RegisterContacts,
    RegistrarCommand,
    Registration,
    ReplyTo,
    RequestId,
)
from events.replies import Authenticated, Found, Refused, Reply
from events.topics import AUDIT, AUTH_COMMANDS, DEAD, EDGE_REPLIES, REGISTRAR_COMMANDS, partition_of
from events.wire import Decoder, cloud_event, encode
from ramal.backends import LdapServer, start_ldap
from runtime.config import Sources
from runtime.database.port import Database, Statement
from runtime.errors import ConfigError
from runtime.log.embedded.log import EmbeddedLog
from runtime.log.port import Append, Log
from sipcore import digest, nonce
from tests.integration.authsvc.conftest import PARTITIONS
from tests.kit.directory import add_users, remove_users
from tests.kit.stopping import stop

pytestmark = pytest.mark.integration

REALM = "example.test"
KEYS = {"k1": bytes.fromhex("00112233445566778899aabbccddeeff")}

registers: Decoder[RegistrarCommand] = Decoder(RegistrarCommand)
replies: Decoder[Reply] = Decoder(Reply)
Answer = RegistrarCommand | Reply


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LdapServer]:
    """A directory that the test may hang."""
    server = start_ldap(tmp_path / "ldap", users=20)
    yield server
    os.kill(server.pid, signal.SIGCONT)
    server.stop()


class Running:
    """The service over a log, and what came of commands."""

    def __init__(self, log: Log, service: AuthService) -> None:
        self._log = log
        self.service = service
        self._number = 0

    async def ask(
        self,
        user: str,
        password: str,
        *,
        aor: str = "",
        salt: bytes = b"salt",
        made: int | None = None,
        method: str = "REGISTER",
    ) -> str:
        """Publishes an `Authenticate`; returns its id."""
        self._number += 1
        now = int(time.time())
        value = nonce.make(KEYS, REALM, made or now, salt, "192.0.2.4")
        ha1 = digest.ha1("MD5", user, REALM, password)
        response = digest.expected_response("MD5", ha1, method, f"sip:{REALM}", value, "auth", 1, "c")
        command = Authenticate(
            f"id-{self._number}-{user}",
            ReplyTo("edge-1", "boot-1", now * 1000 + 3000),
            Digest(user, REALM, value, f"sip:{REALM}", response, "MD5", "auth", 1, "c"),
            method,
            "192.0.2.4",
            aor or f"{user}@{REALM}",
        )
        call, branch = f"call-{user}", f"z9hG4bK{self._number}"
        if method == "REGISTER":
            register = Registration(call, self._number, branch, (Contact(f"sip:{user}@192.0.2.4"),))
            command = msgspec.structs.replace(command, register=register)
        else:
            command = msgspec.structs.replace(command, request=RequestId(call, self._number, branch))
        await self.publish(f"{user}@{REALM}", encode(command), command.id)
        return command.id

    async def find(self, name: str) -> Answer:
        """The answer to a `FindUser`."""
        self._number += 1
        deadline = int(time.time()) * 1000 + 3000
        command = FindUser(f"id-{self._number}-find", ReplyTo("edge-1", "boot-1", deadline), name, REALM)
        await self.publish(f"{name}@{REALM}", encode(command), command.id)
        return await self.answer(command.id)

    async def publish(self, key: str, value: bytes, id_: str) -> None:
        await self._log.append(
            [
                Append(
                    AUTH_COMMANDS,
                    partition_of(key, PARTITIONS),
                    key.encode(),
                    value,
                    cloud_event("ramal.Authenticate", "test", id_),
                )
            ]
        )

    async def answer(self, id_: str) -> Answer:
        """The answer to a command, once it is there."""
        while True:
            for topic, decode in ((REGISTRAR_COMMANDS, registers), (EDGE_REPLIES, replies)):
                for value in await self.values(topic):
                    answer = decode(value)
                    if answer.id == id_:
                        return answer
            await asyncio.sleep(0.02)

    async def status(self, id_: str) -> int:
        """200 for a command that went on to the registrar, else the refusal's status."""
        answer = await self.answer(id_)
        return answer.status if isinstance(answer, Refused) else 200

    async def values(self, topic: str) -> list[bytes]:
        """All records of a topic."""
        found: list[bytes] = []
        for partition in range(await self._log.partitions(topic)):
            bounds = await self._log.bounds(topic, partition)
            async for records in self._log.read(topic, partition, bounds.begin, bounds.end):
                found.extend(record.value or b"" for record in records)
        return found


Start = Callable[..., Awaitable[Running]]


def environment(server: LdapServer | None = None, **more: str) -> dict[str, str]:
    values = {"RAMAL_KEYS": f"k1:{KEYS['k1'].hex()}", **more}
    if server:
        values |= {
            "RAMAL_LDAP_URL": server.url,
            "RAMAL_LDAP_BASE": server.base,
            "RAMAL_LDAP_BIND_DN": server.bind_dn,
            "RAMAL_LDAP_BIND_PASSWORD": server.bind_password,
            "RAMAL_LDAP_INSECURE": "true",
        }
    return values


@pytest.fixture
async def start(log: Log, database: Database) -> AsyncIterator[Start]:
    """Starts services; ends them."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(server: LdapServer | None = None, **more: str) -> Running:
            service = build(Sources(environment(server, **more), {}), log, database)
            await service.start()
            stack.push_async_callback(service.stop, 5.0)
            return Running(log, service)

        yield begin


async def test_users_come_from_the_tables_and_from_ldap(
    start: Start, ldap: LdapServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Also A25: over a whole run no secret is in a log or in a record of ours."""
    caplog.set_level(logging.DEBUG)
    await subscriber.add_user(database, "alice", REALM, "canary-alice")
    columns = "(alias_username, alias_domain, username, domain)"
    await database.transact(
        [Statement(f"INSERT INTO dbaliases {columns} VALUES (%s, %s, %s, %s)", ("desk", REALM, "alice", REALM))]
    )
    running = await start(ldap)
    asked = {
        await running.ask("alice", "canary-alice", salt=b"1111"): 200,
        await running.ask("u00001", "secret-u00001"): 200,
        await running.ask("u00001", "canary-wrong", salt=b"2222"): 401,
        await running.ask("nobody", "canary-nobody"): 401,
        await running.ask("Alice", "canary-alice"): 401,
        await running.ask("*)(uid=*", "secret-u00001"): 401,
        await running.ask("alice", "canary-alice", aor=f"u00001@{REALM}", salt=b"3333"): 403,
        await running.ask("alice", "canary-alice", aor=f"nobody@{REALM}", salt=b"4444"): 404,
    }
    alias = await running.ask("alice", "canary-alice", aor=f"desk@{REALM}", salt=b"5555")
    assert {id_: await running.status(id_) for id_ in asked} == asked
    answer = await running.answer(alias)
    assert isinstance(answer, RegisterContacts)
    assert (answer.user, answer.aor) == (f"alice@{REALM}", f"alice@{REALM}")
    reasons = sorted(json.loads(value)["reason"] for value in await running.values(AUDIT))
    assert reasons == ["not this user's AOR", *["unknown user"] * 3, "wrong response"]

    written = b"".join([*await running.values(REGISTRAR_COMMANDS), *await running.values(EDGE_REPLIES)])
    seen = caplog.text + str([record.__dict__ for record in caplog.records]) + written.decode()
    for secret in ("canary", "secret-u", ldap.bind_password, digest.ha1("MD5", "alice", REALM, "canary-alice")):
        assert secret not in seen
    assert "k1." not in written.decode()


async def test_y32_callees_are_found_in_the_tables_and_in_ldap(
    start: Start, own: LdapServer, database: Database
) -> None:
    await subscriber.add_user(database, "alice", REALM, "secret")
    columns = "(alias_username, alias_domain, username, domain)"
    rows = [("desk", REALM, "alice", REALM), ("4833812800", REALM, "alice", REALM)]
    await database.transact(
        [Statement(f"INSERT INTO dbaliases {columns} VALUES (%s, %s, %s, %s)", row) for row in rows]
    )
    running = await start(own, RAMAL_DOMAINS=f'{{"{REALM}": {{"country": "55", "area": "48"}}}}')
    asked = {"alice": "alice", "desk": "alice", "+55 48 3381-2800": "alice", "u00001": "u00001", "nobody": None}
    for name, user in asked.items():
        reply = await running.find(name)
        assert isinstance(reply, Found)
        assert reply.aor == (user and f"{user}@{REALM}")
    stop(own.pid)
    for name in ("alice", "desk", "u00001"):
        assert isinstance(await running.find(name), Found)
    refused = await running.find("carol")
    assert isinstance(refused, Refused)
    assert refused.status == 503


async def test_r42_a_removed_user_is_told_to_the_registrar_and_may_not_log_in_by_what_is_remembered(
    start: Start, own: LdapServer, database: Database
) -> None:
    columns = ("contact_id", "username", "domain", "contact", "expires")
    rows = [(n, f"u{n:05d}", REALM, f"sip:u{n:05d}@192.0.2.4", 2_000_000_000) for n in range(1, 20)]
    await database.transact([database.upsert("location", columns, columns[:1], rows)])
    running = await start(own, RAMAL_AUTHSVC_SWEEP_SECONDS="0.2", RAMAL_AUTHSVC_UNKNOWN_SECONDS="0.5")
    assert await running.status(await running.ask("u00003", "secret-u00003")) == 200
    remove_users(own, "u00003")
    async with asyncio.timeout(20):
        while True:
            gone = {value for value in await running.values(REGISTRAR_COMMANDS) if b"DeactivateContacts" in value}
            if gone:
                break
            await asyncio.sleep(0.05)
    assert {json.loads(value)["aor"] for value in gone} == {f"u00003@{REALM}"}
    assert await running.status(await running.ask("u00003", "secret-u00003", salt=b"2222")) == 401
    add_users(own, "u00003")
    async with asyncio.timeout(20):
        while True:
            if await running.status(await running.ask("u00003", "secret-u00003", salt=os.urandom(4))) == 200:
                break
            await asyncio.sleep(0.2)


async def test_a28_a_caller_is_answered_on_the_topic_of_replies(start: Start, ldap: LdapServer) -> None:
    running = await start(ldap)
    answer = await running.answer(await running.ask("u00001", "secret-u00001", method="INVITE"))
    assert isinstance(answer, Authenticated)
    assert (answer.user, answer.first) == (f"u00001@{REALM}", None)
    assert await running.status(await running.ask("u00001", "wrong", method="INVITE")) == 401


async def test_a_poisoned_record_goes_to_dead_without_its_value_and_the_others_go_on(
    start: Start, database: Database
) -> None:
    await subscriber.add_user(database, "alice", REALM, "secret")
    running = await start()
    await running.publish(f"alice@{REALM}", b'{"canary":', "bad")
    assert await running.status(await running.ask("alice", "secret")) == 200
    assert await running.values(DEAD) == [b""]


async def test_a18_while_ldap_hangs_known_users_go_on_others_get_503_and_it_comes_back_alone(
    start: Start, own: LdapServer, database: Database
) -> None:
    """Also A22: those who do not need LDAP are answered while others wait for it."""
    await subscriber.add_user(database, "alice", REALM, "secret")
    running = await start(own)
    assert await running.status(await running.ask("u00001", "secret-u00001")) == 200
    stop(own.pid)
    waiting = await running.ask("u00002", "secret-u00002")
    known = [await running.ask("u00001", "secret-u00001", salt=b"2222"), await running.ask("alice", "secret")]
    assert [await running.status(id_) for id_ in known] == [200, 200]
    answer = await running.answer(waiting)
    assert isinstance(answer, Refused)
    assert answer.status == 503
    assert dict(answer.headers)["Retry-After"]
    os.kill(own.pid, signal.SIGCONT)
    async with asyncio.timeout(20):
        while True:
            if await running.status(await running.ask("u00003", "secret-u00003", salt=os.urandom(4))) == 200:
                break


async def test_a18_in_thesis_mode_a_directory_that_is_away_is_500(start: Start, own: LdapServer) -> None:
    stop(own.pid)
    running = await start(own, RAMAL_DOMAINS=json.dumps({REALM: {"thesis_mode": True}}))
    assert await running.status(await running.ask("u00002", "secret-u00002")) == 500
    os.kill(own.pid, signal.SIGCONT)


async def test_a09_a_nonce_that_served_before_a_restart_serves_no_more(start: Start, database: Database) -> None:
    await subscriber.add_user(database, "alice", REALM, "secret")
    made = int(time.time())
    first = await start()
    assert await first.status(await first.ask("alice", "secret", made=made)) == 200
    await first.service.stop(5.0)
    second = await start()
    second._number = 10
    answer = await second.answer(await second.ask("alice", "secret", made=made))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.stale) == (401, True)


async def test_users_of_the_table_are_added_listed_and_removed(database: Database) -> None:
    await subscriber.add_user(database, "bob", REALM, "one")
    await subscriber.add_user(database, "bob", REALM, "two")
    await subscriber.add_user(database, "alice", REALM, "three")
    assert await subscriber.list_users(database) == [("alice", REALM), ("bob", REALM)]
    source = subscriber.SubscriberUsers(database)
    keys = [("bob", REALM), ("Bob", REALM), ("bob ", REALM), ("bob", "other.test"), ("b%", REALM)]
    assert await source.find(keys) == {("bob", REALM): from_password("bob", REALM, "two")}
    assert await subscriber.remove_user(database, "bob", REALM)
    assert not await subscriber.remove_user(database, "bob", REALM)
    assert await source.find(keys) == {}


async def test_the_clear_text_column_stands_in_for_ha1s_that_are_not_there(database: Database) -> None:
    md5 = digest.ha1("MD5", "carol", REALM, "other")
    row = ("carol", REALM, "clear", md5)
    await database.transact(
        [Statement("INSERT INTO subscriber (username, domain, password, ha1) VALUES (%s, %s, %s, %s)", row)]
    )
    found = await subscriber.SubscriberUsers(database).find([("carol", REALM)])
    clear = from_password("carol", REALM, "clear")
    assert found == {("carol", REALM): User(md5, clear.sha256, clear.sha512_256)}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RAMAL_KEYS", ""),
        ("RAMAL_NONCE_SECONDS", "0"),
        ("RAMAL_NONCE_SECONDS", "3600"),
        ("RAMAL_DOMAINS", '{"example.test": {"algorithms": ["SHA-1"]}}'),
        ("RAMAL_DOMAINS", '{"example.test": {"algorithms": []}}'),
        ("RAMAL_LDAP_URL", "ldap://127.0.0.1"),
        ("RAMAL_LDAP_DOMAINS", "other.test"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start_and_is_named(variable: str, value: str) -> None:
    settings = {**environment(), variable: value}
    with pytest.raises(ConfigError, match=variable):
        build(Sources(settings, {}), EmbeddedLog(None, 4), None)  # type: ignore[arg-type]  # never reached
