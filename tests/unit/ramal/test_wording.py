"""What an operator types, and what settings count."""

import io
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from ramal.directory import generated_keys
from ramal.system import exported, with_settings
from ramal.users import readable_password
from ramal.wording import aor, listing, name_and_domain, new_name, one_day, point_in_time
from runtime.config import Common, Sources, hmac_keys


@pytest.mark.parametrize("text", ["alice@example.test", "sip:alice@example.test", "SIP:alice@EXAMPLE.test;x=y"])
def test_an_aor_is_typed_with_or_without_sip(text: str) -> None:
    assert aor(text) == "alice@example.test"


@pytest.mark.parametrize("text", ["", "alice", "@example.test", "tel:+4912345", "alice@", "sip:example.test"])
def test_what_is_no_aor_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="not an address-of-record"):
        aor(text)


HERE = datetime.fromtimestamp(1773154800, UTC).astimezone().tzinfo
NOW = datetime(2026, 3, 10, 15, 0, tzinfo=HERE)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("14:05", datetime(2026, 3, 10, 14, 5, tzinfo=HERE)),
        ("today 9:30", datetime(2026, 3, 10, 9, 30, tzinfo=HERE)),
        ("yesterday 14:05", datetime(2026, 3, 9, 14, 5, tzinfo=HERE)),
        ("Yesterday 14:05:59", datetime(2026, 3, 9, 14, 5, 59, tzinfo=HERE)),
        ("yesterday", datetime(2026, 3, 9, tzinfo=HERE)),
        ("Today", datetime(2026, 3, 10, tzinfo=HERE)),
        ("yesterday UTC", NOW.astimezone(UTC).replace(hour=0, minute=0) - timedelta(days=1)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=HERE)),
        ("2026-03-01 14:05", datetime(2026, 3, 1, 14, 5, tzinfo=HERE)),
        ("2026-03-01T14:05:00Z", datetime(2026, 3, 1, 14, 5, tzinfo=UTC)),
        ("2026-03-01 14:05 UTC", datetime(2026, 3, 1, 14, 5, tzinfo=UTC)),
        ("2026-03-01 utc", datetime(2026, 3, 1, tzinfo=UTC)),
        ("14:05Z", NOW.astimezone(UTC).replace(hour=14, minute=5)),
        ("yesterday 14:05 UTC", NOW.astimezone(UTC).replace(hour=14, minute=5) - timedelta(days=1)),
        ("2026-03-01T14:05:00+02:00", datetime(2026, 3, 1, 12, 5, tzinfo=UTC)),
    ],
)
def test_a_time_is_typed_as_people_say_it(text: str, moment: datetime) -> None:
    assert point_in_time(text, NOW) == moment
    assert point_in_time(text, NOW).utcoffset() is not None


@pytest.mark.parametrize("text", ["", "UTC", "25:00", "12:60", "tomorrow 14:05", "noon", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        point_in_time(text, NOW)


def test_a_shell_is_given_every_setting_in_force_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMAL_DOMAIN", "ufsc.example")  # set before, so the stack runs with it too
    (tmp_path / "ramal.toml").write_text("[edge]\nrelay = false\n[registrar]\nmax_contacts = 3\n")
    (tmp_path / "secret").write_text("x")
    sources = with_settings(Sources.read(), {}, {"RAMAL_KEYS_FILE": "secret", "RAMAL_LDAP_BASE": "ou=a b,o='x'"})
    text = ["sh", "-c", f"cd /; {exported(sources)}env"]
    shell = subprocess.run(text, capture_output=True, text=True, check=True, env={})
    environ = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    there = Sources.read(environ)
    assert there.section(Common).domain == "ufsc.example"
    assert there.file == sources.file
    assert environ["RAMAL_KEYS_FILE"] == str(tmp_path / "secret")
    assert environ["RAMAL_LDAP_BASE"] == "ou=a b,o='x'"


def test_options_win_over_the_environment_and_that_over_the_file_and_that_over_our_defaults() -> None:
    given = Sources({"RAMAL_NAME": "environment", "RAMAL_HTTP_PORT": "1"}, {"log_level": "ERROR"})
    defaults = {"name": "default", "log_level": "DEBUG", "partitions": 9, "http_port": 8080}

    common = with_settings(given, defaults, {"RAMAL_HTTP_PORT": "2", "RAMAL_DOMAIN": None}).section(Common)

    assert common.name == "environment"
    assert common.log_level == "ERROR"
    assert common.partitions == 9
    assert common.http_port == 2
    assert common.domain == "example.test"


def test_keys_are_made_once_and_are_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = generated_keys(path)

    assert generated_keys(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(hmac_keys(keys)["k1"]) == 32


def test_passwords_can_be_read_out_and_differ() -> None:
    passwords = {readable_password() for _ in range(100)}

    assert len(passwords) == 100
    assert all(password.replace("-", "").isalpha() and len(password) == 19 for password in passwords)


def test_a_day_is_the_local_one_or_with_its_name_that_of_utc() -> None:
    for text, zone in (("2026-03-01", HERE), ("2026-03-01 UTC", UTC), ("2026-03-01Z", UTC)):
        begin, end = one_day(text, NOW)
        assert begin == datetime(2026, 3, 1, tzinfo=zone)
        assert end == datetime(2026, 3, 2, tzinfo=zone)
    assert one_day("", NOW)[0] == one_day("today", NOW)[0] == datetime(2026, 3, 10, tzinfo=HERE)
    assert one_day("Yesterday", NOW) == (datetime(2026, 3, 9, tzinfo=HERE), datetime(2026, 3, 10, tzinfo=HERE))


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Pacific/Kiritimati"])
def test_a_day_begins_at_the_operators_midnight(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        here = datetime(2026, 3, 10, 15, tzinfo=ZoneInfo(zone))
        begin, end = one_day("2026-03-01", here.astimezone())
        assert begin == datetime(2026, 3, 1, tzinfo=ZoneInfo(zone))
        assert end - begin == timedelta(days=1)
        assert one_day("2026-03-01 UTC", here.astimezone())[0] == datetime(2026, 3, 1, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_day_ends_where_the_clock_says_so() -> None:
    assert point_in_time("yesterday 23:59", NOW) + timedelta(minutes=1) == point_in_time("0:00", NOW)


@pytest.mark.parametrize("name", ["alice", "2800", "+554833812800", "*11", "maria.silva", "o'neill"])
def test_a_user_is_made_by_a_name_that_every_phone_can_be_told(name: str) -> None:
    assert new_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a@b", "ü", 'a"b', "a\nb", "a%20b", "<x>", "#1"])
def test_a_name_that_needs_escapes_is_refused_when_it_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a SIP address"):
        new_name(name)


LONG = "sip:alice@192.168.100.200:50600;transport=tcp;ob"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_address_is_broken_whatever_the_width_of_the_terminal(width: int) -> None:
    out = io.StringIO()
    rows = [("alice@example.test", LONG, "4 min 10 s", "tcp 203.0.113.77:50600", "edge-1", "Linphone/5.0 [belle]")]

    listing(Console(file=out, width=width), ("AOR", "Contact", "Ends in", "Reached from", "At edge", "Agent"), rows)

    assert all(cell in out.getvalue() for cell in rows[0])
    assert out.getvalue().count("\n") == (2 if width == 200 else 6)


@pytest.mark.parametrize("text", ["dave", "dave@Example.test", "sip:dave@example.test"])
def test_a_user_is_named_alike_however_it_is_written(text: str) -> None:
    assert name_and_domain(text, None, ["example.test", "b.test"]) == ("dave", "example.test")


@pytest.mark.parametrize(
    ("text", "domain"), [("dave@c.test", None), ("dave@b.test", "example.test"), ("@b.test", None)]
)
def test_a_user_of_a_foreign_domain_or_without_a_name_is_refused(text: str, domain: str | None) -> None:
    with pytest.raises(ValueError, match=r"domain|user"):
        name_and_domain(text, domain, ["example.test", "b.test"])
