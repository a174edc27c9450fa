"""The servers that everything else is tested on: they answer, they keep their content, they go when we go."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ldap3
import pymysql
import pytest

from ramal import containers
from ramal.backends import KafkaServer, LdapServer, MySQLServer, start_mysql
from ramal.processes import ONLY, PORTS, free_port, keep_port

pytestmark = pytest.mark.integration

STARTER = """
import pathlib, sys, time
from ramal import containers
from ramal.backends import start_ldap
print(start_ldap(pathlib.Path(sys.argv[1]), users=1).pid, flush=True)
time.sleep(60)
"""


def test_mysql_commits_with_an_fsync_and_the_database_is_empty(mysql: MySQLServer, fresh_database: str) -> None:
    with (
        pymysql.connect(
            host=mysql.host, port=mysql.port, user=mysql.user, password=mysql.password, database=fresh_database
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit")
        assert cursor.fetchone() == (1,)
        cursor.execute("SHOW TABLES")
        assert cursor.fetchall() == ()


def test_ldap_gives_the_clear_password_to_the_service_alone(ldap: LdapServer) -> None:
    def passwords(**credentials: str) -> list[bytes]:
        # Not bound on entry: ldap3's context closes only what it opened.
        with ldap3.Connection(ldap3.Server(ldap.url, get_info=ldap3.NONE), **credentials) as connection:
            connection.search(ldap.base, "(uid=u00007)", attributes=["userPassword"])
            found = [entry["raw_attributes"] for entry in connection.response]
        assert len(found) == 1
        return list(found[0].get("userPassword", []))

    assert passwords(user=ldap.bind_dn, password=ldap.bind_password) == [b"secret-u00007"]
    assert passwords() == []


def test_kafka_serves_on_its_own_address_only(kafka: KafkaServer) -> None:
    port = int(kafka.bootstrap.partition(":")[2])
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))


def test_a_server_started_again_has_its_port_and_content(tmp_path: Path) -> None:
    first = start_mysql(tmp_path)
    with (
        pymysql.connect(
            host=first.host, port=first.port, user=first.user, password=first.password, autocommit=True
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE ramal.kept (n INT)")
    first.child.kill()
    second = start_mysql(tmp_path)
    try:
        assert (second.port, second.password) == (first.port, first.password)
        with (
            pymysql.connect(
                host=second.host, port=second.port, user=second.user, password=second.password
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT COUNT(*) FROM ramal.kept")
    finally:
        second.stop()


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            STARTER,
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    with starter.stdout:
        pid = int(starter.stdout.readline())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2:3]:
        assert time.monotonic() < deadline, "the server outlived its starter"
        time.sleep(0.02)


@pytest.fixture
def engine_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where an engine would listen."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    containers.engine.cache_clear()
    containers.why_not.cache_clear()
    yield path
    containers.engine.cache_clear()
    containers.why_not.cache_clear()


def test_without_a_container_engine_the_packages_serve(engine_socket: Path) -> None:
    assert containers.why_not("kafka") == "no container engine answers on this machine"


def test_an_engine_that_hangs_costs_some_seconds_and_then_the_packages_serve(engine_socket: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(engine_socket))
        engine.listen()

        assert "does not answer" in containers.why_not("kafka")


def test_who_begins_servers_beside_others_takes_ports_of_their_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONLY, "31500-31999")
    assert {free_port() for _ in range(50)} <= set(range(31500, 31999))
    monkeypatch.delenv(ONLY)
    assert free_port() in PORTS


def test_a_port_that_was_given_or_kept_is_not_given_again_before_its_owner_has_bound_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ONLY, "31400-31500")
    keep_port(31450)
    given = [free_port() for _ in range(60)]
    assert len(set(given)) == 60
    assert 31450 not in given
