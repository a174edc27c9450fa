"""authsvc.sweep on a real OpenLDAP and real tables: whose registrations end because he is gone (R42)."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from authsvc import sweep
from authsvc.config import AuthSettings
from authsvc.sweep import GONE, REFUSED, Sweep
from authsvc.users import file as users_file
from authsvc.users import table as subscriber
from authsvc.users.directory import Users
from authsvc.users.file import UsersFile
from authsvc.users.ldap import SEARCHES, LdapUsers
from authsvc.users.table import SubscriberUsers
from ramal import backends
from ramal.backends import LdapServer, start_ldap
from runtime.config import Domain, Secret
from runtime.database.port import Database
from runtime.database.sqlite import SQLiteDatabase
from runtime.store import EmbeddedStore
from tests.kit.directory import add_entries, add_users, change_user, ldap_settings, remove_users, rename_user
from tests.kit.stopping import stop

pytestmark = pytest.mark.integration

REALM = "example.test"
DOMAINS = {REALM: Domain()}
USERS = 60
_POLICY = "modulepath /usr/lib/ldap\nmoduleload ppolicy\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LdapServer]:
    """A directory with accounts that can be locked or expire."""
    config = backends._SLAPD_CONF.replace("modulepath /usr/lib/ldap\n", _POLICY) + "overlay ppolicy\n"
    monkeypatch.setattr(backends, "_SLAPD_CONF", config)
    server = start_ldap(tmp_path / "ldap", users=USERS)
    yield server
    if server.alive():
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


@pytest.fixture
async def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Tables in which the directory's users are registered."""
    monkeypatch.setattr(sweep, "PAUSE_SECONDS", 0.0)
    store = EmbeddedStore(tmp_path / "tables.db")
    database = SQLiteDatabase(store)
    await database.start()
    await database.migrate()
    await register(database, *(f"u{number:05d}" for number in range(USERS)))
    yield database
    await database.stop()
    await store.stop()


async def register(database: Database, *names: str, domain: str = REALM) -> None:
    """Each with two bindings, as the locator writes them."""
    begin = int((await database.query("SELECT COALESCE(MAX(contact_id), 0) FROM location"))[0][0])
    columns = ("contact_id", "username", "domain", "contact", "expires")
    rows = [(0, name, domain, f"sip:{name}@192.0.2.{n}", 2_000_000_000) for name in names for n in (1, 2)]
    numbered = [(begin + index, *row[1:]) for index, row in enumerate(rows, 1)]
    for start in range(0, len(numbered), 200):
        await database.transact([database.upsert("location", columns, columns[:1], numbered[start : start + 200])])


class Site:
    """One authsvc's sweep over a directory, and whose bindings it ended."""

    def __init__(self, database: Database, users: Users, owns: Callable[[Any], bool] = lambda _: True) -> None:
        self.ended: list[str] = []
        self.users = users
        self._sweep = Sweep(users, database, DOMAINS, owns, self._end, seconds=1, percent=10)

    async def _end(self, aors: Collection[str]) -> None:
        self.ended += aors

    async def look(self, times: int = 1) -> list[str]:
        """The names of those whose bindings these looks ended."""
        self.ended.clear()
        for _ in range(times):
            await self._sweep.once()
        return [aor.removesuffix(f"@{REALM}") for aor in self.ended]


@pytest.fixture
async def site_of(tables: Database) -> AsyncIterator[Callable[..., Site]]:
    async with AsyncExitStack() as stack:

        def make(
            server: LdapServer | None, *, file: Path | None = None, owns: Any = lambda _: True, **changed: Any
        ) -> Site:
            sources: list[Any] = [SubscriberUsers(tables)]
            if server:
                sources.append(LdapUsers(ldap_settings(server, **changed), DOMAINS))
                stack.push_async_callback(sources[-1].stop)
            users = Users(AuthSettings(), DOMAINS, UsersFile(file) if file else None, sources)
            return Site(tables, users, owns)

        yield make


Make = Callable[..., Site]


async def test_r42_who_was_removed_is_ended_at_the_second_look_and_nobody_else_ever(
    own: LdapServer, site_of: Make
) -> None:
    site = site_of(own)
    assert await site.look(2) == []
    remove_users(own, "u00003", "u00007")
    assert await site.look() == []
    assert await site.look() == ["u00003", "u00007"]
    assert GONE._value.get() == 2


async def test_r42_who_comes_back_between_two_looks_stays(own: LdapServer, site_of: Make) -> None:
    site = site_of(own)
    remove_users(own, "u00003")
    assert await site.look() == []
    add_users(own, "u00003")
    assert await site.look(2) == []


async def test_r42_who_comes_back_before_a_long_look_has_ended_stays(tables: Database, site_of: Make) -> None:
    await register(tables, "anna", "bert", *(f"v{number:05d}" for number in range(sweep.AT_ONCE)))
    for name in (
        *(f"u{number:05d}" for number in range(USERS)),
        *(f"v{number:05d}" for number in range(sweep.AT_ONCE)),
    ):
        await subscriber.add_user(tables, name, REALM, "secret")
    site = site_of(None)
    assert await site.look() == []
    gone = site.users.gone

    async def found(keys: Collection[Any]) -> set[Any]:
        missed = await gone(keys)
        if ("anna", REALM) in missed and len(keys) == sweep.AT_ONCE:  # the first page: others follow
            await subscriber.add_user(tables, "anna", REALM, "secret")
        return missed

    site.users.gone = found  # type: ignore[method-assign]
    assert await site.look() == ["bert"]


async def test_r42_a_renamed_user_is_gone_by_the_old_name(own: LdapServer, site_of: Make) -> None:
    site = site_of(own)
    rename_user(own, "u00003", "novo")
    assert await site.look(2) == ["u00003"]
    assert await site.users.gone([("novo", REALM)]) == set()


async def test_r42_a_name_in_other_letters_is_another_user(own: LdapServer, tables: Database, site_of: Make) -> None:
    await register(tables, "U00003")
    assert await site_of(own).look(2) == ["U00003"]


@pytest.mark.parametrize(
    ("attributes", "back"),
    [
        ({"pwdAccountLockedTime": "000001010000Z"}, {"pwdAccountLockedTime": []}),
        ({"objectClass": ["inetOrgPerson", "shadowAccount"], "shadowExpire": "1"}, {"shadowExpire": "-1"}),
    ],
)
async def test_r42_a_disabled_account_is_no_user_until_it_is_enabled_again(
    own: LdapServer, site_of: Make, attributes: dict[str, Any], back: dict[str, Any]
) -> None:
    site, key = site_of(own), ("u00003", REALM)
    [ldap] = [source for source in site.users._sources if isinstance(source, LdapUsers)]
    change_user(own, "u00003", **attributes)
    assert await site.look(2) == ["u00003"]
    assert await ldap.find([key]) == {}  # nor may he log in
    change_user(own, "u00003", **back)
    assert list(await ldap.find([key])) == [key]
    assert await site.look(2) == []


async def test_r42_an_account_locked_by_wrong_passwords_keeps_its_calls(own: LdapServer, site_of: Make) -> None:
    change_user(own, "u00003", pwdAccountLockedTime="20261128120000Z")
    assert await site_of(own).look(2) == []


async def test_r42_an_attribute_that_is_not_to_count_does_not(own: LdapServer, site_of: Make) -> None:
    change_user(own, "u00003", pwdAccountLockedTime="000001010000Z")
    assert await site_of(own, disabled_by=("shadowExpire",)).look(2) == []


async def test_r42_who_the_filter_of_users_does_not_match_any_more_is_gone(own: LdapServer, site_of: Make) -> None:
    site = site_of(own, filter="(!(title=left))")
    assert await site.look(2) == []
    change_user(own, "u00003", title="left")
    assert await site.look(2) == ["u00003"]


async def test_the_sweep_is_told_when_password_and_entry_changed(own: LdapServer, site_of: Make) -> None:
    [ldap] = [source for source in site_of(own).users._sources if isinstance(source, LdapUsers)]
    before = (await ldap.accounts([("u00003", REALM)]))["u00003", REALM]
    change_user(own, "u00003", userPassword="secret-another")
    after = (await ldap.accounts([("u00003", REALM)]))["u00003", REALM]
    assert before.modified <= after.modified
    assert after.password_changed.endswith("Z")
    assert after.password_changed > before.password_changed


async def test_r42_a_directory_that_is_away_says_of_nobody_that_he_is_gone(own: LdapServer, site_of: Make) -> None:
    site = site_of(own, timeout=0.5)
    remove_users(own, "u00003")
    assert await site.look() == []
    stop(own.pid)
    assert await site.look(2) == []
    os.kill(own.pid, signal.SIGCONT)
    own.stop()
    assert await site.look(2) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "dc=elsewhere"},
        {"base": "ou=Uers,dc=example,dc=test"},
        {"base": "ou=Groups,dc=example,dc=test"},
        {"bind_password": Secret("wrong")},
        {"uid_attribute": "employeeNumber"},
        {"filter": "(objectClass=posixAccount)"},
    ],
)
async def test_r42_a_setting_with_a_mistake_ends_nobody(own: LdapServer, site_of: Make, wrong: dict[str, Any]) -> None:
    add_entries(own, (f"ou=Groups,{own.base}", "organizationalUnit", {}))
    assert await site_of(own, **wrong).look(3) == []


async def test_r42_a_directory_that_was_emptied_or_restored_in_part_ends_nobody(
    own: LdapServer, site_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    site = site_of(own)
    assert await site.look() == []
    remove_users(own, *(f"u{number:05d}" for number in range(USERS)))
    assert await site.look(3) == []
    assert REFUSED._value.get() == 0  # nobody is below the base: the directory is as good as away
    add_users(own, *(f"u{number:05d}" for number in range(40)))
    assert await site.look(3) == []
    assert REFUSED._value.get() == 1
    assert "RAMAL_AUTHSVC_SWEEP_PERCENT=100" in caplog.text
    add_users(own, *(f"u{number:05d}" for number in range(40, 57)))
    assert await site.look() == []  # those who are still to come are not gone
    add_users(own, *(f"u{number:05d}" for number in range(57, USERS)))
    assert await site.look(2) == []
    assert REFUSED._value.get() == 0


async def test_r42_an_answer_cut_short_by_the_servers_size_limit_ends_nobody(
    own: LdapServer, site_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.stop()
    monkeypatch.setattr(backends, "_SLAPD_CONF", backends._SLAPD_CONF.replace("loglevel 0", "loglevel 0\nsizelimit 5"))
    limited = start_ldap(tmp_path / "ldap", users=USERS)
    try:
        site = site_of(limited, bind_dn="", bind_password=Secret())
        assert await site.look(3) == []
    finally:
        limited.stop()


async def test_r42_a_directory_that_refers_to_another_server_ends_nobody_whom_that_one_may_have(
    own: LdapServer, site_of: Make
) -> None:
    site = site_of(own)
    referral = {"ref": "ldap://127.0.0.1:1/dc=example,dc=test", "ou": "elsewhere"}
    add_entries(own, (f"ou=elsewhere,{own.base}", ["referral", "extensibleObject"], referral))
    assert await site.look(2) == []
    remove_users(own, "u00003")
    assert await site.look(3) == []


async def test_r42_rows_and_lines_of_users_count_as_ldap_does(tables: Database, site_of: Make, tmp_path: Path) -> None:
    file = tmp_path / "users.htdigest"
    for number in range(USERS - 2):
        users_file.add_user(file, f"u{number:05d}", REALM, "x")
    for number in (USERS - 2, USERS - 1):
        await subscriber.add_user(tables, f"u{number:05d}", REALM, "x")
    site = site_of(None, file=file)
    assert await site.look(2) == []
    users_file.remove_user(file, "u00003", REALM)
    await subscriber.remove_user(tables, f"u{USERS - 1:05d}", REALM)
    site.users._file._next_check = 0.0  # type: ignore[union-attr]
    assert await site.look(2) == ["u00003", f"u{USERS - 1:05d}"]
    file.rename(tmp_path / "away")
    site.users._file._next_check = 0.0  # type: ignore[union-attr]
    assert await site.look(3) == []


async def test_r42_a_users_file_that_was_never_there_ends_nobody_and_an_empty_one_has_no_users(
    tables: Database, site_of: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(USERS - 2):
        await subscriber.add_user(tables, f"u{number:05d}", REALM, "x")
    file = tmp_path / "users.htdigest"
    site = site_of(None, file=file)
    assert await site.look(3) == []
    assert site.users.file_lost().startswith(f"the users file {file} is not there")
    told = [record for record in caplog.records if "who is in the users file" in record.message]
    assert [record.levelname for record in told] == ["WARNING"]
    file.touch(mode=0o600)
    site.users._file._next_check = 0.0  # type: ignore[union-attr]
    assert await site.look(2) == [f"u{USERS - 2:05d}", f"u{USERS - 1:05d}"]
    assert site.users.file_lost() == ""


async def test_r42_each_process_looks_at_its_own_users_only_and_at_no_domain_that_is_not_served(
    own: LdapServer, tables: Database, site_of: Make
) -> None:
    await register(tables, "somebody", domain="elsewhere.test")
    remove_users(own, "u00003", "u00007")
    assert await site_of(own, owns=lambda key: key[0] == "u00007").look(2) == ["u00007"]
    assert await site_of(own).look(2) == ["u00003", "u00007"]


async def test_r42_ten_thousand_users_are_a_hundred_searches(tables: Database, site_of: Make, tmp_path: Path) -> None:
    server = start_ldap(tmp_path / "large", users=10_000)
    try:
        await register(tables, *(f"u{number:05d}" for number in range(USERS, 10_000)))
        site = site_of(server)
        searches = SEARCHES._value.get()
        assert await site.look() == []
        assert SEARCHES._value.get() - searches == 100
        remove_users(server, *(f"u{number:05d}" for number in range(50)))
        assert await site.look(2) == [f"u{number:05d}" for number in range(50)]
    finally:
        server.stop()
