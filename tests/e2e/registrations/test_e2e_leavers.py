"""Whoever is removed from the directory loses his registrations, and nothing else of anybody changes (R42)."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramal.backends import LdapServer, start_ldap
from tests.e2e.conftest import System, start_up, user
from tests.kit.directory import add_users, remove_users
from tests.kit.phone import SDP

pytestmark = pytest.mark.e2e

ALICE, BOB = 1, 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LdapServer]:
    server = start_ldap(tmp_path / "ldap", users=30)
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path: Path, server: LdapServer) -> Iterator[System]:
    """An embedded system whose users are in the directory, and which looks often."""
    environ = {
        "RAMAL_LDAP_URL": server.url,
        "RAMAL_LDAP_BASE": server.base,
        "RAMAL_LDAP_BIND_DN": server.bind_dn,
        "RAMAL_LDAP_BIND_PASSWORD": server.bind_password,
        "RAMAL_LDAP_INSECURE": "true",
        "RAMAL_AUTHSVC_SWEEP_SECONDS": "0.3",
        "RAMAL_AUTHSVC_UNKNOWN_SECONDS": "0.5",
    }
    running, system = start_up(tmp_path / "data", **environ)
    yield system
    assert running.end() == 0


def wait_gone(site: System, number: int) -> None:
    deadline = time.monotonic() + 20
    while site.located(number):
        assert time.monotonic() < deadline, f"{user(number)} is still registered"
        time.sleep(0.05)


def test_r42_who_is_removed_is_registered_no_more_and_may_be_again_when_he_is_back(
    site: System, server: LdapServer
) -> None:
    with site.phone(ALICE) as alice, site.phone(BOB) as bob:
        alice.register()
        bob.register()
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        incoming.gets("ACK")

        remove_users(server, user(BOB))
        wait_gone(site, BOB)
        assert len(site.located(ALICE)) == 1
        [interval] = json.loads(site.ramal("history", bob.aor.removeprefix("sip:"), "--json").stdout)
        assert (interval["ended"], interval["ended_by"]) == ("deactivated", "user-gone")
        call.request("BYE")  # what is under way goes on until somebody hangs up
        incoming.gets("BYE")
        incoming.respond(200)
        call.hears(200)
        again = alice.invite(bob.aor)
        again.hears(480)
        again.ack()
        assert bob.registers(f"Contact: <{bob.contact}>").status == 401

        add_users(server, user(BOB))
        time.sleep(0.6)
        bob.register()
        assert len(site.located(BOB)) == 1
