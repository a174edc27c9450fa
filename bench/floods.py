"""How long a phone's OPTIONS waits while one stranger floods the edge: `make bench-floods`.

Starts `ramal up` on loopback, and from an address of its own one flood after another, each by a process that sends as
fast as it can (on one core; what comes at its best is told). Meanwhile a phone at another address asks every 10 ms by
UDP. Prints the waits' median, 99th percentile and maximum, and the resident memory. Limits: 50 ms for the 99th, and
64 MB more than before. A name as argument runs that flood alone.
"""
# ruff: noqa: S311, S603, T201

import base64
import contextlib
import multiprocessing
import os
import random
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HOST, PHONE, STRANGER = "127.0.0.1", "127.0.62.8", "127.0.62.9"
DOMAIN = "example.test"
SECONDS = 4.0
LIMIT_MS, LIMIT_MB = 50.0, 64.0
FULL = 65_300
"""Octets of the longest datagrams."""


def _free_port() -> int:
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, port))
            udp.bind((HOST, port))
            return port


PORTS = {name: _free_port() for name in ("udp", "ws", "tls", "wss", "http")}
PORTS["tcp"] = PORTS["udp"]


def request(method: str, via: str, *rows: str, user: str = "") -> bytes:
    """A request, new each time, from a source that `via` names."""
    number = random.randrange(10**9)
    uri = f"sip:{user}@{DOMAIN}" if user else f"sip:{DOMAIN}"
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/{via};branch=z9hG4bK{number};rport",
        "Max-Forwards: 9",
        f"From: <sip:odd@{DOMAIN}>;tag=o{number}",
        f"To: <sip:odd@{DOMAIN}>",
        f"Call-ID: {number}",
        f"CSeq: 1 {method}",
        *rows,
        "Content-Length: 0",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


# --- the floods: each sends until it is ended -------------------------------------------------------------------------


def _datagrams(make: Callable[[], bytes], pause: float = 0.0, *, kinds: int = 64) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind((STRANGER, 0))
        stranger.connect((HOST, PORTS["udp"]))
        messages = [make() for _ in range(kinds)]
        while True:
            for message in messages:
                with contextlib.suppress(OSError):
                    stranger.send(message)
                if pause:
                    time.sleep(pause)


def _connection(transport: str) -> socket.socket:
    plain = socket.create_connection((HOST, PORTS[transport]), 3, (STRANGER, 0))
    if transport not in ("tls", "wss"):
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def _shaken(transport: str) -> socket.socket:
    connection = _connection(transport)
    if transport in ("ws", "wss"):
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /sip HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        connection.recv(4096)
    return connection


def _framed(transport: str, message: bytes) -> bytes:
    if transport not in ("ws", "wss"):
        return message
    size = len(message)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + message  # a mask of zeros


def _drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(2**18):
            pass


def _pour(transport: str, message: bytes, *, reads: bool) -> None:
    """One connection's worth, and another when that is cut."""
    data = _framed(transport, message) * (2**18 // len(message))
    while True:
        with contextlib.suppress(OSError), _shaken(transport) as connection:
            if reads:
                threading.Thread(target=_drain, args=(connection,), daemon=True).start()
            while True:
                connection.sendall(data)
        time.sleep(0.01)


def _connections(transport: str, message: bytes, count: int) -> None:
    """Many at once, all read; by one thread, so that they take one core's time and not every core's turn."""
    data = _framed(transport, message) * 64
    at: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection = _shaken(transport)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            at[connection] = 0
        while True:
            for key, events in selector.select():
                connection = key.fileobj  # type: ignore[assignment]
                with contextlib.suppress(BlockingIOError):
                    if events & selectors.EVENT_READ:
                        connection.recv(2**16)
                    if events & selectors.EVENT_WRITE:
                        at[connection] = (at[connection] + connection.send(data[at[connection] :])) % len(data)


def _churn(transport: str, count: int = 8) -> None:
    """Opens and closes connections."""

    def again() -> None:
        while True:
            with contextlib.suppress(OSError):
                _shaken(transport).close()

    for _ in range(count):
        threading.Thread(target=again, daemon=True).start()
    while True:
        time.sleep(1)


def _silent(transport: str, count: int) -> None:
    """Opens connections, says nothing, and opens those again that are cut."""
    held: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((HOST, PORTS[transport]), 3, (STRANGER, 0)))
        if len(held) > count:
            held.pop(0).close()


def _hellos(count: int) -> None:
    """Opens connections of TLS, and then begins the handshake of all of them at once, with one hello made before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    hello = out.read()
    while True:
        held = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection((HOST, PORTS["tls"]), 3, (STRANGER, 0)))
        for connection in held:
            with contextlib.suppress(OSError):
                connection.send(hello)
        time.sleep(0.5)
        for connection in held:
            connection.close()


def many(name: str, value: str) -> bytes:
    """An OPTIONS of 64 KB: rows of 8 KB full of a value."""
    row = f"{name}: " + ",".join([value] * (8000 // (len(value) + 1)))
    return request("OPTIONS", f"UDP {STRANGER}", *[row] * (FULL // len(row)))


UDP, TCP = f"UDP {STRANGER}", f"TCP {STRANGER}"
OPTIONS = request("OPTIONS", TCP)
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
FLOODS: dict[str, Callable[[], None]] = {
    "OPTIONS by UDP": lambda: _datagrams(lambda: request("OPTIONS", UDP)),
    "REGISTER by UDP": lambda: _datagrams(lambda: request("REGISTER", UDP, f"Contact: <sip:odd@{STRANGER}>")),
    "INVITE by UDP": lambda: _datagrams(lambda: request("INVITE", UDP, user="bob")),
    "CANCEL by UDP": lambda: _datagrams(lambda: request("CANCEL", UDP, user="bob")),
    "STUN by UDP": lambda: _datagrams(lambda: STUN),
    "64 KB of rows by UDP": lambda: _datagrams(lambda: request("OPTIONS", UDP, *["X: " + "a" * 320] * 190)),
    "64 KB of Contact, 25/s": lambda: _datagrams(lambda: many("Contact", "a:b"), 0.04),
    "64 KB of Contact": lambda: _datagrams(lambda: many("Contact", "a:b")),
    "64 KB of Via": lambda: _datagrams(lambda: many("Via", "SIP/2.0/UDP a")),
    "64 KB of escaped quotes": lambda: _datagrams(
        lambda: request("REGISTER", UDP, *['Contact: <sip:a@b>;x="' + '\\"' * 4000 + '"'] * 7)
    ),
    "CRLFCRLF by TCP": lambda: _pour("tcp", b"\r\n\r\n", reads=True),
    "CRLFCRLF by TCP, unread": lambda: _pour("tcp", b"\r\n\r\n", reads=False),
    "OPTIONS by TCP": lambda: _pour("tcp", OPTIONS, reads=True),
    "OPTIONS by TCP, unread": lambda: _pour("tcp", OPTIONS, reads=False),
    "OPTIONS by TLS": lambda: _pour("tls", OPTIONS, reads=True),
    "OPTIONS by WS": lambda: _pour("ws", OPTIONS, reads=True),
    "CRLFCRLF by WSS": lambda: _pour("wss", b"\r\n\r\n", reads=True),
    "OPTIONS by 200 TCP connections": lambda: _connections("tcp", OPTIONS, 200),
    "connections of TCP": lambda: _churn("tcp"),
    "connections of TLS": lambda: _churn("tls"),
    "1,000 handshakes of TLS at once": lambda: _hellos(1000),
    "connections of WS": lambda: _churn("ws"),
    "2,000 silent connections": lambda: _silent("tcp", 1990),
}


# --- the phone --------------------------------------------------------------------------------------------------------


def waits(seconds: float, timeout: float = 3.0) -> list[float]:
    """Milliseconds that each OPTIONS waited, sorted."""
    found, end = [], time.monotonic() + seconds
    with socket.socket(type=socket.SOCK_DGRAM) as phone:
        phone.bind((PHONE, 0))
        phone.settimeout(timeout)
        while time.monotonic() < end:
            data = request("OPTIONS", f"UDP {PHONE}")
            branch = data[data.index(b"z9hG4bK") :].partition(b";")[0]
            began = time.monotonic()
            phone.sendto(data, (HOST, PORTS["udp"]))
            with contextlib.suppress(TimeoutError):
                while branch not in phone.recv(65_535):
                    pass
            found.append((time.monotonic() - began) * 1000)
            time.sleep(0.01)
    return sorted(found)


@contextlib.contextmanager
def _server() -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="ramal-floods-") as name:
        directory = Path(name)
        subject = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}"]
        key, certificate = directory / "key.pem", directory / "certificate.pem"
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*made, "-keyout", key, "-out", certificate], capture_output=True, check=True)
        environment = {
            **os.environ,
            "RAMAL_EDGE_TLS": f"{HOST}:{PORTS['tls']}",
            "RAMAL_EDGE_WSS": f"{HOST}:{PORTS['wss']}",
            "RAMAL_EDGE_CERTIFICATE": str(certificate),
            "RAMAL_EDGE_PRIVATE_KEY": str(key),
        }
        ports = ["--sip-port", str(PORTS["udp"]), "--http-port", str(PORTS["http"]), "--ws-port", str(PORTS["ws"])]
        command = [
            Path(sys.executable).with_name("ramal"),
            "up",
            "--data",
            directory / "data",
            "--domain",
            DOMAIN,
            *ports,
        ]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                while True:
                    with contextlib.suppress(OSError), socket.create_connection((HOST, PORTS["tcp"]), 0.5):
                        break
                    if server.poll() is not None:
                        raise SystemExit((directory / "log").read_text()[-2000:])
                    time.sleep(0.1)
                time.sleep(1)
                yield server
            finally:
                server.terminate()
                server.wait(30)


def _memory(pid: int) -> float:
    """Resident megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def _told(name: str, found: list[float], before: float, after: float) -> bool:
    p99 = found[int(len(found) * 0.99)]
    right = p99 <= LIMIT_MS and after - before <= LIMIT_MB
    verdict = "" if right else "  beyond the limit"
    median, most = found[len(found) // 2], found[-1]
    print(
        f"| {name} | {len(found)} | {median:.1f} | {p99:.1f} | {most:.1f} | {before:.0f} → {after:.0f} |{verdict}",
        flush=True,
    )
    return right


def main(only: str) -> int:
    """All floods, or one."""
    wrong = 0
    with _server() as server:
        print("| flood | asked | median ms | 99 % ms | most ms | MB |\n|---|---|---|---|---|---|")
        before = _memory(server.pid)
        _told("none", waits(SECONDS), before, _memory(server.pid))
        for name, flood in FLOODS.items():
            if only and only != name:
                continue
            before = _memory(server.pid)
            child = multiprocessing.get_context("fork").Process(target=flood, daemon=True)
            child.start()
            time.sleep(0.5)
            try:
                found = waits(SECONDS)
            finally:
                child.kill()
                child.join()
            wrong += not _told(name, found, before, _memory(server.pid))
            time.sleep(1)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
