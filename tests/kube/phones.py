"""Phones in the namespace `kube-phone`: they see the cluster from outside, by the address of its Service."""

import asyncio
import contextlib
import dataclasses
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.kit.phone import Phone
from tests.kit.sip import Credentials, ha1, parse, request
from tests.kit.wire import Address, StreamLink, UdpLink
from tests.kube.netns import PHONES, inside, udp_socket

DOMAIN = "example.test"
T1 = 0.5
"""Seconds; RFC 3261 section 17.1.2.2: copies after T1, then after twice as long each time, T2 at most."""
T2 = 4.0
GIVE_UP = 32.0


def password(user: str) -> str:
    """Of a user in the cluster's users file."""
    return f"secret-{user}"


def users_file(users: list[str]) -> str:
    """Lines of Apache's htdigest."""
    return "".join(f"{user}:{DOMAIN}:{ha1(user, DOMAIN, password(user))}\n" for user in users)


class Seen:
    """All that phones got, and from where."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Address]] = []

    @property
    def sources(self) -> set[Address]:
        """The addresses that something came from."""
        return {source for _, source in self.messages}

    def rows(self, *names: str) -> set[str]:
        """The values of these headers, of all messages."""
        return {value for octets, _ in self.messages for name in names for value in parse(octets).all(name)}


class OutsideUdp(UdpLink):
    """UDP from the phones' namespace."""

    def __init__(self, edge: Address, seen: Seen) -> None:
        super().__init__(edge)
        self._socket.close()
        self._socket = udp_socket()
        self.local = self._socket.getsockname()
        self._seen = seen

    def receive(self, until: float) -> tuple[bytes, Address]:
        octets, source = super().receive(until)
        self._seen.messages.append((octets, source))
        return octets, source


class OutsideTcp(StreamLink):
    """TCP from the phones' namespace."""

    def __init__(self, edge: Address, seen: Seen) -> None:
        with inside(PHONES):
            super().__init__("tcp", edge)
        self._seen = seen

    def receive(self, until: float) -> tuple[bytes, Address]:
        octets, source = super().receive(until)
        self._seen.messages.append((octets, source))
        return octets, source


def caller(user: str, server: Address, transport: str = "udp", seen: Seen | None = None) -> Phone:
    """A phone that calls and is called."""
    seen = seen or Seen()
    link = OutsideUdp(server, seen) if transport == "udp" else OutsideTcp(server, seen)
    return Phone(link, user, password(user), DOMAIN)


# --- phones that register again and again -----------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    """What refreshes were answered."""

    took: list[float] = dataclasses.field(default_factory=list)
    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    failed: list[str] = dataclasses.field(default_factory=list)
    retry_after: Counter[str] = dataclasses.field(default_factory=Counter)
    sources: set[Address] = dataclasses.field(default_factory=set)
    first_bad: float = 0.0
    last_bad: float = 0.0

    def __str__(self) -> str:
        took = sorted(self.took) or [0.0]
        p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
        return (
            f"{len(self.took)} refreshes, {dict(self.statuses)}; p50 {p50:.0f} ms, p99 {p99:.0f} ms, "
            f"most {took[-1] * 1000:.0f} ms"
        )


class Refresher(asyncio.DatagramProtocol):
    """One phone: REGISTER, with copies as RFC 3261 has them, each `gap` seconds."""

    def __init__(self, user: str, server: Address, report: Report) -> None:
        self.user, self.server, self.report = user, server, report
        self.call_id, self.cseq = secrets.token_hex(8), 0
        self.credentials = Credentials(user, password(user), DOMAIN)
        self.instance = secrets.token_hex(16)
        self._answer: asyncio.Future[bytes] | None = None
        self._branch = b""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.report.sources.add(addr[:2])
        waiting = self._answer
        if data.startswith(b"SIP/2.0 ") and waiting and not waiting.done() and self._branch in data:
            if int(data[8:11]) >= 200:
                waiting.set_result(data)
        elif data.startswith(b"OPTIONS ") and self._transport:
            kept = ("via", "from", "to", "call-id", "cseq")
            rows = [f"{name}: {value}" for name, value in parse(data).rows if name in kept]
            self._transport.sendto("\r\n".join(["SIP/2.0 200 OK", *rows, "Content-Length: 0", "", ""]).encode(), addr)

    async def register(self) -> tuple[int, str]:
        """Status of the final response, and its Retry-After; 0 for none. A challenge is answered."""
        status, after = await self._ask()
        if status == 401:
            status, after = await self._ask()
        return status, after

    async def _ask(self) -> tuple[int, str]:
        assert self._transport
        self.cseq += 1
        self._branch = f"z9hG4bK{secrets.token_hex(8)}".encode()
        host, port = self._transport.get_extra_info("sockname")
        uri = f"sip:{DOMAIN}"
        rows = [
            f"Via: SIP/2.0/UDP {host}:{port};branch={self._branch.decode()};rport",
            "Max-Forwards: 70",
            f"From: <sip:{self.user}@{DOMAIN}>;tag=r",
            f"To: <sip:{self.user}@{DOMAIN}>",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} REGISTER",
            f'Contact: <sip:{self.user}@{host}:{port}>;+sip.instance="<urn:uuid:{self.instance}>"',
            "Expires: 300",
        ]
        if self.credentials.nonce:
            rows.append(f"Authorization: {self.credentials.answer('REGISTER', uri)}")
        octets = request("REGISTER", uri, rows)
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        wait, end = T1, loop.time() + GIVE_UP
        while loop.time() < end:
            self._transport.sendto(octets, self.server)
            with contextlib.suppress(TimeoutError):
                answer = parse(await asyncio.wait_for(asyncio.shield(self._answer), wait))
                if answer.status == 401:
                    assert self.credentials.challenged(answer), answer.rows
                return answer.status, "".join(answer.all("retry-after"))
            wait = min(2 * wait, T2)
        return 0, ""


async def _run(users: list[str], server: Address, gap: float, report: Report, ended: threading.Event) -> None:
    loop = asyncio.get_running_loop()

    async def one(number: int, user: str) -> None:
        transport, phone = await loop.create_datagram_endpoint(
            lambda: Refresher(user, server, report), sock=udp_socket()
        )
        await asyncio.sleep(gap * number / len(users))
        while not ended.is_set():
            began = time.time()
            status, after = await phone.register()
            report.took.append(time.time() - began)
            report.statuses[str(status)] += 1
            if status != 200:
                report.failed.append(f"{user} at {began:.1f}: {status or 'no answer'}")
                report.first_bad, report.last_bad = report.first_bad or began, began
                report.retry_after[after] += 1
            await asyncio.sleep(max(0.0, began + gap - time.time()))
        transport.close()

    await asyncio.gather(*(one(number, user) for number, user in enumerate(users)))


@contextlib.contextmanager
def refreshing(users: list[str], server: Address, gap: float = 1.0) -> Iterator[Report]:
    """So many phones register again and again while the block runs; the report is whole after it."""
    report, ended = Report(), threading.Event()
    broken: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_run(users, server, gap, report, ended))
        except BaseException as error:  # noqa: BLE001  # raised in the test below
            broken.append(error)

    thread = threading.Thread(target=run, name="refreshing phones")
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()
    if broken:
        raise broken[0]
