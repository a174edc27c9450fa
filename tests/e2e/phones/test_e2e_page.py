"""The page of `ramal up` as other machines reach it: what is open to them, and a telephone in a browser there."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from ramal.certificate import self_signed
from ramal.processes import PackageMissing, find, free_port
from tests.e2e.conftest import DOMAIN, Running, start_up
from tests.e2e.phones.browser import ALLOWED, Softphone, chromium

pytestmark = pytest.mark.e2e

HERE, THERE = "198.18.7.1", "198.18.7.2"
"""Ours, and that of the other machine (RFC 2544: addresses of no network)."""
USERS = ("alice", "bob")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program that runs another one on another machine: in a network namespace, one cable away."""
    ip, name, cable = find("ip", "iproute2"), f"ramal{os.getpid()}", f"rm{os.getpid()}"

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True, text=True, timeout=20)

    try:
        run("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    try:
        run("link", "add", cable, "type", "veth", "peer", "name", f"{cable}x", "netns", name)
        run("addr", "add", f"{HERE}/30", "dev", cable)
        run("link", "set", cable, "up")
        for words in (["addr", "add", f"{THERE}/30", "dev", f"{cable}x"], ["link", "set", f"{cable}x", "up"]):
            run("-n", name, *words)
        run("-n", name, "link", "set", "lo", "up")
        program = tmp_path_factory.mktemp("elsewhere") / "run"
        program.write_text(f'#!/bin/sh\nexec {ip} netns exec {name} "$@"\n')
        program.chmod(0o755)
        yield program
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("link", "del", cable)
        run("netns", "del", name)


def status(program: Path, url: str) -> int:
    """What a request from another machine is answered; 0: nobody listens there."""
    words = [
        "curl",
        "--insecure",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--max-time",
        "9",
    ]
    done = subprocess.run([program, *words, url], capture_output=True, text=True, check=False, timeout=20)
    return int(done.stdout)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """The directory of a system with two users."""
    for name in USERS:
        add_user(tmp_path / "data" / "users.htdigest", name, DOMAIN, f"secret-{name}")
    return tmp_path / "data"


def test_a_browser_on_another_machine_calls_and_sees_nothing_of_the_operators(users: Path, elsewhere: Path) -> None:
    running, system = start_up(users, "--host", "0.0.0.0", "--self-signed")
    port = system.at[0]["ws"][1]
    base = f"https://{HERE}:{port}"
    started = elsewhere.with_name("chromium")
    started.write_text(f'#!/bin/sh\nexec {elsewhere} {find("chromium", "chromium")} "$@"\n')
    started.chmod(0o755)
    try:
        running.wait_for(lambda: "Ctrl-C" in running.output())
        assert f":{port}/ (open it twice" in running.output()
        with chromium(str(started)) as launch:
            browser = launch(ALLOWED)
            alice, bob = (Softphone(browser, f"{base}/", unknown=True) for _ in USERS)
            for tab, name in zip((alice, bob), USERS, strict=True):
                tab.register(name, f"secret-{name}")
            alice.call("bob")
            bob.sees("calls you")
            bob.click("Answer")
            for tab in (alice, bob):
                tab.sees("Connected")
                tab.hears("audio")
            assert THERE in system.ramal("show", "alice", "--json").stdout
            bob.click("Hang up")
            alice.can_dial()
            faults = alice.faults + bob.faults
            for tab in (alice, bob):
                tab.close()
        assert faults == []
        assert [status(elsewhere, base + path) for path in ("/softphone/", "/metrics", "/readyz")] == [200, 404, 404]
        assert status(elsewhere, f"{base}/location/alice@{DOMAIN}") == 404
        operators = system.http[0].rpartition(":")[2]
        assert status(elsewhere, f"http://{HERE}:{operators}/metrics") == 0
        assert status(elsewhere, f"http://{HERE}:{port}/") == 0  # what is not TLS there is not answered
    except PackageMissing as error:
        pytest.fail(f"{error} (`make test` does it, as root)", pytrace=False)
    finally:
        assert running.end(signal.SIGINT) == 0
    assert "Traceback" not in running.output()


def test_page_and_operators_have_a_listener_each(users: Path) -> None:
    running, system = start_up(users)
    try:
        for path in ("/metrics", "/readyz", f"/location/alice@{DOMAIN}", "/healthz"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(system.page + path[1:], timeout=5)
            with urllib.request.urlopen(system.http[0] + path, timeout=5) as response:
                assert response.status == 200
        with urllib.request.urlopen(system.http[0], timeout=5) as response:  # who looks for it there is led to it
            assert response.url == f"{system.page}softphone/"
    finally:
        assert running.end(signal.SIGINT) == 0


def test_with_a_certificate_the_page_and_sip_are_served_over_tls(users: Path, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, DOMAIN, ["127.0.0.1"])
    running, system = start_up(users, "--tls", str(certificate), str(key))
    trusted = ssl.create_default_context(cafile=certificate)
    try:
        port = system.at[0]["ws"][1]
        running.wait_for(lambda: "Ctrl-C" in running.output())
        assert f"https://{DOMAIN}:{port}/" in running.output()
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/", timeout=5, context=trusted) as response:
            assert response.url.endswith("/softphone/")
        trusted.check_hostname = False  # a SIP domain is not compared as a host name is
        with socket.create_connection(("127.0.0.1", system.at[0]["udp"][1] + 1), 5) as tcp:
            trusted.wrap_socket(tcp).close()
    finally:
        assert running.end(signal.SIGINT) == 0


def test_a_certificate_of_our_making_is_kept_while_it_does(users: Path) -> None:
    made = []
    for _ in range(2):
        running, _ = start_up(users, "--self-signed")
        made.append((users / "certificate.pem").read_bytes())
        assert running.end(signal.SIGINT) == 0

    assert made[0] == made[1]
    assert (users / "private_key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls", "/nowhere.pem", "/nowhere.key"], "--tls /nowhere.pem /nowhere.key: "),
        (["--tls", "{key}", "{certificate}"], "--tls "),
        (["--tls", "{certificate}", "{certificate}"], "--tls "),
        (["--tls", "{certificate}", "{key}", "--self-signed"], "--tls, --self-signed: only one of them"),
        (["--host", "campus.test"], "--host: 'campus.test' is not an address of this machine"),
        (["--host", "192.0.2.77"], "ws 192.0.2.77:"),
    ],
    ids=str,
)
def test_a_wrong_page_is_told_before_anything_is_written(tmp_path: Path, options: list[str], says: str) -> None:
    certificate, key = self_signed(tmp_path, DOMAIN, ["127.0.0.1"])
    words = [word.format(certificate=certificate, key=key) for word in options]
    words += ["--page-port", str(free_port()), "--sip-port", str(free_port()), "--http-port", "0"]

    running = Running(["up", "--data", str(tmp_path / "data"), *words], tmp_path / "log")

    assert running.process.wait(20) in (1, 2)
    assert running.output().startswith(f"ramal: {says}")
    assert running.output().count("\n") == 1
    assert not (tmp_path / "data").exists()
