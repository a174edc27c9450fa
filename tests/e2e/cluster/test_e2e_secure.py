"""The whole chain over TLS: phones register while brokers want SCRAM again every few seconds and MySQL wants TLS."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramal.backends import start_mysql
from ramal.processes import free_port
from tests.e2e.conftest import DOMAIN, RAMAL, Running, is_ready
from tests.kit.phone import Phone
from tests.kit.secure import LIFE_SECONDS, PASSWORD, USER, start_broker
from tests.kit.wire import UdpLink

pytestmark = pytest.mark.e2e

SIP, HTTP = free_port(), free_port()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What an operator would set, with topics, tables and one user made."""
    directory = tmp_path_factory.mktemp("secure")
    (directory / "kafka").mkdir()
    (directory / "mysql").mkdir()
    broker = start_broker(directory / "kafka")
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
    for words in (["topics"], ["migrate"], ["user", "add", "alice", "--password-stdin"]):
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
