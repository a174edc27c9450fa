"""Non-INVITE client transactions over UDP (RFC 3261 section 17.1.2.2), on one socket for many phones.

Times are wall-clock seconds; the arrival of a response is the kernel's time of it, so that a busy test
process does not make an answer look late.
"""

import asyncio
import contextlib
import dataclasses
import random
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from tests.kit.sip import Message, parse, request

T1, T2 = 0.5, 4.0
TIMER_F = 64 * T1
REMEMBERED = 20_000
"""Ended transactions that a late response is still matched with."""
SO_TIMESTAMPNS = 35  # Linux, asm-generic/socket.h; the socket module does not name it


@dataclasses.dataclass(slots=True, eq=False)
class Exchange:
    """One request and what came of it."""

    edge: str
    branch: str
    sendings: list[float]
    """When it was sent, retransmissions included."""
    packet: bytes = dataclasses.field(repr=False)
    proceeding: bool = False
    """A provisional response came: timer E is T2 from now on."""
    answer: Message | None = None
    """The first final response."""
    answered: float | None = None
    scattered: bool = False
    """Another edge got a copy, and answers too."""
    ended: float | None = None
    """When the transaction was over, answered or not."""
    late: tuple[int, float] | None = None
    """Status and time of a first final response that came after the phone had given up."""

    @property
    def sent(self) -> float:
        """When it was sent first."""
        return self.sendings[0]

    @property
    def copies(self) -> int:
        """How many retransmissions there were."""
        return len(self.sendings) - 1

    @property
    def took(self) -> float | None:
        """Seconds to the final response."""
        return None if self.answered is None else self.answered - self.sent


class Transactions:
    """Sends requests and matches responses by their branch."""

    def __init__(self, changed: Callable[[Exchange, Message], None], seed: int = 1) -> None:
        """`changed` hears of a final response that differs in status from the first one."""
        self._changed = changed
        self._random = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.local: tuple[str, int] = self._socket.getsockname()
        self._open: dict[str, tuple[Exchange, asyncio.Future[None]]] = {}
        self._ended: OrderedDict[str, Exchange] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Ends; open transactions get no answer."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def branch(self) -> str:
        """A new branch."""
        return f"z9hG4bK{self._random.getrandbits(64):016x}"

    def request(
        self, method: str, uri: str, aor: str, call_id: str, cseq: int, branch: str, rows: Sequence[str] = ()
    ) -> bytes:
        """A request of one phone to its registrar."""
        lines = [
            f"Via: SIP/2.0/UDP {self.local[0]}:{self.local[1]};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: <{aor}>;tag={branch[-8:]}",
            f"To: <{aor}>",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            "User-Agent: chaos",
            *rows,
        ]
        return request(method, uri, lines)

    async def send(
        self,
        edge: str,
        address: tuple[str, int],
        branch: str,
        packet: bytes,
        patience: float,
        copy_to: tuple[str, int] | None = None,
    ) -> Exchange:
        """Sends with timer E until a final response, `patience` or timer F; never raises for want of an answer.

        The first packet also goes to `copy_to`.
        """
        exchange = Exchange(edge, branch, [time.time()], packet, scattered=copy_to is not None)
        answered: asyncio.Future[None] = self._loop.create_future()
        self._open[branch] = exchange, answered
        give_up = self._loop.time() + min(patience, TIMER_F)
        interval = T1
        try:
            self._put(packet, address)
            if copy_to is not None:
                self._put(packet, copy_to)
            while (left := give_up - self._loop.time()) > 0:
                done, _ = await asyncio.wait({answered}, timeout=min(interval, left))
                if done:
                    break
                if self._loop.time() < give_up:
                    exchange.sendings.append(time.time())
                    interval = T2 if exchange.proceeding else min(2 * interval, T2)
                    self._put(packet, address)
        finally:
            exchange.ended = time.time()
            del self._open[branch]
            self._ended[branch] = exchange
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return exchange

    def _put(self, packet: bytes, address: tuple[str, int]) -> None:
        # A full buffer or a closed port is a lost datagram: that is what timer E is for.
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, address)

    def _readable(self) -> None:
        for _ in range(256):
            try:
                datagram, ancillary, _, _ = self._socket.recvmsg(65535, 64)
            except OSError:
                return
            answer = parse(datagram)
            if not answer.status:  # an edge may ping its flows
                continue
            if answer.status < 200:
                if held := self._open.get(answer.branch):
                    held[0].proceeding = True
                continue
            at = time.time()
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack("qq", content)
                    at = seconds + nanoseconds / 1e9
            self._answered(answer, at)

    def _answered(self, answer: Message, at: float) -> None:
        if held := self._open.get(answer.branch):
            exchange, future = held
            if not future.done():
                exchange.answer, exchange.answered = answer, at
                future.set_result(None)
                return
        else:
            late = self._ended.get(answer.branch)
            if late is None:
                return
            exchange = late
            if exchange.answer is None:
                exchange.late = exchange.late or (answer.status, at)
                return
        if exchange.answer is not None and exchange.answer.status != answer.status:
            self._changed(exchange, answer)
