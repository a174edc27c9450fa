"""Registrations through a cold chain until its JVM has compiled what it needs: a cold one's p99 is 400 ms.

The phones are scratch users of `subscriber`, gone again afterwards with their registrations; what stays is a few
closed intervals of `ramal-warmup-…` in the history.
"""

import asyncio
import contextlib
import re
import secrets
import socket
import time
from typing import NamedTuple

from authsvc.users import table as subscriber
from runtime.database.port import Database
from sipcore.digest import expected_response, ha1

PHONES = 64
FOR_PEOPLE = 3000
"""Registrations that make a system pleasant to try; a measurement wants far more."""
SETTLE = 4.0
"""Seconds of rest afterwards: the JVM's compiler has work left that a busy machine put off."""
SECONDS = 75.0
"""No longer than this, however slow the machine."""
RESEND, GIVE_UP = 0.5, 5.0
_NONCE = re.compile(rb'nonce="([^"]+)"')


class Challenged(NamedTuple):
    """A nonce, and how often we used it."""

    nonce: str
    uses: int


class Phone:
    """One user's registrations, one after the other, over a socket of its own."""

    def __init__(self, edge: tuple[str, int], domain: str, user: str, password: str) -> None:
        self._domain, self._user = domain, user
        self._ha1 = ha1("MD5", user, domain, password)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(edge)
        self._host, self._port = self._socket.getsockname()
        self._call_id = secrets.token_hex(8)
        self._cseq = 0
        self._challenge: Challenged | None = None

    def close(self) -> None:
        self._socket.close()

    async def register(self, contact: str, expires: int) -> None:
        """Until it is accepted; raises TimeoutError."""
        async with asyncio.timeout(GIVE_UP):
            while True:
                answer = await self._ask(self._request(contact, expires))
                status, nonce = answer[8:11], _NONCE.search(answer)
                if status == b"200":
                    return
                if status == b"401" and nonce:
                    self._challenge = Challenged(nonce[1].decode(), 0)
                else:
                    await asyncio.sleep(0.1)

    @property
    def contact(self) -> str:
        return f"<sip:{self._user}@{self._host}:{self._port}>"

    def _request(self, contact: str, expires: int) -> bytes:
        self._cseq += 1
        credentials = ""
        if self._challenge:
            self._challenge = Challenged(self._challenge.nonce, self._challenge.uses + 1)
            nonce, uses = self._challenge
            uri, cnonce = f"sip:{self._domain}", secrets.token_hex(4)
            response = expected_response("MD5", self._ha1, "REGISTER", uri, nonce, "auth", uses, cnonce)
            credentials = (
                f'Authorization: Digest username="{self._user}", realm="{self._domain}", nonce="{nonce}", uri="{uri}",'
                f' response="{response}", algorithm=MD5, qop=auth, nc={uses:08x}, cnonce="{cnonce}"\r\n'
            )
        address = f"<sip:{self._user}@{self._domain}>"
        return (
            f"REGISTER sip:{self._domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._host}:{self._port};branch=z9hG4bK{secrets.token_hex(8)};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: {address};tag={self._call_id[:6]}\r\nTo: {address}\r\n"
            f"Call-ID: {self._call_id}\r\nCSeq: {self._cseq} REGISTER\r\n"
            f"Contact: {contact}\r\nExpires: {expires}\r\n{credentials}Content-Length: 0\r\n\r\n"
        ).encode()

    async def _ask(self, request: bytes) -> bytes:
        """The final response to this request; resends it."""
        loop = asyncio.get_running_loop()
        mark = f"CSeq: {self._cseq} ".encode()
        while True:
            await loop.sock_sendall(self._socket, request)
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                async with asyncio.timeout(RESEND):
                    while True:
                        answer = await loop.sock_recv(self._socket, 65536)
                        if mark in answer and answer[8:9] != b"1":
                            return answer


async def warm_up(database: Database, edge: tuple[str, int], domain: str, registrations: int) -> int:
    """Registers scratch users again and again; how many registrations it was. Raises TimeoutError."""
    users = {f"ramal-warmup-{number:02}": secrets.token_hex(8) for number in range(PHONES)}
    for name, password in users.items():
        await subscriber.add_user(database, name, domain, password)
    phones = [Phone(edge, domain, name, password) for name, password in users.items()]
    until = time.monotonic() + SECONDS
    done = 0

    async def repeat(phone: Phone) -> None:
        nonlocal done
        while done < registrations and time.monotonic() < until:
            await phone.register(phone.contact, 300)
            done += 1
        await phone.register("*", 0)

    try:
        async with asyncio.TaskGroup() as tasks:
            for phone in phones:
                tasks.create_task(repeat(phone))
    except* TimeoutError:
        raise TimeoutError(f"a registration was not accepted within {GIVE_UP:.0f} s") from None
    finally:
        for phone in phones:
            phone.close()
        for name in users:
            await subscriber.remove_user(database, name, domain)
    return done
