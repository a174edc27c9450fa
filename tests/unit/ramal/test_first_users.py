"""Who the first users of `ramal up` are, and what becomes of a users file that is not there (R42)."""

from pathlib import Path

import pytest

from authsvc.users.file import list_users
from ramal import up
from ramal.directory import USERS, first_passwords, remember_settings
from ramal.system import embedded
from runtime.config import Sources

LDAP = {"RAMAL_LDAP_URL": "ldaps://ldap.example.test", "RAMAL_LDAP_BASE": "o=x"}


def start(directory: Path, environ: dict[str, str]) -> None:
    """The part of a start that is about users."""
    up._first_users(directory, embedded(directory, up.settings(directory, Sources.read(environ))))
    remember_settings(directory, {"": {"domain": "example.test"}})


@pytest.mark.parametrize(("environ", "users"), [({}, ["alice", "bob"]), (LDAP, [])], ids=["alone", "with LDAP"])
def test_r42_a_new_directory_has_a_users_file_and_one_that_is_gone_later_is_not_made_anew(
    tmp_path: Path, environ: dict[str, str], users: list[str]
) -> None:
    start(tmp_path, environ)
    file = tmp_path / USERS
    assert [name for name, _ in list_users(file)] == sorted(first_passwords(tmp_path)) == users
    assert file.stat().st_mode & 0o777 == 0o600
    start(tmp_path, environ)
    assert [name for name, _ in list_users(file)] == users
    file.unlink()
    start(tmp_path, environ)
    assert not file.exists()
