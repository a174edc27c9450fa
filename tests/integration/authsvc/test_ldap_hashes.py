"""A password proved by bind, on a real OpenLDAP with TLS and hashes."""

import logging
import traceback
from collections.abc import Iterator

import pytest

from authsvc.users.ldap_connection import LdapUnavailable
from authsvc.users.ldap_people import LdapPeople, Person
from tests.kit.hashed_directory import SCHEMES, HashedDirectory, hashed_directory

pytestmark = pytest.mark.integration

CANARY = "canary-pässword ü)(*"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HashedDirectory]:
    with hashed_directory(tmp_path_factory.mktemp("hashed")) as directory:
        for scheme in SCHEMES:
            directory.add(f"user-{scheme}", CANARY, scheme)
        yield directory


async def proved(people: LdapPeople, name: str, password: str) -> Person | None:
    """Whoever enrols or logs in: found by the service's account, then bound as."""
    wanted = ("pwdChangedTime", "modifyTimestamp", "nothing")
    person = (await people.find([name], wanted)).get(name)
    return person if person and await people.is_right(person, password) else None


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a23_the_right_password_is_proved_whatever_hash_the_directory_holds(
    directory: HashedDirectory, scheme: str
) -> None:
    people = LdapPeople(directory.settings())
    name = f"user-{scheme}"
    found = await proved(people, name, CANARY)
    assert found is not None
    assert found.dn == f"uid={name},ou=Users,{directory.server.base}"
    assert found.attributes["pwdchangedtime"][0].endswith(b"Z")
    assert found.attributes["modifytimestamp"][0].endswith(b"Z")
    assert await proved(people, name, CANARY + "x") is None
    people.stop()


async def test_a20_nobody_is_bound_without_a_password_or_by_another_name(directory: HashedDirectory) -> None:
    people = LdapPeople(directory.settings())
    for name, password in (
        ("user-SSHA", ""),
        ("user-SSHA", "\x00"),
        ("user-SSHA", "\0" + CANARY),
        ("user-SSHA", "\xad"),
        ("user-SSHA", "\ud800"),
        ("USER-SSHA", CANARY),
        ("user-*", CANARY),
        ("user-SSHA)(uid=*", CANARY),
        ("nobody", CANARY),
        ("", CANARY),
        ("\x00", CANARY),
        ("\ud800", CANARY),
    ):
        assert await proved(people, name, password) is None, (name, password)
    people.stop()


async def test_a25_no_log_line_and_no_error_has_the_password(
    directory: HashedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    people, wrong = LdapPeople(directory.settings()), LdapPeople(directory.settings(bind_password="canary-service"))
    found = await proved(people, "user-CRYPT", CANARY)
    assert await proved(people, "user-CRYPT", "canary-wrong") is None
    with pytest.raises(LdapUnavailable) as caught:
        await proved(wrong, "user-CRYPT", CANARY)
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "canary" not in told + "".join(traceback.format_exception(caught.value)) + repr(found)
    people.stop()
    wrong.stop()
