"""Whoever gave a wrong setting of LDAP is told which, in a sentence, before any phone has come (A18, A20, A21).

In `/status` and once in the log; a directory that is merely away is told in the same places, and waited for.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from authsvc.config import LdapSettings
from authsvc.users import ldap as source_of_users
from authsvc.users.ldap import LdapUnavailable, LdapUsers
from authsvc.users.ldap_people import LdapPeople
from ramal.backends import LdapServer, start_ldap
from runtime.config import Domain, Secret
from tests.kit.directory import add_users, ldap_settings
from tests.kit.hashed_directory import HashedDirectory, hashed_directory
from tests.kit.secure import Authority

pytestmark = pytest.mark.integration

DOMAINS = {"example.test": Domain()}
AWAY = "ramal_authsvc_directory_away"
SECRET = "not-what-it-is"


@asynccontextmanager
async def started(settings: LdapSettings) -> AsyncIterator[LdapUsers]:
    source = LdapUsers(settings, DOMAINS)
    source.start()
    try:
        yield source
    finally:
        await source.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def lost(source: LdapUsers) -> str:
    await until(lambda: bool(source.lost))
    return source.lost


WRONG = {
    "base": ({"base": "ou=Peple,dc=example,dc=test"}, "RAMAL_LDAP_BASE: 'ou=Peple,dc=example,dc=test' is nothing in"),
    "no base": ({"base": ""}, "RAMAL_LDAP_BASE: '' is nothing in"),
    "no DN as base": ({"base": "people"}, "RAMAL_LDAP_BASE: 'people' is not a DN"),
    "base of nobody": ({"base": "cn=ramal,dc=example,dc=test"}, "RAMAL_LDAP_BASE: 'cn=ramal,dc=example,dc=test'"),
    "attribute": ({"uid_attribute": "sAMAccountName"}, "nobody below RAMAL_LDAP_BASE 'dc=example,dc=test' has the"),
    "filter": ({"filter": "(title=nobody)"}, "and matches RAMAL_LDAP_FILTER '(title=nobody)'"),
    "account": ({"bind_dn": "cn=rammal,dc=example,dc=test"}, "refuses RAMAL_LDAP_BIND_DN or RAMAL_LDAP_BIND_PASSWORD"),
    "no DN as account": ({"bind_dn": "ramal"}, "RAMAL_LDAP_BIND_DN: 'ramal' is not a DN"),
    "password": ({"bind_password": Secret(SECRET)}, "refuses RAMAL_LDAP_BIND_DN or RAMAL_LDAP_BIND_PASSWORD"),
    "port": ({"url": "ldap://127.0.0.1:1"}, "the directory at ldap://127.0.0.1:1 cannot be reached: [Errno 111]"),
    "host": ({"url": "ldap://ldap.nowhere.invalid"}, "cannot be reached: its name does not resolve"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_setting_is_named_at_the_start(
    case: str, ldap: LdapServer, caplog: pytest.LogCaptureFixture
) -> None:
    changed, sentence = WRONG[case]
    async with started(ldap_settings(ldap, **changed)) as source:
        assert sentence in await lost(source)
        assert REGISTRY.get_sample_value(AWAY) == 1
        told = [getattr(record, "cause", "") for record in caplog.records if record.levelno >= logging.WARNING]
        assert told[-1] == source.lost
        await asyncio.sleep(1.3)  # it is looked again, and not said again
        assert len([r for r in caplog.records if getattr(r, "cause", "") == source.lost]) == 1
    assert SECRET not in caplog.text + "".join(told)


async def test_with_right_settings_nothing_is_told(ldap: LdapServer, caplog: pytest.LogCaptureFixture) -> None:
    async with started(ldap_settings(ldap)) as source:
        await asyncio.sleep(0.5)
        assert source.lost == ""
        assert REGISTRY.get_sample_value(AWAY) == 0
    assert not [record for record in caplog.records if record.message.startswith("the directory")]


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HashedDirectory]:
    with hashed_directory(tmp_path_factory.mktemp("ldap"), ppolicy=False) as directory:
        yield directory


async def test_an_authority_that_does_not_vouch_for_the_directory_is_told(
    over_tls: HashedDirectory, tmp_path: Path
) -> None:
    async with started(over_tls.settings(ca_file=str(Authority(tmp_path, "stranger").file))) as source:
        assert "shows a certificate that none of RAMAL_LDAP_CA_FILE vouches for" in await lost(source)
    async with started(over_tls.settings(url=over_tls.url.replace("127.0.0.1", "localhost"))) as source:
        assert "shows a certificate that is for another host" in await lost(source)
    async with started(over_tls.settings(url=over_tls.server.url.replace("ldap:", "ldaps:"))) as source:
        assert "does not speak TLS there" in await lost(source)


async def test_an_expired_certificate_of_the_directory_is_told(tmp_path: Path) -> None:
    with hashed_directory(tmp_path, ppolicy=False, ends=-1.0) as directory:
        async with started(directory.settings()) as source:
            assert await lost(source) == f"the directory at {directory.url} shows a certificate that has expired"


async def test_who_types_a_command_reads_the_same(ldap: LdapServer) -> None:
    people = LdapPeople(ldap_settings(ldap, base="dc=exmaple,dc=test"))
    with pytest.raises(LdapUnavailable, match="RAMAL_LDAP_BASE: 'dc=exmaple,dc=test' is nothing in"):
        await people.find(["u00000"])
    people.stop()


async def test_a_directory_that_comes_later_or_is_filled_later_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A18: nothing ends and nobody is unknown meanwhile; who comes is found without a restart."""
    monkeypatch.setattr(source_of_users, "LOOK_SECONDS", 0.1)
    server = start_ldap(tmp_path / "ldap", users=0)
    try:
        server.stop()
        async with started(ldap_settings(server)) as source:
            assert "cannot be reached" in await lost(source)
            server = start_ldap(tmp_path / "ldap", users=0)
            await until(lambda: "nobody below RAMAL_LDAP_BASE" in source.lost)
            add_users(server, "alice")
            await until(lambda: not source.lost)
            assert await source.find([("alice", "example.test")])
    finally:
        server.stop()
