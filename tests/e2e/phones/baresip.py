"""baresip as a desk phone: its microphone is a tone, what it hears is written to a file, TCP tells it what to do."""

import itertools
import json
import socket
import subprocess
import time
import wave
from pathlib import Path
from typing import Any, Self

from ramal.processes import find, free_port
from tests.kit.wire import Address

MODULES = Path("/usr/lib/baresip/modules")
SECONDS = 20.0
"""Of any wait: more than a slow machine needs."""
RATE = 8000
"""Of PCMU, the one codec, in samples a second."""
CONFIG = """\
sip_listen 127.0.0.1:{port}
ctrl_tcp_listen 127.0.0.1:{control}
module_path {modules}
snd_path {directory}
audio_source ausine,{tone}
audio_player aubridge,ear
ausrc_srate 48000
ausrc_channels 2
module g711.so
module ausine.so
module aubridge.so
module sndfile.so
module account.so
module menu.so
module ctrl_tcp.so
"""


class Baresip:
    """A phone of one user at one edge. Raises PackageMissing; ended with the `with` block."""

    def __init__(
        self,
        directory: Path,
        name: str,
        domain: str,
        edge: Address,
        transport: str,
        *,
        tone: int,
        authority: Path,
        answers: bool,
    ) -> None:
        program = find("baresip", "baresip-core")
        directory.mkdir(parents=True)
        self.directory, self.log, control = directory, directory / "baresip.log", free_port()
        told = {"port": free_port(), "control": control, "directory": directory, "modules": MODULES, "tone": tone}
        verified = f"sip_cafile {authority}\n" if transport == "tls" else ""
        (directory / "config").write_text(CONFIG.format(**told) + verified)
        (directory / "accounts").write_text(
            f"<sip:{name}@{domain};transport={transport}>;auth_user={name};auth_pass=secret-{name};regint=60"
            f";answermode={'auto' if answers else 'manual'}"
            f';outbound="sip:{edge[0]}:{edge[1]};transport={transport}"\n'
        )
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [program, "-f", str(directory), "-v"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
            )
        self._received = b""
        try:
            self._socket = self._connected(control)
        except OSError:
            self._end()
            raise AssertionError(self._said()) from None

    def _connected(self, port: int) -> socket.socket:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), SECONDS)
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the program."""
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _said(self) -> str:
        return self.log.read_text()[-3000:]

    def does(self, command: str, parameters: str = "") -> None:
        """A command of its menu (`dial`, `hangup`)."""
        text = json.dumps({"command": command, "params": parameters, "token": command}).encode()
        self._socket.sendall(b"%d:%s," % (len(text), text))

    def sees(self, event: str) -> dict[str, Any]:
        """Waits for the next event of that type (`CALL_ESTABLISHED`); those before it are past."""
        deadline = time.monotonic() + SECONDS
        while True:
            told = self._next(deadline, event)
            if told.get("type") == event:
                return told

    def _next(self, deadline: float, event: str) -> dict[str, Any]:
        while True:
            length, colon, rest = self._received.partition(b":")
            if colon and len(rest) > int(length):
                text, self._received = rest[: int(length)], rest[int(length) + 1 :]
                told: dict[str, Any] = json.loads(text)
                return told
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65_536)
            except TimeoutError:
                raise AssertionError(f"no {event}: {self._said()}") from None
            assert data, f"baresip ended: {self._said()}"
            self._received += data

    def heard(self) -> list[int]:
        """The samples that it has heard, 8000 a second; complete when the call is over."""
        (path,) = self.directory.glob("dump-*-dec.wav")
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
            frames = file.readframes(file.getnframes())
        return [int.from_bytes(frames[at : at + 2], "little", signed=True) for at in range(0, len(frames) - 1, 2)]

    def wait_to_hear(self, seconds: float) -> None:
        """Waits until its file has so much sound."""
        deadline = time.monotonic() + SECONDS
        while sum(path.stat().st_size for path in self.directory.glob("dump-*-dec.wav")) < seconds * RATE * 2:
            assert time.monotonic() < deadline, f"it hears nothing: {self._said()}"
            time.sleep(0.05)


def frequency(samples: list[int]) -> float:
    """Of a tone, in hertz, by how often it crosses zero in its second half; 0 where there is silence."""
    half = samples[len(samples) // 2 :]
    crossings = sum(1 for before, after in itertools.pairwise(half) if (before < 0) != (after < 0))
    return crossings * RATE / 2 / max(1, len(half))
