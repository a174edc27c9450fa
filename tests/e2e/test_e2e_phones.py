"""Phones that others wrote: SIPp and baresip register on both systems."""

import subprocess
import time
from pathlib import Path

import pytest

from ramal.processes import find, free_port
from tests.e2e.conftest import DOMAIN, System, user

pytestmark = pytest.mark.e2e

FIRST = 20
"""The users before it are those of other tests."""
COUNT = 15

BARESIP_CONFIG = """\
sip_listen 127.0.0.1:{port}
module_path {modules}
module g711.so
module_app account.so
"""


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_sipp_registers_and_leaves(system: System, transport: str, tmp_path: Path) -> None:
    sipp = find("sipp", "sip-tester")
    users = tmp_path / "users.csv"
    lines = [
        f"{user(n)};[authentication username={user(n)} password=secret-{user(n)}];{DOMAIN}"
        for n in range(FIRST, FIRST + COUNT)
    ]
    users.write_text("\n".join(["SEQUENTIAL", *lines, ""]))
    host, port = system.edges[0]
    errors = tmp_path / "errors"
    scenario = Path(__file__).parent / "register.xml"
    command = (
        f"{sipp} {host}:{port} -sf {scenario} -inf {users} -i 127.0.0.1 -p {free_port()} -t {transport[0]}1"
        f" -m {COUNT} -l 5 -r 100 -nostdin -recv_timeout 8000 -timeout 60 -trace_err -error_file {errors}"
    )
    done = subprocess.run(
        command.split(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, errors.read_text() if errors.exists() else done.stdout[-2000:]
    assert [system.located(n) for n in range(FIRST, FIRST + COUNT)] == [[]] * COUNT


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_baresip_registers(system: System, transport: str, tmp_path: Path) -> None:
    baresip = find("baresip", "baresip-core")
    number = FIRST + COUNT + (transport == "tcp")
    name, (host, port) = user(number), system.edges[0]
    (tmp_path / "config").write_text(BARESIP_CONFIG.format(port=free_port(), modules=Path("/usr/lib/baresip/modules")))
    (tmp_path / "accounts").write_text(
        f"<sip:{name}@{DOMAIN};transport={transport}>;auth_user={name};auth_pass=secret-{name};regint=60"
        f';outbound="sip:{host}:{port};transport={transport}"\n'
    )
    log = tmp_path / "baresip.log"
    with log.open("wb") as out:
        phone = subprocess.Popen(
            [baresip, "-f", str(tmp_path), "-v"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=tmp_path
        )
    try:
        deadline = time.monotonic() + 20
        while not (contacts := system.located(number)):
            assert phone.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
    finally:
        phone.terminate()
        try:
            phone.wait(10)
        except subprocess.TimeoutExpired:
            phone.kill()
            phone.wait()
    assert len(contacts) == 1
    assert contacts[0].startswith(f"sip:{name}-0x") or contacts[0].startswith(f"sip:{name}@")
