"""What records add to a call: processor time by process, and the time of set-up, with them and without, by turns.

    .venv/bin/python bench/records.py                      # 50 calls at a time; then 50 calls a second
    .venv/bin/python bench/records.py --unchallenged       # RAMAL_EDGE_CHALLENGE_CALLS=false
    .venv/bin/python bench/records.py --against CHECKOUT   # another checkout of Ramal by turns with this one

Starts a `ramal stack` (real Kafka and MariaDB), and lets it have a block of calls with records and a block without in
turn (bench/untold), so that a busy machine slows both alike; another checkout has a stack of its own. A call is
INVITE, 407, ACK, INVITE with credentials, 180, 200, ACK, BYE, 200 to a registered phone; caller and callee are here. A
block ends when its last call is in `cdrs`, and 2 s after its last call at the least: what a stack spends at rest is in
both. Where `.run/compiled` is there (`make .run/compiled/.built`), the core is compiled.

Prints CPU-seconds per 1,000 calls and percentiles of the time from INVITE to 200, of each the median of the blocks:
first with so many calls at a time, as fast as they go, then at a fixed pace.
"""
# ruff: noqa: S603, T201

import argparse
import asyncio
import gc
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from runtime.config import MySQL, Secret
from runtime.database.mysql import MySQLDatabase
from sipcore import digest

ROOT = Path(__file__).resolve().parent.parent
DOMAIN, PHONES = "bench.test", 40
GROUPS = ("edge", "cdr", "mysql", "kafka", "authsvc", "registrar", "locator", "console")
START_SECONDS, CALL_SECONDS, SETTLED_SECONDS = 240.0, 20.0, 30.0
RESEND = 0.5
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8\r\n"
_COPIED = re.compile(rb"(?im)^(?:via|record-route|from|call-id|cseq):[^\r]*\r\n")
_TO = re.compile(rb"(?im)^to:[^\r]*")
_CALL_ID = re.compile(rb"(?im)^call-id: *([^\r]*)")
_ROUTES = re.compile(rb"(?im)^record-route:([^\r]*)")
_NONCE = re.compile(rb'nonce="([^"]*)"')
_CONTACT = re.compile(rb"(?im)^contact: *<([^>]*)>")


class Sockets(asyncio.DatagramProtocol):
    """One socket, and what becomes of its datagrams."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.host, self.port = transport.get_extra_info("sockname")[:2]

    def send(self, text: str) -> None:
        self.transport.sendto(text.encode())


def authorized(challenge: bytes, user: str, method: str, uri: str) -> str:
    """Credentials for a 401 or 407."""
    nonce = (_NONCE.search(challenge) or [b"", b""])[1].decode()
    ha1 = digest.ha1("MD5", user, DOMAIN, f"secret-{user}")
    response = digest.expected_response("MD5", ha1, method, uri, nonce, "auth", 1, "c")
    return (
        f'Digest username="{user}", realm="{DOMAIN}", nonce="{nonce}", uri="{uri}", response="{response}",'
        ' algorithm=MD5, qop=auth, nc=00000001, cnonce="c"'
    )


class Callee(Sockets):
    """Registers all users at one address; rings and answers at once."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, address: Any) -> None:
        if data.startswith(b"SIP/2.0"):
            self.answers.put_nowait(data)
            return
        method = data[: data.index(b" ")]
        if method == b"ACK":
            return
        copied, to = b"".join(_COPIED.findall(data)), (_TO.search(data) or [b""])[0]
        contact = f"Contact: <sip:callee@{self.host}:{self.port}>\r\n".encode()
        if method == b"INVITE":
            to += b";tag=callee"
            body = SDP.encode()
            self.transport.sendto(b"SIP/2.0 180 Ringing\r\n%b%b\r\n%bContent-Length: 0\r\n\r\n" % (copied, to, contact))
            self.transport.sendto(
                b"SIP/2.0 200 OK\r\n%b%b\r\n%bContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
                % (copied, to, contact, len(body), body)
            )
        else:
            self.transport.sendto(b"SIP/2.0 200 OK\r\n%b%b\r\nContent-Length: 0\r\n\r\n" % (copied, to))

    async def register(self, user: str) -> None:
        """Until it is accepted."""
        credentials = ""
        for cseq in range(1, 20):
            self.send(
                f"REGISTER sip:{DOMAIN} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{user}{cseq}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:{user}@{DOMAIN}>;tag=r\r\nTo: <sip:{user}@{DOMAIN}>\r\n"
                f"Call-ID: register-{user}\r\nCSeq: {cseq} REGISTER\r\n"
                f"Contact: <sip:{user}@{self.host}:{self.port}>\r\n{credentials}Expires: 3600\r\n"
                "Content-Length: 0\r\n\r\n"
            )
            async with asyncio.timeout(10):
                answer = await self.answers.get()
            if answer.startswith(b"SIP/2.0 200"):
                return
            credentials = f"Authorization: {authorized(answer, user, 'REGISTER', f'sip:{DOMAIN}')}\r\n"
        raise SystemExit(f"{user} could not register: {answer[:200]!r}")


def _line(pattern: re.Pattern[bytes], data: bytes) -> str:
    return (pattern.search(data) or [b""])[0].decode()


class Calling:
    """One call, as its caller knows it."""

    def __init__(self, uri: str, rows: str, invite: str) -> None:
        self.uri, self.rows, self.sent, self.began = uri, rows, invite, time.monotonic()
        self.set_up = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Caller(Sockets):
    """One user's phone; each call is ended as soon as it is answered."""

    user = "u00000"

    def __init__(self) -> None:
        self.calls: dict[bytes, Calling] = {}
        self.number = self.resent = 0

    def datagram_received(self, data: bytes, address: Any) -> None:
        call_id = (_CALL_ID.search(data) or [b"", b""])[1]
        call = self.calls.get(call_id)
        if call is None or data[8:9] == b"1":
            return
        if data[8:11] == b"407" and b"CSeq: 1 INVITE" in data:
            ack = call.sent.replace("INVITE ", "ACK ", 1).replace(" INVITE\r", " ACK\r", 1).partition("\r\n\r\n")[0]
            self.send(
                re.sub("\r\nContent-[^\r]*|\r\nTo:[^\r]*", "", ack)
                + f"\r\n{_line(_TO, data)}\r\nContent-Length: 0\r\n\r\n"
            )
            credentials = f"Proxy-Authorization: {authorized(data, self.user, 'INVITE', call.uri)}\r\n"
            call.sent = self._request("INVITE", 2, call.uri, call.rows + credentials, SDP)
            self.send(call.sent)
        elif data[8:11] == b"407":
            return  # a retransmission
        elif data[8:11] != b"200":
            if not call.done.done():
                call.done.set_exception(SystemExit(f"a call failed: {data[:60]!r}"))
        elif b" INVITE\r" in data and not call.set_up:
            call.set_up = time.monotonic() - call.began
            routes = ", ".join(row.strip().decode() for row in reversed(_ROUTES.findall(data)))
            target = (_CONTACT.search(data) or [b"", b""])[1].decode()
            head = f"Route: {routes}\r\n{_line(_TO, data)}\r\nCall-ID: {call_id.decode()}\r\n"
            self.send(self._request("ACK", int(call.sent.partition("CSeq: ")[2][0]), target, head))
            call.sent = self._request("BYE", 3, target, head)
            self.send(call.sent)
        elif b" BYE\r" in data and not call.done.done():
            call.done.set_result(None)

    def _request(self, method: str, cseq: int, uri: str, rows: str, body: str = "") -> str:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.number += 1
        return (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bKc{self.number}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.user}@{DOMAIN}>;tag=caller\r\n{rows}CSeq: {cseq} {method}\r\n"
            f"Contact: <sip:{self.user}@{self.host}:{self.port}>\r\nUser-Agent: Desk/1.0\r\n"
            f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )

    async def call(self, user: str) -> float:
        """Milliseconds of its set-up."""
        uri, id_ = f"sip:{user}@{DOMAIN}", f"{time.time_ns()}-{self.number}@{self.host}"
        rows = f"To: <{uri}>\r\nCall-ID: {id_}\r\n"
        call = self.calls[id_.encode()] = Calling(uri, rows, self._request("INVITE", 1, uri, rows, SDP))
        self.send(call.sent)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                while not (await asyncio.wait({call.done}, timeout=RESEND))[0]:
                    self.resent += 1
                    self.send(call.sent)
        finally:
            del self.calls[id_.encode()]
        call.done.result()
        return call.set_up * 1000


class Measured:
    """What was measured of one kind of blocks."""

    def __init__(self, stack: "Stack", *, told: bool) -> None:
        self.stack, self.told = stack, told
        self.name = stack.name if told else f"{stack.name}, untold"
        self.begin()

    def begin(self) -> None:
        """What was measured before does not count."""
        self.spent: list[dict[str, float]] = []
        self.times: list[list[float]] = []
        """Of each block."""
        self.elapsed, self.resent = 0.0, 0

    async def block(self, calls: int, together: int, rate: float) -> None:
        """A block of calls: so many at a time, or so many a second."""
        stack, times = self.stack, []
        os.kill(stack.processes["edge-1"], signal.SIGUSR2 if self.told else signal.SIGUSR1)
        await asyncio.sleep(0.2)
        before, began, resent = stack.cpu(), time.monotonic(), stack.caller.resent

        async def one(number: int) -> None:
            times.append(await stack.caller.call(f"u{number % PHONES:05}"))

        async def some(first: int) -> None:
            for number in range(first, calls, together):
                await one(number)

        if rate:
            running = []
            for number in range(calls):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                running.append(asyncio.ensure_future(one(number)))
            await asyncio.gather(*running)
        else:
            await asyncio.gather(*map(some, range(together)))
        self.elapsed += time.monotonic() - began
        self.times.append(times)
        self.resent += stack.caller.resent - resent
        await stack.settle(calls if self.told else 0)
        after = stack.cpu()
        self.spent.append({name: (after[name] - before[name]) / calls * 1000 for name in after})

    def summary(self) -> dict[str, float]:
        """CPU-seconds per 1,000 calls by group, the median of the blocks, and their sum."""
        found = {group: statistics.median(block[group] for block in self.spent) for group in GROUPS}
        return found | {"sum": statistics.median(sum(block.values()) for block in self.spent)}


class Stack:
    """One `ramal stack` with its phones."""

    def __init__(self, name: str, checkout: Path, directory: Path, port: int, *, challenge: bool) -> None:
        self.name, self._directory, self._port = name, directory, port
        compiled = checkout / ".run" / "compiled"
        ways = [*([compiled] if compiled.exists() else []), checkout, ROOT / "bench" / "untold"]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("RAMAL_")}
        environ |= {
            "PYTHONPATH": ":".join(map(str, ways)), "PYTHONSAFEPATH": "1",
            "RAMAL_EDGE_CHALLENGE_CALLS": str(challenge).lower(),
            "RAMAL_CACHE": os.environ.get("RAMAL_CACHE", str(ROOT / ".run")),
        }  # fmt: skip
        directory.mkdir()
        command = [sys.executable, "-m", "ramal", "stack", "--run-dir", str(directory), "--sip-port", str(port)]
        command += ["--domain", DOMAIN, "--users", str(PHONES), "--analytics", "0", "--warm-up", "6000"]
        with (directory / "stack.log").open("w") as output:
            self._process = subprocess.Popen(
                command, cwd=directory, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self.processes: dict[str, int] = {}
        self._expected = 0

    async def ready(self) -> None:
        """Until its phones are registered."""
        until = time.monotonic() + START_SECONDS
        path = self._directory / "stack.json"
        while "console" not in (found := json.loads(path.read_text())["processes"] if path.exists() else {}):
            if time.monotonic() > until or self._process.poll() is not None:
                raise SystemExit(f"{self.name} did not start:\n{(self._directory / 'stack.log').read_text()[-2000:]}")
            await asyncio.sleep(0.5)
        described = json.loads(path.read_text())
        self.processes = {name: process["pid"] for name, process in found.items()}
        tables = described["mysql"]
        self._tables = MySQLDatabase(
            MySQL(tables["host"], tables["port"], tables["user"], Secret(tables["password"]), tables["database"])
        )
        await self._tables.start()
        loop, edge = asyncio.get_running_loop(), ("127.0.0.1", self._port)
        _, self._callee = await loop.create_datagram_endpoint(Callee, remote_addr=edge)
        _, self.caller = await loop.create_datagram_endpoint(Caller, remote_addr=edge)
        for number in range(PHONES):
            await self._callee.register(f"u{number:05}")

    async def settle(self, calls: int) -> None:
        """Until so many calls more are in the tables; the same time for whoever has none."""
        self._expected += calls
        began = time.monotonic()
        await asyncio.sleep(2.0)
        while True:
            [(count,)] = await self._tables.query("SELECT COUNT(*) FROM cdrs WHERE published = 1")
            if count >= self._expected:
                return
            if time.monotonic() > began + SETTLED_SECONDS:
                raise SystemExit(f"{self.name}: {count} records of {self._expected} calls")
            await asyncio.sleep(0.1)

    def cpu(self) -> dict[str, float]:
        """CPU-seconds so far by group of processes."""
        found = dict.fromkeys(GROUPS, 0.0)
        for name, pid in self.processes.items():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            group = name.rpartition("-")[0] or name
            if group in found:
                found[group] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def end(self) -> None:
        """Ends its processes."""
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()


def percentile(values: Sequence[float], share: float) -> float:
    """Of what was measured, the value that this share does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def measure(arguments: argparse.Namespace, directory: Path) -> None:
    """All blocks; prints what they cost."""
    stacks: list[Stack] = []
    try:
        for number, checkout in enumerate((ROOT, *arguments.against)):
            port, challenge = arguments.sip_port + 100 * number, not arguments.unchallenged
            name = str(checkout) if number else "this"
            stacks.append(Stack(name, checkout, directory / str(number), port, challenge=challenge))
        await asyncio.gather(*(stack.ready() for stack in stacks))
        kinds = [Measured(stack, told=told) for stack in stacks for told in (True, False)]
        gc.disable()
        for rate in [0.0] * bool(arguments.together) + [arguments.rate] * bool(arguments.rate):
            print(f"{rate:g} calls a second" if rate else f"{arguments.together} calls at a time")
            for _ in range(arguments.warm):
                for kind in kinds:
                    await kind.block(arguments.calls, arguments.together, rate)
            for kind in kinds:
                kind.begin()
            for round_ in range(arguments.rounds):
                for number in range(len(kinds)):
                    kind = kinds[(round_ + number) % len(kinds)]
                    await kind.block(arguments.calls, arguments.together, rate)
                gc.collect()
            tell(kinds)
    finally:
        for stack in stacks:
            stack.end()


def tell(kinds: Sequence[Measured]) -> None:
    """The table."""
    columns = ("edge", "cdr", "mysql", "kafka", "sum")
    print(f"{'':30}" + "".join(f"{column:>9}" for column in (*columns, "p50 ms", "p99 ms", "calls/s", "resent")))
    for kind in kinds:
        found = kind.summary()
        cells = "".join(f"{found[column]:9.3f}" for column in columns)
        for share in (0.5, 0.99):
            cells += f"{statistics.median(percentile(block, share) for block in kind.times):9.2f}"
        cells += f"{sum(map(len, kind.times)) / kind.elapsed:9.0f}{kind.resent:9}"
        none = next(each for each in kinds if each.stack is kind.stack and not each.told).summary()
        more = f"  {found['sum'] / none['sum'] - 1:+.0%}" if kind.told else ""
        print(f"{kind.name[-30:]:30}{cells}{more}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="in a block")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each")
    parser.add_argument("--warm", type=int, default=1, help="blocks of each before (a broker's JVM needs several)")
    parser.add_argument("--together", type=int, default=50, help="calls at a time; 0 leaves that part out")
    parser.add_argument("--rate", type=float, default=50.0, help="calls a second; 0 leaves that part out")
    parser.add_argument("--unchallenged", action="store_true", help="no 407")
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="CHECKOUT")
    parser.add_argument("--sip-port", type=int, default=26060)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        uvloop.run(measure(arguments, Path(scratch)))
