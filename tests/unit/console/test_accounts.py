"""The operators' file: hashes alone, read again when it has changed, and lines that are none passed over."""

import os
from pathlib import Path

import pytest

from console.accounts import Accounts, add, is_right, listed, log_out, remove

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The line of an operator: made once, for hashes take their time."""
    path = tmp_path_factory.mktemp("operators") / "operators"
    add(path, "maria", "operator", PASSWORD)
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text()


def test_a_password_is_kept_as_an_argon2id_hash_and_verified_by_it(made: str, tmp_path: Path) -> None:
    path = tmp_path / "operators"
    path.write_text(made)
    (account,) = listed(path)

    assert (account.name, account.role) == ("maria", "operator")
    assert account.proof.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert PASSWORD not in made
    assert is_right(account, PASSWORD)
    assert not is_right(account, PASSWORD + " ")
    assert not is_right(None, "nobody's password")
    assert not is_right(account._replace(proof="$argon2id$broken"), PASSWORD)


def test_who_is_logged_out_has_another_proof_and_the_same_password_and_role(made: str, tmp_path: Path) -> None:
    path = tmp_path / "operators"
    path.write_text(made)
    seen = {listed(path)[0].proof}
    for count in (2, 3):
        assert log_out(path, "maria")
        (account,) = listed(path)
        seen.add(account.proof)
        assert (account.role, len(seen), len(path.read_text().splitlines())) == ("operator", count, 1)
        assert is_right(account, PASSWORD)
        assert not is_right(account, PASSWORD + " ")
    assert not log_out(path, "rui")


def test_an_operator_who_is_taken_away_is_gone_at_once(made: str, tmp_path: Path) -> None:
    path = tmp_path / "operators"
    accounts = Accounts(str(path))
    assert accounts.get("maria") is None
    path.write_text(made)
    assert accounts.get("maria")
    assert remove(path, "maria")
    assert not remove(path, "maria")
    assert accounts.get("maria") is None
    path.unlink()
    assert len(accounts) == 0


def test_a_file_that_cannot_be_read_lets_nobody_in(made: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "operators"
    path.write_text(made)
    accounts = Accounts(str(path))
    assert accounts.get("maria")
    path.unlink()
    path.mkdir()

    assert accounts.get("maria") is None
    assert "cannot be read" in caplog.text
    assert Accounts("").get("maria") is None


def test_a_line_that_is_no_operator_is_named_by_its_number_and_not_shown(
    made: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "operators"
    path.write_bytes(
        f"# who\n\nrui:root:$argon2id$x\nrui:operator:secret\n:operator:$argon2id$\n{made}".encode() + b"\xff:\n"
    )

    assert [account.name for account in listed(path)] == ["maria"]
    assert [getattr(record, "line", 0) for record in caplog.records] == [3, 4, 5, 7]
    assert "secret" not in caplog.text


def test_a_change_keeps_a_link_a_mode_and_the_lines_that_are_no_operator(made: str, tmp_path: Path) -> None:
    path, link = tmp_path / "there" / "operators", tmp_path / "operators"
    path.parent.mkdir()
    link.symlink_to(path)
    rui = made.replace("maria:operator", "rui:read-only")
    path.write_bytes(b"# who may: Jo\xe3o decides\n\n" + rui.encode() + b"gone:root:x\n" + made.encode())
    path.chmod(0o640)
    assert remove(link, "rui")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes() == b"# who may: Jo\xe3o decides\n\ngone:root:x\n" + made.encode()
    assert [each.name for each in path.parent.iterdir()] == ["operators"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_that_root_changes_stays_its_owners(made: str, tmp_path: Path) -> None:
    path = tmp_path / "operators"
    path.write_text(made)
    os.chown(path, 10001, 10002)
    add(path, "rui", "read-only", PASSWORD)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)
    os.chown(tmp_path, 10003, 10004)
    add(tmp_path / "first", "rui", "read-only", PASSWORD)
    assert ((tmp_path / "first").stat().st_uid, (tmp_path / "first").stat().st_gid) == (10003, 10004)


@pytest.mark.parametrize(
    ("name", "password", "why"),
    [
        ("", PASSWORD, "the name has letters"),
        ("a:b", PASSWORD, "the name has letters"),
        ("a\nb", PASSWORD, "the name has letters"),
        ("x" * 65, PASSWORD, "the name has letters"),
        ("maria", "short", "the password has fewer than 8"),
        ("maria", "x" * 257, "256"),
    ],
)
def test_a_name_or_password_that_is_none_is_refused(tmp_path: Path, name: str, password: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        add(tmp_path / "operators", name, "operator", password)
    assert list(tmp_path.iterdir()) == []
