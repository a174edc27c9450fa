"""Thousands of INVITEs that nobody ends properly, at one edge: it forgets them all (CHECKLIST X17).

The checklist's ten thousand are the full form's, `make e2e`; either has a bound of the memory that stays.
"""

import collections
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from tests.e2e.conftest import DOMAIN, FULL, System, start_up, user
from tests.kit.phone import Phone
from tests.kit.sip import Message, parse, request
from tests.kit.waiting import until
from tests.kit.wire import Silent, UdpLink

pytestmark = pytest.mark.e2e

INVITES = 10_000 if FULL else 2_000
RATE = 300
"""A second, at most: well below what the log and authsvc take, which else make 503 of some after two seconds."""
WINDOW = 200
"""INVITEs that have not been answered by a 100 yet."""
AGAIN = 2.0
"""Seconds after which one of them is sent again."""
THROWN, FORGOTTEN = 240.0, 240.0
"""Seconds in which all have been taken, and in which all have ended: Timers B and H are 64 s, the rest is slack."""
GROWTH = 300 if FULL else 150
"""Mebibytes by which the process may be larger when it has forgotten them: allocators keep what they once had, and the
embedded system has their records and the last minutes' figures, too. Two thousand leave 65; of three thousand thrice
the third adds 16."""
BUFFER = 8 << 20


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[System, int]]:
    """A system of this test's own that takes so many calls, and its process."""
    for number in (0, 1):
        add_user(tmp_path / "data" / "users.htdigest", user(number), DOMAIN, f"secret-{user(number)}")
    running, system = start_up(
        tmp_path / "data", RAMAL_EDGE_MAX_CALLS=str(2 * INVITES), RAMAL_EDGE_KEEPALIVE_SECONDS="0"
    )
    yield system, running.process.pid
    assert running.end() == 0
    assert "Traceback" not in running.output()


class Vanishing:
    """A caller who goes away in three ways, by the number of the call, and a callee who answers none of them.

    0: nothing more comes from either; 1: the caller cancels, and acknowledges what ends it; 2: the callee rings, the
    caller cancels, and the callee does not answer the CANCEL either.
    """

    def __init__(self, caller: Phone, callee: Phone) -> None:
        self._caller, self._callee = caller, callee
        self._sent: dict[int, tuple[bytes, float]] = {}
        """What has not been answered yet, and when it was sent."""
        self.taken: set[int] = set()
        """The calls whose INVITE got a 100."""
        self.ended: collections.Counter[int] = collections.Counter()
        """By status, the final responses to INVITEs, repetitions included."""

    def throw(self) -> None:
        """Sends all INVITEs."""
        began, thrown = time.monotonic(), 0
        while len(self.taken) < INVITES:
            passed = time.monotonic() - began
            assert passed < THROWN, f"{len(self.taken)} of {INVITES} were taken"
            while thrown < min(INVITES, passed * RATE) and len(self._sent) < WINDOW:
                self._sent[thrown] = self._invite(thrown), time.monotonic()
                self._caller.send(self._sent[thrown][0])
                thrown += 1
            self.listen(0.01)
            late = time.monotonic() - AGAIN
            for number, (octets, _) in [item for item in self._sent.items() if item[1][1] < late]:
                self._sent[number] = octets, time.monotonic()
                self._caller.send(octets)

    def listen(self, seconds: float) -> None:
        """Hears what has come to both."""
        for phone, hear in ((self._caller, self._response), (self._callee, self._request)):
            until = time.monotonic() + seconds
            try:
                while True:
                    hear(parse(phone.link.receive(until)[0]))
            except Silent:
                pass

    def _response(self, response: Message) -> None:
        number = int(response.first("call-id").partition("-")[0])
        if response.status == 100:
            self.taken.add(number)
            sent = self._sent.pop(number, None)
            if sent is not None and number % 3 == 1:
                self._caller.send(_of_same_hop("CANCEL", parse(sent[0])))
        elif response.status == 180:
            self._caller.send(_of_same_hop("CANCEL", response, f"sip:{self._callee.user}@{DOMAIN}"))
        elif response.method == "INVITE":
            self.ended[response.status] += 1
            if number % 3:
                self._caller.send(_of_same_hop("ACK", response, f"sip:{self._callee.user}@{DOMAIN}"))

    def _request(self, request: Message) -> None:
        if request.method == "INVITE" and int(request.first("call-id").partition("-")[0]) % 3 == 2:
            self._callee.respond(request, 180, tag="b")

    def _invite(self, number: int) -> bytes:
        caller, uri = self._caller, self._callee.aor
        rows = [
            f"Via: {caller.via(f'z9hG4bK{number}x{secrets.token_hex(4)}')}",
            "Max-Forwards: 70",
            f"From: <{caller.aor}>;tag=a",
            f"To: <{uri}>",
            f"Call-ID: {number}-abandoned",
            "CSeq: 1 INVITE",
            f"Contact: <{caller.contact}>",
            *caller.credentials("INVITE", uri),
        ]
        return request("INVITE", uri, rows, b"")


def _of_same_hop(method: str, message: Message, uri: str = "") -> bytes:
    """The CANCEL or ACK of an INVITE, of which this is the request or a response with our Via alone."""
    to = message.first("to") if method == "ACK" else message.first("to").partition(";tag=")[0]
    via = message.first("via").partition(";received=")[0].partition(";rport=")[0]
    lines = [f"{method} {uri or message.uri} SIP/2.0", f"Via: {via}", "Max-Forwards: 70"]
    lines += [f"From: {message.first('from')}", f"To: {to}", f"Call-ID: {message.first('call-id')}"]
    return "\r\n".join([*lines, f"CSeq: 1 {method}", "Content-Length: 0", "\r\n"]).encode()


def resident(pid: int) -> int:
    """Mebibytes of a process's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def test_x17_thousands_of_abandoned_invites_leave_nothing_behind(alone: tuple[System, int]) -> None:
    system, pid = alone
    with system.phone(0) as alice, system.phone(1) as bob:
        for phone in (alice, bob):
            assert isinstance(phone.link, UdpLink)
            phone.link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            phone.register()
        call = alice.invite(bob.aor)  # a challenge to answer all of them by
        bob.incoming().respond(486)
        call.hears(486)
        call.ack()
        before = resident(pid)
        vanishing = Vanishing(alice, bob)
        vanishing.throw()
        assert len(vanishing.taken) == INVITES
        most = system.metric("ramal_edge_transactions")
        assert most > INVITES / 10

        def forgotten() -> bool:
            vanishing.listen(0.2)
            return system.metric("ramal_edge_transactions") == 0

        until(forgotten, "nothing is left", FORGOTTEN)
        assert vanishing.ended.keys() <= {408, 487, 503}, vanishing.ended
        assert resident(pid) - before < GROWTH
        alice.inbox.clear()
        alice.invite(bob.aor)  # and it still takes calls
