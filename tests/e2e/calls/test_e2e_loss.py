"""SIPp calls SIPp by wires that lose, delay and repeat: RFC 3261's timers mend it all, and each call is told once."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pymysql
import pytest

from ramal.processes import find, free_port
from runtime.config import MySQL, Sources
from tests.e2e.calls.lossy import Wire
from tests.e2e.conftest import CALLERS, DOMAIN, System, user
from tests.kit.phone import Phone
from tests.kit.waiting import until
from tests.kit.wire import Address, UdpLink

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
ALICE, BOB = CALLERS[40], CALLERS[41]
CALLS, RATE = 100, 25
LONGEST = 150.0
"""Seconds after which SIPp gives up: several times what the unluckiest call takes."""
ABSORBED = 120.0
"""Seconds in which all transactions end; the longest absorb repetitions for 32 s (Timers F, J, L)."""


@contextlib.contextmanager
def sipp(directory: Path, name: str, edge: Address, port: int, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """SIPp with a scenario of ours, killed if it has not ended by itself."""
    scenario = HERE / f"{name}.xml"
    command = [find("sipp", "sip-tester"), f"{edge[0]}:{edge[1]}", "-sf", str(scenario), "-i", "127.0.0.1"]
    command += ["-p", str(port), "-t", "u1", "-m", str(CALLS), "-nostdin", "-trace_err"]
    command += ["-error_file", str(directory / f"{name}.errors"), "-timeout", f"{LONGEST:.0f}", "-timeout_error"]
    # What comes late or twice is not unexpected; nor is a 407 with another nonce for the same INVITE. A 200 and its ACK
    # pass two wires each: of SIPp's own five repetitions none would do in one of 2,000 calls (RFC 3261 has eleven).
    command += ["-default_behaviors", "all,-abortunexp,-bye", "-rtcheck", "loose", "-max_invite_retrans", "8", *words]
    with (directory / f"{name}.out").open("wb") as out:
        running = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


def said(directory: Path, name: str) -> str:
    """What SIPp says of its calls."""
    errors = directory / f"{name}.errors"
    return (directory / f"{name}.out").read_text()[-3000:] + (errors.read_text()[-3000:] if errors.exists() else "")


class OnPort(UdpLink):
    """A link from the port that SIPp will use."""

    def __init__(self, edge: Address, port: int) -> None:
        super().__init__(edge)
        self._socket.close()
        self._socket = type(self._socket)(self._socket.family, self._socket.type)
        self._socket.bind(("127.0.0.1", port))
        self.local = self._socket.getsockname()


def transactions(system: System) -> list[float]:
    """How many there are at each edge."""
    return [system.metric("ramal_edge_transactions", edge=edge) for edge in range(len(system.http))]


def register(port: int, wire: Wire, *, here: bool) -> None:
    """Registers bob's phone, or removes it, by the wire while that is whole."""
    wire.perfect = True
    with Phone(OnPort(wire.phone_side, port), user(BOB), f"secret-{user(BOB)}", DOMAIN) as phone:
        phone.register() if here else phone.deregister()
    wire.perfect = False


def test_sipp_calls_sipp_through_two_edges_by_lossy_wires_and_nothing_stays_behind(
    stack: System, tmp_path: Path
) -> None:
    since = datetime.now().astimezone().isoformat()
    alices, bobs = free_port(), free_port()
    alice, bob = user(ALICE), user(BOB)
    credentials = f"[authentication username={alice} password=secret-{alice}]"
    (tmp_path / "users.csv").write_text(f"SEQUENTIAL\n{bob};{alice};{credentials};{DOMAIN}\n")
    with (
        Wire(("127.0.0.1", alices), stack.edges[1], seed=1) as near,
        Wire(("127.0.0.1", bobs), stack.edges[0], seed=2) as far,
    ):
        register(bobs, far, here=True)
        with (
            sipp(tmp_path, "loss_uas", far.phone_side, bobs, "-s", bob) as called,
            sipp(
                tmp_path, "loss_uac", near.phone_side, alices, "-inf", "users.csv", "-r", str(RATE), "-l", str(CALLS)
            ) as calling,
        ):
            assert calling.wait(LONGEST + 30) == 0, said(tmp_path, "loss_uac")
            assert called.wait(LONGEST + 30) == 0, said(tmp_path, "loss_uas")
        register(bobs, far, here=False)
    for wire in (near, far):
        assert min(wire.fate.lost, wire.fate.late, wire.fate.twice) > CALLS // 10, wire.fate
    counted(stack, tmp_path, since)
    until(lambda: transactions(stack) == [0.0, 0.0], "no transaction is left", ABSORBED)


def counted(system: System, directory: Path, since: str) -> None:
    """Each call of SIPp's is one record, two rows of `acc` and none of `missed_calls`, whatever the wires repeated."""
    records: list[dict[str, Any]] = []

    def all_there() -> bool:
        system.ramal("export", "cdrs", "--since", since, "--output", str(directory / "cdrs.jsonl"))
        lines = (directory / "cdrs.jsonl").read_text().splitlines()
        records[:] = [call for call in map(json.loads, lines) if f"{user(ALICE)}@{DOMAIN}" in call["caller"]]
        return len(records) >= CALLS

    until(all_there, "cdr has every call")
    assert len({(call["call_id"], call["from_tag"], call["cseq"]) for call in records}) == len(records) == CALLS
    for call in records:
        assert (call["outcome"], call["code"], call["hung_up"]) == ("answered", 200, "caller"), call
        assert not call["incomplete"], call
        assert not call["missed"], call
    mysql = Sources(system.environ, {}).section(MySQL, "mysql")
    with (
        pymysql.connect(
            host=mysql.host, port=mysql.port, user=mysql.user, password=mysql.password, database=mysql.database
        ) as tables,
        tables.cursor() as cursor,
    ):
        mine = tuple(call["call_id"] for call in records)
        marks = ", ".join(["%s"] * len(mine))
        cursor.execute(f"SELECT method, sip_code, COUNT(*) FROM acc WHERE callid IN ({marks}) GROUP BY 1, 2", mine)
        assert sorted(cursor.fetchall()) == [("BYE", "200", CALLS), ("INVITE", "200", CALLS)]
        cursor.execute(f"SELECT COUNT(*) FROM missed_calls WHERE callid IN ({marks})", mine)
        assert cursor.fetchone() == (0,)
    assert " 0 differences" in system.ramal("audit-cdrs").stdout
