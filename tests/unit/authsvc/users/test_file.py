"""authsvc.users.file and config: htdigest's format, written whole, read again when it has changed."""

import logging
import os
import threading
from pathlib import Path

import pytest

from authsvc.config import AuthSettings, LdapSettings
from authsvc.users.file import CHECK_SECONDS, UsersFile, add_user, list_users, remove_user
from authsvc.users.ha1 import User, from_ha1s, from_password
from runtime.config import Secret
from runtime.errors import ConfigError


def test_users_are_added_listed_changed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "data" / "users"
    assert list_users(path) == []
    add_user(path, "bob", "example.test", "one")
    add_user(path, "alice", "example.test", "two")
    add_user(path, "bob", "example.test", "three")
    assert list_users(path) == [("alice", "example.test"), ("bob", "example.test")]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["users"]
    file = UsersFile(path)
    file.refresh(0)
    assert file.get(("bob", "example.test")) == from_password("bob", "example.test", "three")
    assert remove_user(path, "bob", "example.test")
    assert not remove_user(path, "bob", "example.test")
    assert list_users(path) == [("alice", "example.test")]


def test_a25_the_password_is_not_in_the_file(tmp_path: Path) -> None:
    add_user(tmp_path / "users", "alice", "example.test", "canary-password")
    assert "canary" not in (tmp_path / "users").read_text()


def test_a_change_is_seen_when_the_file_is_next_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "users"
    file = UsersFile(path)
    file.refresh(0)
    assert file.get(("alice", "example.test")) is None
    add_user(path, "alice", "example.test", "one")
    file.refresh(CHECK_SECONDS / 2)
    assert file.get(("alice", "example.test")) is None
    file.refresh(CHECK_SECONDS)
    assert file.get(("alice", "example.test")) == from_password("alice", "example.test", "one")
    path.unlink()
    file.refresh(2 * CHECK_SECONDS)
    assert file.get(("alice", "example.test")) is None


def test_htdigests_own_lines_are_read_and_what_is_no_user_is_named_by_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "users"
    path.touch(mode=0o600)
    path.write_text(f"# people\nalice:example.test:{'A' * 32}\n\nbob:example.test:canary\ncarol\n")
    file = UsersFile(path)
    with caplog.at_level(logging.WARNING):
        file.refresh(0)
    assert file.get(("alice", "example.test")) == from_ha1s({"MD5": "a" * 32})
    assert file.get(("bob", "example.test")) is None
    assert [record.__dict__["line"] for record in caplog.records] == [4, 5]
    assert "canary" not in caplog.text


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "users"
    add_user(path, "alice", "example.test", "one")
    path.chmod(0o644)
    UsersFile(path).refresh(0)
    assert "others may read" in caplog.text


@pytest.mark.parametrize(("name", "realm"), [("a:b", "x"), ("a\nb", "x"), ("", "x"), ("a", "")])
def test_a_name_that_the_format_has_no_room_for_is_refused(tmp_path: Path, name: str, realm: str) -> None:
    with pytest.raises(ValueError, match="no colon"):
        add_user(tmp_path / "users", name, realm, "one")
    assert not (tmp_path / "users").exists()


def test_two_writers_lose_no_user(tmp_path: Path) -> None:
    path = tmp_path / "users"

    def write(writer: int) -> None:
        for number in range(10):
            add_user(path, f"u{writer}-{number}", "example.test", "p")

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list_users(path)) == 30


def test_a_user_completed_by_another_keeps_its_own_ha1s() -> None:
    one, other = User(md5="a" * 32), User(md5="b" * 32, sha256="c" * 64)
    assert one.completed(other) == User(md5="a" * 32, sha256="c" * 64)
    assert not one.has_all(("MD5", "SHA-256"))


def test_a21_passwords_never_cross_the_network_readable_unless_a_setting_says_so() -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_INSECURE"):
        LdapSettings(url="ldap://127.0.0.1").check()
    LdapSettings(url="ldap://127.0.0.1", insecure=True).check()
    LdapSettings(url="ldap://ldap.example.test", starttls=True).check()
    LdapSettings(url="ldaps://ldap.example.test").check()
    with pytest.raises(ConfigError, match="RAMAL_LDAP_URL"):
        LdapSettings(url="http://ldap.example.test").check()
    for url in ("ldaps://cn=ramal:canary@ldap.example.test", "ldaps://[::1"):
        with pytest.raises(ConfigError, match="RAMAL_LDAP_URL") as caught:
            LdapSettings(url=url).check()
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["shadowexpire", "memberOf"])
def test_an_attribute_that_disables_nobody_is_refused_at_start(name: str) -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_DISABLED_BY"):
        LdapSettings(url="ldaps://ldap.example.test", disabled_by=(name,)).check()


def test_a20_a_bind_with_a_name_and_no_password_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="RAMAL_LDAP_BIND_PASSWORD"):
        LdapSettings(url="ldaps://ldap.example.test", bind_dn="cn=ramal").check()


def test_a25_settings_do_not_show_the_bind_password() -> None:
    assert "canary" not in repr(LdapSettings(bind_password=Secret("canary")))
    assert AuthSettings().subscriber


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_that_root_changes_stays_its_owners_and_private_and_a_link_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "users", tmp_path / "link"
    add_user(path, "alice", "example.test", "a secret")
    os.chown(path, 10001, 10002)
    path.chmod(0o644)
    link.symlink_to(path)
    add_user(link, "bob", "example.test", "another")
    assert link.is_symlink()
    assert [name for name, _ in list_users(path)] == ["alice", "bob"]
    there = path.stat()
    assert (there.st_uid, there.st_gid, there.st_mode & 0o777) == (10001, 10002, 0o600)
