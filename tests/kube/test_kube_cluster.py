"""What must hold on a real Kubernetes; the numbers are those of docs/kubernetes.md. `make kube` runs it.

Over 400 lines: the rules of docs/kubernetes.md by their numbers, on one cluster.
"""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.kit.phone import SDP, Call, Phone
from tests.kit.wire import Silent
from tests.kube.conftest import CACHE
from tests.kube.kube import SERVICE, USERS, WORKERS, Balancer, Kube, ask, is_ready, until
from tests.kube.phones import Report, Seen, caller, refreshing

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

Figure = Callable[[int, str], None]
POD_NETWORKS = [ipaddress.ip_network(text) for text in ("10.244.0.0/16", "10.96.0.0/16")]
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
TRIALS = 3
REFRESHING = USERS[40:64]
"""24 phones, each of its own user."""


@pytest.fixture
def phones() -> Iterator[Callable[..., Phone]]:
    """Makes registered phones, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(user: str, transport: str = "udp", seen: Seen | None = None) -> Phone:
            phone = stack.enter_context(caller(user, SERVICE, transport, seen))
            phone.register()
            return phone

        yield make


def internal(values: set[str]) -> set[str]:
    """Those that name an address of a pod or of a Service's network."""
    return {
        value
        for value in values
        for text in ADDRESS.findall(value)
        if any(ipaddress.ip_address(text) in network for network in POD_NETWORKS)
    }


def rings(alice: Phone, bob: Phone) -> tuple[Call, Call]:
    """A call that rings: both sides."""
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    return call, incoming


def answered(call: Call, incoming: Call, seconds: float = 20.0) -> None:
    """The callee answers, again and again until it has the ACK, as its transaction user does (RFC 3261 13.3.1.4)."""
    end = time.monotonic() + seconds
    while True:
        incoming.respond(200, body=SDP)
        try:
            call.hears(200, 1.0)
            call.ack()
            incoming.gets("ACK", 1.0)
        except Silent:
            assert time.monotonic() < end, f"{incoming.phone.user}'s answer does not arrive"
        else:
            return


def hangs_up(sender: Call, receiver: Call) -> None:
    """BYE and its 200; again until it is answered."""
    for _ in range(6):
        sender.request("BYE")
        try:
            receiver.gets("BYE", 2.0)
        except Silent:
            continue
        receiver.respond(200)
        sender.hears(200)
        return
    pytest.fail(f"{sender.phone.user}'s BYE does not arrive")


def lossless(figure: Figure, number: int, trial: Callable[[], tuple[str, Report]]) -> None:
    """Of three trials one is answered 200 throughout, and in none does anybody hear nothing, or from elsewhere.

    Not each, for the machine has other work: when Kafka's disk stands still for two seconds, that alone is a 503.
    """
    for _ in range(TRIALS):
        told, report = trial()
        figure(number, f"{told}: {report}")
        assert set(report.statuses) <= {"200", "503"}, str(report)
        assert report.sources == {SERVICE}
        if not report.failed:
            return
    pytest.fail(f"{TRIALS} trials, and each refused somebody: {report}")


# --- 2, 3, 7, 20 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay_name", ["dev", "here", "production"])
def test_02_the_api_server_accepts_every_object_of_an_overlay(
    kube: Kube, overlay: Path, figure: Figure, overlay_name: str
) -> None:
    said = kube.script("crds")
    assert "podmonitors" in said
    assert "certificates" in said
    known = {line.split()[-1] for line in kube.script("kubectl", "api-resources", "--no-headers").splitlines()}
    rendered = kube.script("kubectl", "kustomize", str(overlay.parent / overlay_name))
    documents = rendered.split("\n---\n")
    kinds = [re.search(r"^kind: (\w+)$", each, re.MULTILINE) for each in documents]
    named = [(kind[1], each) for kind, each in zip(kinds, documents, strict=True) if kind]
    assert len(named) == len(documents)
    left_out = sorted({kind for kind, _ in named if kind not in known})
    assert set(left_out) <= {"Kafka", "KafkaNodePool", "KafkaUser"}  # Strimzi's definitions are in no Go module
    given = "\n---\n".join(each for kind, each in named if kind in known)
    kube.script("kubectl", "apply", "-f", str(overlay.parents[1] / "base" / "namespace.yaml"))
    words = ("kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-")
    done = kube.script(*words, given=given)
    accepted = done.count("(server dry run)")
    assert accepted == len([kind for kind, _ in named if kind in known])
    figure(
        2,
        f"{overlay_name}: {accepted} objects accepted by strict server-side validation; left out: {left_out or 'none'}",
    )


def test_03_pod_security_restricted_has_no_warning_for_any_pod(kube: Kube, overlay: Path) -> None:
    kube.script("kubectl", "apply", "-f", str(overlay.parents[1] / "base" / "namespace.yaml"))
    said = kube.warnings("apply", "-k", str(overlay), "--dry-run=server")
    assert said == ""
    forbidden = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "ramal"}}
    forbidden["spec"] = {"containers": [{"name": "x", "image": "x"}]}
    refused = kube.script("kubectl", "apply", "--dry-run=server", "-f", "-", given=json.dumps(forbidden), check=False)
    assert 'violates PodSecurity "restricted' in refused  # the namespace's rule is in force


def test_07_all_pods_are_ready_within_60_s_though_the_backends_come_last(kube: Kube, applied: float) -> None:
    assert applied < 60
    restarts = {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for name in ("edge", *WORKERS)
        for pod in kube.pods(name)
    }
    assert set(restarts.values()) == {0}, restarts  # nobody ended because something was not there yet


def test_20_a_service_called_ramal_mysql_does_no_harm(site: Kube) -> None:
    assert site.get("service", "ramal-mysql")["metadata"]["name"] == "ramal-mysql"
    environ = site.kubectl("exec", "edge-0", "--", "python3", "-c", "import os; print(sorted(os.environ))")
    assert "RAMAL_MYSQL_PORT" not in environ
    assert "RAMAL_MYSQL_HOST" in environ


# --- 8, 9, 10: what phones see ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_08_10_a_phone_sees_no_address_but_the_services(
    site: Kube, phones: Callable[..., Phone], figure: Figure, transport: str
) -> None:
    seen = Seen()
    began = time.monotonic()
    alice = phones("u00", transport, seen)
    took = time.monotonic() - began
    bob = phones("u01", transport, seen)
    began = time.monotonic()
    call, incoming = rings(alice, bob)
    rang = time.monotonic() - began
    answered(call, incoming)
    hangs_up(call, incoming)
    values = seen.rows("via", "record-route", "path", "route", "contact", "www-authenticate", "proxy-authenticate")
    assert values
    assert internal(values) == set()
    assert seen.sources == {SERVICE}
    ours = {value for value in seen.rows("via") if f" {SERVICE[0]}" in value}
    assert ours  # the edges are known by the Service's address
    figure(
        8,
        f"{transport}: challenge and REGISTER {took * 1000:.0f} ms, INVITE to 180 (challenge in between) "
        f"{rang * 1000:.0f} ms; {len(seen.messages)} messages, none with an address of a pod",
    )


def at_edge(site: Kube, number: int, phones: Callable[..., Phone], user: str, transport: str, seen: Seen) -> Phone:
    """A phone whose flow leads to this edge: the balancer goes by the port, so it tries one after the other."""
    address = site.get("pod", f"edge-{number}")["status"]["podIP"]
    for _ in range(20):
        phone = phones(user, transport, seen)
        held = json.loads(site.http(f"edge-{number}", f"/location/{user}@example.test")[1])
        if any(f":{address}:" in each["socket"] for each in held):
            return phone
        phone.deregister()
    pytest.fail(f"no flow of {user}'s leads to edge-{number}")


@pytest.mark.parametrize("by", ["caller", "callee"])
def test_09_a_phone_at_one_edge_calls_one_at_another_and_either_hangs_up(
    site: Kube, phones: Callable[..., Phone], by: str
) -> None:
    assert {site.node_of("edge-0"), site.node_of("edge-1")} == {"n1", "n2"}
    seen = Seen()
    alice = at_edge(site, 0, phones, "u02", "udp", seen)
    bob = at_edge(site, 1, phones, "u03", "tcp", seen)
    call, incoming = rings(alice, bob)
    answered(call, incoming)
    if by == "caller":
        hangs_up(call, incoming)
    else:
        hangs_up(incoming, call)
    assert seen.sources == {SERVICE}
    assert internal(seen.rows("via", "record-route", "contact")) == set()


# --- 11, 12, 16: pods that end in order -------------------------------------------------------------------------------


def test_11_a_rolling_restart_of_the_edges_loses_no_refresh(site: Kube, figure: Figure) -> None:
    def trial() -> tuple[str, Report]:
        with refreshing(REFRESHING, SERVICE) as report:
            time.sleep(3)
            took = site.rolled_out("statefulset", "edge")
            time.sleep(3)
        return f"rolling restart of both edges in {took:.0f} s", report

    lossless(figure, 11, trial)


def test_12_16_a_rolling_restart_under_ringing_calls_fails_none_and_answers_leave_from_the_services_address(
    site: Kube, phones: Callable[..., Phone], figure: Figure
) -> None:
    seen = Seen()
    calls = [rings(phones(USERS[2 * n], "udp", seen), phones(USERS[2 * n + 1], "udp", seen)) for n in range(20)]
    rolling = threading.Thread(target=site.rolled_out, args=("statefulset", "edge"))
    began = time.monotonic()
    rolling.start()
    late = 0
    for number, (call, incoming) in enumerate(calls):
        time.sleep(max(0.0, began + 3.0 + number - time.monotonic()))
        late += number > 4  # both preStop and the drain of the first edge have begun
        answered(call, incoming)
    took = time.monotonic() - began
    assert seen.sources == {SERVICE}
    rolling.join()
    for call, incoming in calls:
        hangs_up(incoming, call)
    figure(12, f"20 ringing calls, answered 3 to {took:.0f} s after the restart was asked for: 20 of 20, 20 of 20 BYEs")
    figure(16, f"{len(seen.messages)} packets meanwhile, all from {SERVICE[0]}:{SERVICE[1]}")


# --- 13: kill -9 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edge", *WORKERS])
def test_13_kill_9_of_a_pod_loses_nothing(site: Kube, figure: Figure, name: str) -> None:
    """Everybody is answered. Whose partition it had may hear 503, until its container is back under the same name."""
    pod = site.pods(name)[0]["metadata"]["name"]
    with refreshing(REFRESHING, SERVICE) as report:
        time.sleep(3)
        site.kill(pod)
        killed = time.time()
        time.sleep(15)
    refused = max(0.0, report.last_bad - killed)
    figure(13, f"kill -9 of {name}: {report}; the last refused refresh was sent {refused:.1f} s after")
    assert set(report.statuses) <= {"200", "503"}, str(report)
    assert refused < 10  # below the session time-out: the successor has the place of the dead
    assert name not in ("edge", "cdr") or report.failed == []
    assert report.sources == {SERVICE}
    site.wait_ready(name, 2)


# --- 14: more and fewer -----------------------------------------------------------------------------------------------


def test_14_edges_1_3_1_under_load(site: Kube, figure: Figure) -> None:
    def trial() -> tuple[str, Report]:
        with refreshing(REFRESHING, SERVICE) as report:
            site.kubectl("scale", "statefulset/edge", "--replicas=3")
            up = site.wait_ready("edge", 3)
            time.sleep(3)
            site.kubectl("scale", "statefulset/edge", "--replicas=1")
            down = site.wait_ready("edge", 1)
            time.sleep(3)
        return f"edges 1-3-1 in {up:.0f} and {down:.0f} s", report

    site.kubectl("scale", "statefulset/edge", "--replicas=1")
    site.wait_ready("edge", 1)
    try:
        lossless(figure, 14, trial)
    finally:
        site.kubectl("scale", "statefulset/edge", "--replicas=2")


def test_14_registrars_2_4_2_under_load(site: Kube, figure: Figure) -> None:
    """Each change of members is a rebalance: whose partition moves just then may hear 503, nobody hears nothing."""
    with refreshing(REFRESHING, SERVICE) as report:
        site.kubectl("scale", "deployment/registrar", "--replicas=4")
        up = site.wait_ready("registrar", 4)
        time.sleep(3)
        site.kubectl("scale", "deployment/registrar", "--replicas=2")
        down = site.wait_ready("registrar", 2)
        time.sleep(3)
    figure(14, f"registrars 2-4-2 in {up:.0f} and {down:.0f} s: {report}")
    assert set(report.statuses) <= {"200", "503"}
    assert report.statuses["503"] < report.statuses["200"] / 10
    assert report.sources == {SERVICE}


# --- 17, 18: what stands below ----------------------------------------------------------------------------------------


def test_17_kube_proxy_restarted_leaves_phones_registered(
    site: Kube, phones: Callable[..., Phone], figure: Figure
) -> None:
    alice, bob = phones("u04"), phones("u05")

    def trial() -> tuple[str, Report]:
        with refreshing(REFRESHING, SERVICE) as report:
            time.sleep(2)
            for node in ("1", "2"):
                site.script("proxy", node)
                time.sleep(4)
        return "kube-proxy of both nodes restarted", report

    lossless(figure, 17, trial)
    alice.register()
    call, incoming = rings(alice, bob)
    answered(call, incoming)
    hangs_up(call, incoming)


def test_18_while_mysql_is_away_phones_hear_503_through_the_service_and_edges_stay_ready(
    site: Kube, figure: Figure
) -> None:
    process = str(site.process("mysql-0"))
    with refreshing(REFRESHING, SERVICE, gap=3.0) as report:
        time.sleep(4)
        site.signal(process, "STOP")
        away = time.time()
        try:
            time.sleep(15)
            assert [is_ready(pod) for pod in site.pods("edge")] == [True, True]
            status = json.loads(site.http("edge-0", "/status")[1])
            assert status["ready"]
            assert any("the database is away" in reason for reason in status["reasons"])
            time.sleep(15)
        finally:
            site.signal(process, "CONT")
        back = time.time()
        until(lambda: time.time() - report.last_bad > 10, "refreshes are answered 200 again", 60)
    figure(
        18, f"MySQL away for {back - away:.0f} s: {report}; 503 until {report.last_bad - back:+.1f} s after it was back"
    )
    assert report.statuses["503"] > 24
    assert set(report.statuses) <= {"200", "503"}  # nobody heard nothing
    assert all(5 <= int(seconds) <= 15 for seconds in report.retry_after)
    assert report.sources == {SERVICE}


# --- 19, 21: what operators rely on -----------------------------------------------------------------------------------


def evict(kube: Kube, pod: str) -> str:
    """Asks for an eviction as `kubectl drain` does; what the API server says."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "ramal"}}
    path = f"/api/v1/namespaces/ramal/pods/{pod}/eviction"
    return kube.script("kubectl", "create", "--raw", path, "-f", "-", given=json.dumps(body), check=False)


def test_19_the_disruption_budget_blocks_the_eviction_that_would_take_the_last_edge(site: Kube) -> None:
    assert "Success" in evict(site, "edge-0")
    assert "disruption budget" in evict(site, "edge-1")
    assert "deletionTimestamp" not in site.get("pod", "edge-1")["metadata"]
    site.wait_ready("edge", 2)


def test_19_the_autoscaler_adds_an_edge_when_they_are_busy(site: Kube, overlay: Path, figure: Figure) -> None:
    """The autoscaler of k8s/components, with a threshold that 24 phones are above, and without its patience."""
    site.script("metrics")
    scaler = yaml.safe_load((overlay.parents[1] / "components" / "autoscaling" / "edge.yaml").read_text())
    scaler["spec"]["maxReplicas"] = 3
    scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 5
    scaler["spec"]["behavior"]["scaleUp"]["stabilizationWindowSeconds"] = 0

    def trial() -> tuple[str, Report]:
        with refreshing(REFRESHING, SERVICE) as report:
            site.kubectl("apply", "-f", "-", given=json.dumps(scaler))
            try:
                took = site.wait_ready("edge", 3, 150)
            finally:
                site.kubectl("delete", "hpa", "edge")
                site.kubectl("scale", "statefulset/edge", "--replicas=2")
        site.wait_ready("edge", 2)
        return f"metrics-server and the autoscaler: a third edge was ready {took:.0f} s after the rule", report

    lossless(figure, 19, trial)


@pytest.fixture(scope="module")
def group_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jars of Kafka's command line, from Maven Central, once."""
    jars = CACHE / "kafka-tools"
    if not jars.exists():
        pom = Path(__file__).parent / "kafka-tools" / "pom.xml"
        made = tmp_path_factory.mktemp("jars")
        words = ["mvn", "-q", "-B", "-C", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        subprocess.run([*words, f"-DoutputDirectory={made}"], check=True, timeout=280)
        shutil.copytree(made, jars)
    return jars


def test_21_the_lag_of_each_group_is_what_kafkas_tools_say_and_0_at_rest(
    site: Kube, group_tool: Path, tmp_path: Path, figure: Figure
) -> None:
    groups = ("ramal.authsvc", "ramal.registrar", "ramal.locator")
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{site.get('pod', 'kafka-0')['status']['podIP']} kafka\n")
    java = ["java", f"-Djdk.net.hosts.file={hosts}", "-cp", f"{group_tool}/*"]
    tool = [*java, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", "kafka:9092"]

    def lags() -> dict[str, int]:
        found = dict.fromkeys(groups, 0)
        for line in site.script("in", "kube-n1", *tool, "--describe", "--all-groups").splitlines():
            words = line.split()
            if len(words) > 5 and words[0] in found and words[3].isdecimal():
                found[words[0]] += int(words[5])
        return found

    def seen_by_scaler() -> dict[str, int]:
        """As KEDA's Kafka scaler reads it: end offsets less committed ones."""
        code = (
            "import asyncio, json, sys\n"
            "from aiokafka import AIOKafkaConsumer\n"
            "from aiokafka.admin import AIOKafkaAdminClient\n"
            "async def main():\n"
            "    admin = AIOKafkaAdminClient(bootstrap_servers='kafka:9092'); await admin.start()\n"
            "    consumer = AIOKafkaConsumer(bootstrap_servers='kafka:9092'); await consumer.start()\n"
            "    found = {}\n"
            "    for group in sys.argv[1:]:\n"
            "        committed = await admin.list_consumer_group_offsets(group)\n"
            "        ends = await consumer.end_offsets(list(committed))\n"
            "        found[group] = sum(ends[p] - committed[p].offset for p in committed)\n"
            "    await consumer.stop(); await admin.close(); print(json.dumps(found))\n"
            "asyncio.run(main())\n"
        )
        pod = site.pods("authsvc")[0]["metadata"]["name"]
        said: dict[str, int] = json.loads(site.kubectl("exec", pod, "--", "python3", "-c", code, *groups))
        return said

    # Both at one time: what the registrar's timer ends is a command, too, and is read within the second.
    none = dict.fromkeys(lags(), 0)
    until(lambda: lags() == none and seen_by_scaler() == none, "no group lags at rest, by either", 60)
    figure(21, f"lag at rest by Kafka's tool and as KEDA reads it: {none}")


@contextlib.contextmanager
def forwarded(site: Kube, service: str, port: int) -> Iterator[tuple[str, int]]:
    """`kubectl port-forward`, as docs/kubernetes.md says; where it listens in the namespace `kube-ctl`."""
    words = [*site.command("kubectl", "-n", "ramal"), "port-forward", f"service/{service}", f"{port}:{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            assert "Forwarding from 127.0.0.1" in process.stdout.readline()
            yield "127.0.0.1", port
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_operators_log_in_by_the_service_and_stand_in_a_secret(site: Kube, tmp_path: Path) -> None:
    """As docs/kubernetes.md says: a file that `ramal operator add` wrote."""
    file, secret = tmp_path / "operators", "correct horse"
    subprocess.run(
        [sys.executable, "-m", "ramal", "operator", "add", "maria", "--role", "operator", "--password-stdin"],
        env={**os.environ, "RAMAL_CONSOLE_OPERATORS_FILE": str(file)}, input=secret, text=True, check=True, timeout=30,
    )  # fmt: skip

    def logs_in(address: tuple[str, int]) -> tuple[int, str]:
        given = json.dumps({"name": "maria", "password": secret})
        status, fields, _ = ask(
            "kube-ctl", address, "POST", "/console/api/log-in", given, **{"Content-Type": "application/json"}
        )
        return status, (fields["Set-Cookie"] or "").partition(";")[0]

    with forwarded(site, "console", 8080) as address:
        assert logs_in(address)[0] == 401
    site.kubectl("create", "secret", "generic", "console-operators", f"--from-file=operators={file}")
    try:
        # The kubelet brings it to a pod that runs within a minute or two, and to a new one at once.
        site.rolled_out("deployment", "console")
        until(lambda: len(site.pods("console")) == 1, "the pod of before is gone")
        (pod,) = [pod["metadata"]["name"] for pod in site.pods("console")]
        mode = "import os; print(oct(os.stat('/run/console/operators').st_mode & 0o777))"
        assert site.kubectl("exec", pod, "--", "python3", "-c", mode).strip() == "0o440"
        with forwarded(site, "console", 8080) as address:
            status, cookie = logs_in(address)
            assert status == 200
            assert ask("kube-ctl", address, "GET", "/console/api/registrations", Cookie=cookie)[0] == 200
            assert ask("kube-ctl", address, "GET", "/console/api/registrations")[0] == 401
        # By its name, from within the cluster, where no policy is enforced: the page for users.
        page = (
            "from urllib.request import urlopen; a = urlopen('http://console/', timeout=10); print(a.status, a.headers)"
        )
        said = site.kubectl("exec", "edge-0", "--", "python3", "-c", page)
        assert said.startswith("200 ")
        assert "script-src 'self'" in said
    finally:
        site.kubectl("delete", "secret", "console-operators")


def test_every_process_tells_its_metrics_where_the_pod_monitor_has_prometheus_ask(site: Kube, overlay: Path) -> None:
    text = (overlay.parents[1] / "components" / "monitoring" / "monitoring.yaml").read_text()
    spec = next(each["spec"] for each in yaml.safe_load_all(text) if each["kind"] == "PodMonitor")
    (endpoint,) = spec["podMetricsEndpoints"]
    (label,) = endpoint["relabelings"]
    assert label["targetLabel"] == "service"
    wanted = ",".join("=".join(pair) for pair in spec["selector"]["matchLabels"].items())
    services = set()
    for pod in site.get("pods", "-l", wanted)["items"]:
        if pod["status"]["phase"] != "Running" or "deletionTimestamp" in pod["metadata"]:
            continue
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == 8080
        status, told = site.http(pod["metadata"]["name"], endpoint["path"])
        assert status == 200
        assert "ramal_build_info{" in told
        labels = {
            "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name): value
            for name, value in pod["metadata"]["labels"].items()
        }
        services.add(labels[label["sourceLabels"][0]])
    assert services == {"edge", "analytics", "console", *WORKERS}


# --- 15: a machine is lost --------------------------------------------------------------------------------------------


def test_15_when_a_node_goes_its_phones_reach_another_edge(site: Kube, balancer: Balancer, figure: Figure) -> None:
    assert balancer.nodes == ["1", "2"]
    with refreshing(REFRESHING, SERVICE) as report:
        time.sleep(3)
        site.script("link", "2", "down")
        gone = time.time()
        try:
            until(lambda: balancer.nodes == ["1"], "the balancer leaves the node out")
            routed = time.time() - gone
            time.sleep(30)
        finally:
            site.script("link", "2", "up")
    last = max(0.0, report.last_bad - gone)
    figure(
        15,
        f"a node's cable pulled: the balancer left it out after {routed:.1f} s; {report}; "
        f"the last refused refresh was sent {last:.1f} s after",
    )
    assert "0" not in report.statuses  # everybody was answered in the end
    assert report.sources == {SERVICE}
    assert last < 15  # the session time-out of what ran there, and a restore
    until(lambda: balancer.nodes == ["1", "2"], "the node is back", 120)
