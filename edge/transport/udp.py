"""UDP: one's own non-blocking socket on the event loop, drained up to a bound at each wake-up.

Bound to the wildcard address it learns for each datagram which of our addresses it was sent to, and sends
from that one again: a phone's NAT and a Service's connection tracking know no other (RFC 3581 section 4).

ICMP errors are read from the socket's error queue (IP_RECVERR) and told for the datagram they quote
(RFC 3261 section 18.4). While such an error waits, epoll reports EPOLLERR, upon which libuv, and so
uvloop, ends its watch for good: the loop therefore watches an epoll of ours that watches the socket.
"""

import asyncio
import contextlib
import errno
import logging
import select
import socket
import struct
from collections import deque
from collections.abc import Callable

from edge.core.flow import WILDCARDS, Flow
from edge.transport.floods import Instruction, attach
from runtime.inherited import inherited
from runtime.metrics import dropped

log = logging.getLogger("ramal.edge")

DATAGRAM = 65_535
"""The greatest UDP payload fits (CHECKLIST T07); the parser's cap comes after."""
DRAIN = 512
"""Datagrams taken at one wake-up: more than are answered in one turn (`turns`), so that a flood waits, and is
dropped, by its source and not together with everybody else in the kernel's buffer."""
RECEIVE_BUFFER = 4 * 1024 * 1024
"""Asked for; the kernel may give less (net.core.rmem_max)."""
NOT_OURS = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH})
"""Said of a source that is no address of this host. A flow of an earlier life may have one, since a pod that comes back
has another address: the one that the route has is the best that is left."""
UNSENT = 1000
"""Datagrams held while the kernel takes no more."""

IP_PKTINFO = 8
"""<linux/in.h>; Python's socket has no name for it before 3.14."""
IN_PKTINFO = struct.Struct("=I4s4s")
IN6_PKTINFO = struct.Struct("=16sI")
ANCILLARY = 64

IP_RECVERR, IPV6_RECVERR = 11, 25
"""<linux/in.h>, <linux/in6.h>."""
EXTENDED_ERROR = struct.Struct("=IBBB")
"""The first fields of sock_extended_err, <linux/errqueue.h>: errno, origin, ICMP type, ICMP code."""
ICMP, ICMP6 = 2, 3
"""Origins; an error that was born here has been told by sendto already."""
UNREACHABLE = {(ICMP, 3), (ICMP, 12), (ICMP6, 1), (ICMP6, 4)}
"""Origin and type of what is a transport error (RFC 3261 section 18.4): unreachable, parameter problem."""
TOO_BIG = (ICMP, 3, 4)
"""Of these, the one that is none: the kernel now knows the path's MTU and cuts the retransmission into fragments."""
ERROR_ANCILLARY = 256
REMEMBERED = 512
"""Datagrams whose failure is still asked for; the oldest is forgotten."""

Receive = Callable[[bytes, Flow], None]
Drained = Callable[[], None]
Failed = Callable[[str], None]


def bind(sock: socket.socket, host: str, port: int) -> None:
    """Binds it, so that all is told of whatever comes from then on; OSError when the address is taken."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):  # a smaller buffer loses datagrams earlier, nothing else
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if host in WILDCARDS:
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind((host, port))


class UdpSocket:
    """One bound UDP socket."""

    def __init__(self, host: str, port: int, receive: Receive, drained: Drained, failed: Failed) -> None:
        """`receive` gets each datagram with its flow, `failed` the id of what could not be sent.

        `drained` is called once after each wake-up.
        """
        self.host, self.port = host, port
        self._receive, self._drained, self._failed = receive, drained, failed
        self.ipv6 = ":" in host
        self.wildcard = host in WILDCARDS
        self._socket = inherited("udp", host, port) or socket.socket(
            socket.AF_INET6 if self.ipv6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        self._epoll = select.epoll()
        self._unsent: deque[tuple[bytes, str, int, str, str]] = deque()
        self._sent: deque[tuple[str, int, str, bytes]] = deque(maxlen=REMEMBERED)
        """Address, id and octets of the last datagrams whose failure is to be told."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds and reads; raises OSError when the address is taken. `port` is the real one then."""
        if not self._socket.getsockname()[1]:
            bind(self._socket, self.host, self.port)
        else:
            with contextlib.suppress(OSError):  # a filter that whoever read it before may have left
                attach(self._socket, [])
        self.port = self._socket.getsockname()[1]
        self._loop = loop
        self._epoll.register(self._socket.fileno(), select.EPOLLIN)
        loop.add_reader(self._epoll.fileno(), self._ready)

    def close(self) -> None:
        """Ends reading and sending; what the kernel did not take is lost."""
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._loop = None
        self._epoll.close()
        self._socket.close()

    def filter(self, instructions: list[Instruction]) -> None:
        """Has the kernel throw away what these say (`edge.transport.floods`)."""
        if self._loop is None:
            return
        try:
            attach(self._socket, instructions)
        except OSError as error:  # a kernel without them: a flood is then dropped here, as far as it can be read
            log.warning("a socket cannot be filtered", extra={"error": str(error)})

    def serves(self, local_host: str) -> bool:
        """Whether datagrams to this address of ours come in here."""
        return (":" in local_host) == self.ipv6 if self.wildcard else local_host == self.host

    def send(self, data: bytes, host: str, port: int, local_host: str, id_: str = "") -> None:
        """Sends a datagram; a failure is a named drop, and told if there is an id.

        It leaves from `local_host`; where that is "", or no address of ours any more, from the one that the route has.
        """
        if self._unsent:
            self._keep(data, host, port, local_host, id_)
            return
        try:
            self._send(data, host, port, local_host)
        except BlockingIOError:
            self._keep(data, host, port, local_host, id_)
        except (OSError, OverflowError):
            self._send_again(data, host, port, local_host, id_)
        else:
            if id_:
                self._sent.append((host, port, id_, data))

    def _send_again(self, data: bytes, host: str, port: int, local_host: str, id_: str) -> None:
        """Once more: with IP_RECVERR the first failure may have been that of an earlier datagram elsewhere."""
        self._read_errors()
        try:
            self._send(data, host, port, local_host)
        except (OSError, OverflowError):
            dropped("udp-send-failed")
            if id_:
                self._failed(id_)
        else:
            if id_:
                self._sent.append((host, port, id_, data))

    def _send(self, data: bytes, host: str, port: int, local_host: str) -> None:
        if self.wildcard and local_host:
            try:
                self._send_from(local_host, data, host, port)
            except OSError as error:
                if error.errno not in NOT_OURS:
                    raise
            else:
                return
        self._socket.sendto(data, (host, port))

    def _send_from(self, local_host: str, data: bytes, host: str, port: int) -> None:
        if self.ipv6:
            source = IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, local_host), 0)
            self._socket.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source)], 0, (host, port))
        else:
            source = IN_PKTINFO.pack(0, socket.inet_aton(local_host), b"\0\0\0\0")
            self._socket.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, (host, port))

    def _keep(self, data: bytes, host: str, port: int, local_host: str, id_: str) -> None:
        if self._loop is None or len(self._unsent) >= UNSENT:
            dropped("udp-send-queue-full")
            if id_:
                self._failed(id_)
            return
        self._unsent.append((data, host, port, local_host, id_))
        if len(self._unsent) == 1:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, deque()
        while unsent and not self._unsent:
            self.send(*unsent.popleft())
        if self._unsent:
            self._unsent.extend(unsent)
        elif self._loop is not None:
            self._epoll.modify(self._socket.fileno(), select.EPOLLIN)

    def _ready(self) -> None:
        try:
            if self._unsent:
                self._send_unsent()
            if self.wildcard:
                self._drain_wildcard()
            else:
                self._drain()
        except OSError:  # of an earlier datagram
            self._read_errors()
        finally:
            self._drained()

    def _read_errors(self) -> None:
        """Takes what the kernel heard of datagrams that did not arrive."""
        for _ in range(DRAIN):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(DATAGRAM, ERROR_ANCILLARY, socket.MSG_ERRQUEUE)
            except OSError:  # none is left
                return
            if any(_unreachable(level, kind, value) for level, kind, value in ancillary):
                dropped("udp-unreachable")
                self._tell(quoted, address[0], address[1])

    def _tell(self, quoted: bytes, host: str, port: int) -> None:
        """Tells the id of the datagram that an error quotes; an old router quotes none: then it was the last."""
        for sent_host, sent_port, id_, data in reversed(self._sent):
            if sent_port == port and sent_host == host and data.startswith(quoted):
                self._failed(id_)
                return

    def _drain(self) -> None:
        receive_from, receive, host, port = self._socket.recvfrom, self._receive, self.host, self.port
        for taken in range(DRAIN):
            try:
                data, source = receive_from(DATAGRAM)
            except BlockingIOError:
                if not taken:  # what woke us was an error
                    self._read_errors()
                return
            receive(data, Flow("udp", host, port, source[0], source[1]))

    def _drain_wildcard(self) -> None:
        receive_message, receive, port = self._socket.recvmsg, self._receive, self.port
        for taken in range(DRAIN):
            try:
                data, ancillary, _, source = receive_message(DATAGRAM, ANCILLARY)
            except BlockingIOError:
                if not taken:
                    self._read_errors()
                return
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


def _unreachable(level: int, kind: int, value: bytes) -> bool:
    """Whether an item of the error queue says that a datagram cannot arrive."""
    if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
        return False
    _, origin, icmp_type, code = EXTENDED_ERROR.unpack_from(value)
    return (origin, icmp_type) in UNREACHABLE and (origin, icmp_type, code) != TOO_BIG
