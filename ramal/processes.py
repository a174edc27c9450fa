"""Child processes that never outlive us: own session, a log file, and the kernel's promise to kill them when we die."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PORTS = range(20_000, 32_000)
"""Below Linux' ephemeral ports: a client that keeps reconnecting to a server that is down would else one day
be given the server's own port as its source, and connect to itself."""
ONLY = "STACK_PORTS"
"""The variable that leaves a part of them, as 20000-25000, to processes which begin servers beside each other: what is
free when one looks may be taken before its server has begun."""


_given: deque[int] = deque(maxlen=256)
"""The ports last given: who has one may not have bound it yet."""


class StartFailed(Exception):
    """A program did not start; the message says which, why, and where its log is."""


class PackageMissing(StartFailed):
    """A program is not on this machine; the message names the Debian package that has it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is missing: apt-get install --no-install-recommends {package}")
        self.package = package


def find(program: str, package: str) -> str:
    """The path of a program, also in sbin; raises PackageMissing."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise PackageMissing(program, package)
    return path


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, neither TCP nor UDP, outside the ephemeral range; given to nobody else soon."""
    first, _, last = os.environ.get(ONLY, "").partition("-")
    ports = range(int(first), int(last)) if last else PORTS
    for _ in range(200):
        port = secrets.choice(ports)
        if port not in _given and port_is_free(host, port):
            keep_port(port)
            return port
    raise StartFailed(f"no free port on {host}")


def keep_port(port: int) -> None:
    """Has `free_port` give a port to nobody: its owner binds it later."""
    _given.append(port)


def port_is_free(host: str, port: int) -> bool:
    """Whether both TCP and UDP can be bound there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, port))
    except OSError:
        return False
    return True


class Child:
    """A process that we started: its pid, its log file, and an end within a deadline."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still runs (a stopped one does)."""
        return self._process.poll() is None

    def ended(self) -> str:
        """How it ended, for people."""
        code = self._process.poll()
        if code is None:
            return "still running"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end, and wakes it if it was stopped."""
        for number in (by, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def stop(self, deadline: float = 10.0, by: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM, and SIGKILL to its whole session at the deadline; returns when it is gone."""
        self.terminate(by)
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to all of its session; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def spawn(
    name: str,
    command: Sequence[str],
    log: Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """Starts a program in a session of its own, output appended to `log`.

    setpriv asks the kernel to SIGKILL the program when the calling *thread* ends, so call this from one that
    lives as long as we do. (A preexec_fn would do the same but is unsafe beside threads.)
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603  # the command is ours
            [find("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=None if environ is None else dict(environ),
            cwd=cwd,
            start_new_session=True,
        )
    return Child(name, process, log)


def wait_ready(child: Child, ready: Callable[[], bool], seconds: float) -> None:
    """Waits until `ready` says so; a child that ends or is late is killed, and StartFailed says where its log is."""
    deadline = time.monotonic() + seconds
    while child.alive():
        if ready():
            return
        if time.monotonic() > deadline:
            child.kill()
            raise StartFailed(f"{child.name} was not ready within {seconds:.0f} s; see {child.log}")
        time.sleep(0.05)
    raise StartFailed(f"{child.name} ended at start ({child.ended()}); see {child.log}\n{tail(child.log)}")


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log file."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
