"""Phones that all come back at once: registrations by UDP as RFC 3261 has them, for bench/storm.py and its test.

Each sends REGISTER, answers a challenge, repeats itself by timer E and gives a transaction up by timer F (section
17.1.2), waits as long as a Retry-After says, and after a transaction without an answer for half to all of 30 seconds
(RFC 5626 section 4.5) before the next edge. Many share a socket; to an edge each is a Call-ID of its own.
"""

import asyncio
import hashlib
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence

T1, T2, TIMER_F = 0.5, 4.0, 32.0
SILENT_SECONDS = 30.0
SOCKETS = 100
_BRANCH = re.compile(rb"z9hG4bK-storm-(\d+)-(\d+)")
_NONCE = re.compile(rb'nonce="([^"]+)"')
_RETRY = re.compile(rb"\r\nRetry-After: *(\d+)", re.IGNORECASE)
_EXPIRES = re.compile(rb";expires=(\d+)")

Address = tuple[str, int]


class Phone:
    """One user's registration."""

    __slots__ = ("attempt", "began", "credentials", "cseq", "edge", "number", "octets", "registered", "timer")

    def __init__(self, number: int) -> None:
        self.number = number
        self.cseq = 0
        self.edge = 0
        self.attempt = 0
        """How often the request was sent."""
        self.began = 0.0
        """When its transaction began, on the monotonic clock."""
        self.octets = b""
        self.credentials = ""
        self.registered: float | None = None
        """When it heard 200."""
        self.timer: asyncio.TimerHandle | None = None


class Crowd(asyncio.DatagramProtocol):
    """Phones of users `u00000`… with the passwords `secret-u00000`…, and what they heard."""

    def __init__(self, phones: int, edges: Sequence[Address], domain: str, seed: int = 1, expires: int = 3600) -> None:
        self.phones = [Phone(number) for number in range(phones)]
        self.edges = list(edges)
        self._domain, self.expires = domain, expires
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._transports: list[asyncio.DatagramTransport] = []
        self.heard: Counter[int] = Counter()
        self.retry_after: Counter[int] = Counter()
        """Seconds that a 503 named; -1 where it named none."""
        self.granted: Counter[int] = Counter()
        self.resent = 0
        self.given_up = 0
        """Transactions without any answer."""
        self._left = 0
        self._all = asyncio.Event()
        self._registered: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Opens the sockets."""
        loop = asyncio.get_running_loop()
        for number in range(min(SOCKETS, len(self.phones))):
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            bound.bind((f"127.0.1.{1 + number}", 0))
            transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=bound)
            self._transports.append(transport)

    def close(self) -> None:
        """Ends all phones."""
        for phone in self.phones:
            if phone.timer:
                phone.timer.cancel()
        for transport in self._transports:
            transport.close()

    def forget(self) -> None:
        """What was heard so far counts no more; nobody is registered."""
        self.heard.clear()
        self.retry_after.clear()
        self.granted.clear()
        self.resent = self.given_up = 0
        for phone in self.phones:
            phone.registered = None

    async def register_in_turn(self, at_once: int) -> None:
        """So many at a time, until all are registered."""
        self._begin()
        rest = iter(self.phones)

        def next_one() -> None:
            if (phone := next(rest, None)) is not None:
                self._register(phone)

        self._registered = next_one
        for _ in range(at_once):
            next_one()
        await self._all.wait()
        self._registered = lambda: None

    async def storm(self, within: float, most_seconds: float) -> bool:
        """All of them within so many seconds; whether all were registered in time."""
        self._begin()
        began = time.monotonic()
        for number, phone in enumerate(self.phones):
            self._register(phone)
            if not number % 50:  # meanwhile what arrives is read
                await asyncio.sleep(max(0.0, began + within * number / len(self.phones) - time.monotonic()))
        try:
            async with asyncio.timeout(most_seconds):
                await self._all.wait()
        except TimeoutError:
            return False
        return True

    def _begin(self) -> None:
        self._left = len(self.phones)
        self._all.clear()

    def _register(self, phone: Phone) -> None:
        """A new transaction."""
        phone.cseq += 1
        phone.attempt = 0
        phone.began = time.monotonic()
        name = f"u{phone.number:05d}"
        transport = self._transports[phone.number % len(self._transports)]
        host, port = transport.get_extra_info("sockname")
        phone.octets = (
            f"REGISTER sip:{self._domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-storm-{phone.number}-{phone.cseq}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{name}@{self._domain}>;tag=s{phone.number}\r\n"
            f"To: <sip:{name}@{self._domain}>\r\nCall-ID: storm-{phone.number}@{host}\r\n"
            f"CSeq: {phone.cseq} REGISTER\r\nContact: <sip:{name}@{host}:{port};x={phone.number}>\r\n"
            f"Expires: {self.expires}\r\n{phone.credentials}User-Agent: storm\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        self._send(phone)

    def _send(self, phone: Phone) -> None:
        self._transports[phone.number % len(self._transports)].sendto(
            phone.octets, self.edges[phone.edge % len(self.edges)]
        )
        phone.attempt += 1
        self.resent += phone.attempt > 1
        self._after(phone, min(T1 * 2 ** (phone.attempt - 1), T2), self._again)

    def _after(self, phone: Phone, seconds: float, what: Callable[[Phone], None]) -> None:
        if phone.timer:
            phone.timer.cancel()
        phone.timer = asyncio.get_running_loop().call_later(seconds, what, phone)

    def _again(self, phone: Phone) -> None:
        """Timer E, or timer F."""
        if time.monotonic() - phone.began < TIMER_F:
            self._send(phone)
            return
        self.given_up += 1
        phone.edge += 1
        self._after(phone, SILENT_SECONDS * self._random.uniform(0.5, 1.0), self._register)

    def datagram_received(self, data: bytes, address: object) -> None:
        """A response; late ones to an earlier transaction are none of ours."""
        found = _BRANCH.search(data)
        if not found or not data.startswith(b"SIP/2.0 "):
            return
        phone, status = self.phones[int(found[1])], int(data[8:11])
        if int(found[2]) != phone.cseq or phone.registered is not None or status < 200:
            return
        self.heard[status] += 1
        if status == 401 and (challenge := _NONCE.search(data)):
            phone.credentials = self._credentials(phone, challenge[1].decode())
            self._register(phone)
        elif status == 200:
            if phone.timer:
                phone.timer.cancel()
            if (granted := re.search(rb"x=%d>[^\r,]*?;expires=(\d+)" % phone.number, data)) is not None:
                self.granted[int(granted[1])] += 1
            phone.credentials = ""
            phone.registered = time.monotonic()
            self._left -= 1
            self._registered()
            if not self._left:
                self._all.set()
        else:
            named = _RETRY.search(data)
            self.retry_after[int(named[1]) if named else -1] += 1
            phone.credentials = ""
            self._after(phone, float(named[1]) if named else SILENT_SECONDS, self._register)

    def _credentials(self, phone: Phone, nonce: str) -> str:
        name, uri = f"u{phone.number:05d}", f"sip:{self._domain}"
        ha1 = _md5(f"{name}:{self._domain}:secret-{name}")
        answer = _md5(f"{ha1}:{nonce}:00000001:c:auth:{_md5(f'REGISTER:{uri}')}")
        return (
            f'Authorization: Digest username="{name}", realm="{self._domain}", nonce="{nonce}", uri="{uri}",'
            f' response="{answer}", algorithm=MD5, qop=auth, nc=00000001, cnonce="c"\r\n'
        )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
