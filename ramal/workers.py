"""`ramal edge --workers N`: N edges, one a core, that share the ports of one.

Each is an ordinary edge with a name of its own (`NAME.0`, `NAME.1`, …), so that tokens, branches and leases say which
one is meant, and the mesh takes to it what has come to another. This process only opens the sockets, starts the edges,
starts again what dies or hangs, and gathers their health pages.

UDP: a socket for each, all bound to the same port (SO_REUSEPORT). The kernel deals datagrams out by a hash of both
addresses and ports, so a phone always comes to the same worker. The sockets are ours: when a worker dies, nothing moves
to another, and what comes meanwhile waits for the next life of the same worker. They are opened in the same order at
each start, so a phone comes to the worker of the same name then, too.

Streams: one listening socket that all accept from. Who is at leisure accepts, and a connection is never left in the
queue of a worker that has died or drains.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from edge.config import EdgeConfig, edge_name, endpoint
from edge.core.flow import TRANSPORTS, host_port
from edge.transport import listener, udp
from ramal.gathered import GatheredPages, answers
from ramal.processes import StartFailed, find
from runtime.config import Common, Sources
from runtime.errors import ConfigError
from runtime.inherited import READING, VARIABLE, WRITING, key
from runtime.service import STOP_SECONDS

log = logging.getLogger("ramal.workers")

AGAIN_SECONDS = 1.0
"""Until a worker is started again that had hardly begun; it may end again at once."""
BEGUN_SECONDS = 5.0
FIRST_SECONDS = 60.0
"""A first life that ends by itself within this time says that none can run: a setting, or an address that is taken."""
LOOK_SECONDS = 5.0
UNANSWERED = 6
"""A worker that has answered before, and then so many looks in a row not, hangs: half a minute in which its phones'
datagrams wait for nobody. One that begins may take its time."""
SLACK_SECONDS = 2.0
"""Beyond what draining and stopping may take, until a worker is killed."""
LOOPBACK = "127.0.0.1"

Sockets = dict[str, socket.socket]
"""By `runtime.inherited.key`."""


@dataclasses.dataclass
class Worker:
    """One of the edges."""

    name: str
    sockets: Sockets
    """What it is left; ours, so that they outlive it."""
    pipe: Mapping[str, int]
    """See `runtime.inherited.Together`."""
    http: tuple[str, int]
    settings: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    """None while it does not run."""

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts it; the kernel kills it when we die, however that is."""
        descriptors = {**{name: each.fileno() for name, each in self.sockets.items()}, **self.pipe}
        ramal = [sys.executable, "-P", "-m", "ramal", "edge"]
        self.process = subprocess.Popen(  # noqa: S603  # the command is ours
            [find("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *ramal],
            stdin=subprocess.DEVNULL,
            env={**self.settings, VARIABLE: json.dumps(descriptors)},
            pass_fds=tuple(descriptors.values()),
        )
        return self.process

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)


class Workers:
    """All edges of one machine's settings, and the sockets that they share."""

    def __init__(self, sources: Sources) -> None:
        """Opens the sockets. Raises ConfigError, and StartFailed where an address cannot be had."""
        self._common = sources.section(Common)
        self._config = sources.section(EdgeConfig, "edge")
        with contextlib.ExitStack() as held:
            reading, self._writing = os.pipe()
            held.callback(os.close, reading)
            self._all_end = held.enter_context(contextlib.ExitStack())
            self._all_end.callback(os.close, self._writing)
            pipe = {READING: reading, WRITING: self._writing}
            self.workers = self._workers(sources.environ, pipe, held)
            self._held = held.pop_all()
        self._ending = asyncio.Event()
        self._pages = GatheredPages(
            self._common.http_host, self._common.http_port, self._places, draining=self._ending.is_set
        )

    def _workers(self, environ: Mapping[str, str], pipe: Mapping[str, int], held: contextlib.ExitStack) -> list[Worker]:
        config, name = self._config, edge_name(self._config, self._common)
        own, shared = opened(config, held)
        workers = []
        for number in range(config.workers):
            http = held.enter_context(socket.create_server((LOOPBACK, 0)))
            place = http.getsockname()
            settings = {
                **environ,
                "RAMAL_EDGE_NAME": f"{name}.{number}",
                "RAMAL_EDGE_WORKERS": "1",
                "RAMAL_EDGE_EDGES": _further(config.edges or f"{LOOPBACK}:0", "EDGES", number),
                "RAMAL_EDGE_EDGES_ADVERTISED": _further(config.edges_advertised, "EDGES_ADVERTISED", number),
                "RAMAL_HTTP_HOST": place[0],
                "RAMAL_HTTP_PORT": str(place[1]),
            }
            sockets = {**shared, **own[number], key("http", *place): http}
            workers.append(Worker(f"{name}.{number}", sockets, pipe, place, settings))
        return workers

    def close(self) -> None:
        """Closes the sockets."""
        self._held.close()

    async def serve(self) -> None:
        """Runs them until SIGTERM or SIGINT. Raises StartFailed where one cannot run at all."""
        await self._pages.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        keeping = [asyncio.create_task(self._keep(worker), name=worker.name) for worker in self.workers]
        watching = [asyncio.create_task(self._watch(worker), name=f"{worker.name} watched") for worker in self.workers]
        ending = asyncio.create_task(self._ending.wait(), name="ending")
        at = host_port(self._pages.host, self._pages.port)
        log.info("started", extra={"workers": [worker.name for worker in self.workers], "http": at})
        try:
            done, _ = await asyncio.wait({ending, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            if not self._ending.is_set():
                self._end(signal.SIGTERM)
            for task in (ending, *watching):
                task.cancel()
            await asyncio.wait(keeping, timeout=self._config.drain_seconds + STOP_SECONDS + SLACK_SECONDS)
            for worker in self.workers:
                worker.signal(signal.SIGKILL)
            await asyncio.gather(*keeping, *watching, return_exceptions=True)
            await self._pages.stop()
            self.close()

    def _end(self, number: signal.Signals) -> None:
        """Hands a signal on; a second one hurries them as it does one edge."""
        if not self._ending.is_set():
            os.write(self._writing, b"end")
            self._all_end.close()
        self._ending.set()
        for worker in self.workers:
            worker.signal(number)

    def _places(self) -> dict[str, tuple[str, int] | None]:
        """Where each serves its pages: who does not run would only keep waiting whoever asks."""
        return {worker.name: None if worker.process is None else worker.http for worker in self.workers}

    async def _keep(self, worker: Worker) -> None:
        """Starts it, and starts it again whenever it ends."""
        first = True
        while not self._ending.is_set():
            started = time.monotonic()
            process = worker.start()
            code = await _ended(process)
            worker.process = None
            ran = time.monotonic() - started
            if self._ending.is_set():
                return
            if first and code > 0 and ran < FIRST_SECONDS:
                raise StartFailed(f"{worker.name} ended at start (exit code {code})")
            first = False
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            log.warning("a worker has ended; it is started again", extra={"edge": worker.name, "how": how})
            if ran < BEGUN_SECONDS:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), AGAIN_SECONDS)

    async def _watch(self, worker: Worker) -> None:
        """Kills it whenever it hangs, so that it is started again."""
        process, silent = worker.process, UNANSWERED
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            answered = await answers(worker.http)
            if worker.process is not process:
                process, silent = worker.process, UNANSWERED  # nothing is known of its new life
            elif answered:
                silent = 0
            elif silent < UNANSWERED:
                silent += 1
                if silent == UNANSWERED:
                    log.error("a worker hangs and is killed", extra={"edge": worker.name})
                    worker.signal(signal.SIGKILL)


async def _ended(process: "subprocess.Popen[bytes]") -> int:
    """How it has ended: its exit code, or minus the signal that killed it."""
    descriptor, loop, gone = os.pidfd_open(process.pid), asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, gone.set)
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def opened(config: EdgeConfig, held: contextlib.ExitStack) -> tuple[list[Sockets], Sockets]:
    """The UDP sockets of each worker, and the listening ones of all. Raises ConfigError, StartFailed."""
    own: list[Sockets] = [{} for _ in range(config.workers)]
    shared: Sockets = {}
    for transport in TRANSPORTS:
        for text in getattr(config, transport):
            setting = f"RAMAL_EDGE_{transport.upper()}"
            host, port = endpoint(text, setting)
            name = key(transport, host, port)
            try:
                if transport == "udp":
                    for each, sock in zip(own, _dealt(host, port, config.workers, held), strict=True):
                        each[name] = sock
                else:
                    shared[name] = held.enter_context(_unbound(host, socket.SOCK_STREAM))
                    listener.listen(shared[name], host, port)
            except OSError as error:
                raise StartFailed(f"{transport} {text}: {error.strerror} ({setting})") from error
    return own, shared


def _dealt(host: str, port: int, count: int, held: contextlib.ExitStack) -> list[socket.socket]:
    """So many sockets on one port, among which the kernel deals datagrams out. Raises OSError."""
    if port:
        with _unbound(host, socket.SOCK_DGRAM) as alone:  # else a second process of ours would share it unnoticed
            udp.bind(alone, host, port)
    sockets = []
    for _ in range(count):
        sock = held.enter_context(_unbound(host, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        udp.bind(sock, host, port)
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def _unbound(host: str, kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)


def _further(text: str, setting: str, number: int) -> str:
    """The address of a worker, given that of the first: so many ports further. Raises ConfigError."""
    if not text:
        return ""
    host, port = endpoint(text, f"RAMAL_EDGE_{setting}")
    if port and port + number > 65535:
        raise ConfigError(f"RAMAL_EDGE_{setting}: no port is left for worker {number}")
    return host_port(host, port + number if port else 0)
