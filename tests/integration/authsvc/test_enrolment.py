"""Enrolment over the real tables, log and a real OpenLDAP whose passwords are hashes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from authsvc.config import EnrolmentSettings
from authsvc.enrolment import LETTERS, Enroller, Enrolment, LockedOut, Who, WrongPassword, phone_password
from authsvc.users.enrolled import EnrolledUsers, rows_of
from authsvc.users.ha1 import ALGORITHMS, from_password
from authsvc.users.ldap import LdapUsers
from authsvc.users.retiring import LEFT, PASSWORD_CHANGED
from authsvc.users.sealing import Keyring, Keys
from authsvc.watch import Watch
from events.audit import EnrolmentTried
from events.topics import AUDIT
from events.wire import Decoder
from ramal import enrolling
from runtime.config import Domain
from runtime.database.port import Database, Statement
from runtime.errors import ConfigError, Unavailable
from runtime.log.port import Log
from tests.kit.hashed_directory import SCHEMES, HashedDirectory, hashed_directory

pytestmark = pytest.mark.integration

REALM, OTHER = "example.test", "other.test"
DOMAINS = {REALM: Domain(), OTHER: Domain(algorithms=("SHA-256",))}
OLD, NEW = "e1:" + "11" * 32, "e2:" + "22" * 32
PASSWORD = "canary-right-ü"
PAGE = Who(source="192.0.2.7")
tried: Decoder[EnrolmentTried] = Decoder(EnrolmentTried)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HashedDirectory]:
    with hashed_directory(tmp_path_factory.mktemp("hashed")) as directory:
        for scheme in SCHEMES:
            directory.add(f"user-{scheme}", PASSWORD, scheme)
        yield directory


class Site:
    """What a console and an authsvc have of enrolment."""

    def __init__(self, directory: HashedDirectory, database: Database, log: Log, **settings: Any) -> None:
        self.text = OLD
        self.keys = Keys(lambda: self.text)
        self.database, self._log = database, log
        self.at = [1_800_000_000.0]
        made = EnrolmentSettings(**settings)
        ldap = directory.settings()
        self.enroller = Enroller(made, ldap, DOMAINS, self.keys, database, log, lambda: self.at[0])
        self.ldap = LdapUsers(ldap, DOMAINS)
        self.enrolled = EnrolledUsers(database, Keys(lambda: self.text))
        self.anew: list[tuple[str, str]] = []
        self.watch = Watch(
            database, self.ldap, lambda _: True, self.anew.extend, check_seconds=0, clock=lambda: self.at[0]
        )

    async def audit(self) -> list[tuple[str, str, str, str]]:
        found = []
        for partition in range(await self._log.partitions(AUDIT)):
            bounds = await self._log.bounds(AUDIT, partition)
            async for records in self._log.read(AUDIT, partition, bounds.begin, bounds.end):
                assert b"canary" not in b"".join(record.value or b"" for record in records)
                found += [tried(record.value) for record in records]
        return [(each.user, each.source, each.operator, each.outcome) for each in found]

    async def stop(self) -> None:
        self.enroller.stop()
        await self.ldap.stop()


@contextlib.asynccontextmanager
async def site_of(directory: HashedDirectory, database: Database, log: Log, **settings: Any) -> AsyncIterator[Site]:
    site = Site(directory, database, log, **settings)
    try:
        yield site
    finally:
        await site.stop()


@pytest.fixture
async def site(directory: HashedDirectory, database: Database, log: Log) -> AsyncIterator[Site]:
    async with site_of(directory, database, log) as site:
        yield site


async def test_a23_a_right_password_gives_ha1s_for_each_realm_and_algorithm_whatever_the_hash(site: Site) -> None:
    for scheme in SCHEMES:
        name = f"user-{scheme}"
        assert await site.enroller.attempt(name, PASSWORD, PAGE) == Enrolment(name, (REALM, OTHER), "", "")
        found = await site.enrolled.find([(name, REALM), (name, OTHER), (name, "else.test")])
        assert found == {(name, realm): from_password(name, realm, PASSWORD) for realm in (REALM, OTHER)}
    assert sorted(await site.audit()) == sorted((f"user-{each}", "192.0.2.7", "", "enrolled") for each in SCHEMES)


async def test_a23_who_the_filter_of_users_does_not_match_cannot_enrol(
    directory: HashedDirectory, database: Database, log: Log
) -> None:
    ldap = directory.settings(filter="(|(uid=user-SSHA)(uid=nobody))")
    enroller = Enroller(EnrolmentSettings(), ldap, DOMAINS, Keys(lambda: OLD), database, log)
    assert await enroller.attempt("user-CRYPT", PASSWORD, PAGE) == WrongPassword()
    assert await enroller.attempt("user-SSHA", PASSWORD, PAGE) == Enrolment("user-SSHA", (REALM, OTHER), "", "")
    enroller.stop()


async def test_a23_a_wrong_password_writes_nothing_and_is_in_the_audit(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Also A25: neither the password nor a name that is nobody's is in a log line or a record."""
    caplog.set_level(logging.DEBUG)
    for name, password in (("user-SSHA", "canary-wrong"), ("canary-nobody", PASSWORD), ("user-SSHA", "")):
        assert await site.enroller.attempt(name, password, PAGE) == WrongPassword()
    assert await site.database.query("SELECT COUNT(*) FROM enrolled") == [(0,)]
    assert sorted(await site.audit()) == [("", "192.0.2.7", "", "wrong password")] * 2 + [
        ("user-SSHA", "192.0.2.7", "", "wrong password")
    ]
    await site.enroller.attempt("user-SSHA", PASSWORD, Who(operator="root"))
    assert "canary" not in caplog.text + "".join(str(record.__dict__) for record in caplog.records)


async def test_a23_attempts_are_limited_by_user_and_by_address_and_it_is_said_for_how_long(site: Site) -> None:
    for _ in range(5):
        assert await site.enroller.attempt("user-SSHA", "wrong", PAGE) == WrongPassword()
    assert await site.enroller.attempt("user-SSHA", PASSWORD, Who(source="198.51.100.1")) == LockedOut(60)
    site.at[0] += 59
    assert await site.enroller.attempt("user-SSHA", PASSWORD, PAGE) == LockedOut(1)
    site.at[0] += 1
    assert await site.enroller.attempt("user-SSHA", "wrong", PAGE) == WrongPassword()
    assert await site.enroller.attempt("user-SSHA", PASSWORD, PAGE) == LockedOut(120)
    site.at[0] += 120
    assert isinstance(await site.enroller.attempt("user-SSHA", PASSWORD, PAGE), Enrolment)
    for number in range(40):
        await site.enroller.attempt(f"nobody-{number}", "wrong", PAGE)
    assert isinstance(await site.enroller.attempt("user-CRYPT", PASSWORD, PAGE), LockedOut)
    assert isinstance(await site.enroller.attempt("user-CRYPT", PASSWORD, Who(source="198.51.100.1")), Enrolment)
    assert ("", "192.0.2.7", "", "locked out") in await site.audit()


async def test_a23_many_at_once_are_no_way_round_the_limit(site: Site) -> None:
    asked = [site.enroller.attempt("user-SSHA", f"wrong-{n}", PAGE) for n in range(12)]
    found = await asyncio.gather(*asked)
    assert sum(each == WrongPassword() for each in found) == 5


async def test_a23_a_directory_that_is_away_shuts_nobody_out(
    directory: HashedDirectory, database: Database, log: Log
) -> None:
    async with site_of(directory, database, log) as site:
        site.enroller._people._settings = directory.settings(base="dc=elsewhere")
        for _ in range(9):
            with pytest.raises(Unavailable):
                await site.enroller.attempt("user-SSHA", PASSWORD, PAGE)
        site.enroller._people._settings = directory.settings()
        assert isinstance(await site.enroller.attempt("user-SSHA", PASSWORD, PAGE), Enrolment)


async def test_a_phone_password_of_our_making_has_118_bits_and_stands_in_for_the_directorys(
    directory: HashedDirectory, database: Database, log: Log
) -> None:
    async with site_of(directory, database, log, phone_passwords="generated") as site:
        made = await site.enroller.attempt("user-SSHA", PASSWORD, PAGE)
        assert isinstance(made, Enrolment)
        assert len(made.phone_password.replace("-", "")) == 24
        assert set(made.phone_password) <= {*LETTERS, "-"}
        assert made.phone_password not in repr(made)
        assert phone_password() != phone_password()
        found = await site.enrolled.find([("user-SSHA", REALM)])
        assert found == {("user-SSHA", REALM): from_password("user-SSHA", REALM, made.phone_password)}


async def test_a26_neither_ha1_nor_password_is_in_the_tables(site: Site, kind: str, tmp_path: Path) -> None:
    await site.enroller.attempt("user-SSHA", PASSWORD, PAGE)
    user = from_password("user-SSHA", REALM, PASSWORD)
    secrets = [text for algorithm in ALGORITHMS if (text := user.ha1(algorithm))]
    kept = str(await site.database.query("SELECT * FROM enrolled"))
    octets = b"".join(path.read_bytes() for path in tmp_path.glob("tables.db*"))  # noqa: ASYNC240
    assert "user-SSHA" in kept
    assert kind == "distributed" or b"user-SSHA" in octets
    for secret in secrets:
        assert secret not in kept.lower()
        assert secret.encode() not in octets.lower()
        assert bytes.fromhex(secret) not in octets
    assert PASSWORD.encode() not in octets


async def test_a26_a_row_that_was_exchanged_for_anothers_opens_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("user-SSHA", "user-CRYPT"):
        await site.enroller.attempt(name, PASSWORD, PAGE)
    [row] = await rows_of(site.database, [("user-SSHA", REALM)])
    sql = "UPDATE enrolled SET ha1 = %s WHERE username = 'user-CRYPT' AND domain = %s"
    await site.database.transact([Statement(sql, (row.sealed[0], REALM))])
    found = await site.enrolled.find([("user-SSHA", REALM), ("user-CRYPT", REALM)])
    assert set(found) == {("user-SSHA", REALM)}
    assert "cannot be opened" in caplog.text


async def test_keys_are_changed_while_enrolments_are_used_and_made(site: Site) -> None:
    names = [f"user-{scheme}" for scheme in SCHEMES]
    for name in names[:2]:
        await site.enroller.attempt(name, PASSWORD, PAGE)
    wanted = {(name, REALM): from_password(name, REALM, PASSWORD) for name in names[:2]}
    assert await site.enrolled.find(wanted) == wanted
    site.text = f"{NEW},{OLD}"  # the file, as `ramal keys rotate` leaves it
    done: list[int] = []
    # A console that has the old key in hand seals a row meanwhile.
    site.keys.newest = lambda: Keyring.parsed(OLD)  # type: ignore[method-assign]
    (resealed, made) = await asyncio.gather(
        enrolling.reseal(site.database, Keyring.parsed(site.text), done.append),
        site.enroller.attempt(names[2], PASSWORD, PAGE),
    )
    assert resealed == []
    assert isinstance(made, Enrolment)
    wanted[names[2], REALM] = from_password(names[2], REALM, PASSWORD)
    assert await site.enrolled.find(wanted) == wanted
    await enrolling.reseal(site.database, Keyring.parsed(site.text), done.append)
    assert sum(done) == 6
    assert {row.key_id for row in await rows_of(site.database, list(wanted))} == {"e2"}
    assert await site.enrolled.find(wanted) == wanted
    site.text = NEW
    assert await EnrolledUsers(site.database, Keys(lambda: NEW)).find(wanted) == wanted


async def test_a23_whoever_enrols_is_noticed_once_and_again_and_then_no_more(site: Site) -> None:
    await site.watch.notice()
    await site.enroller.attempt("user-SSHA", PASSWORD, PAGE)
    for expected in (2, 4, 4):
        await site.watch.notice()
        assert len(site.anew) == expected
    assert set(site.anew) == {("user-SSHA", REALM), ("user-SSHA", OTHER)}
    site.at[0] += 1000
    await site.enroller.attempt("user-SSHA", PASSWORD, PAGE)
    await site.watch.notice()
    assert len(site.anew) == 6


async def test_a24_a_changed_password_retires_what_the_old_one_enrolled_and_a_new_enrolment_says_so(
    site: Site, directory: HashedDirectory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"changing-{kind}"
    directory.add(name, PASSWORD)
    keys = [(name, REALM), (name, OTHER)]
    await site.enroller.attempt(name, PASSWORD, PAGE)
    await site.watch.check()
    assert set(await site.enrolled.find(keys)) == set(keys)
    directory.change(name, telephoneNumber="4455")
    await site.watch.check()
    assert set(await site.enrolled.find(keys)) == set(keys)
    await asyncio.sleep(1.1)  # some directories' times are of whole seconds
    directory.change_password(name, "canary-new")
    await site.watch.check()
    assert await site.enrolled.find(keys) == {}
    [row, _] = await rows_of(site.database, keys)
    assert (row.retired_for, row.sealed) == (PASSWORD_CHANGED, ("", "", ""))
    assert "the user must enrol again" in caplog.text
    assert await site.enroller.attempt(name, PASSWORD, PAGE) == WrongPassword()
    again = await site.enroller.attempt(name, "canary-new", PAGE)
    assert again == Enrolment(name, (REALM, OTHER), "", PASSWORD_CHANGED)
    await site.watch.check()
    assert set(await site.enrolled.find(keys)) == set(keys)


async def test_a24_who_has_left_the_directory_is_retired_after_two_looks_and_many_at_once_are_not(
    site: Site, directory: HashedDirectory
) -> None:
    """The name may be somebody else's one day."""
    directory.add("leaver", PASSWORD)
    for name in ("leaver", "user-SSHA"):
        await site.enroller.attempt(name, PASSWORD, PAGE)
    directory.remove("leaver")
    for expected in ("", LEFT):
        await site.watch.check()
        [row] = await rows_of(site.database, [("leaver", REALM)])
        assert row.retired_for == expected
    for name in ("user-CRYPT", "user-ARGON2"):
        await site.enroller.attempt(name, PASSWORD, PAGE)
    site.ldap._domains = {}  # as with a mistake in the settings: nobody is found
    for _ in range(3):
        await site.watch.check()
    assert [row.retired_at for row in await rows_of(site.database, [("user-SSHA", REALM)])] == [0]


async def test_enrolment_without_a_directory_or_a_key_is_refused_at_the_start(
    directory: HashedDirectory, database: Database, log: Log
) -> None:
    for text, changed in (("", {}), (OLD, {"url": ""}), (OLD, {"domains": ("elsewhere.test",)})):
        with pytest.raises(ConfigError):
            Enroller(
                EnrolmentSettings(), directory.settings(**changed), DOMAINS, Keys(lambda text=text: text), database, log
            )
