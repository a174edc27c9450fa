"""authsvc.users.ldap_people on a real OpenLDAP: whose password it is, and in which groups somebody is."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authsvc.config import LdapSettings
from authsvc.users.ldap_connection import LdapUnavailable
from authsvc.users.ldap_people import LdapPeople, Person
from ramal.backends import LdapServer, start_ldap
from runtime.errors import ConfigError
from tests.kit.directory import BASE, GROUPS, add_entries, ldap_settings, remove_member
from tests.kit.stopping import stop

pytestmark = pytest.mark.integration

NOC, HELPDESK, PHONES = (f"cn={name},{GROUPS}" for name in ("noc", "helpdesk", "phones"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LdapServer]:
    """A directory that the test may hang and fill."""
    server = start_ldap(tmp_path / "ldap", users=5)
    yield server
    if server.alive():
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


@asynccontextmanager
async def people_of(server: LdapServer, **changed: Any) -> AsyncIterator[LdapPeople]:
    people = LdapPeople(ldap_settings(server, **changed))
    try:
        yield people
    finally:
        people.stop()


@pytest.fixture
def hashed() -> str:
    """`{SSHA}…` of "plum tree"."""
    command = ["/usr/sbin/slappasswd", "-h", "{SSHA}", "-s", "plum tree"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


async def test_a_bind_proves_a_password_whatever_its_hash(own: LdapServer, hashed: str) -> None:
    add_entries(own, person("hashed", userPassword=hashed), person("without"))
    async with people_of(own) as people:
        found = await people.find(["u00001", "hashed", "without", "nobody"], ["sn"])
        assert sorted(found) == ["hashed", "u00001", "without"]
        assert found["u00001"].attributes["sn"] == [b"u00001"]
        assert await people.is_right(found["u00001"], "secret-u00001")
        assert await people.is_right(found["hashed"], "plum tree")
        assert not await people.is_right(found["hashed"], "plum")
        assert not await people.is_right(found["without"], "anything")


async def test_a20_an_empty_password_is_never_tried(own: LdapServer) -> None:
    # A bind with a name and no password succeeds here, as anonymous.
    (config := own.child.log.parent / "slapd.conf").write_text(f"allow bind_anon_cred\n{config.read_text()}")
    own.stop()
    again = start_ldap(config.parent, users=5)
    async with people_of(again) as people:
        found = (await people.find(["u00001"]))["u00001"]
        assert not await people.is_right(found, "")
        assert not await people.is_right(Person("u00001", "", {}), "secret-u00001")
    again.stop()


@pytest.mark.parametrize("name", ["*", "u0000*", "*)(uid=*", "U00001", "u00001\x00", "\\2a", ""])
async def test_a19_a_person_is_found_by_that_very_name_alone(ldap: LdapServer, name: str) -> None:
    async with people_of(ldap) as people:
        assert list(await people.find([name, "u00001"])) == ["u00001"]


async def test_nobody_is_found_by_a_name_that_two_have(own: LdapServer) -> None:
    add_entries(own, (f"cn=second,ou=Users,{BASE}", "inetOrgPerson", {"cn": "second", "sn": "x", "uid": "u00001"}))
    async with people_of(own) as people:
        assert await people.find(["u00001"]) == {}


async def test_members_are_named_by_dn_or_by_uid(own: LdapServer) -> None:
    odd = f"cn=Silva\\, Ana (NOC),ou=Users,{BASE}"
    add_entries(
        own,
        (odd, "inetOrgPerson", {"cn": "Silva, Ana (NOC)", "sn": "Silva", "uid": "ana"}),
        (GROUPS, "organizationalUnit", {"ou": "Groups"}),
        (NOC, "groupOfNames", {"cn": "noc", "member": [odd, f"uid=u00001,ou=Users,{BASE}"]}),
        (HELPDESK, "posixGroup", {"cn": "helpdesk", "gidNumber": "1000", "memberUid": ["u00002"]}),
        (PHONES, "groupOfUniqueNames", {"cn": "phones", "uniqueMember": [f"uid=u00002,ou=Users,{BASE}"]}),
    )
    groups = [NOC, HELPDESK, PHONES, f"cn=missing,{GROUPS}"]
    async with people_of(own) as people:
        found = await people.find(["ana", "u00001", "u00002", "u00003"])
        assert await people.members(list(found.values()), groups) == {
            "ana": [NOC],
            "u00001": [NOC],
            "u00002": [HELPDESK, PHONES],
            "u00003": [],
        }
        remove_member(own, HELPDESK, "memberUid", "u00002")
        assert (await people.members([found["u00002"]], groups))["u00002"] == [PHONES]


async def test_a_directory_that_hangs_or_is_gone_is_unavailable_and_never_a_wrong_password(own: LdapServer) -> None:
    async with people_of(own) as people:
        found = (await people.find(["u00001"]))["u00001"]
        stop(own.pid)
        with pytest.raises(LdapUnavailable):
            await people.is_right(found, "secret-u00001")
        os.kill(own.pid, signal.SIGCONT)
        assert await people.is_right(found, "secret-u00001")
        own.stop()
        with pytest.raises(LdapUnavailable):
            await people.find(["u00001"])


def test_a21_no_password_goes_without_tls_unless_that_is_wished() -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_INSECURE"):
        LdapPeople(LdapSettings(url="ldap://127.0.0.1:389"))


def person(name: str, **attributes: str) -> tuple[str, str, dict[str, Any]]:
    return f"uid={name},ou=Users,{BASE}", "inetOrgPerson", {"cn": name, "sn": name, **attributes}
