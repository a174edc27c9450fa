"""`ramal up` as a person uses it: one command, two users, Ctrl-C, a crash, and everything still there."""

import re
import signal
from pathlib import Path

import pytest

from ramal.processes import free_port
from tests.e2e.conftest import DOMAIN, Running, start_up
from tests.e2e.phone import Phone

pytestmark = pytest.mark.e2e

_USER = re.compile(r"^ +User +(\w+) +password (\S+)$", re.MULTILINE)


def test_the_first_start_makes_alice_and_bob_and_says_what_to_type_into_a_phone(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        said = running.output()
        passwords = dict(_USER.findall(said))
        assert set(passwords) == {"alice", "bob"}
        assert f":{system.edges[0][1]}" in said
        assert DOMAIN in said
        for transport, (name, password) in zip(("udp", "tcp"), passwords.items(), strict=True):
            with Phone(system.edges[0], name, password, DOMAIN, transport=transport) as phone:
                assert phone.register().status == 200
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
        assert not any(password.encode() in stored for password in passwords.values())
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir() if path.name != "lock"} == {0}
    finally:
        assert running.end(signal.SIGINT) == 0
    assert "Stopped." in running.output()
    assert "Traceback" not in running.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_registrations_are_there_after_the_next_start(tmp_path: Path, number: signal.Signals) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        passwords = dict(_USER.findall(running.output()))
        with Phone(system.edges[0], "alice", passwords["alice"], DOMAIN) as phone:
            before = phone.register()
            assert before.status == 200
    finally:
        assert running.end(number) in (0, -signal.SIGKILL)

    shown = system.ramal("show", "alice@example.test")
    assert phone.contact in shown.stdout
    running, system = start_up(tmp_path / "data")
    try:
        with Phone(system.edges[0], "alice", passwords["alice"], DOMAIN) as again:
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
    finally:
        running.end(signal.SIGINT)


def test_a_removal_in_a_system_that_is_not_running_is_done(tmp_path: Path) -> None:
    running, system = start_up(tmp_path / "data")
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        password = dict(_USER.findall(running.output()))["bob"]
        with Phone(system.edges[0], "bob", password, DOMAIN) as phone:
            phone.register()
    finally:
        running.end(signal.SIGINT)

    removed = system.ramal("remove", "bob@example.test")

    assert f"unregistered {phone.contact}" in removed.stdout
    assert "is not registered" in system.ramal("show", "bob@example.test").stdout
