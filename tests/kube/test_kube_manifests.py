"""The manifests in k8s/ as they are rendered: without a cluster, in every run (the short form of `make kube`)."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ramal.system import sections
from runtime.config import Sources, masked
from tests.kube.kube import PROJECT

K8S = PROJECT / "k8s"
OVERLAYS = ("dev", "here", "production")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "DaemonSet")
CLUSTER_WIDE = ("Namespace",)
PLACEHOLDER = "placeholder"
ALONE = ("analytics", "console", "kafka", "mysql")
"""What no phone waits for, or stands for something that is elsewhere in production: one pod each."""
Object = dict[str, Any]


@pytest.fixture(scope="module")
def rendered(kustomize: list[str]) -> dict[str, list[Object]]:
    """By overlay, its objects."""
    found = {}
    for overlay in OVERLAYS:
        done = subprocess.run(
            [*kustomize, str(K8S / "overlays" / overlay)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{overlay}: {done.stderr}"
        found[overlay] = [each for each in yaml.safe_load_all(done.stdout) if each]
    return found


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(objects: list[Object], *, ours: bool = True) -> dict[str, Object]:
    """The pod templates, by kind and name; of what runs our image, or of all."""
    found = {
        f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]
        for each in objects
        if each["kind"] in WORKLOADS
    }
    return {
        name: pod
        for name, pod in found.items()
        if not ours or pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ramal"
    }


def container(pod: Object) -> Object:
    (found,) = pod["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_01_every_overlay_renders_with_labels_and_a_namespace_on_every_object(
    rendered: dict[str, list[Object]], overlay: str
) -> None:
    objects = rendered[overlay]
    assert {"edge", "authsvc", "registrar", "locator", "cdr", "analytics", "console"} <= {
        o["metadata"]["name"] for o in objects
    }
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        assert each["kind"] in CLUSTER_WIDE or each["metadata"]["namespace"] == "ramal", name
        if each["kind"] not in ("ConfigMap", "Secret"):
            assert each["metadata"]["labels"]["app.kubernetes.io/part-of"].startswith("ramal"), name


def test_01_every_component_renders_in_an_overlay(kustomize: list[str], tmp_path: Path) -> None:
    """With rtpengine, which production leaves out since there is no official image."""
    names = sorted(path.name for path in (K8S / "components").iterdir())
    assert names == ["autoscaling", "monitoring", "network-policies", "rtpengine", "tls"]
    subprocess.run(["cp", "-r", K8S, tmp_path / "k8s"], check=True)
    overlay = tmp_path / "k8s" / "overlays" / "all"
    overlay.mkdir()
    components = [f"../../components/{name}" for name in names]
    (overlay / "kustomization.yaml").write_text(json.dumps({"resources": ["../../base"], "components": components}))
    done = subprocess.run([*kustomize, str(overlay)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    engine = one(objects, "DaemonSet", "rtpengine")
    assert engine["metadata"]["namespace"] == "ramal-media"  # "restricted" forbids hostNetwork
    assert engine["spec"]["template"]["spec"]["hostNetwork"]
    assert "replicas" not in one(objects, "StatefulSet", "edge")["spec"]  # they are the autoscaler's


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_01_no_secret_is_in_a_manifest(rendered: dict[str, list[Object]], overlay: str) -> None:
    """S09."""
    for each in rendered[overlay]:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Secret":
            decoded = [base64.b64decode(value).decode() for value in each["data"].values()]
            filled = [value for value in decoded if PLACEHOLDER not in value]
            assert not filled or not in_git(overlay), f"{name} is filled, in git"
            continue
        text = json.dumps(each)
        assert not re.search(r"RAMAL_(KEYS|\w+_PASSWORD)\b(?!_FILE)", text), name
        assert "secretKeyRef" not in text, f"{name}: secrets are files"


def in_git(overlay: str) -> bool:
    """Whether git has other files in secrets/ than placeholders."""
    directory = f"k8s/overlays/{overlay}/secrets"
    listed = subprocess.run(["git", "ls-files", directory], cwd=PROJECT, capture_output=True, text=True, check=True)
    for file in listed.stdout.split():
        said = subprocess.run(["git", "show", f"HEAD:{file}"], cwd=PROJECT, capture_output=True, text=True, check=False)
        if said.returncode == 0 and PLACEHOLDER not in said.stdout:
            return True
    return False


def test_01_secrets_in_git_are_placeholders_with_which_nothing_starts() -> None:
    assert not any(in_git(overlay) for overlay in OVERLAYS)


def test_make_secrets_fills_what_is_a_placeholder_and_changes_nothing_later(tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", K8S, tmp_path / "k8s"], check=True)
    overlays = tmp_path / "k8s" / "overlays"
    for overlay in ("dev", "production"):
        for file in (overlays / overlay / "secrets").iterdir():
            file.write_text(PLACEHOLDER)
    script = [tmp_path / "k8s" / "make-secrets", overlays]
    said = subprocess.run(script, capture_output=True, text=True, check=True, timeout=30)
    files = sorted(file for overlay in ("dev", "production") for file in (overlays / overlay / "secrets").iterdir())
    first = [file.read_text() for file in files]
    assert not any(PLACEHOLDER in text for text in first)
    assert len(set(first)) == len(first)
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * len(files)
    alice = re.search(r"user alice, password (\w+)", said.stderr)
    assert alice
    assert alice[1] not in "".join(first)
    subprocess.run(script, capture_output=True, check=True, timeout=30)
    assert [file.read_text() for file in files] == first


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_that_a_manifest_names_exists(rendered: dict[str, list[Object]], overlay: str) -> None:
    known = {
        f"RAMAL_{section.upper()}_{key.upper()}" if section else f"RAMAL_{key.upper()}"
        for section, settings in sections(Sources({}, {})).items()
        for key in masked(settings)
    }
    named = set(re.findall(r"\bRAMAL_[A-Z_]*[A-Z]\b", json.dumps(rendered[overlay])))
    assert named
    assert {name.removesuffix("_FILE") for name in named} - {name.removesuffix("_FILE") for name in known} == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_of_each_service_are_accepted_by_it(rendered: dict[str, list[Object]], overlay: str) -> None:
    (settings,) = [o["data"] for o in rendered[overlay] if o["kind"] == "ConfigMap"]
    for pod in pods(rendered[overlay]).values():
        values = {**settings, **{e["name"]: e.get("value", "x") for e in container(pod).get("env", ())}}
        given = {
            name: re.sub(r"\$\(\w+\)", "192.0.2.1", value)
            for name, value in values.items()
            if name.startswith("RAMAL_") and "_FILE" not in name
        }
        if given.get("RAMAL_KAFKA_SECURITY_PROTOCOL"):
            given["RAMAL_KAFKA_PASSWORD"] = "x"
        sections(Sources(given, {}))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_03_every_pod_is_what_pod_security_calls_restricted(rendered: dict[str, list[Object]], overlay: str) -> None:
    """S12."""
    namespace = one(rendered[overlay], "Namespace", "ramal")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(rendered[overlay], ours=False).items():
        spec, box = pod["spec"], container(pod)
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert box["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert not any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")), name
        assert {next(iter(v.keys() - {"name"})) for v in spec["volumes"]} <= {"secret", "projected", "emptyDir"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name  # a Service named ramal-mysql would set RAMAL_MYSQL_PORT
    for name, pod in pods(rendered[overlay]).items():
        assert container(pod)["securityContext"]["readOnlyRootFilesystem"], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_edge_drains_in_the_time_that_its_pod_has(rendered: dict[str, list[Object]], overlay: str) -> None:
    edge = one(rendered[overlay], "StatefulSet", "edge")
    pod = edge["spec"]["template"]
    environ = {each["name"]: each.get("value") for each in container(pod)["env"]}
    slept = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= slept + float(environ["RAMAL_EDGE_DRAIN_SECONDS"]) + 8
    assert edge["spec"]["podManagementPolicy"] == "Parallel"
    assert one(rendered[overlay], "Service", "edge")["spec"]["publishNotReadyAddresses"]
    assert container(pod)["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in ("startupProbe", "livenessProbe"):
        assert container(pod)[probe]["httpGet"]["path"] == "/healthz"  # a backend that is away must not restart it


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_phones_come_by_one_service_that_keeps_their_addresses(rendered: dict[str, list[Object]], overlay: str) -> None:
    balancers = [o for o in rendered[overlay] if o["kind"] == "Service" and o["spec"].get("type") == "LoadBalancer"]
    (sip,) = balancers
    assert sip["spec"]["externalTrafficPolicy"] == "Local"
    assert {(port["port"], port["protocol"]) for port in sip["spec"]["ports"]} >= {(5060, "UDP"), (5060, "TCP")}
    environ = container(one(rendered[overlay], "StatefulSet", "edge")["spec"]["template"])["env"]
    (address,) = [each["value"] for each in environ if each["name"] == "SIP_ADDRESS"]
    assert address == sip["metadata"]["annotations"]["metallb.io/loadBalancerIPs"]
    names = [each["name"] for each in environ]
    assert names.index("SIP_ADDRESS") < names.index("RAMAL_EDGE_ADVERTISED")  # $(…) knows what stands before it
    assert names.index("POD_IP") < names.index("RAMAL_EDGE_EDGES_ADVERTISED")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_runs_in_several_pods_is_spread_and_has_a_disruption_budget(
    rendered: dict[str, list[Object]], overlay: str
) -> None:
    objects = rendered[overlay]
    for each in objects:
        if each["kind"] not in ("Deployment", "StatefulSet") or each["metadata"]["name"] in ALONE:
            continue
        name = each["metadata"]["name"]
        budget = one(objects, "PodDisruptionBudget", name)["spec"]
        wanted = each["spec"]["selector"]["matchLabels"]
        assert budget["selector"]["matchLabels"] == wanted
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        (spread,) = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= wanted.items()
        if each["kind"] == "Deployment":
            assert each["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_production_has_a_kafka_of_three_of_which_two_must_have_a_record(rendered: dict[str, list[Object]]) -> None:
    objects = rendered["production"]
    assert one(objects, "KafkaNodePool", "three")["spec"]["replicas"] == 3
    kafka = one(objects, "Kafka", "ramal")["spec"]
    assert kafka["kafka"]["config"]["min.insync.replicas"] == 2
    assert kafka["kafka"]["config"]["unclean.leader.election.enable"] is False
    (listener,) = kafka["kafka"]["listeners"]
    assert (listener["tls"], listener["authentication"]["type"]) == (True, "scram-sha-512")
    assert list(kafka["entityOperator"]) == ["userOperator"]  # topics are `ramal topics`'
    (settings,) = [o["data"] for o in objects if o["kind"] == "ConfigMap"]
    assert (settings["RAMAL_KAFKA_REPLICATION_FACTOR"], settings["RAMAL_KAFKA_MIN_INSYNC_REPLICAS"]) == ("3", "2")
    assert settings["RAMAL_MYSQL_TLS"] == "true"


def test_alerts_name_metrics_that_exist(rendered: dict[str, list[Object]]) -> None:
    rules = one(rendered["production"], "PrometheusRule", "ramal")["spec"]["groups"]
    named = {name for rule in rules for each in rule["rules"] for name in re.findall(r"\bramal_\w+", each["expr"])}
    packages = ("edge", "authsvc", "registrar", "locator", "cdr", "runtime")
    code = "\n".join(path.read_text() for package in packages for path in (PROJECT / package).rglob("*.py"))
    made = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(ramal_\w+)"', code))
    assert named
    assert {name.removesuffix("_total") for name in named} <= made
