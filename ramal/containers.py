"""The backends' programs from container images, by testcontainers, where an engine answers and has the image.

An image serves as a place that programs are run from: our commands and our configuration, the host's network,
the backend's directory mounted at its own path. So a server is the same whether it comes from an image or from
Debian's packages. testcontainers' reaper removes what a killed process leaves; where it is disabled, the next
start on the same directory does.
"""

import contextlib
import hashlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ramal.processes import Child, StartFailed

IMAGES = {"kafka": "apache/kafka:4.3.1", "mysql": "mariadb:11.4", "ldap": "osixia/openldap:1.5.0"}
ENGINE_SECONDS = 5.0
"""An engine that has just been started needs more than one at its first answer."""
PULL_SECONDS = 60


class Image:
    """Runs programs from one image, with one directory of the host."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory.resolve()

    def find(self, program: str, package: str) -> str:
        """The image has it, by whatever package."""
        del package
        return program

    def run(self, command: Sequence[str], seconds: float = 120) -> None:
        """Runs a program to its end; raises StartFailed when that is no success."""
        container = self._container("run", command)
        container.start()
        try:
            done = container.get_wrapped_container().wait(timeout=seconds)
            if done["StatusCode"]:
                said = b"".join(container.get_logs()).decode(errors="replace")[-2000:]
                raise StartFailed(f"{command[0]} failed in {self._name} with {done['StatusCode']}: {said}")
        finally:
            container.stop()

    def spawn(self, name: str, command: Sequence[str], log: Path, cwd: Path) -> Child:
        """Starts a server; its output goes to `log`."""
        container = self._container(name, command, working_dir=str(cwd.resolve()))
        container.start()
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        return ContainerChild(name, container, int(wrapped.attrs["State"]["Pid"]), log)

    def _container(self, name: str, command: Sequence[str], **options: Any) -> Any:
        from testcontainers.core.container import DockerContainer

        unique = f"ramal-{name}-{hashlib.sha256(str(self._directory).encode()).hexdigest()[:12]}"
        _remove_left(unique)
        container = DockerContainer(
            self._name,
            name=unique,
            volumes=[(str(self._directory), str(self._directory), "rw")],
            entrypoint=[command[0]],
            network_mode="host",
            user="0:0",
            **options,
        )
        return container.with_command(list(command[1:]))


class ContainerChild(Child):
    """A server in a container; its pid is that of the host."""

    def __init__(self, name: str, container: Any, pid: int, log: Path) -> None:
        self.name = name
        self.log = log
        self._container = container
        self._pid = pid
        # Outlives us by a moment: its standard input ends when we do, however we do.
        self._guard = subprocess.Popen(  # noqa: S603  # the command is ours
            ["/bin/sh", "-c", 'read _; kill -9 "$1"', "guard", str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._copy_output, name=f"{name} output", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._pid

    def alive(self) -> bool:
        """Whether its process still runs (a stopped one does)."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    def ended(self) -> str:
        """How it ended, for people."""
        return (
            "still running" if self.alive() else f"its container {self._container.get_wrapped_container().name} ended"
        )

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end, and wakes it if it was stopped."""
        for number in (by, signal.SIGCONT):
            with _mapped_away():
                self._container.get_wrapped_container().kill(signal=number.name)

    def stop(self, deadline: float = 10.0, by: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM, whatever it was told before, and SIGKILL at the deadline; returns when the container is removed."""
        del by
        with _mapped_away():
            self._container.get_wrapped_container().kill(signal="SIGCONT")
        with _mapped_away():
            self._container.get_wrapped_container().stop(timeout=int(deadline))
        self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the container is removed."""
        with _mapped_away():
            self._container.get_wrapped_container().remove(force=True, v=True)
        self._guard.kill()
        self._guard.communicate()

    def _copy_output(self) -> None:
        with _mapped_away(), self.log.open("ab") as log:
            for chunk in self._container.get_wrapped_container().logs(stream=True, follow=True):
                log.write(chunk)
                log.flush()


@contextlib.contextmanager
def _mapped_away() -> Any:
    """A container that has gone meanwhile is what we wanted."""
    import docker.errors
    import requests

    with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
        yield


def _remove_left(name: str) -> None:
    """Removes what an earlier, killed process left under this name."""
    with _mapped_away():
        engine().containers.get(name).remove(force=True, v=True)


@cache
def engine() -> Any:
    """A client of the engine that answers; raises StartFailed with the reason where none does."""
    try:
        import docker
        import docker.errors
        import requests
        import testcontainers.core.container  # noqa: F401  # to know that it is there
    except ImportError as error:
        raise StartFailed(f"{error.name} is not installed (`make test` does)") from error
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://") or not Path(host.removeprefix("unix://")).is_socket():
        raise StartFailed("no container engine answers on this machine")
    try:
        docker.from_env(timeout=ENGINE_SECONDS).ping()
        return docker.from_env(timeout=PULL_SECONDS)
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise StartFailed(f"the container engine at {host} does not answer") from error


@cache
def why_not(kind: str) -> str:
    """Why this backend cannot come from a container; empty when it can. Pulls the image where it is missing."""
    try:
        client = engine()
    except StartFailed as error:
        return str(error)
    import docker.errors
    import requests

    logging.getLogger("testcontainers").setLevel(logging.WARNING)
    try:
        client.images.get(IMAGES[kind])
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(IMAGES[kind])
        except (docker.errors.DockerException, requests.RequestException):
            return f"the engine cannot get the image {IMAGES[kind]}"
    except (docker.errors.DockerException, requests.RequestException) as error:
        return f"the engine failed: {error}"
    return ""


if __name__ == "__main__":
    # For the Makefile: success where every backend comes from a container, so that no package is needed.
    raise SystemExit(any(why_not(kind) for kind in IMAGES))
