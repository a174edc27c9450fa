"""`ramal user` in an embedded system is about the users file and about `subscriber`, where `ramal import` writes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from authsvc.users import enrolled
from authsvc.users import table as subscriber
from authsvc.users.file import UsersFile, list_users
from authsvc.users.ha1 import from_password
from authsvc.users.sealing import Keyring
from ramal import users
from ramal.cli import app
from ramal.directory import DATABASE, USERS
from ramal.system import System, system_at
from ramal.wording import local_time
from runtime.config import Sources

DAVE = ("dave", "example.test")


@pytest.fixture
async def system(tmp_path: Path) -> System:
    """With dave in the table, as an import leaves him, and carol in the file."""
    (tmp_path / DATABASE).touch()
    made = system_at(tmp_path, Sources.read({"RAMAL_DOMAIN": "example.test"}))
    await users.add(made, tmp_path, "carol", "example.test", "hers")
    assert await users.everyone(made, tmp_path) == [("carol", "example.test")]  # there are no tables yet
    async with made.tables() as tables:
        await tables.migrate()
        await subscriber.add_user(tables, *DAVE, "imported")
    return made


async def in_the_table(system: System) -> object:
    async with system.tables() as tables:
        return (await subscriber.SubscriberUsers(tables).find([DAVE])).get(DAVE)


async def test_users_of_both_are_listed_once(system: System, tmp_path: Path) -> None:
    assert await users.everyone(system, tmp_path) == [("carol", "example.test"), DAVE]
    await users.add(system, tmp_path, *DAVE, "another")
    assert await users.everyone(system, tmp_path) == [("carol", "example.test"), DAVE]


async def test_who_has_enrolled_is_listed_with_since_when_and_by_which_kind_and_no_secret(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authsvc.users.enrolled.PAGE", 1)
    ring = Keyring({"e1": bytes(32)})
    async with system.tables() as tables:
        for name, kind in (("eva", "generated"), ("zoe", "directory")):
            keys = [(name, "example.test")]
            await tables.transact([enrolled.enrolling(tables, ring, keys, "hush", kind, ("", ""), 1_700_000_000_000)])
        (row,) = await enrolled.rows_of(tables, [("zoe", "example.test")])
        await tables.transact([enrolled.retiring(row, "the password has changed", 1_700_000_060_000)])
    found = await users.listed(system, tmp_path)
    assert [(each.name, each.ours, each.enrolled is not None) for each in found] == [
        ("carol", True, False), ("dave", True, False), ("eva", False, True), ("zoe", False, True),
    ]  # fmt: skip
    monkeypatch.setattr("ramal.cli_users.run", lambda asked: asked.close() or found)
    monkeypatch.setenv("TZ", "UTC")
    words = ["user", "list", "--data", str(tmp_path)]
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    since = local_time(1_700_000_000_000)
    assert said.stdout.splitlines() == [
        "carol@example.test",
        "dave@example.test",
        f"eva@example.test  enrolled {since}: a password of our making",
        f"zoe@example.test  enrolled {since}, over since {local_time(1_700_000_060_000)}: the password has changed",
    ]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert told[2] == {
        "name": "eva", "domain": "example.test", "ours": False, "enrolled": since, "phone_password": "generated",
        "retired": None, "retired_for": None, "key": "e1", "directory": None, "disabled_by": None,
    }  # fmt: skip
    with_ldap = {"RAMAL_LDAP_URL": "ldaps://ldap.example.test", "RAMAL_LDAP_BASE": "o=x"}
    assert "the others only LDAP can list" in CliRunner(env=with_ldap).invoke(app, words).stderr


async def test_a_new_password_leaves_no_imported_one_behind(system: System, tmp_path: Path) -> None:
    await users.add(system, tmp_path, *DAVE, "another")
    file = UsersFile(tmp_path / USERS)
    file.refresh(0.0)
    assert await in_the_table(system) == file.get(DAVE) == from_password(*DAVE, "another")


@pytest.mark.parametrize("also_in_the_file", [False, True])
async def test_who_is_removed_is_in_no_source_any_more(system: System, tmp_path: Path, also_in_the_file: bool) -> None:
    if also_in_the_file:
        await users.add(system, tmp_path, *DAVE, "another")
    assert await users.remove(system, tmp_path, *DAVE)
    assert await in_the_table(system) is None
    assert list_users(tmp_path / USERS) == [("carol", "example.test")]
    assert not await users.remove(system, tmp_path, *DAVE)


async def test_a_new_user_goes_into_the_file_alone(system: System, tmp_path: Path) -> None:
    await users.remove(system, tmp_path, *DAVE)
    await users.add(system, tmp_path, *DAVE, "new")
    assert await in_the_table(system) is None


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({}, "RAMAL_LDAP_URL: passwords would cross the network readable"),
        ({"RAMAL_LDAP_INSECURE": "true", "RAMAL_LDAP_BIND_DN": "cn=ramal"}, "RAMAL_LDAP_BIND_PASSWORD: is not set"),
        ({"RAMAL_LDAP_INSECURE": "true"}, "the directory at ldap://127.0.0.1:1"),
    ],
)
async def test_a_directory_that_cannot_be_asked_leaves_all_else_known(
    variables: dict[str, str], why: str, tmp_path: Path
) -> None:
    (tmp_path / DATABASE).touch()
    asked = {"RAMAL_DOMAIN": "example.test", "RAMAL_LDAP_URL": "ldap://127.0.0.1:1", **variables}
    system = system_at(tmp_path, Sources.read(asked))
    await users.add(system, tmp_path, "carol", "example.test", "hers")
    found = await users.known(system, tmp_path, "carol", "example.test")
    assert found.in_file
    assert found.directory is not None
    assert (found.directory.state, found.directory.away.startswith(why)) == ("unknown", True)


async def test_users_of_a_domain_that_is_in_no_directory_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    variables = {"RAMAL_DOMAIN": "example.test", "RAMAL_LDAP_URL": "ldaps://127.0.0.1:1"}
    system = system_at(tmp_path, Sources.read({**variables, "RAMAL_LDAP_DOMAINS": "other.test"}))
    assert await users.directory_says(system, [("carol", "example.test")]) == {}
