"""compose.yaml and what stands beside it, by reading alone: settings exist, nothing is secret or privileged."""

import json
import os
import re
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from authsvc.users.sealing import Keyring
from edge.core.deny import Denied
from ramal.system import SERVICES, section_kinds, sections
from runtime.config import Secret, Sources
from tests.kit.compose_file import DEFAULTS, PATH, ROOT, ours, program, read

DOCUMENT = read()
OURS = ours(DOCUMENT)
JOBS = {"topics", "migrate"}
TO_PHONES = {"edge-1", "edge-2"}


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service["environment"].items()}


def test_every_service_of_the_system_runs_and_two_edges() -> None:
    assert {program(service) for service in OURS.values()} == {*SERVICES, *JOBS}
    assert sum(program(service) == "edge" for service in OURS.values()) == 2


@pytest.mark.parametrize("name", OURS)
def test_every_setting_in_it_exists_and_has_a_value_that_the_service_takes(name: str, tmp_path: Path) -> None:
    environ = settings_of(OURS[name])
    for variable, path in environ.items():
        if variable.endswith("_FILE"):
            mounted = [volume.partition(":")[2] for volume in OURS[name].get("volumes", ())]
            given = path.removeprefix("/run/secrets/") in OURS[name]["secrets"] or str(Path(path).parent) in mounted
            assert given, "the container is not given this file"
            (tmp_path / Path(path).name).write_text("k1:" + "ab" * 16)
            environ[variable] = str(tmp_path / Path(path).name)
    sources = Sources(environ, {})
    assert not sources.check_names(section_kinds())
    assert sections(sources)


def test_both_edges_say_where_phones_and_other_edges_reach_them() -> None:
    for name in TO_PHONES:
        edge = sections(Sources(settings_of(OURS[name]) | {"RAMAL_KEYS_FILE": "", "RAMAL_MYSQL_PASSWORD_FILE": ""}, {}))
        config: Any = edge["edge"]
        published = {port.rpartition(":")[0] for port in OURS[name]["ports"]}
        assert {address.rpartition(":")[2] for address in config.advertised.values()} == published
        assert config.edges_advertised == f"{name}:{config.edges.rpartition(':')[2]}"


def test_s10_no_phone_can_have_an_edge_speak_to_a_container_but_phones_on_this_machine_are_reached() -> None:
    network = DOCUMENT["networks"]["default"]["ipam"]["config"][0]
    subnet, containers = ip_network(network["subnet"]), ip_network(network["ip_range"])
    denied = Denied([settings_of(OURS["edge-1"])["RAMAL_EDGE_DENY"]])
    assert all(denied.refuses(str(address)) for address in containers)
    gateway = ip_address(network["gateway"])
    assert gateway in subnet
    assert gateway not in containers
    assert not denied.refuses(str(gateway))


def test_nothing_secret_stands_in_the_file() -> None:
    secret = {
        f"RAMAL_{section.upper()}_{key}" if section else f"RAMAL_{key}"
        for section, kind in section_kinds().items()
        for key in (name.upper() for name, field in kind.__annotations__.items() if field is Secret)
    }
    assert "RAMAL_MYSQL_PASSWORD" in secret
    for name, service in DOCUMENT["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            assert variable not in secret, (name, variable)
            if re.search("PASSWORD|SECRET|KEYS", variable):
                assert str(value).startswith("/run/") or value == "yes", (name, variable)


@pytest.mark.parametrize("name", DOCUMENT["services"])
def test_every_container_is_bounded_and_can_gain_nothing(name: str) -> None:
    service = DOCUMENT["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name in JOBS else "unless-stopped")
    assert service["logging"]["options"]["max-size"], "a log without bound fills the disk"
    assert re.search(r":\w*\d", service["image"]) or service["image"].endswith(":dev"), "an image without a version"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_nobody_on_a_root_that_cannot_be_written_to(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    if name not in JOBS:
        assert service["healthcheck"]["test"][-1] == "/readyz"
        assert service["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
        assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_only_edges_are_open_to_the_outside() -> None:
    for name, service in DOCUMENT["services"].items():
        for port in service.get("ports", []):
            assert name in TO_PHONES or port.startswith("127.0.0.1:"), (name, port)


def test_who_can_be_scaled_has_no_name_or_port_that_a_second_one_would_take() -> None:
    for name in ("authsvc", "registrar", "locator", "cdr"):
        assert "RAMAL_NAME" not in OURS[name]["environment"]
        assert "container_name" not in OURS[name]
        assert "ports" not in OURS[name]
        assert 'RAMAL_NAME="$0-$(hostname)"' in OURS[name]["entrypoint"][2]


@pytest.mark.parametrize(
    ("path", "metric"),
    [
        ("prometheus/rules/ramal.yml", r"\bup"),
        ("grafana/dashboards/ramal.json", "process_cpu_seconds_total"),
        ("grafana/dashboards/ramal.json", "process_resident_memory_bytes"),
    ],
)
def test_every_service_is_missed_when_it_is_away_and_is_on_the_board(path: str, metric: str) -> None:
    text = (ROOT / "deploy" / path).read_text()
    named = re.findall(metric + r'\{service=~?\\?"([a-z|]+)', text)
    assert {name for each in named for name in each.split("|")} == set(SERVICES)


def test_prometheus_asks_every_service_of_ours() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    asked = {
        name for job in config["scrape_configs"] for each in job.get("dns_sd_configs", []) for name in each["names"]
    }
    assert asked == OURS.keys() - JOBS


def test_grafana_is_given_the_board_and_the_prometheus_that_the_board_asks() -> None:
    grafana = DOCUMENT["services"]["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    provisioning = ROOT / mounted["/etc/grafana/provisioning"]  # where Grafana looks
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "ramal.yaml").read_text())["providers"]
    board = json.loads((ROOT / mounted[provider["options"]["path"]] / "ramal.json").read_text())
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert DOCUMENT["services"]["prometheus"]["ports"][0].endswith(":9090")


def test_every_file_that_is_mounted_is_there() -> None:
    for service in DOCUMENT["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./secrets/"):
                assert f"mkdir -p {source.removeprefix('./')}" in (ROOT / "deploy" / "make-secrets").read_text()
            else:
                assert (ROOT / source).is_dir() if source.startswith("./") else source in DOCUMENT["volumes"]


# --- make secrets ------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory in which deploy/make-secrets has run once."""
    make_secrets(tmp_path)
    return tmp_path


def make_secrets(directory: Path) -> str:
    command = ["sh", str(ROOT / "deploy" / "make-secrets"), str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_make_secrets_writes_what_compose_reads_for_its_owner_alone(made: Path) -> None:
    for file in (*(secret["file"] for secret in DOCUMENT["secrets"].values()), "secrets/enrolment/keys"):
        assert (made / file).stat().st_mode & 0o777 == 0o600
        assert (made / file).read_text()
    assert {path.stat().st_mode & 0o777 for path in (made / "secrets").rglob("*") if path.is_dir()} == {0o700}
    assert (made / ".env").stat().st_mode & 0o777 == 0o600
    lines = [line for line in (made / ".env").read_text().splitlines() if not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    assert variables.keys() == {*DEFAULTS, "COMPOSE_PROFILES"}
    assert ip_address(variables["HOST_ADDRESS"])
    assert variables["SERVICE_UID"] != "0"
    assert (made / "secrets" / "keys").stat().st_uid == int(variables["SERVICE_UID"])
    # With exactly these the file is whole.
    assert read(variables)["services"].keys() == DOCUMENT["services"].keys()
    keys = sections(Sources({"RAMAL_KEYS_FILE": str(made / "secrets" / "keys")}, {}))[""]
    assert re.fullmatch(r"k1:[0-9a-f]{64}", getattr(keys, "keys"))  # noqa: B009  # a Secret, not dict.keys
    assert Keyring.parsed((made / "secrets" / "enrolment" / "keys").read_text()).sealing == "e1"


def test_make_secrets_never_changes_what_is_there(made: Path) -> None:
    (made / "secrets" / "keys").write_text("mine")
    (made / "secrets" / "ldap.password").unlink()
    before = {path: path.read_text() for path in made.rglob("*") if path.is_file()}
    said = make_secrets(made)
    assert {path: path.read_text() for path in before} == before
    assert "made secrets/ldap.password" in said
    assert said.count("made ") == 1


def test_sample_users_have_passwords_of_their_own_and_one_is_kept_as_ssha(made: Path) -> None:
    users = [line.split() for line in (made / "secrets" / "ldap.users").read_text().splitlines()]
    assert {kept for _, kept, _, _ in users} == {"clear", "ssha"}
    assert len({password for *_, password in users}) == len(users)
    assert len({number for _, _, number, _ in users}) == len(users)


def test_what_make_secrets_writes_is_kept_out_of_git_and_out_of_the_image() -> None:
    if shutil.which("git") and (ROOT / ".git").exists():
        names = [".env", *(secret["file"] for secret in DOCUMENT["secrets"].values())]
        ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ignored.stdout.split() == names
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert not any(line.startswith(("!secrets", "!.env", "!deploy")) for line in lines)


def test_compose_says_what_to_do_where_secrets_were_not_made() -> None:
    assert re.search(r"\$\{HOST_ADDRESS:\?run make secrets first\}", PATH.read_text())
    with pytest.raises(KeyError):
        read({})


def test_the_image_is_told_its_version_by_the_package() -> None:
    """The label would otherwise be another place to forget."""
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    label = re.search(r"^ARG VERSION=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert version
    assert label
    assert label[1] == version[1]


def test_every_package_is_in_the_image() -> None:
    wanted = set(
        re.findall(r'"(\w+)\*"', (ROOT / "pyproject.toml").read_text().partition("[tool.setuptools")[2].split("]")[1])
    )
    context = (ROOT / ".dockerignore").read_text()
    assert wanted
    assert all(f"!{package}/" in context for package in wanted)
    assert os.access(ROOT / "deploy" / "make-secrets", os.X_OK)
