"""The phones of bench/growth.py: one contact each, like SIPp's, with what an edge adds."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from events.commands import Contact, RegisterContacts, Registration, ReplyTo
from events.registrations import AorState, Binding, Seen, binding_id
from events.wire import Header

COPIED = 10_000
"""So many rows of `location` are written, and copied: phones so far apart have the same port."""
FAR = 2**50
"""A deadline that never passes."""
TICK = os.sysconf("SC_CLK_TCK")


class Record(NamedTuple):
    """As a log gives them."""

    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[Header, ...] = ()


def aor(number: int) -> str:
    """Its name."""
    return f"u{number:07d}@example.test"


def state(number: int, at: int, cseq: int = 1, moved: int = 0) -> AorState:
    """A phone like SIPp's, with what an edge adds; `moved`: so many ports further than at first."""
    name, port = f"u{number:07d}", 1024 + number % COPIED + moved
    binding = Binding(
        binding_id(0, number + 1, 0),
        f"sip:{name}@192.0.2.77:{port}",
        f"{number}-48151@192.0.2.77",
        cseq,
        at + 300_000,
        300,
        at,
        at,
        received=f"sip:192.0.2.77:{port};transport=udp",
        path=("<sip:k1mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpi@edge.example.test;lr>",),
        socket="udp:192.0.2.1:5060",
        user_agent="baresip v1.0.0 (x86_64/linux)",
        methods=8191,
    )
    seen = Seen(f"edge-1-0a1b2c3d-{number}", binding.call_id, cseq, f"z9hG4bK-{number}", at)
    return AorState(at, (binding,), (seen,))


def command(number: int, cseq: int) -> RegisterContacts:
    """Its refresh."""
    [binding] = state(number, 0).bindings
    registration = Registration(
        call_id=binding.call_id,
        cseq=cseq,
        branch=f"z9hG4bK-{number}-{cseq}",
        contacts=(Contact(binding.contact, expires=300),),
        received=binding.received,
        path=binding.path,
        socket=binding.socket,
        user_agent=binding.user_agent,
        methods=binding.methods,
    )
    reply = ReplyTo("edge-1", "0a1b2c3d", FAR)
    return RegisterContacts(f"edge-1-0a1b2c3d-{number}-{cseq}", reply, aor(number), aor(number), registration)


def now() -> int:
    """Milliseconds."""
    return time.time_ns() // 1_000_000


def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK
