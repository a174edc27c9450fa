"""`ramal stack` as a subprocess, and what can be done to its processes; everything started here is ended here."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from ramal.processes import free_port
from ramal.supervisor import BEGUN_SECONDS
from tests.chaos.uptime import Away, Uptime, waited_for_cpu
from tests.kit.ports import sip_port

PROJECT = Path(__file__).resolve().parents[2]
RAMAL = PROJECT / ".venv" / "bin" / "ramal"
BACKENDS = ("kafka", "mysql", "ldap")
BACK = 60.0
"""Seconds until an edge that was killed must have opened its sockets again."""


OWN_SOCKETS = {"RAMAL_EDGE_TLS": "", "RAMAL_EDGE_WS": "", "RAMAL_EDGE_WSS": "", "RAMAL_EDGE_EDGES": "127.0.0.1:0"}
"""What an extra edge must not take from the one it is like."""


class NotInTime(AssertionError):
    """Something that was waited for did not come within its bound."""


async def until(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Waits for a condition of files or processes; returns how long it took, or raises NotInTime."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise NotInTime(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


class Process:
    """A process known by its pid that somebody else may restart."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def environ(self) -> dict[str, str]:
        """The environment that it was started with."""
        text = Path(f"/proc/{self.pid}/environ").read_bytes()
        pairs = (item.partition(b"=") for item in text.split(b"\0") if item)
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}

    def command(self) -> list[str]:
        """Its command line."""
        return [os.fsdecode(part) for part in Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[:-1]]

    def directory(self) -> Path:
        """Its working directory."""
        return Path(f"/proc/{self.pid}/cwd").readlink()


class Extra:
    """One more process of a service, like one of the stack's."""

    def __init__(self, name: str, like: Process, log: Path, port: int, environ: Mapping[str, str]) -> None:
        self.name = name
        self.http = f"127.0.0.1:{port}"
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                like.command(),
                env={**like.environ(), **OWN_SOCKETS, "RAMAL_NAME": name, "RAMAL_HTTP_PORT": str(port), **environ},
                cwd=like.directory(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    async def leave(self, seconds: float = 45.0) -> int:
        """SIGTERM; returns the exit code, or raises NotInTime."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        await until(f"process {self.process.pid} ends", lambda: self.process.poll() is not None, seconds)
        return self.process.returncode

    def kill(self) -> None:
        """Ends it whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Stack:
    """A running `ramal stack` in a directory of its own."""

    def __init__(self, directory: Path, edges: int, users: int, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.log = directory / "stack.log"
        self.uptime = Uptime()
        self._extras: list[Extra] = []
        self._stopped: dict[int, Away] = {}
        self._started: dict[str, float] = {}
        """When each process was there, or its successor after a kill, on the monotonic clock."""
        self._coming: set[asyncio.Task[None]] = set()
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *(str(RAMAL), "stack", "--run-dir", str(directory), "--sip-port", str(sip_port(edges))),
                    *("--edges", str(edges), "--users", str(users)),
                ],
                cwd=directory,
                env={**os.environ, "ANALYTICS": "0", **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def path(self) -> Path:
        """What it says of itself."""
        return self.directory / "stack.json"

    def description(self) -> dict[str, Any]:
        """`stack.json` as it is now."""
        document: dict[str, Any] = json.loads(self.path.read_text())
        return document

    def process(self, name: str) -> Process:
        """A process as it is now."""
        return Process(name, int(self.description()["processes"][name]["pid"]))

    def names(self) -> list[str]:
        """All its processes."""
        return sorted(self.description()["processes"])

    def edges(self, transport: str) -> dict[str, tuple[str, int]]:
        """Addresses of the edges by name."""
        found = {}
        for edge in self.description()["edges"]:
            host, _, port = edge[transport].rpartition(":")
            found[edge["name"]] = host, int(port)
        return found

    def http(self) -> dict[str, str]:
        """HTTP addresses by process, where it has one."""
        return {name: p["http"] for name, p in self.description()["processes"].items() if p.get("http")}

    async def started(self, seconds: float) -> None:
        """Waits for `stack.json` and for every service to be ready."""
        await until("ramal stack writes stack.json", self._described, seconds)
        for name, http in self.http().items():
            await self.ready(name, http, seconds)
        self._started = dict.fromkeys(self.names(), time.monotonic())

    def _described(self) -> bool:
        if self._process.poll() is not None:
            raise NotInTime(f"ramal stack ended with {self._process.returncode}:\n{self.log.read_text()[-3000:]}")
        return self.path.exists()

    async def ready(self, name: str, http: str, seconds: float) -> float:
        """Waits until it is ready, and nothing that it needs is away; returns how long it took."""
        began = time.monotonic()
        said = "nothing"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() - began < seconds:
                try:
                    async with session.get(f"http://{http}/status") as response:
                        status = await response.json()
                        if status["ready"] and not status["reasons"]:
                            return time.monotonic() - began
                        said = str(status["reasons"])
                except (aiohttp.ClientError, TimeoutError) as error:
                    said = repr(error)
                await asyncio.sleep(0.05)
        raise NotInTime(f"{name} was not ready within {seconds:.0f} s: {said}")

    async def reasons(self, http: str) -> list[str]:
        """What a process says is away, or why it is not ready; none when all is well."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"http://{http}/status") as response,
        ):
            said: list[str] = (await response.json())["reasons"]
            return said

    async def all_ready(self, seconds: float) -> None:
        """Waits until every service is ready, and every edge known to be up."""
        if self._coming:
            await asyncio.wait(self._coming)
        for name, http in self.http().items():
            await self.ready(name, http, seconds)

    async def kill(self, name: str, seconds: float = 30.0) -> Process:
        """kill -9; returns its successor, which need not be ready."""
        before = self.process(name)
        away = self.uptime.away(name, time.time())
        before.signal(signal.SIGKILL)
        coming = asyncio.create_task(self._comes_back(name, away))
        self._coming.add(coming)
        coming.add_done_callback(self._coming.discard)
        await until(f"{name} is started again", lambda: self.process(name).pid != before.pid, seconds)
        self._started[name] = time.monotonic()
        return self.process(name)

    def hesitates(self, name: str) -> float:
        """Seconds for which its supervisor would still hesitate to start it again at once: it has hardly begun."""
        return max(0.0, self._started[name] + BEGUN_SECONDS + 0.5 - time.monotonic())

    async def _comes_back(self, name: str, away: Away) -> None:
        """Notes when it has opened its sockets, ready or not; an edge that never does is down for the rest."""
        if name not in self.edges("udp"):
            return
        address = self.http()[name]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            while time.time() < away.begin + BACK:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"http://{address}/readyz") as response:
                        if "starting" not in (await response.json()).get("reasons", ()):
                            away.end = time.time()
                            return
                await asyncio.sleep(0.02)

    async def keep_down(self, name: str, seconds: float) -> None:
        """kill -9 of a process and of each successor for that long; the one after is left alone."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self.kill(name, 60)

    def halt(self, name: str) -> Process:
        """SIGSTOP: hung, but its connections stay."""
        process = self.process(name)
        self._stopped[process.pid] = self.uptime.away(name, time.time())
        process.signal(signal.SIGSTOP)
        return process

    def wake(self, process: Process) -> None:
        """SIGCONT."""
        process.signal(signal.SIGCONT)
        if away := self._stopped.pop(process.pid, None):
            away.end = time.time()

    @contextlib.asynccontextmanager
    async def hung(self, name: str) -> AsyncIterator[Process]:
        """Hung inside the block, on again after it whatever happens."""
        process = self.halt(name)
        try:
            yield process
        finally:
            self.wake(process)

    @contextlib.contextmanager
    def asleep(self, extra: Extra) -> Iterator[None]:
        """An extra process stopped inside the block."""
        away = self.uptime.away(extra.name, time.time())
        extra.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            extra.process.send_signal(signal.SIGCONT)
            away.end = time.time()

    async def extra(
        self, service: str, name: str, environ: Mapping[str, str] | None = None, seconds: float = 30
    ) -> Extra:
        """Starts one more process of a service and waits until it is ready."""
        extra = Extra(name, self.process(f"{service}-1"), self.directory / f"{name}.log", free_port(), environ or {})
        self._extras.append(extra)
        try:
            await self.ready(name, extra.http, seconds)
        except NotInTime as error:
            raise NotInTime(f"{error}\n{extra.log.read_text()[-2000:]}") from error
        return extra

    async def ramal(self, *arguments: str) -> str:
        """What a command prints that was run with the services' settings."""
        like = self.process("registrar-1")
        command = await asyncio.create_subprocess_exec(
            str(RAMAL), *arguments, env=like.environ(), cwd=like.directory(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            printed, _ = await command.communicate()
        assert command.returncode == 0, printed.decode(errors="replace")
        return printed.decode()

    def note_waits(self) -> None:
        """Notes how long each edge has waited for a CPU so far."""
        processes = self.description()["processes"]
        for name in self.edges("udp"):
            self.uptime.note(name, time.time(), waited_for_cpu(int(processes[name]["pid"])))

    def let_go(self) -> None:
        """Ends what a test left: wakes the stopped, kills the extra processes."""
        for pid in list(self._stopped):
            self.wake(Process("", pid))
        for extra in self._extras:
            extra.kill()
        self._extras.clear()

    def close(self) -> None:
        """Ends all of it."""
        for coming in self._coming:
            coming.cancel()
        self.let_go()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
