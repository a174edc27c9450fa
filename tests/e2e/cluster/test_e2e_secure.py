"""The whole chain over TLS: phones register while brokers want SCRAM again every few seconds and MySQL wants TLS.

The broker denies by default, so that what each service may do is what the document says.
"""

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from events.topics import CALLS, CDRS, EDGE_REPLIES, REGISTRAR_COMMANDS, REGISTRATIONS
from ramal.backends import start_mysql
from ramal.processes import free_port
from runtime.config import Kafka, Sources
from runtime.errors import LogRefused, LogUnavailable
from runtime.log.kafka.log import KafkaLog
from runtime.log.port import Append
from tests.e2e.conftest import DOMAIN, RAMAL, Running, is_ready
from tests.kit.phone import SDP, Phone
from tests.kit.secure import LIFE_SECONDS, PASSWORD, USER, start_broker
from tests.kit.wire import UdpLink

pytestmark = pytest.mark.e2e

SIP, HTTP = free_port(), free_port()
SERVICES = ("edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console")
GRANTED = [
    shlex.split(line)
    for line in (Path(__file__).parents[3] / "docs" / "operating.md").read_text().splitlines()
    if line.startswith("kafka-acls.sh")
]
"""The commands that the document tells an administrator to type."""
_KINDS = {"--topic": 2, "--group": 3, "--transactional-id": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}


async def grant(bootstrap: str) -> None:
    """What the document's `kafka-acls.sh --add` do."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for command in GRANTED:
            options = list(pairwise(command))
            principal, pattern = dict(options)["--allow-principal"], 4 if "prefixed" in command else 3
            for operation in [_OPERATIONS[value] for name, value in options if name == "--operation"]:
                for kind, what in [(_KINDS[name], value) for name, value in options if name in _KINDS]:
                    request = CreateAclsRequest(kind, what, pattern, principal, "*", operation, 3)
                    assert [code for code, _ in (await admin._send_request(request)).creation_responses] == [0]
    finally:
        await admin.close()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What an operator would set, with topics, tables and one user made."""
    directory = tmp_path_factory.mktemp("secure")
    (directory / "kafka").mkdir()
    (directory / "mysql").mkdir()
    broker = start_broker(directory / "kafka", SERVICES, open_to_all=False)
    asyncio.run(grant(broker.server.bootstrap))
    shown = broker.authority.issue("mysql", ["127.0.0.1"])
    more = f"ssl-cert={shown.certificate}\nssl-key={shown.key}\nrequire-secure-transport=ON\n"
    mysql = start_mysql(directory / "mysql", more=more)
    for name, secret in (("kafka.password", PASSWORD), ("mysql.password", mysql.password), ("keys", f"k1:{'ab' * 16}")):
        (directory / name).write_text(secret + "\n")
    given = {
        "RAMAL_DOMAIN": DOMAIN,
        "RAMAL_KEYS_FILE": str(directory / "keys"),
        "RAMAL_KAFKA_BOOTSTRAP": broker.at("short"),
        "RAMAL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "RAMAL_KAFKA_USERNAME": USER,
        "RAMAL_KAFKA_PASSWORD_FILE": str(directory / "kafka.password"),
        "RAMAL_KAFKA_CA_FILE": str(broker.authority.file),
        "RAMAL_MYSQL_HOST": mysql.host,
        "RAMAL_MYSQL_PORT": str(mysql.port),
        "RAMAL_MYSQL_PASSWORD_FILE": str(directory / "mysql.password"),
        "RAMAL_MYSQL_TLS": "true",
        "RAMAL_MYSQL_CA_FILE": str(broker.authority.file),
        "RAMAL_EDGE_UDP": f"127.0.0.1:{SIP}",
        "RAMAL_EDGE_TCP": f"127.0.0.1:{SIP}",
        "RAMAL_HTTP_PORT": str(HTTP),
    }
    for words in (["topics"], ["migrate"], *(["user", "add", name, "--password-stdin"] for name in ("alice", "bob"))):
        done = subprocess.run(
            [*RAMAL, *words],
            env={**os.environ, **given},
            cwd=directory,
            input="s3cret\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    yield given
    mysql.child.kill()
    broker.server.child.kill()


def test_phones_register_over_many_sessions_and_no_secret_is_logged(environ: dict[str, str], tmp_path: Path) -> None:
    words = ["run", "edge", "authsvc", "registrar", "locator"]
    running = Running(words, tmp_path / "run.log", environ | {"RAMAL_LOG_LEVEL": "DEBUG"})
    answers: list[int] = []
    try:
        running.wait_for(lambda: is_ready(f"http://127.0.0.1:{HTTP}"))
        with Phone(UdpLink(("127.0.0.1", SIP)), "alice", "s3cret", DOMAIN) as phone:
            until = time.monotonic() + 3 * LIFE_SECONDS
            while time.monotonic() < until:
                answers.append(phone.register().status)
                time.sleep(0.1)
    finally:
        assert running.end() == 0
    assert len(answers) > 30
    assert set(answers) == {200}
    said = running.output()
    assert "traceback" not in said.lower()
    assert PASSWORD not in said
    assert Path(environ["RAMAL_MYSQL_PASSWORD_FILE"]).read_text().strip() not in said


def test_every_service_works_by_the_rights_that_the_document_gives_it(environ: dict[str, str], tmp_path: Path) -> None:
    ports = {service: free_port() for service in SERVICES}
    own = {"RAMAL_NAME": "acl-1", "RAMAL_CONSOLE_PORT": str(free_port())}
    with contextlib.ExitStack() as stack:
        running = {}
        for service, port in ports.items():
            user = {"RAMAL_KAFKA_USERNAME": service, "RAMAL_HTTP_PORT": str(port)}
            running[service] = Running([service], tmp_path / f"{service}.log", environ | own | user)
            stack.callback(running[service].end)
        for service, port in ports.items():
            running[service].wait_for(lambda port=port: is_ready(f"http://127.0.0.1:{port}"), 60)
        with (
            Phone(UdpLink(("127.0.0.1", SIP)), "alice", "s3cret", DOMAIN) as phone,
            Phone(UdpLink(("127.0.0.1", SIP)), "bob", "s3cret", DOMAIN) as other,
        ):
            assert [one.register().status for one in (phone, other)] == [200, 200]
            call = phone.invite(other.aor)
            answering = other.incoming()
            answering.respond(200, body=SDP)
            call.hears(200)
            call.ack()
            answering.gets("ACK")
            call.request("BYE")
            answering.respond(200, to=answering.gets("BYE"))
            call.hears(200, method="BYE")
            assert phone.deregister().status == 200
        # What became of the call comes by edge and cdr to `cdrs`.
        words = ["tail", CDRS, "--from-beginning", "--count", "1"]
        subprocess.run([*RAMAL, *words], env={**os.environ, **environ}, check=True, timeout=60)
        for service, process in running.items():
            assert process.end() == 0
            said = [json.loads(line) for line in process.output().splitlines()]
            wrong = [line for line in said if line["level"] not in ("INFO", "DEBUG")]
            # On a starved machine a member that ends does not wait for the group's word.
            assert [line for line in wrong if line["message"] != "could not leave the group"] == [], service


@pytest.mark.parametrize(
    ("service", "topic"),
    [
        ("edge", REGISTRAR_COMMANDS),  # who writes it says that somebody has authenticated
        ("edge", EDGE_REPLIES),
        ("edge", REGISTRATIONS),
        ("authsvc", REGISTRATIONS),
        ("locator", REGISTRATIONS),
        ("cdr", REGISTRAR_COMMANDS),
        ("analytics", CALLS),
        ("console", REGISTRATIONS),
    ],
)
async def test_a_service_that_is_taken_over_writes_nothing_of_anothers(
    environ: dict[str, str], service: str, topic: str
) -> None:
    kafka = Sources({**environ, "RAMAL_KAFKA_USERNAME": service}, {}).section(Kafka, "kafka")
    log = KafkaLog(kafka, "ramal.", 4, "test")
    await log.start()
    try:
        # Of a topic that it may not even see there are no partitions, as far as it knows.
        with pytest.raises((LogRefused, LogUnavailable), match=r"TOPIC_AUTHORIZATION_FAILED|does not say what it has"):
            await log.append([Append(topic, 0, b"alice@example.test", b"{}")])
    finally:
        await log.stop()
