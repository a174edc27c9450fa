"""Phones of users whose passwords the directory keeps as hashes: they register once their user has enrolled."""

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DOMAIN, System, start_up
from tests.kit.hashed_directory import SCHEMES, HashedDirectory, hashed_directory
from tests.kit.phone import Phone
from tests.kit.wire import link

pytestmark = pytest.mark.e2e

PASSWORD, NEW = "canary-right-ü", "canary-new-password"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HashedDirectory]:
    with hashed_directory(tmp_path_factory.mktemp("hashed")) as directory:
        for scheme in SCHEMES:
            directory.add(f"user-{scheme}", PASSWORD, scheme)
        yield directory


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, directory: HashedDirectory) -> Iterator[System]:
    """An embedded system with that directory."""
    environ = {**directory.variables(), "RAMAL_ENROLMENT_CHECK_SECONDS": "0.5", "RAMAL_LOG_LEVEL": "DEBUG"}
    domains = json.dumps({DOMAIN: {"algorithms": ["SHA-256", "MD5"]}})
    data = tmp_path_factory.mktemp("site") / "data"
    running, system = start_up(data, **environ, RAMAL_DOMAINS=domains)
    # What `ramal up` runs with is known to commands there, but for secrets.
    secret = {"RAMAL_LDAP_BIND_PASSWORD": environ["RAMAL_LDAP_BIND_PASSWORD"]}
    yield dataclasses.replace(system, environ={**system.environ, **secret})
    assert running.end() == 0
    # A25: over the whole run.
    said = running.log.read_text()
    assert "an enrolment is over: the user must enrol again" in said
    assert "canary" not in said
    kept = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"canary" not in kept


def phone(site: System, name: str, password: str) -> Phone:
    return Phone(link("udp", site.at[0]["udp"], site.authority), name, password, DOMAIN)


def enroll(site: System, name: str, password: str, *words: str, check: bool = True) -> str:
    done = site.ramal("enroll", name, "--password-file", "-", *words, given=f"{password}\n", check=check)
    assert password not in done.stdout + done.stderr
    return done.stdout + done.stderr


def soon(phone: Phone, wanted: int, seconds: float = 5) -> None:
    """What it hears within that time; before, its old answer."""
    deadline = time.monotonic() + seconds
    while (status := phone.registers(f"Contact: <{phone.contact}>").status) != wanted:
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a23_a_phone_registers_after_enrolment_whatever_the_hash(site: System, scheme: str) -> None:
    name = f"user-{scheme}"
    with phone(site, name, PASSWORD) as telephone:
        assert telephone.registers(f"Contact: <{telephone.contact}>").status == 401
        wrong = enroll(site, name, "wrong", check=False)
        assert "not the password" in wrong
        assert telephone.registers(f"Contact: <{telephone.contact}>").status == 401
        assert "with the directory's password" in enroll(site, name, PASSWORD)
        soon(telephone, 200)
    shown = json.loads(site.ramal("user", "show", name, "--json").stdout)
    assert (shown["phone_password"], shown["retired"], shown["key"]) == ("directory", None, "e1")


def test_a23_a_user_who_was_locked_out_may_log_in_as_soon_as_he_has_enrolled(
    site: System, directory: HashedDirectory
) -> None:
    directory.add("eager", PASSWORD)
    with phone(site, "eager", PASSWORD) as telephone:
        answers = [telephone.registers(f"Contact: <{telephone.contact}>").status for _ in range(12)]
        assert answers[-1] == 403
        enroll(site, "eager", PASSWORD)
        soon(telephone, 200)


def test_a_phone_password_of_our_making_registers_and_the_directorys_does_not(
    site: System, directory: HashedDirectory
) -> None:
    directory.add("careful", PASSWORD)
    told = enroll(site, "careful", PASSWORD, "--phone-password")
    [made] = re.findall(r"^ {4}((?:[a-z2-9]{4}-){5}[a-z2-9]{4})$", told, re.MULTILINE)
    with phone(site, "careful", made) as telephone, phone(site, "careful", PASSWORD) as another:
        soon(telephone, 200)
        assert another.registers(f"Contact: <{another.contact}>").status == 401


def test_keys_are_changed_while_phones_register(site: System, directory: HashedDirectory) -> None:
    directory.add("steady", PASSWORD)
    enroll(site, "steady", PASSWORD)
    with phone(site, "steady", PASSWORD) as telephone:
        soon(telephone, 200)
        before = json.loads(site.ramal("keys", "list", "--json").stdout)
        count = sum(each["enrolments"] for each in before)
        assert f"e2 seals; {count} enrolments were sealed anew" in site.ramal("keys", "rotate").stdout
        soon(telephone, 200, 0.1)
        after = json.loads(site.ramal("keys", "list", "--json").stdout)
        assert [each["id"] for each in after] == ["e2", *(each["id"] for each in before)]
        assert after[0]["enrolments"] == count
        assert "e2 seals" in site.ramal("keys", "forget", "e2", check=False).stderr
        site.ramal("keys", "forget", "e1")
    directory.add("later", PASSWORD)
    enroll(site, "later", PASSWORD)
    assert json.loads(site.ramal("user", "show", "later", "--json").stdout)["key"] == "e2"
    with phone(site, "later", PASSWORD) as telephone, phone(site, "steady", PASSWORD) as again:
        soon(telephone, 200)  # by a key that this authsvc has not seen before
        soon(again, 200)


def test_who_is_disabled_in_the_directory_or_gone_from_it_is_shown_so_though_he_has_enrolled(
    site: System, directory: HashedDirectory
) -> None:
    directory.add("leaving", PASSWORD)
    enroll(site, "leaving", PASSWORD)
    assert "phones log in with the directory's password." in site.ramal("user", "show", "leaving").stdout
    ignorant = dataclasses.replace(site, environ={})
    assert "in use is unknown: RAMAL_LDAP_BIND_PASSWORD" in ignorant.ramal("user", "show", "leaving").stdout

    directory.change("leaving", pwdAccountLockedTime="000001010000Z")
    told = site.ramal("user", "show", "leaving").stdout
    assert "disabled the account (pwdAccountLockedTime): phones cannot log in." in told
    assert "password once the directory has the account in use." in told
    shown = json.loads(site.ramal("user", "show", "leaving", "--json").stdout)
    assert (shown["sources"], shown["directory"]) == (["LDAP"], "disabled")
    assert shown["disabled_by"] == "pwdAccountLockedTime"
    assert re.search(r"^leaving@.*, disabled in the directory$", site.ramal("user", "list").stdout, re.MULTILINE)

    directory.remove("leaving")
    assert "nor in the directory" in site.ramal("user", "show", "leaving").stdout


def test_a24_a_changed_password_ends_what_the_old_one_enrolled_and_it_is_said_how_to_enrol_again(
    site: System, directory: HashedDirectory
) -> None:
    directory.add("changing", PASSWORD)
    enroll(site, "changing", PASSWORD)
    with phone(site, "changing", PASSWORD) as telephone:
        soon(telephone, 200)
        time.sleep(1.1)
        directory.change_password("changing", NEW)
        soon(telephone, 401, 10)
    told = site.ramal("user", "show", "changing").stdout
    assert "the password has changed" in told
    assert "ramal enroll" in told
    enroll(site, "changing", PASSWORD, check=False)
    enroll(site, "changing", NEW)
    with phone(site, "changing", NEW) as telephone:
        soon(telephone, 200)


def test_r42_who_has_enrolled_and_left_the_directory_does_not_register(
    site: System, directory: HashedDirectory
) -> None:
    directory.add("leaver", PASSWORD)
    enroll(site, "leaver", PASSWORD)
    directory.remove("leaver")
    with phone(site, "leaver", PASSWORD) as telephone:
        assert telephone.registers(f"Contact: <{telephone.contact}>").status == 401
    assert Path(site.where[1], "enrolment-keys").stat().st_mode & 0o777 == 0o600
