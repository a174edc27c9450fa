"""`ramal user` in an embedded system is about the users file and about `subscriber`, where `ramal import` writes."""

from pathlib import Path

import pytest

from authsvc.users import table as subscriber
from authsvc.users.file import UsersFile, list_users
from authsvc.users.ha1 import from_password
from ramal import users
from ramal.directory import DATABASE, USERS
from ramal.system import System, system_at
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
