"""`ramal operator`: who may log in to the console."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ramal.cli import app
from runtime.errors import ConfigError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a system has run."""
    (tmp_path / "ramal.db").touch()
    return tmp_path


def ask(*words: str, given: str | bytes = "", **environ: str) -> Result:
    return CliRunner(env=environ).invoke(app, ["operator", *words], input=given, catch_exceptions=False)


def test_an_operator_is_added_listed_and_removed(directory: Path) -> None:
    where = ("--data", str(directory))
    said = ask("add", "maria", "--role", "operator", "--password-stdin", *where, given="correct horse\n")
    assert said.stdout == "maria may log in to the console as operator.\n"
    ask("add", "rui", "--password-stdin", *where, given="battery staple\n")
    assert ask("list", *where).stdout == "maria operator\nrui read-only\n"
    assert json.loads(ask("list", "--json", *where).stdout)[1] == {"name": "rui", "role": "read-only"}
    assert "horse" not in (directory / "operators").read_text()
    before = (directory / "operators").read_text()
    assert ask("log-out", "maria", *where).stdout == "maria is logged out everywhere.\n"
    assert (directory / "operators").read_text() != before
    assert ask("remove", "maria", *where).exit_code == 0
    assert ask("list", *where).stdout == "rui read-only\n"


def test_the_settings_name_the_file_where_no_directory_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "etc" / "operators"
    ask("add", "rui", "--password-stdin", given="battery staple\n", RAMAL_CONSOLE_OPERATORS_FILE=str(file))
    assert file.read_text().startswith("rui:read-only:$argon2id$")


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        (("add", "maria", "--role", "root", "--password-stdin"), "correct horse", "--role: 'root' is none of"),
        (("add", "a:b", "--password-stdin"), "correct horse", "^the name has letters"),
        (("add", "maria", "--password-stdin"), "short", "^the password has fewer than 8"),
        (("add", "maria", "--password-stdin"), b"caf\xe9 au lait\n", "^the password is not UTF-8"),
        (("log-out", "nobody"), "", "NAME: there is no operator nobody in the file"),
        (("remove", "nobody"), "", "NAME: there is no operator nobody"),
    ],
)
def test_what_is_wrong_is_named(directory: Path, words: tuple[str, ...], given: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ask(*words, "--data", str(directory), given=given)


def test_without_a_file_it_says_which_setting_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="RAMAL_CONSOLE_OPERATORS_FILE: is not set"):
        ask("list")
    with pytest.raises(ConfigError, match="there is no Ramal there"):
        ask("list", "--data", str(tmp_path / "nowhere"))
