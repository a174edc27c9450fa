"""What the edge's core costs the processor for a REGISTER and for a call: `make bench-core AGAINST=REVISION`.

Nothing but the core: no sockets, no log, no tables; their answers are made here. With a revision, its core is measured
by turns with this one, block by block, each in a process of its own, so that a busy machine slows both alike. Prints
for each the least and the median of the blocks, in microseconds of processor time. Without a revision, this core is
measured by turns with itself as mypyc compiles it.

REGISTER: a refresh with credentials, its command, the reply, the 200. Call: two edges, caller at one and callee at the
other; INVITE with credentials, 100, 180, 200, ACK, BYE, 200, at both edges together. Call here: both at one edge, which
challenges nobody.
"""
# ruff: noqa: S603, T201

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ROOT / ".run" / "compiled"
BLOCK = {"REGISTER": 1000, "call": 120, "call here": 240}
"""How many in one block."""
KEYS = {"k1": bytes(range(32))}
NOW, WALL = 1000.0, 1_700_000_000.0
DOMAIN = "example.test"
EDGES = {"edge-1": "192.0.2.1", "edge-2": "192.0.2.2"}


class Edges:
    """Edges that are joined by lists, and the processor time that their cores take."""

    def __init__(self, *, challenge: bool = True) -> None:
        from edge.core import actions
        from edge.core.clock import LogClock
        from edge.core.dispatch import EdgeCore
        from edge.core.flow import Flow
        from edge.core.settings import CoreSettings
        from edge.core.tokens.path import FlowTokens
        from sipcore import digest, nonce

        self.flow, self.binding = Flow, actions.Binding
        self.found: Any = getattr(actions, "Location", None) or actions.Located  # type: ignore[attr-defined]  # once
        self.digest, self.nonce = digest, nonce
        algorithms = {DOMAIN: ("MD5",)}
        settings = CoreSettings(DOMAIN, algorithms, keepalive_seconds=0, challenge_calls=challenge)
        self.tokens = {name: FlowTokens(KEYS, name, "b00t", "sip.example.test") for name in EDGES}
        self.cores: dict[str, Any] = {}
        for name, tokens in self.tokens.items():
            core = EdgeCore(settings, KEYS, name, "b00t", tokens, LogClock(NOW, WALL), lambda count: bytes(count))
            core.serving = True
            core.edges([(other, "b00t") for other in EDGES if other != name], NOW)
            self.cores[name] = core
        self.now = NOW
        self.spent = 0

    def timed(self, call: Callable[..., Any], *values: Any) -> Any:
        """Does this, and counts its time."""
        began = time.process_time_ns()
        result = call(*values)
        self.spent += time.process_time_ns() - began
        return result

    def authorization(self, header: str, method: str, uri: str, number: int) -> str:
        """Alice's credentials."""
        fresh = self.nonce.make(KEYS, DOMAIN, int(WALL + self.now - NOW), bytes(4), "192.0.2.1")
        ha1 = self.digest.ha1("MD5", "alice", DOMAIN, "secret")
        answer = self.digest.expected_response("MD5", ha1, method, uri, fresh, "auth", number, "c")
        return (
            f'{header}: Digest username="alice", realm="{DOMAIN}", nonce="{fresh}", uri="{uri}", '
            f'response="{answer}", algorithm=MD5, qop=auth, nc={number:08x}, cnonce="c"'
        )

    def pass_time(self, seconds: float) -> None:
        """What ends by time ends, at nobody's cost."""
        self.now += seconds
        for core in self.cores.values():
            core.on_time(self.now)
            core.take()


class Registers:
    """Refreshes of phones behind NAT."""

    PHONES = 5000

    def __init__(self) -> None:
        from events.registrations import Binding
        from events.replies import Registered

        self.edges = Edges()
        self.recorded, self.reply = Binding, Registered
        self.number = 0

    def block(self, count: int) -> float:
        """Microseconds of one."""
        edges, core = self.edges, self.edges.cores["edge-1"]
        sent = [self._request() for _ in range(count)]
        at = int((WALL + edges.now - NOW) * 1000)
        began = time.process_time_ns()
        for data, flow, contact, number in sent:
            core.datagram(data, flow, edges.now)
            (command,) = core.take().publishes
            binding = self.recorded(1, contact, "call", number, at + 600_000, 600, at, at, "")
            core.replied([self.reply(command.id, "edge-1", "b00t", at, (binding,))], edges.now)
            (answer,) = core.take().sends
        spent = time.process_time_ns() - began
        if not answer.data.startswith(b"SIP/2.0 200 "):
            raise SystemExit(f"not registered: {answer.data!r}")
        edges.pass_time(40.0)
        return spent / count / 1000

    def _request(self) -> tuple[bytes, Any, str, int]:
        self.number += 1
        number, phone = self.number, self.number % self.PHONES
        host, user = f"10.0.{phone // 200}.{phone % 200 + 1}", f"user{phone}"
        flow = self.edges.flow("udp", "192.0.2.1", 5060, f"198.{phone // 200}.100.{phone % 200 + 1}", 40_000)
        contact = f"sip:{user}@{host}:5062"
        lines = [
            f"REGISTER sip:{DOMAIN} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:5062;branch=z9hG4bK-{number};rport",
            "Max-Forwards: 70",
            f"From: <sip:{user}@{DOMAIN}>;tag=f{phone}",
            f"To: <sip:{user}@{DOMAIN}>",
            f"Call-ID: call-{phone}",
            f"CSeq: {number} REGISTER",
            self.edges.authorization("Authorization", "REGISTER", f"sip:{DOMAIN}", number),
            f"Contact: <{contact}>;expires=600",
            "User-Agent: Phone/1.0",
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY",
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode(), flow, contact, number


class Calls:
    """Calls from a phone of one edge to a phone of the other, or of the same one, which challenges nobody."""

    KEPT = ("via", "from", "call-id", "cseq", "record-route")
    SDP = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nc=IN IP4 10.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n"

    def __init__(self, *, here: bool = False) -> None:
        from events.replies import Authenticated
        from sipcore.parser import parse_datagram

        self.edges = edges = Edges(challenge=not here)
        self.authenticated, self.parse = Authenticated, parse_datagram
        self.here, self.owner = here, "edge-1" if here else "edge-2"
        self.caller = edges.flow("udp", EDGES["edge-1"], 5060, "198.51.100.1", 5062)
        self.callee = edges.flow("udp", EDGES[self.owner], 5060, "198.51.100.2", 5062)
        names = edges.tokens[self.owner].names(self.callee)
        self.contact = "sip:bob@198.51.100.2:5062"
        binding = edges.binding(self.contact, names.received, names.path, names.socket, 1.0, "", int(WALL) + 10**7, 1)
        self.located = edges.found(f"bob@{DOMAIN}", (binding,), known=True)
        self.inbox: dict[Any, list[Any]] = {}
        self.number = 0

    def block(self, count: int) -> float:
        """Microseconds of one."""
        self.edges.spent = 0
        for _ in range(count):
            self._call()
        spent = self.edges.spent
        self.edges.pass_time(80.0)
        return spent / count / 1000

    def _call(self) -> None:
        self.number += 1
        number, uri = self.number, f"sip:bob@{DOMAIN}"
        rows = ["Content-Type: application/sdp"]
        if not self.here:
            rows.append(self.edges.authorization("Proxy-Authorization", "INVITE", uri, number))
        self._send(self.caller, self._request("INVITE", uri, f"<{uri}>", 1, *rows, body=self.SDP))
        invite = self._got(self.callee)
        self._respond(invite, 180)
        self._respond(invite, 200, self.SDP)
        trying, ringing, answer = self._got(self.caller), self._got(self.caller), self._got(self.caller)
        if (trying.status, ringing.status, answer.status) != (100, 180, 200):
            raise SystemExit("not answered")
        routes = [f"Route: {row.value}" for row in answer.rows if row.name == "record-route"]
        to = answer.first("to")
        self._send(self.caller, self._request("ACK", self.contact, to, 1, *routes))
        self._got(self.callee)
        self._send(self.caller, self._request("BYE", self.contact, to, 2, *routes))
        self._respond(self._got(self.callee), 200)
        self._got(self.caller)

    def _request(self, method: str, uri: str, to: str, cseq: int, *rows: str, body: str = "") -> bytes:
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK-{method}-{self.number};rport",
            "Max-Forwards: 70",
            f"From: <sip:alice@{DOMAIN}>;tag=f{self.number}",
            f"To: {to}",
            f"Call-ID: call-{self.number}",
            f"CSeq: {cseq} {method}",
            "Contact: <sip:alice@198.51.100.1:5062>",
            "User-Agent: Phone/1.0",
            *rows,
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _respond(self, request: Any, status: int, body: str = "") -> None:
        lines = [f"SIP/2.0 {status} X", *(f"{r.original}: {r.value}" for r in request.rows if r.name in self.KEPT)]
        tag = "" if ";tag=" in request.first("to") else f";tag=t{self.number}"
        lines += [f"To: {request.first('to')}{tag}", f"Contact: <{self.contact}>"]
        lines += ["Content-Type: application/sdp"] if body else []
        self._send(self.callee, ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body).encode())

    def _got(self, flow: Any) -> Any:
        return self.inbox[flow].pop(0)

    def _send(self, flow: Any, data: bytes) -> None:
        edges = self.edges
        name = "edge-1" if flow is self.caller else self.owner
        edges.timed(edges.cores[name].datagram, data, flow, edges.now)
        busy = True
        while busy:
            busy = any(self._carry(name, core) for name, core in edges.cores.items())

    def _carry(self, name: str, core: Any) -> bool:
        edges = self.edges
        actions = edges.timed(core.take)
        for send in actions.sends:
            if send.edge and send.data.startswith(b"INVITE "):
                owner = edges.cores[send.edge]
                track = getattr(owner, "track_invite", None) or owner.carried  # once
                edges.timed(track, send.data, send.flow, edges.now, "1")
            to = self.caller if send.flow.remote_host == self.caller.remote_host else self.callee
            self.inbox.setdefault(to, []).append(self.parse(send.data))
        for publish in actions.publishes:
            reply = self.authenticated(publish.id, name, "b00t", f"alice@{DOMAIN}", None)
            edges.timed(core.replied, [reply], edges.now)
        for asked in actions.lookups:
            edges.timed(core.located, asked.id, self.located, edges.now)
        for forward in actions.forwards:
            other = edges.cores[forward.edge]
            take = getattr(other, "forward", None) or other.handed  # once
            edges.timed(take, forward.data, name, "b00t", forward.flow, edges.now)
        return bool(actions.sends or actions.publishes or actions.lookups or actions.forwards)


def measure() -> None:
    """A child: one block for each line that it is given."""
    kinds: dict[str, Any] = {"REGISTER": Registers(), "call": Calls(), "call here": Calls(here=True)}
    gc.freeze()
    gc.set_threshold(2_000, 5, 500)  # as a service does
    for line in sys.stdin:
        kind = line.strip()
        print(kinds[kind].block(BLOCK[kind]), flush=True)


def begin(tree: Path) -> "subprocess.Popen[str]":
    """A child that has the core of this tree."""
    command = [sys.executable, __file__, "--measure", str(tree)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree)


def ask(child: "subprocess.Popen[str]", kind: str) -> float:
    """One block."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("no pipes")
    child.stdin.write(f"{kind}\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        raise SystemExit("a core could not be measured; what it says stands above")
    return float(answer)


def compare(trees: dict[str, Path], rounds: int) -> None:
    """Measures them by turns, and prints what each costs."""
    children = {name: begin(tree) for name, tree in trees.items()}
    try:
        for kind in BLOCK:
            found: dict[str, list[float]] = {name: [] for name in trees}
            for number in range(rounds + 1):
                for name, child in children.items():
                    spent = ask(child, kind)
                    if number:  # the first warms up
                        found[name].append(spent)
            for name, spents in found.items():
                least, median = min(spents), statistics.median(spents)
                print(f"{kind:9} {name:12} least {least:7.1f} us  median {median:7.1f} us  of {rounds} blocks")
    finally:
        for child in children.values():
            if child.stdin:
                child.stdin.close()
            child.wait()


def main() -> None:
    """Measures this tree's core, and by turns with it that of a revision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="a revision whose edge has the same rooms (edge/core)", default="")
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each kind (15)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.path.insert(0, given.measure)
        measure()
    elif given.against:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            git = ["git", "-C", str(ROOT)]
            subprocess.run([*git, "worktree", "add", "-q", "--detach", str(tree), given.against], check=True)
            try:
                compare({given.against: tree, "this": ROOT}, given.rounds)
            finally:
                subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)
    else:
        compiled = {"compiled": COMPILED} if COMPILED.is_dir() else {}
        compare({"this": ROOT, **compiled}, given.rounds)


if __name__ == "__main__":
    main()
