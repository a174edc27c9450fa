"""Floods by UDP: of a source that sends more than we can even throw away, the kernel lets a share in.

What waits for us is bounded by source (`edge.transport.turns`), but each is read first, and the kernel's buffer is
everybody's. So who has many thousands refused in a second is let in one time in eight, then one in 64, and so on, by a
filter on the socket (classic BPF, `man 7 socket`: SO_ATTACH_FILTER), until ten seconds have passed without a refusal;
then one step back at a time. Which datagrams are let in is chance, so somebody else behind the same NAT gets through
with his retransmissions. A flood from forged addresses is not seen here.
"""

import asyncio
import ctypes
import logging
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Protocol

log = logging.getLogger("ramal.edge")

STEP = 8
"""By how much a step divides what is let in."""
STEPS = 5
REFUSED = 4_000
"""Datagrams of a source refused in a second, from which on it is a flood and no crowd."""
LASTS = 10.0
"""Seconds without a refusal before a step back."""
LOOK_SECONDS = 1.0
"""Between two looks at who floods no longer."""
SOURCES = 32
"""Kept out at one time; a further one waits until another is let in."""

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""<asm-generic/socket.h>."""
_instruction = struct.Struct("=HBBI")
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""<linux/bpf_common.h>: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K."""
_NETWORK, _RANDOM = 0xFFF00000, 0xFFFFF000 + 56
"""SKF_NET_OFF: from here offsets count in the IP header; SKF_AD_OFF + SKF_AD_RANDOM."""
_SOURCE = {False: 12, True: 8}
"""Where the source address stands, by whether it is IPv6."""
_WHOLE = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]


class Floods:
    """Which sources flood, and what share of theirs is let in."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        """By source (`edge.transport.turns.network`), how many times its share was divided."""
        self._refused: dict[str, tuple[float, int]] = {}
        """By source, the beginning of a second and how many were refused in it."""
        self._last: dict[str, float] = {}
        """When one of theirs was last refused."""

    def refused(self, source: str, now: float) -> bool:
        """A datagram of this source found no room; whether its share has changed."""
        since, count = self._refused.get(source, (now, 0))
        if source in self._last:
            self._last[source] = now
        if now - since >= 1.0:
            since, count = now, 0
        count += 1
        if count < REFUSED or (source not in self.steps and len(self.steps) >= SOURCES):
            if len(self._refused) >= SOURCES and source not in self._refused:
                self._refused.clear()
            self._refused[source] = (since, count)
            return False
        del self._refused[source]
        self._last[source] = now
        step = self.steps.get(source, 0)
        self.steps[source] = min(step + 1, STEPS)
        return step < STEPS

    def look(self, now: float) -> bool:
        """Goes back a step for those of whom nothing was refused for a while; whether a share has changed."""
        quiet = [source for source, last in self._last.items() if now - last >= LASTS]
        for source in quiet:
            self._last[source] = now
            self.steps[source] -= 1
            if not self.steps[source]:
                del self.steps[source], self._last[source]
        return bool(quiet)


class Filtered(Protocol):
    """A socket that can leave datagrams to the kernel: `edge.transport.udp.UdpSocket`."""

    @property
    def ipv6(self) -> bool: ...

    def filter(self, instructions: list[Instruction]) -> None: ...


class FloodGate:
    """Holds the filters of an edge's sockets to what `Floods` says."""

    def __init__(self, sockets: Sequence[Filtered]) -> None:
        self.floods = Floods()
        self._sockets = sockets
        self._timer: asyncio.TimerHandle | None = None

    def refused(self, source: str) -> None:
        """A datagram of this source found no room."""
        if self.floods.refused(source, time.monotonic()):
            self.narrow(source)

    def narrow(self, source: str) -> None:
        """Less of a source is let in."""
        share = f"1/{STEP ** self.floods.steps[source]}"
        log.warning("a source floods by UDP: less is let in", extra={"source": source, "share": share})
        self._filter()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Looks no more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.floods.look(time.monotonic()):
            self._filter()
        if self.floods.steps:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _filter(self) -> None:
        for sock in self._sockets:
            sock.filter(program(self.floods.steps, ipv6=sock.ipv6))


def program(steps: Mapping[str, int], *, ipv6: bool) -> list[Instruction]:
    """The filter for sockets of one family; empty if none is needed."""
    instructions: list[Instruction] = []
    for source, step in steps.items():
        words = _words(source)
        if (len(words) == 2) is not ipv6:
            continue
        for index, word in enumerate(words):
            instructions.append((_LOAD, 0, 0, _NETWORK + _SOURCE[ipv6] + 4 * index))
            # Another source: past what is left of this one, four instructions and two for each further word.
            instructions.append((_EQUAL, 0, 4 + 2 * (len(words) - 1 - index), word))
        instructions.append((_LOAD, 0, 0, _RANDOM))
        instructions.append((_AT_LEAST, 0, 1, 2**32 // STEP**step))
        instructions += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE)]
    return [*instructions, (_RETURN, 0, 0, _WHOLE)] if instructions else []


def _words(source: str) -> list[int]:
    """A source's address as the filter compares it: an IPv4 address is one word, an IPv6 network of 64 bits two."""
    if "." in source:
        return [int(IPv4Address(source))]
    return [int(source[:8], 16), int(source[8:], 16)]


def attach(sock: socket.socket, instructions: list[Instruction]) -> None:
    """Has the kernel filter what the socket receives, or no longer; OSError where it cannot."""
    if not instructions:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    octets = b"".join([_instruction.pack(*each) for each in instructions])
    held = ctypes.create_string_buffer(octets, len(octets))
    # struct sock_fprog: their number, and where they are.
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(instructions), ctypes.addressof(held)))
