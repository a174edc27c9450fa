"""`ramal up` as a person uses it: one command, two users, Ctrl-C, a crash, and everything still there."""

import dataclasses
import json
import re
import shutil
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from ramal.backends import LdapServer
from ramal.processes import free_port
from tests.e2e.conftest import DOMAIN, Running, start_up
from tests.kit.phone import Phone
from tests.kit.wire import UdpLink, link

pytestmark = pytest.mark.e2e

_USER = re.compile(r"^ +User +(\w+) +password (\S+)$", re.MULTILINE)


def is_reached(url: str) -> bool:
    """Whether it answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_the_first_start_makes_alice_and_bob_and_says_what_to_type_into_a_phone(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        said = running.output()
        passwords = dict(_USER.findall(said))
        assert set(passwords) == {"alice", "bob"}
        assert f":{system.edges[0][1]}" in said
        assert DOMAIN in said
        assert "not used" not in said
        for transport, (name, password) in zip(("udp", "tcp"), passwords.items(), strict=True):
            with Phone(link(transport, system.edges[0]), name, password, DOMAIN) as phone:
                assert phone.register().status == 200
        running.wait_for(lambda: not (tmp_path / "data" / "first-passwords.json").exists())
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
        assert not any(password.encode() in stored for password in passwords.values())
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir() if path.name != "lock"} == {0}
    finally:
        assert running.end(signal.SIGINT) == 0
    assert "Stopped." in running.output()
    assert "Traceback" not in running.output()


def test_a_wrong_setting_of_ldap_is_told_before_a_phone_has_come(tmp_path: Path, ldap: LdapServer) -> None:
    """Ready all the same: a directory may be away, and those who are known go on (A18)."""
    environ = {
        "RAMAL_LDAP_URL": ldap.url,
        "RAMAL_LDAP_BASE": "ou=Peple,dc=example,dc=test",
        "RAMAL_LDAP_INSECURE": "true",
        "RAMAL_LDAP_BIND_DN": ldap.bind_dn,
        "RAMAL_LDAP_BIND_PASSWORD": ldap.bind_password,
    }
    sip, http = str(free_port()), str(free_port())
    words = ["up", "--data", str(tmp_path / "data"), "--sip-port", sip, "--http-port", http]
    words += ["--page-port", str(free_port()), "--domain", DOMAIN]
    running = Running(words, tmp_path / "up.log", environ)
    sentence = "RAMAL_LDAP_BASE: 'ou=Peple,dc=example,dc=test' is nothing in the directory"
    try:
        running.wait_for(lambda: sentence in running.output())
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/status", timeout=5) as response:
            status = json.load(response)
        assert sentence in status["services"]["authsvc"]["directory"]["reason"]
        assert any(sentence in reason for reason in status["reasons"])
        running.wait_for(lambda: is_reached(f"http://127.0.0.1:{http}/readyz"))
    finally:
        assert running.end(signal.SIGINT) == 0
    assert running.output().count("the directory is away") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_registrations_are_there_after_the_next_start(tmp_path: Path, number: signal.Signals) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        passwords = dict(_USER.findall(running.output()))
        with Phone(UdpLink(system.edges[0]), "alice", passwords["alice"], DOMAIN) as phone:
            before = phone.register()
            assert before.status == 200
    finally:
        assert running.end(number) in (0, -signal.SIGKILL)

    shown = system.ramal("show", "alice@example.test")
    assert phone.contact in shown.stdout
    running, system = start_up(tmp_path / "data")
    try:
        with Phone(UdpLink(system.edges[0]), "alice", passwords["alice"], DOMAIN) as again:
            assert set(again.query().contacts) == {phone.contact}
            again.register()
            assert set(again.query().contacts) == {phone.contact, again.contact}
    finally:
        assert running.end(signal.SIGINT) == 0


def test_a_second_one_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    running, _ = start_up(tmp_path / "data")
    try:
        second = Running(
            ["up", "--data", str(tmp_path / "data"), "--sip-port", str(free_port())], tmp_path / "second.log"
        )
        assert second.process.wait(20) == 1
        assert second.output().count("\n") == 1
        assert "another Ramal runs there" in second.output()
    finally:
        running.end(signal.SIGINT)


def test_a_taken_sip_port_is_said_in_one_line(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "first")
    try:
        words = ["up", "--data", str(tmp_path / "other"), "--sip-port", str(system.edges[0][1]), "--http-port", "0"]
        second = Running(words, tmp_path / "second.log")
        assert second.process.wait(20) == 1
        assert "Traceback" not in second.output()
        assert "in use" in second.output()
        assert not (tmp_path / "other").exists()
    finally:
        running.end(signal.SIGINT)


@pytest.mark.parametrize(
    ("option", "kind", "transport", "setting"),
    [
        ("--sip-port", socket.SOCK_DGRAM, "udp", "RAMAL_EDGE_UDP"),
        ("--sip-port", socket.SOCK_STREAM, "tcp", "RAMAL_EDGE_TCP"),
        ("--page-port", socket.SOCK_STREAM, "ws", "RAMAL_EDGE_WS"),
        ("--http-port", socket.SOCK_STREAM, "http", "RAMAL_HTTP_PORT"),
    ],
)
def test_a_taken_port_is_named_before_anything_is_written(
    tmp_path: Path, option: str, kind: socket.SocketKind, transport: str, setting: str
) -> None:
    ports = {"--sip-port": free_port(), "--page-port": free_port(), "--http-port": free_port()}
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", ports[option]))
        if kind == socket.SOCK_STREAM:
            other.listen()
        words = [word for name, port in ports.items() for word in (name, str(port))]
        running = Running(["up", "--data", str(tmp_path / "data"), *words], tmp_path / "log")
        assert running.process.wait(20) == 1
    said = running.output()
    assert said.startswith(f"ramal: {transport} ")
    assert said.count("\n") == 1
    assert f":{ports[option]}: Address already in use ({setting}, {option}" in said
    assert not (tmp_path / "data").exists()


def test_a_first_password_is_shown_again_until_a_phone_has_used_it(tmp_path: Path) -> None:
    running, _ = start_up(tmp_path / "data")
    running.wait_for(lambda: "Ctrl-C" in running.output())
    first = dict(_USER.findall(running.output()))
    assert running.end(signal.SIGINT) == 0
    (tmp_path / "up.log").unlink()

    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        assert dict(_USER.findall(running.output())) == first
        with Phone(UdpLink(system.edges[0]), "alice", first["alice"], DOMAIN) as phone:
            assert phone.register().status == 200
        reset = system.ramal("user", "reset", "bob").stdout
    finally:
        assert running.end(signal.SIGINT) == 0
    (tmp_path / "up.log").unlink()

    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        assert "password" not in "".join(line for line in running.output().splitlines() if "User " in line)
        with Phone(UdpLink(system.edges[0]), "bob", reset.split()[-1], DOMAIN) as phone:
            assert phone.register().status == 200
    finally:
        assert running.end(signal.SIGINT) == 0


def test_users_are_those_of_the_file_that_is_asked_wherever_it_is_named(tmp_path: Path) -> None:
    """No password is shown by which nobody can register; `ramal user` knows the file without the setting."""
    file = tmp_path / "campus.htdigest"
    add_user(file, "gina", DOMAIN, "of gina")
    environ = {"RAMAL_COLOUR": "red", "RAMAL_KAFKA_BOOTSTRAP": "kafka.test:9092"}
    running, system = start_up(tmp_path / "data", RAMAL_AUTHSVC_USERS_FILE=str(file), **environ)
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        assert _USER.findall(running.output()) == []
        assert running.output().count("there is no such setting") == 1
        assert running.output().count("Kafka or MySQL is set and not used") == 1
        system.ramal("user", "add", "hugo", "--password-stdin", given="of hugo")
        assert system.ramal("user", "list").stdout.split() == [f"gina@{DOMAIN}", f"hugo@{DOMAIN}"]
        assert "users file" in system.ramal("user", "show", "gina").stdout
        assert "hugo:" in file.read_text()
        time.sleep(1.1)  # a change of the file is seen within a second
        for name in ("gina", "hugo"):
            with Phone(UdpLink(system.edges[0]), name, f"of {name}", DOMAIN) as phone:
                assert phone.register().status == 200
        system.ramal("user", "remove", "gina")
        assert "gina:" not in file.read_text()
    finally:
        assert running.end(signal.SIGINT) == 0


def test_the_own_users_file_goes_where_the_directory_goes(tmp_path: Path) -> None:
    """Whoever asks a copy of it neither reads nor changes the users of the first."""
    running, system = start_up(tmp_path / "data")
    assert running.end(signal.SIGINT) == 0
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    shutil.rmtree(tmp_path / "data")
    copied = dataclasses.replace(system, where=("--data", str(tmp_path / "copy")))
    copied.ramal("user", "remove", "bob")
    assert copied.ramal("user", "list").stdout.split() == [f"alice@{DOMAIN}"]
    refused = copied.ramal("enroll", "alice", "--password-file", "-", given="x", check=False)
    assert "RAMAL_LDAP_URL: is not set" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_the_domain_of_a_directory_stays_and_config_tells_it(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data", "--domain", "campus.test")
    try:
        assert 'domain = "campus.test"' in system.ramal("config").stdout
        assert "runs with" in system.ramal("config").stdout
        assert "alice@campus.test" in system.ramal("user", "list").stdout
    finally:
        assert running.end(signal.SIGINT) == 0

    other = Running(["up", "--data", str(tmp_path / "data"), "--domain", "other.test"], tmp_path / "other.log")

    assert other.process.wait(20) == 2
    assert "are of campus.test, not of other.test" in other.output()
    assert "last ran with" in system.ramal("config").stdout


def test_a_removal_in_a_system_that_is_not_running_is_done(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        password = dict(_USER.findall(running.output()))["bob"]
        with Phone(UdpLink(system.edges[0]), "bob", password, DOMAIN) as phone:
            phone.register()
    finally:
        running.end(signal.SIGINT)

    removed = system.ramal("remove", "bob@example.test")

    assert f"unregistered {phone.contact}" in removed.stdout
    assert "is not registered" in system.ramal("show", "bob@example.test").stdout


@pytest.mark.parametrize("damaged", ["the head", "a page within"])
def test_a_damaged_file_is_told_at_the_start_with_what_to_do(tmp_path: Path, damaged: str) -> None:
    running, _ = start_up(tmp_path / "data")
    assert running.end(signal.SIGINT) == 0
    with (tmp_path / "data" / "ramal.db").open("r+b") as file:
        file.seek(0 if damaged == "the head" else 2 * 4096)
        file.write(b"\xa5" * (100 if damaged == "the head" else 16 * 4096))

    words = ["up", "--data", str(tmp_path / "data"), "--sip-port", str(free_port()), "--page-port", str(free_port())]
    again = Running([*words, "--http-port", "0"], tmp_path / "again.log")

    assert again.process.wait(20) == 2
    assert "ramal.db: is damaged (" in again.output()
    assert "put a copy from before in its place, or move it" in again.output()
    assert again.output().count("\n") == 1


def test_the_log_has_a_line_for_a_registration_that_begins_or_ends_and_none_for_a_refresh(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        password = dict(_USER.findall(running.output()))["alice"]
        with Phone(UdpLink(system.edges[0]), "alice", password, DOMAIN) as phone:
            for _ in range(3):
                assert phone.register().status == 200
            system.ramal("remove", "alice")
            running.wait_for(lambda: '"unregistered"' in running.output())
        assert system.metric("ramal_build_info") == 1
        assert system.metric("ramal_edge_connections") == 0
    finally:
        assert running.end(signal.SIGINT) == 0
    told = [line for line in running.output().splitlines() if '"aor":"alice@example.test"' in line]
    assert [json.loads(line)["message"] for line in told] == ["registered", "unregistered"]
    assert {json.loads(line)["contact"] for line in told} == {phone.contact}
