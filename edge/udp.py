"""UDP: one's own non-blocking socket on the event loop, drained up to a bound at each wake-up.

Bound to the wildcard address it learns for each datagram which of our addresses it was sent to, and sends
from that one again: a phone's NAT and a Service's connection tracking know no other (RFC 3581 section 4).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable

from edge.flow import Flow
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

DATAGRAM = 65_535
"""The greatest UDP payload fits (CHECKLIST T07); the parser's cap comes after."""
DRAIN = 64
"""Datagrams taken at one wake-up, before others have their turn."""
RECEIVE_BUFFER = 4 * 1024 * 1024
"""Asked for; the kernel may give less (net.core.rmem_max)."""
UNSENT = 1000
"""Datagrams held while the kernel takes no more."""

IP_PKTINFO = 8
"""<linux/in.h>; Python's socket has no name for it before 3.14."""
IN_PKTINFO = struct.Struct("=I4s4s")
IN6_PKTINFO = struct.Struct("=16sI")
ANCILLARY = 64

Receive = Callable[[bytes, Flow], None]
Drained = Callable[[], None]


class UdpSocket:
    """One bound UDP socket."""

    def __init__(self, host: str, port: int, receive: Receive, drained: Drained) -> None:
        """`receive` gets each datagram with its flow, `drained` is called once after each wake-up."""
        self.host, self.port = host, port
        self._receive, self._drained = receive, drained
        self._ipv6 = ":" in host
        self.wildcard = host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
        self._socket = socket.socket(socket.AF_INET6 if self._ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        self._unsent: deque[tuple[bytes, str, int, str]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds and reads; raises OSError when the address is taken. `port` is the real one then."""
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # a smaller buffer loses datagrams earlier, nothing else
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if self._ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if self.wildcard:
            if self._ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._socket.bind((self.host, self.port))
        self.port = self._socket.getsockname()[1]
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Ends reading and sending; what the kernel did not take is lost."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def serves(self, local_host: str) -> bool:
        """Whether datagrams to this address of ours come in here."""
        return (":" in local_host) == self._ipv6 if self.wildcard else local_host == self.host

    def send(self, data: bytes, host: str, port: int, local_host: str) -> None:
        """Sends a datagram from one of our addresses; a failure is a named drop (the peer asks again)."""
        if self._unsent:
            self._keep(data, host, port, local_host)
            return
        try:
            self._send(data, host, port, local_host)
        except BlockingIOError:
            self._keep(data, host, port, local_host)
        except (OSError, OverflowError):
            dropped("udp-send-failed")

    def _send(self, data: bytes, host: str, port: int, local_host: str) -> None:
        if not self.wildcard:
            self._socket.sendto(data, (host, port))
        elif self._ipv6:
            source = IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, local_host), 0)
            self._socket.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source)], 0, (host, port))
        else:
            source = IN_PKTINFO.pack(0, socket.inet_aton(local_host), b"\0\0\0\0")
            self._socket.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, (host, port))

    def _keep(self, data: bytes, host: str, port: int, local_host: str) -> None:
        if self._loop is None or len(self._unsent) >= UNSENT:
            dropped("udp-send-queue-full")
            return
        self._unsent.append((data, host, port, local_host))
        if len(self._unsent) == 1:
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        while self._unsent:
            try:
                self._send(*self._unsent[0])
            except BlockingIOError:
                return
            except (OSError, OverflowError):
                dropped("udp-send-failed")
            self._unsent.popleft()
        if self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            if self.wildcard:
                self._drain_wildcard()
            else:
                self._drain()
        except BlockingIOError:
            pass  # all is read
        except OSError:
            dropped("udp-receive-failed")
        finally:
            self._drained()

    def _drain(self) -> None:
        receive_from, receive, host, port = self._socket.recvfrom, self._receive, self.host, self.port
        for _ in range(DRAIN):
            data, source = receive_from(DATAGRAM)
            receive(data, Flow("udp", host, port, source[0], source[1]))

    def _drain_wildcard(self) -> None:
        receive_message, receive, port = self._socket.recvmsg, self._receive, self.port
        for _ in range(DRAIN):
            data, ancillary, _, source = receive_message(DATAGRAM, ANCILLARY)
            local = _destination(ancillary)
            if local:
                receive(data, Flow("udp", local, port, source[0], source[1]))
            else:
                dropped("udp-no-destination")


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The address of ours that a datagram was sent to; "" if the kernel did not say."""
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            # The second field: for a broadcast, the address to answer from.
            return socket.inet_ntoa(IN_PKTINFO.unpack(value)[1])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return socket.inet_ntop(socket.AF_INET6, IN6_PKTINFO.unpack(value)[0])
    return ""
