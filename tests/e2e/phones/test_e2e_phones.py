"""Phones that others wrote, on both systems: SIPp and baresip register, baresip calls baresip."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ramal.processes import find, free_port
from tests.e2e.conftest import CALLERS, DOMAIN, System, user
from tests.e2e.phones.baresip import Baresip, frequency

pytestmark = pytest.mark.e2e

FIRST = 20
"""The users before it are those of other tests."""
COUNT = 14


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


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_baresip_registers(system: System, transport: str, tmp_path: Path) -> None:
    number = FIRST + COUNT + ["udp", "tcp", "tls"].index(transport)
    name, edge = user(number), system.at[0][transport]
    with Baresip(tmp_path / "b", name, DOMAIN, edge, transport, tone=440, authority=system.authority, answers=False):
        system.wait_located(number)
        (contact,) = system.located(number)
    assert contact.startswith((f"sip:{name}-0x", f"sip:{name}@"))


@pytest.mark.parametrize(("transport", "other"), [("udp", "tcp"), ("tls", "udp")])
def test_n09_baresip_calls_baresip_at_another_edge_and_each_hears_the_tone_of_the_other(
    system: System, transport: str, other: str, tmp_path: Path
) -> None:
    first, last = system.at[0], system.at[-1]
    alice, bob = user(CALLERS[0]), user(CALLERS[1])
    common: Any = {"authority": system.authority}
    with (
        Baresip(tmp_path / "a", alice, DOMAIN, first[transport], transport, tone=440, answers=False, **common) as a,
        Baresip(tmp_path / "b", bob, DOMAIN, last[other], other, tone=1000, answers=True, **common) as b,
    ):
        system.wait_located(CALLERS[0])
        system.wait_located(CALLERS[1])
        a.does("dial", f"sip:{bob}@{DOMAIN}")
        for phone in (a, b):
            phone.sees("CALL_ESTABLISHED")
        for phone in (a, b):
            phone.wait_to_hear(2)
        b.does("hangup")
        for phone in (a, b):
            phone.sees("CALL_CLOSED")
        assert frequency(a.heard()) == pytest.approx(1000, rel=0.05)
        assert frequency(b.heard()) == pytest.approx(440, rel=0.05)
