"""The transports of an edge with a core that only notes what it hears, and certificates for them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.core.actions import Actions, Send
from edge.core.addresses import networks
from edge.core.flow import Flow
from edge.transport.connections import StreamLimits
from edge.transport.layer import StreamSettings, Transports
from edge.transport.tls import Certificates
from events.replies import Reply
from runtime.pages import Pages
from sipcore.errors import ParseError
from sipcore.message import Request, Response
from sipcore.parser import Item, parse_datagram

DEADLINE = 5.0


def options(number: int = 1, *, length: bool = True, body: str = "") -> bytes:
    """An OPTIONS request."""
    row = f"Content-Length: {len(body.encode())}\r\n" if length else ""
    return (
        f"OPTIONS sip:example.test SIP/2.0\r\nVia: SIP/2.0/WS a.invalid;branch=z9hG4bK{number}\r\n"
        f"From: <sip:a@example.test>;tag=1\r\nTo: <sip:b@example.test>\r\nCall-ID: c{number}\r\n"
        f"CSeq: {number} OPTIONS\r\nMax-Forwards: 70\r\n{row}\r\n{body}"
    ).encode()


def ok(number: int = 1) -> bytes:
    """A response."""
    return (
        f"SIP/2.0 200 OK\r\nVia: SIP/2.0/WS a.invalid;branch=z9hG4bK{number}\r\n"
        f"From: <sip:a@example.test>;tag=1\r\nTo: <sip:b@example.test>;tag=2\r\nCall-ID: c{number}\r\n"
        f"CSeq: {number} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class NotingCore:
    """Answers every request on a stream with 200, a keep-alive with CRLF, what is unreadable with 400."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[Item | bytes, Flow]] = asyncio.Queue()
        self.gone: asyncio.Queue[Flow] = asyncio.Queue()
        self.failures: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.answers = True
        self._actions = Actions()

    def datagram(self, data: bytes, flow: Flow, now: float) -> None:
        self.heard.put_nowait((data, flow))

    def stream(self, items: Iterable[Item], flow: Flow, now: float) -> None:
        for item in items:
            self.heard.put_nowait((item, flow))
            if not self.answers or isinstance(item, Response):
                continue
            if isinstance(item, Request):
                self.want(Send(flow, ok(item.cseq.number), 0))
            elif isinstance(item, ParseError):
                self.want(Send(flow, b"SIP/2.0 400 Bad\r\nContent-Length: 0\r\n\r\n", 0))
            else:
                self.want(Send(flow, b"\r\n", 0))

    def closed(self, flow: Flow, now: float) -> None:
        self.gone.put_nowait(flow)

    def unsent(self, failures: Iterable[tuple[str, int]], now: float) -> None:
        for failure in failures:
            self.failures.put_nowait(failure)

    def replied(self, replies: Iterable[Reply], now: float) -> None: ...

    def unpublished(self, ids: Iterable[str], now: float) -> None: ...

    def next_timer(self) -> float | None:
        return None

    def on_time(self, now: float) -> None: ...

    def take(self) -> Actions:
        taken, self._actions = self._actions, Actions()
        return taken

    def want(self, send: Send) -> None:
        """Has something sent at the next flush."""
        self._actions.sends.append(send)

    @property
    def actions(self) -> Actions:
        """What the next flush will do."""
        return self._actions

    async def message(self) -> tuple[Item | bytes, Flow]:
        return await asyncio.wait_for(self.heard.get(), DEADLINE)

    async def request(self) -> tuple[Request, Flow]:
        item, flow = await self.message()
        if isinstance(item, bytes):
            item = parse_datagram(item)
        assert isinstance(item, Request), item
        return item, flow

    async def closed_flow(self) -> Flow:
        return await asyncio.wait_for(self.gone.get(), DEADLINE)

    async def failure(self) -> tuple[str, int]:
        return await asyncio.wait_for(self.failures.get(), DEADLINE)


class TestEdge:
    """Transports on loopback."""

    __test__ = False

    def __init__(self, core: NotingCore, transports: Transports) -> None:
        self.core, self.transports = core, transports

    def port(self, transport: str) -> int:
        return self.transports.bound(transport)[0][1]

    def send(self, flow: Flow, data: bytes, port: int = 0, **rest: Any) -> None:
        self.core.want(Send(flow, data, port, **rest))
        self.transports.flush()


@asynccontextmanager
async def running(
    *transports: str,
    host: str = "127.0.0.1",
    connections: int = 100,
    per_source: int = 100,
    message_seconds: float = 10.0,
    idle_seconds: float = 180.0,
    certificates: Certificates | None = None,
    origins: tuple[str, ...] = (),
    proxies: tuple[str, ...] = (),
    pages: Pages | None = None,
) -> AsyncIterator[TestEdge]:
    """An edge that listens by these transports."""
    settings = StreamSettings(
        StreamLimits(connections, per_source, message_seconds, idle_seconds),
        certificates or Certificates("", ""),
        origins,
        networks(proxies, "PROXIES"),
    )
    core = NotingCore()
    edge = Transports(core, lambda publishes: None, settings, edge="edge-1", boot="b1")
    if pages:
        edge.serve_pages(pages)
    await edge.start({transport: [(host, 0)] for transport in transports})
    try:
        yield TestEdge(core, edge)
    finally:
        await edge.stop()
        await drained(lambda: len(edge._streams) == 0)


async def drained(done: Callable[[], bool]) -> None:
    """Waits until something that has no event is so."""
    async with asyncio.timeout(DEADLINE):
        while not done():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file = directory / "authority.pem"
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, *names: str, file: str = "edge") -> tuple[str, str]:
        """Certificate and key for names (`sip:…` for a URI, an address, else DNS), as file names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")])
        builder = self._builder(subject, key).add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        certificate, private_key = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(certificate), str(private_key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


def _general_name(name: str) -> x509.GeneralName:
    if name.startswith("sip:"):
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
