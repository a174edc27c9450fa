"""TLS and SASL to a real broker: every client of ours gets in, and who does not is told why in one sentence.

Over 400 lines: one secured broker, and every way to be kept out by it.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives import serialization

from cdr.analytics import Analytics
from events.commands import ReplyTo
from events.topics import AUDIT, BINDINGS, CDRS, EDGE_REPLIES, REGISTRATIONS, TOPICS, VIEW
from locator.config import Settings
from locator.handler import LocatorHandler
from runtime.config import Kafka, Secret, Sources
from runtime.database.sqlite import SQLiteDatabase
from runtime.errors import ConfigError, LogRefused, LogUnavailable
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append, Log
from runtime.store import EmbeddedStore
from tests.kit.locator import Scribe, claim
from tests.kit.secure import LIFE_SECONDS, LIMITED, PASSWORD, USER, Broker, start_broker

pytestmark = pytest.mark.integration

RAMAL = str(Path(sys.executable).with_name("ramal"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    started = start_broker(tmp_path_factory.mktemp("secure-kafka"))
    yield started
    started.server.child.kill()


def way_in(broker: Broker, listener: str, **more: Any) -> Kafka:
    """Right settings for a listener, but for `more`."""
    given: dict[str, Any] = {"bootstrap": broker.at(listener), "session_timeout": 6.0}
    if listener in ("sasl", "short", "clear"):
        given |= {"username": USER, "password": Secret(PASSWORD)}
    if listener != "clear":
        given["ca_file"] = str(broker.authority.file)
    given["security_protocol"] = {"sasl": "SASL_SSL", "short": "SASL_SSL", "clear": "SASL_PLAINTEXT"}.get(
        listener, "SSL"
    )
    if listener == "mtls":
        mine = broker.authority.issue(USER)
        given |= {"certificate": str(mine.certificate), "private_key": str(mine.key)}
    return Kafka(**{**given, **more})


@contextlib.asynccontextmanager
async def opened(kafka: Kafka, prefix: str) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(kafka, prefix, 4, "test")
    try:
        async with asyncio.timeout(10):
            await log.start()
        yield log
    finally:
        await log.stop()


async def read_all(log: Log, topic: str, partition: int = 0, *, committed: bool = False) -> list[bytes | None]:
    end = (await log.bounds(topic, partition)).end
    return [r.value async for some in log.read(topic, partition, 0, end, committed=committed) for r in some]


@pytest.mark.parametrize(
    ("listener", "more"),
    [
        ("sasl", {"sasl_mechanism": "PLAIN"}),
        ("sasl", {"sasl_mechanism": "SCRAM-SHA-256"}),
        ("sasl", {"sasl_mechanism": "SCRAM-SHA-512"}),
        ("clear", {"sasl_mechanism": "SCRAM-SHA-256"}),
        ("ssl", {}),
        ("mtls", {}),
    ],
)
async def test_every_client_of_ours_works_by_every_way_in(
    broker: Broker, topic_prefix: str, listener: str, more: dict[str, str]
) -> None:
    async with opened(way_in(broker, listener, **more), topic_prefix) as log:
        await log.create_topics(4)
        assert await log.check_topics(4) == []
        values = [b"%d" % number for number in range(40)]
        await log.append([Append(AUDIT, number % 4, b"k", value) for number, value in enumerate(values)])
        assert await read_all(log, AUDIT, 1) == values[1::4]
        await log.append_transaction("registrar-0", [Append(BINDINGS, 0, b"k", b"state")])
        async with asyncio.timeout(10):
            # The marker comes a moment after the acknowledgement.
            while await read_all(log, BINDINGS, committed=True) != [b"state"]:
                pass
        subscription = log.subscribe(AUDIT, "g", lambda partition: subscription.begin(partition, 0), lambda _: None)
        got: list[bytes | None] = []
        async with asyncio.timeout(20):
            while len(got) < len(values):
                for records in (await subscription.poll(0.5)).values():
                    got += [record.value for record in records]
        assert sorted(map(bytes, filter(None, got))) == sorted(values)
        await subscription.commit({0: 10})
        assert await log.committed(AUDIT, "g") == {0: 10}


WRONG = [
    ("sasl", {"password": Secret("wrong")}, "refuses RAMAL_KAFKA_USERNAME or RAMAL_KAFKA_PASSWORD (SCRAM-SHA-512)"),
    ("sasl", {"username": "nobody"}, "refuses RAMAL_KAFKA_USERNAME or RAMAL_KAFKA_PASSWORD (SCRAM-SHA-512)"),
    ("sasl", {"sasl_mechanism": "PLAIN", "password": Secret("wrong")}, "RAMAL_KAFKA_PASSWORD (PLAIN)"),
    ("clear", {"password": Secret("wrong")}, "refuses RAMAL_KAFKA_USERNAME or RAMAL_KAFKA_PASSWORD"),
    ("ssl", {"ca_file": "stranger.pem"}, "none of RAMAL_KAFKA_CA_FILE vouches for"),
    ("ssl", {"ca_file": ""}, "none of the system's authorities (RAMAL_KAFKA_CA_FILE is not set) vouches for"),
    ("expired", {}, "shows a certificate that has expired"),
    ("strange", {}, "shows a certificate that is for another host"),
    ("mtls", {"certificate": "", "private_key": ""}, "wants a certificate of ours: RAMAL_KAFKA_CERTIFICATE is not set"),
    ("mtls", {"certificate": "bad.both.pem", "private_key": ""}, "refuses our certificate, RAMAL_KAFKA_CERTIFICATE"),
    ("mtls", {"certificate": "old.both.pem", "private_key": ""}, "refuses our certificate, RAMAL_KAFKA_CERTIFICATE"),
    (
        "ssl",
        {"security_protocol": "SASL_SSL", "username": USER, "password": Secret(PASSWORD)},
        "does not want a user there: RAMAL_KAFKA_SECURITY_PROTOCOL is SASL_SSL",
    ),
]


@pytest.mark.parametrize(("listener", "wrong", "sentence"), WRONG)
async def test_who_does_not_get_in_is_told_why_at_once_in_a_sentence_without_the_secret(
    broker: Broker, topic_prefix: str, listener: str, wrong: dict[str, Any], sentence: str
) -> None:
    broker.stranger.issue("bad")
    broker.authority.issue("old", ends=-1.0)
    directory = broker.authority.file.parent
    wrong = {name: str(directory / value) if str(value).endswith(".pem") else value for name, value in wrong.items()}
    log = KafkaLog(way_in(broker, listener, **wrong), topic_prefix, 4, "test")
    with pytest.raises(LogUnavailable) as raised:
        async with asyncio.timeout(10):
            await log.start()
    await log.stop()
    assert sentence in str(raised.value)
    assert broker.at(listener) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("listener", "protocol"), [("clear", "SSL"), ("ssl", "PLAINTEXT"), ("clear", "PLAINTEXT"), ("sasl", "SSL")]
)
async def test_another_protocol_than_the_listeners_is_named_while_it_is_waited_for(
    broker: Broker, topic_prefix: str, listener: str, protocol: str
) -> None:
    given: dict[str, Any] = {"bootstrap": broker.at(listener), "security_protocol": protocol, "request_timeout": 1.0}
    if protocol == "SSL":
        given["ca_file"] = str(broker.authority.file)
    log = KafkaLog(Kafka(**given), topic_prefix, 4, "test")
    starting = asyncio.create_task(log.start())
    async with asyncio.timeout(15):
        while not log.away:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.02)
    assert f"RAMAL_KAFKA_SECURITY_PROTOCOL={protocol}" in log.away
    assert not starting.done()
    starting.cancel()
    await asyncio.wait({starting})
    await log.stop()


async def test_connections_are_made_anew_before_the_broker_ends_their_sessions(
    broker: Broker, topic_prefix: str
) -> None:
    async with opened(way_in(broker, "short"), topic_prefix) as log:
        await log.create_topics(4)
        until, count, lost = time.monotonic() + 2.5 * LIFE_SECONDS, 0, list[int]()
        subscription = log.subscribe(AUDIT, "g", lambda partition: subscription.begin(partition, 0), lost.append)
        got = 0
        while time.monotonic() < until:
            await log.append([Append(AUDIT, count % 4, b"k", b"%d" % count)])
            count += 1
            got += sum(map(len, (await subscription.poll(0.05)).values()))
            if count % 20 == 0:
                await log.append_transaction("registrar-0", [Append(BINDINGS, 0, b"k", b"state")])
        async with asyncio.timeout(10):
            while got < count:
                got += sum(map(len, (await subscription.poll(0.5)).values()))
        assert got == count
        assert lost == []


@pytest.mark.parametrize("visible", [True, False])
async def test_a_locator_that_may_not_write_replies_restores_and_writes_its_tables(
    broker: Broker, topic_prefix: str, tmp_path: Path, visible: bool
) -> None:
    store = EmbeddedStore(tmp_path / "ramal.db")
    database = SQLiteDatabase(store)
    await database.start()
    await database.migrate()
    async with opened(way_in(broker, "sasl"), topic_prefix) as log:
        await log.create_topics(4)
        scribe = Scribe()
        await claim(log, scribe)
    await limit(broker, topic_prefix + EDGE_REPLIES, visible=visible)
    async with opened(way_in(broker, "sasl", username=LIMITED), topic_prefix) as log:
        handler = LocatorHandler(log, database, Settings())
        assert await handler.restore(0) == 0
        waits = ReplyTo("edge-1", "boot", 2**53)
        await log.append([scribe.append(scribe.register("a@example.test", "sip:a@x", reply=waits))])
        end = (await log.bounds(REGISTRATIONS, 0)).end
        records = [r async for some in log.read(REGISTRATIONS, 0, 0, end) for r in some]
        assert await handler.handle({0: records}) == {0: end}
        assert (
            "TOPIC_AUTHORIZATION_FAILED" if visible else "there is no topic edge.replies"
        ) in handler.replies_refused
        assert await LocatorHandler(log, database, Settings()).restore(0) == end
    assert await database.query("SELECT contact FROM location") == [("sip:a@x",)]
    await store.stop()


async def limit(broker: Broker, topic: str, *, visible: bool) -> None:
    """LIMITED may not write this topic, and see it or not; others may do all."""
    topics, literal, write, describe, deny, allow = 2, 3, 4, 8, 2, 3
    rules = [(write, deny)] + [(describe, allow)] * visible
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.server.bootstrap)
    await admin.start()
    for operation, permission in rules:
        request = CreateAclsRequest(topics, topic, literal, f"User:{LIMITED}", "*", operation, permission)
        response = await admin._send_request(request)
        assert [code for code, _ in response.creation_responses] == [0]
    await admin.close()


GRANTED = [
    shlex.split(line)
    for line in (Path(__file__).parents[3] / "docs" / "analysts.md").read_text().splitlines()
    if line.startswith("kafka-acls.sh")
]
"""The commands that the document tells an operator to type."""


def granted(command: Sequence[str], prefix: str, principal: str) -> list[CreateAclsRequest]:
    """What `kafka-acls.sh --add` does, under another prefix of topics and for another user."""
    assert "--add" in command
    options = dict(pairwise(command))
    assert options["--allow-principal"] == "User:analysts"
    assert options["--resource-pattern-type"] == "prefixed"
    kind, name = (2, options["--topic"].replace("ramal.", prefix)) if "--topic" in options else (3, options["--group"])
    operations = [{"Read": 3, "Describe": 8}[b] for a, b in pairwise(command) if a == "--operation"]
    return [CreateAclsRequest(kind, name, 4, f"User:{principal}", "*", operation, 3) for operation in operations]


async def test_c20_the_user_of_the_view_reads_it_and_nothing_else(broker: Broker, topic_prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.server.bootstrap)
    await admin.start()
    # The services' own rights; with these, nobody else may touch anything of theirs.
    wanted = [CreateAclsRequest(kind, topic_prefix, 4, f"User:{USER}", "*", 2, 3) for kind in (2, 3)]
    for command in GRANTED:
        wanted += granted(command, topic_prefix, LIMITED)
    assert len(wanted) == 5
    for request in wanted:
        assert [code for code, _ in (await admin._send_request(request)).creation_responses] == [0]
    await admin.close()
    view, record = VIEW[1].name, Append(VIEW[1].name, 0, b"k", b"{}")
    async with opened(way_in(broker, "sasl"), topic_prefix) as log:
        await log.create_topics(1, (*TOPICS, *VIEW))
        await log.append([record, Append(CDRS, 0, b"alice", b"{}")])
    way = {
        "bootstrap_servers": broker.at("sasl"), "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": LIMITED, "sasl_plain_password": PASSWORD, "auto_offset_reset": "earliest",
        "ssl_context": ssl.create_default_context(cafile=str(broker.authority.file)),
    }  # fmt: skip

    async def first(topic: str, group: str | None) -> bytes | None:
        consumer = AIOKafkaConsumer(topic_prefix + topic, group_id=group, **way)
        try:
            async with asyncio.timeout(20):
                await consumer.start()
                return (await consumer.getone()).value
        finally:
            await consumer.stop()

    assert await first(view, "analysts.one") == b"{}"
    assert await first(view, None) == b"{}"
    with pytest.raises(errors.TopicAuthorizationFailedError):
        await first(CDRS, None)
    with pytest.raises(errors.GroupAuthorizationFailedError):
        await first(view, topic_prefix + "cdr")
    async with opened(way_in(broker, "sasl", username=LIMITED), topic_prefix) as log:
        with pytest.raises(LogRefused, match="TOPIC_AUTHORIZATION_FAILED"):
            async with asyncio.timeout(20):
                await log.append([record])


def environ(kafka: Kafka) -> dict[str, str]:
    """What an operator would set."""
    settings = {name: getattr(kafka, name) for name in Kafka.__struct_fields__}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAMAL_")}
    return kept | {f"RAMAL_KAFKA_{name.upper()}": str(value) for name, value in settings.items() if value}


SAID = [
    ("sasl", {"password": Secret("wrong-" + PASSWORD)}, "refuses RAMAL_KAFKA_USERNAME or RAMAL_KAFKA_PASSWORD"),
    ("sasl", {"sasl_mechanism": "PLAIN", "password": Secret("wrong-" + PASSWORD)}, "refuses RAMAL_KAFKA_USERNAME"),
    ("expired", {}, "has expired"),
    ("strange", {}, "is for another host"),
    ("ssl", {"ca_file": ""}, "RAMAL_KAFKA_CA_FILE is not set"),
]


@pytest.mark.parametrize(("listener", "wrong", "sentence"), SAID)
def test_a25_a_command_says_why_in_one_line_and_no_secret(
    broker: Broker, tmp_path: Path, listener: str, wrong: dict[str, Any], sentence: str
) -> None:
    given = environ(way_in(broker, listener, **wrong)) | {"RAMAL_LOG_LEVEL": "DEBUG", "RAMAL_SETUP_SECONDS": "0"}
    done = subprocess.run(
        [RAMAL, "topics"], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    *_, last = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert last.startswith("ramal: the broker at 127.0.0.1:")
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(("listener", "wrong", "sentence"), SAID[:3])
def test_a25_a_service_says_once_why_it_waits_and_no_secret(
    broker: Broker, tmp_path: Path, listener: str, wrong: dict[str, Any], sentence: str
) -> None:
    given = environ(way_in(broker, listener, **wrong)) | {"RAMAL_LOG_LEVEL": "DEBUG"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        service = subprocess.Popen([RAMAL, "registrar"], env=given, cwd=tmp_path, stdout=out, stderr=out)
    deadline = time.monotonic() + 30
    while sentence not in log.read_text():
        assert service.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    service.send_signal(signal.SIGTERM)
    assert service.wait(15) == 0
    said = log.read_text()
    assert said.count(sentence) == 1
    assert "traceback" not in said.lower()
    assert PASSWORD not in said


def test_a_command_goes_in_with_a_password_from_a_file_and_with_a_certificate(broker: Broker, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    for listener in ("sasl", "mtls"):
        given = environ(way_in(broker, listener)) | {"RAMAL_TOPIC_PREFIX": f"{listener}-command."}
        if given.pop("RAMAL_KAFKA_PASSWORD", None):
            given["RAMAL_KAFKA_PASSWORD_FILE"] = str(password)
        for says in ("made registrations", "All topics are there, as they must be."):
            done = subprocess.run(
                [RAMAL, "topics"], env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
            assert says in done.stdout, done.stderr
            assert (done.returncode, done.stderr) == (0, "")


def test_files_that_cannot_be_used_are_named_before_anything_is_connected(broker: Broker, tmp_path: Path) -> None:
    mine = broker.authority.issue("mine")
    other = broker.authority.issue("other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(mine.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    for wrong, says in (
        ({"ca_file": "/nowhere/ca.pem"}, "RAMAL_KAFKA_CA_FILE: /nowhere/ca.pem: No such file or directory"),
        ({"ca_file": str(nonsense)}, f"RAMAL_KAFKA_CA_FILE: {nonsense}: no certificate"),
        ({"certificate": "/nowhere/me.pem"}, "RAMAL_KAFKA_CERTIFICATE, RAMAL_KAFKA_PRIVATE_KEY: /nowhere/me.pem: No"),
        ({"certificate": str(mine.certificate)}, "RAMAL_KAFKA_CERTIFICATE, RAMAL_KAFKA_PRIVATE_KEY: "),
        ({"certificate": str(mine.certificate), "private_key": str(other.key)}, "key values mismatch"),
        ({"certificate": str(mine.certificate), "private_key": str(locked)}, "the key is encrypted"),
    ):
        with pytest.raises(ConfigError) as raised:
            KafkaLog(way_in(broker, "ssl", **wrong), "x.", 4, "test")
        assert says in str(raised.value)


@pytest.mark.parametrize("listener", ["sasl", "mtls"])
async def test_faust_goes_in_as_the_others_do(broker: Broker, topic_prefix: str, listener: str) -> None:
    kafka = way_in(broker, listener)
    async with opened(kafka, topic_prefix) as log:
        await log.create_topics(4)
        fields = {
            "bootstrap": kafka.bootstrap,
            "session_timeout": str(kafka.session_timeout),
            "security_protocol": kafka.security_protocol,
            "username": kafka.username,
            "password": str(kafka.password),
            "ca_file": kafka.ca_file,
            "certificate": kafka.certificate,
            "private_key": kafka.private_key,
        }
        environ = {f"RAMAL_KAFKA_{name.upper()}": value for name, value in fields.items() if value}
        service = Analytics(log, Sources({**environ, "RAMAL_TOPIC_PREFIX": topic_prefix}, {}))
        await service.start()
        try:
            async with asyncio.timeout(60):
                while True:
                    if not service.not_ready():
                        break
                    await asyncio.sleep(0.2)
            assert service.status() == {"kafka": ""}
        finally:
            await service.stop(20)
