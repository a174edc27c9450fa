"""The command line's manners: help with examples, one clear line for an error, nothing secret shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ramal.cli import app

COMMANDS = sorted(command.name or "" for command in app.registered_commands)
USER_COMMANDS = ["add", "list", "remove"]


def ramal(*words: str, given: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command in a clean environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAMAL_")}
    return subprocess.run(
        [sys.executable, "-m", "ramal", *words],
        env={**kept, "COLUMNS": "200", **environ},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "words", [[name] for name in COMMANDS] + [["user", name] for name in USER_COMMANDS], ids=" ".join
)
def test_every_command_has_help_with_an_example(words: list[str]) -> None:
    done = ramal(*words, "--help")

    assert done.returncode == 0
    assert "Example: " in done.stdout
    assert f"ramal {' '.join(words)}" in done.stdout


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (["edge"], {"RAMAL_PARTITIONS": "many"}, "RAMAL_PARTITIONS"),
        (["edge"], {}, "RAMAL_KEYS"),
        (["run", "edge", "proxy"], {}, "SERVICE: there is no proxy"),
        (["authsvc"], {"RAMAL_KEYS_FILE": "/nowhere/keys"}, "RAMAL_KEYS_FILE"),
        (["show", "alice"], {}, "AOR: 'alice'"),
        (["at", "noonish"], {}, "TIME: 'noonish'"),
        (["at", "2999-01-01 12:00"], {}, "is in the future"),
        (["show", "--data", "/nowhere"], {}, "--data /nowhere"),
        (["tail", "gossip"], {"RAMAL_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "TOPIC: there is no gossip"),
        (["user", "add", "carol"], {}, "--password-stdin"),
        (["config"], {"RAMAL_CONFIG": "/nowhere.toml"}, "/nowhere.toml"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_in_one_line(words: list[str], environ: dict[str, str], says: str) -> None:
    done = ramal(*words, **environ)

    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["topics"], ["show"], ["migrate"], ["tail", "audit"]], ids=" ".join)
def test_a_backend_that_is_away_is_said_in_one_line(words: list[str]) -> None:
    done = ramal(*words, RAMAL_KAFKA_BOOTSTRAP="127.0.0.1:1", RAMAL_MYSQL_PORT="1")

    assert done.returncode == 1
    assert done.stderr.startswith("ramal: ")
    assert "Traceback" not in done.stderr


def test_config_shows_what_is_in_force_but_no_secret() -> None:
    done = ramal("config", RAMAL_KEYS="k1:" + "ab" * 32, RAMAL_MYSQL_PASSWORD="hush", RAMAL_DOMAIN="corp.example")

    assert done.returncode == 0
    assert 'domain = "corp.example"' in done.stdout
    assert 'keys = "***"' in done.stdout
    assert "hush" not in done.stdout
    assert "abab" not in done.stdout


def test_config_is_a_ramal_toml(tmp_path: Path) -> None:
    shown = ramal(
        "config", RAMAL_DOMAIN="corp.example", RAMAL_DOMAINS='{"b.example": {"algorithms": ["SHA-256"]}}'
    ).stdout
    (tmp_path / "ramal.toml").write_text(shown)

    again = ramal("config", RAMAL_CONFIG=str(tmp_path / "ramal.toml"))

    assert again.stdout == shown
    assert "b.example" in shown


def test_a_password_is_read_from_standard_input_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    (tmp_path / "ramal.db").touch()
    done = ramal("user", "add", "carol", "--data", str(tmp_path), "--password-stdin", given="a secret phrase\n")

    assert done.returncode == 0, done.stderr
    users = tmp_path / "users.htdigest"
    assert users.read_text().startswith("carol:example.test:")
    assert "phrase" not in users.read_text() + done.stdout + done.stderr
    assert ramal("user", "list", "--data", str(tmp_path)).stdout == "carol@example.test\n"
