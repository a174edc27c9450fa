"""Operators who log in by a group of a real OpenLDAP, beside those of the file."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from authsvc.config import LdapSettings
from authsvc.users.ldap_connection import LdapUnavailable
from authsvc.users.ldap_people import LdapPeople
from console.accounts import Account, add
from console.directory import UNCONFIRMED_SECONDS, LdapOperators
from console.gate import FAILURES, NOBODY
from console.service import build
from ramal.backends import LdapServer, start_ldap
from runtime.config import Secret, Sources
from runtime.errors import ConfigError
from tests.kit.console_site import PASSWORDS, ConsoleSite
from tests.kit.directory import BASE, GROUPS, add_entries, change_entry, remove_member
from tests.kit.stopping import stop

pytestmark = pytest.mark.integration

NOC, HELPDESK = f"cn=noc,{GROUPS}", f"cn=helpdesk,{GROUPS}"
ROLES = {NOC: "operator", HELPDESK: "read-only"}
ANA, RUI, EVA, JOE = (f"u{number:05d}" for number in range(1, 5))
"""Ana is in both groups, Rui in the one that looks, Eva is in the one by her DN, Joe in none."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LdapServer]:
    """A directory of users and two groups, that the test may hang and change."""
    server = start_ldap(tmp_path / "ldap", users=6)
    members = [f"uid={name},ou=Users,{BASE}" for name in (ANA, EVA)]
    add_entries(
        server,
        (GROUPS, "organizationalUnit", {"ou": "Groups"}),
        (NOC, "groupOfNames", {"cn": "noc", "member": members}),
        (HELPDESK, "posixGroup", {"cn": "helpdesk", "gidNumber": "1000", "memberUid": [ANA, RUI]}),
    )
    yield server
    if server.alive():
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


def people_of(server: LdapServer) -> LdapPeople:
    password = Secret(server.bind_password)
    return LdapPeople(
        LdapSettings(url=server.url, base=server.base, bind_dn=server.bind_dn, bind_password=password, insecure=True)
    )


@pytest.fixture
async def site(tmp_path: Path, server: LdapServer) -> AsyncIterator[ConsoleSite]:
    found = ConsoleSite(tmp_path)
    add(found.operators, "maria", "operator", PASSWORDS["maria"])
    await found.start(people_of(server), groups=ROLES)
    yield found
    await found.stop()


async def test_who_is_in_a_group_logs_in_with_its_role_and_the_one_that_may_more(site: ConsoleSite) -> None:
    for name, role in ((ANA, "operator"), (EVA, "operator"), (RUI, "read-only")):
        browser = site.browser()
        status, said = await browser.log_in(name, f"secret-{name}")
        assert (status, said["name"], said["role"]) == (200, name, role)
    status, said = await browser.post("remove", {"aor": "alice"})
    assert (status, said["error"]) == (403, "read_only")


async def test_who_is_in_no_group_is_told_so_only_with_the_right_password(site: ConsoleSite) -> None:
    browser = site.browser()
    assert (await browser.log_in(JOE, f"secret-{JOE}"))[1]["error"] == "no_role"
    assert (await browser.log_in(JOE, "wrong"))[1]["error"] == "wrong_password"
    assert (await browser.log_in("nobody", "wrong"))[1]["error"] == "wrong_password"
    assert await browser.get("me") == (200, NOBODY)


async def test_a20_no_password_and_no_pattern_of_a_name_lets_anybody_in(site: ConsoleSite) -> None:
    browser = site.browser()
    for name in (ANA, ANA.upper(), "*", "u0000*", "", f"uid={ANA},ou=Users,{BASE}"):
        for password in ("", "\x00", "wrong"):
            assert (await browser.post("log-in", {"name": name, "password": password}))[0] == 401
    assert await browser.get("me") == (200, NOBODY)


async def test_a_name_of_the_file_is_never_asked_of_the_directory(site: ConsoleSite) -> None:
    add(site.operators, ANA, "read-only", "another password")
    browser = site.browser()
    assert (await browser.log_in(ANA, f"secret-{ANA}"))[0] == 401
    assert (await browser.log_in(ANA, "another password"))[1]["role"] == "read-only"


async def test_wrong_passwords_wait_as_those_of_the_file_do(site: ConsoleSite) -> None:
    browser = site.browser()
    answers = [(await browser.log_in(ANA, "wrong"))[0] for _ in range(FAILURES + 1)]
    assert answers == [401] * FAILURES + [429]
    assert (await browser.log_in(ANA, f"secret-{ANA}"))[0] == 429
    assert (await browser.log_in(EVA, f"secret-{EVA}"))[0] == 200


async def test_while_the_directory_is_away_the_file_counts_and_others_are_told_so(
    site: ConsoleSite, server: LdapServer
) -> None:
    browser, other = site.browser(), site.browser()
    await other.log_in(EVA, f"secret-{EVA}")
    stop(server.pid)
    waiting = [asyncio.create_task(browser.log_in(name, "x")) for name in (ANA, RUI, JOE)]
    assert (await site.browser().log_in("maria"))[0] == 200  # and waits for none of them
    for status, said in await asyncio.gather(*waiting):
        assert (status, said["error"], said["seconds"]) == (503, "directory_away", 10)
    assert (await other.get("me"))[1]["name"] == EVA
    os.kill(server.pid, signal.SIGCONT)
    assert (await browser.log_in(ANA, f"secret-{ANA}"))[0] == 200  # these were no failures


async def test_who_leaves_the_group_or_the_directory_is_logged_out_at_the_next_look(
    site: ConsoleSite, server: LdapServer
) -> None:
    ana, rui, eva = site.browser(), site.browser(), site.browser()
    for browser, name in ((ana, ANA), (rui, RUI), (eva, EVA)):
        await browser.log_in(name, f"secret-{name}")
    remove_member(server, NOC, "member", f"uid={ANA},ou=Users,{BASE}")
    remove_member(server, HELPDESK, "memberUid", RUI)
    change_entry(server, f"uid={EVA},ou=Users,{BASE}", sn="Souza")
    assert site.directory
    await site.directory.look()
    assert (await ana.get("me"))[1]["role"] == "read-only"  # the other group's
    assert await rui.get("me") == (200, NOBODY)
    assert (await eva.get("me"))[1]["role"] == "operator"


async def test_who_is_not_confirmed_for_ten_minutes_is_nobody(server: LdapServer) -> None:
    now = 0.0
    operators = LdapOperators(people := people_of(server), {NOC: "operator"}, lambda: now)
    account = await operators.log_in(ANA, f"secret-{ANA}")
    assert isinstance(account, Account)
    stop(server.pid)
    now = UNCONFIRMED_SECONDS
    with pytest.raises(LdapUnavailable):
        await operators.look()
    assert operators.get(ANA) == account
    now += 1
    assert operators.get(ANA) is None
    os.kill(server.pid, signal.SIGCONT)
    await operators.look()
    assert operators.get(ANA) == account
    people.stop()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RAMAL_CONSOLE_GROUPS": '{"cn=noc": "operator"}'}, "RAMAL_LDAP_URL"),
        ({"RAMAL_CONSOLE_GROUPS": '{"noc": "operator"}', "RAMAL_LDAP_URL": "ldaps://d"}, "RAMAL_CONSOLE_GROUPS"),
        ({"RAMAL_CONSOLE_GROUPS": '{"cn=noc": "boss"}'}, "RAMAL_CONSOLE_GROUPS"),
        ({"RAMAL_CONSOLE_GROUPS": '{"cn=noc": "operator"}', "RAMAL_LDAP_URL": "ldap://d"}, "RAMAL_LDAP_INSECURE"),
    ],
    ids=["no directory", "no DN", "no role", "no TLS"],
)
def test_a21_groups_that_cannot_be_asked_safely_stop_the_start(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build(Sources(settings, {}), None, None)  # type: ignore[arg-type]  # it needs neither
