"""The command line's manners: help with examples, one clear line for an error, nothing secret shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ramal.processes import free_port


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
    ("words", "environ", "says"),
    [
        (["edge"], {"RAMAL_PARTITIONS": "many"}, "RAMAL_PARTITIONS"),
        (["edge"], {}, "RAMAL_KEYS"),
        (["run", "edge", "proxy"], {}, "SERVICE: there is no proxy"),
        (["authsvc"], {"RAMAL_KEYS_FILE": "/nowhere/keys"}, "RAMAL_KEYS_FILE"),
        (["show", "sip:example.test"], {}, "AOR: 'sip:example.test'"),
        (["edge"], {"RAMAL_PARTITIONS": "0"}, "RAMAL_PARTITIONS: '0' is not a whole number from 1 to 10000"),
        (["show"], {"RAMAL_LOG_LEVEL": "loud"}, "RAMAL_LOG_LEVEL: 'loud' is none of DEBUG"),
        (["show"], {"RAMAL_DOMIAN": "a.test"}, "RAMAL_DOMIAN: there is no such setting; did you mean RAMAL_DOMAIN?"),
        (["config"], {"RAMAL_DOMAIN": ""}, "RAMAL_DOMAIN: '' is not a SIP domain"),
        (["config"], {"RAMAL_DOMAINS": '{"a b": {}}'}, "RAMAL_DOMAINS: 'a b' is not a SIP domain"),
        (["config"], {"RAMAL_DOMAINS": '{"a.test": {"algorithms": ["MD6"]}}'}, "'MD6'"),
        (["config"], {"RAMAL_AUTHSVC_PARKED": "-1"}, "RAMAL_AUTHSVC_PARKED: '-1' is not a whole number of at least 1"),
        (["user", "add", "eve@other.test"], {}, "NAME: the domain other.test is not served; served are example.test"),
        (["user", "remove", "eve@a.test", "--domain", "b.test"], {}, "is not of the domain b.test"),
        (["at", "noonish"], {}, "TIME: 'noonish'"),
        (["at", "2999-01-01 12:00"], {}, "is in the future"),
        (["show", "--data", "/nowhere"], {}, "--data /nowhere"),
        (["show", "eve@other.test"], {}, "AOR: the domain other.test is not served; served: example.test"),
        (["remove", "eve", "--domain", "other.test"], {}, "AOR: the domain other.test is not served"),
        (["up", "--domain", ""], {}, "--domain: '' is not a SIP domain"),
        (["up", "--domain", "a b"], {}, "--domain: 'a b' is not a SIP domain"),
        (["up", "--sip-port", "65535", "--self-signed"], {}, "--sip-port: SIP over TLS is at the next port"),
        (["up", "--tls", "/nowhere.pem", "/nowhere.key"], {}, "--tls /nowhere.pem /nowhere.key: [Errno 2] No such"),
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
    done = ramal(*words, RAMAL_KAFKA_BOOTSTRAP="127.0.0.1:1", RAMAL_MYSQL_PORT="1", RAMAL_SETUP_SECONDS="0")

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


def test_a_misspelt_section_of_the_file_is_named_with_what_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "ramal.toml").write_text("[kafak]\nbootstrap = 'kafka:9092'\n")

    done = ramal("config", RAMAL_CONFIG=str(tmp_path / "ramal.toml"))

    assert done.returncode == 2
    assert "kafak: there is no such section; did you mean kafka?" in done.stderr


def test_what_kubernetes_sets_for_a_service_called_ramal_mysql_does_no_harm() -> None:
    done = ramal(
        "config",
        RAMAL_MYSQL_PORT="tcp://10.96.0.7:3306",
        RAMAL_MYSQL_SERVICE_HOST="10.96.0.7",
        RAMAL_MYSQL_SERVICE_PORT="3306",
        RAMAL_MYSQL_PORT_3306_TCP_ADDR="10.96.0.7",
    )

    assert done.returncode == 0, done.stderr
    assert "port = 3306" in done.stdout
    assert not done.stderr


def test_a_variable_that_resembles_no_setting_is_said_and_counts_for_nothing() -> None:
    done = ramal("config", RAMAL_OF_SOMEBODY_ELSE="1")

    assert done.returncode == 0
    assert "RAMAL_OF_SOMEBODY_ELSE" in done.stderr


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with an embedded system's `ramal-data` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (tmp_path / "ramal-data").mkdir()
    (tmp_path / "ramal-data" / "ramal.db").touch()
    assert ramal("migrate").returncode == 0
    return tmp_path


def test_questions_beside_ramal_data_ask_it_and_say_so(beside: Path) -> None:
    done = ramal("show")

    assert (done.returncode, done.stdout) == (0, "Nobody is registered.\n")
    assert "--data ramal-data" in done.stderr


def test_settings_that_name_a_system_are_asked_before_the_directory_that_lies_here(beside: Path) -> None:
    done = ramal("show", RAMAL_MYSQL_PORT="1")

    assert done.returncode == 1
    assert "--data ramal-data" not in done.stderr


@pytest.mark.parametrize("words", [["dave@example.test"], ["dave", "--domain", "example.test"], ["dave"]], ids=" ".join)
def test_a_user_has_the_same_name_however_it_is_written(beside: Path, words: list[str]) -> None:
    assert ramal("user", "add", *words, "--password-stdin", given="s3cret\n").returncode == 0
    assert ramal("user", "list").stdout == "dave@example.test\n"
    assert "password" in ramal("user", "reset", *words).stdout
    assert "is not registered" in ramal("show", *words).stdout
    assert "never registered" in ramal("history", *words).stdout
    assert ramal("user", "remove", *words).returncode == 0
    assert ramal("user", "list").stdout == ""


def test_an_alias_is_added_listed_and_removed(beside: Path) -> None:
    done = ramal("alias", "add", "reception", "alice@example.test")
    assert done.returncode == 0
    assert "alice@example.test is in no table here: calls to the alias reach nobody" in done.stderr
    done = ramal(
        "alias", "add", "reception", "alice", RAMAL_LDAP_URL="ldaps://ldap.example.test", RAMAL_LDAP_BASE="o=x"
    )
    assert "alice@example.test is in no table here: calls reach him if LDAP has him" in done.stderr
    assert json.loads(ramal("alias", "list", "--json").stdout) == [
        {"alias": "reception@example.test", "user": "alice@example.test"}
    ]
    assert ramal("alias", "remove", "reception@example.test").returncode == 0
    assert ramal("alias", "remove", "reception").returncode == 2
    assert "no aliases" in ramal("alias", "list").stdout


def test_an_alias_that_would_never_ring_is_refused_or_told(beside: Path) -> None:
    """A user's own name counts before any alias."""
    for name in ("alice", "bob"):
        assert ramal("user", "add", name, "--password-stdin", given="x").returncode == 0
    for alias, says in (("alice", "is the user's own name"), ("bob@example.test", "is a user: calls to that name")):
        refused = ramal("alias", "add", alias, "alice")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert says in refused.stderr
    assert "is the user's own name" in ramal("alias", "add", "nobody", "nobody").stderr
    assert ramal("alias", "add", "desk", "alice").returncode == 0
    told = ramal("user", "add", "desk", "--password-stdin", given="x")
    assert "desk@example.test was an alias of alice@example.test; calls ring here now" in told.stderr


@pytest.mark.parametrize(
    "words",
    [["show"], ["history", "alice"], ["at", "00:00"], ["user", "list"], ["alias", "list"], ["config"], ["calls"],
     ["missed", "alice"], ["audit-cdrs"], ["forget", "alice", "--search"]],
    ids=" ".join,
)  # fmt: skip
def test_every_question_is_answered_as_json(beside: Path, words: list[str]) -> None:
    done = ramal(*words, "--json")

    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize(
    ("where", "says"),
    [("file", "there is a file of that name"), ("file/below", "there is a file of that name"), ("/proc/x", "/proc/x")],
)
def test_a_directory_that_cannot_be_one_is_named_in_one_line(tmp_path: Path, where: str, says: str) -> None:
    (tmp_path / "file").touch()
    ports = [f"--{what}-port={free_port()}" for what in ("sip", "page", "http")]
    done = ramal("up", "--data", str(tmp_path / where), *ports)

    assert done.returncode == 1
    assert done.stderr.startswith("ramal: /")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_a_domain_that_is_not_served_left_behind_can_be_asked_for(beside: Path) -> None:
    done = ramal("history", "alice@old.test")

    assert done.returncode == 0
    assert "the domain old.test is not served" in done.stderr
