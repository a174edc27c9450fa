"""Proxies of two operators joined by lists, and every message between them written down as in the RFCs' figures.

    alice --- P1 (atlanta: `DOMAIN`) --- P2 (`BILOXI`) --- bob

Each proxy is an edge core with keys, a domain and addresses of its own; it knows the other as a SIP peer.
A line of a trace is `alice > P1 INVITE 1`: who sends what to whom, and how many Via values it has.
"""

import msgspec

from edge.core.actions import NextHop, Send
from edge.core.dispatch import EdgeCore
from edge.core.flow import Flow
from sipcore.message import Message, Response
from sipcore.parser import parse_datagram
from tests.kit.calls import DOMAIN, SETTINGS, Cluster, Phone

BILOXI = "biloxi.test"
P1_HOST, P2_HOST = "192.0.2.1", "203.0.113.1"
P1, P2 = f"{P1_HOST}:5060", f"{P2_HOST}:5060"
BOB = f"sip:bob@{BILOXI}"
STEP = 0.05


class Trace:
    """All messages in the order they were sent."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.messages: list[tuple[str, str, Message]] = []

    def add(self, source: str, target: str, message: Message) -> None:
        """A message leaves its sender."""
        status = f"{message.status} " if isinstance(message, Response) else ""
        self.lines.append(f"{source} > {target} {status}{message.cseq.method} {len(message.vias)}")
        self.messages.append((source, target, message))

    def between(self, source: str, target: str) -> Message:
        """The last message from one to the other."""
        return [message for a, b, message in self.messages if (a, b) == (source, target)][-1]

    def is_the_figure(self, figure: str) -> None:
        """Fails unless each link has carried exactly what the figure says, in its order; forgets it then."""
        drawn = [line.strip() for line in figure.splitlines() if line.strip()]
        assert _links(self.lines) == _links(drawn), "\n".join(self.lines)
        self.lines.clear()


def _links(lines: list[str]) -> dict[tuple[str, ...], list[str]]:
    """By the two ends of each link, what it carries: the figure says nothing of the order between links."""
    links: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        one, _, other, _ = line.split(" ", 3)
        links.setdefault(tuple(sorted((one, other))), []).append(line)
    return links


class User(Phone):
    """A user agent, or a proxy that the test plays, whose messages are written down."""

    def __init__(self, proxy: "Proxy", name: str, edge: str = "edge-1", transport: str = "udp") -> None:
        super().__init__(proxy, name, edge, transport)
        self.proxy = proxy

    def send(self, data: bytes, edge: str | None = None) -> None:
        self.proxy.trace.add(self.name, self.proxy.name, parse_datagram(data))
        super().send(data, edge)


class Neighbour(User):
    """Another proxy as an edge sees it: an address. Played by the test, or joined to that proxy."""

    def __init__(self, proxy: "Proxy", name: str, host: str) -> None:
        super().__init__(proxy, name)
        del proxy.phones[self.flow]
        self.flow = Flow("udp", proxy.host("edge-1"), 5060, host, 5060)
        proxy.phones[self.flow] = self


class Proxy(Cluster):
    """One operator's proxy."""

    def __init__(self, name: str, trace: Trace, domain: str, network: str, key: int, **changes: object) -> None:
        settings = msgspec.structs.replace(SETTINGS, default_domain=domain, algorithms={domain: ("MD5",)})
        keys = {"k1": bytes((key,)) * 32} if key else None
        more = {} if keys is None else {"keys": keys}
        super().__init__("edge-1", settings=settings, network=network, **more, **changes)  # type: ignore[arg-type]
        self.name, self.trace, self.domain = name, trace, domain
        self.joined: list[tuple[Neighbour, Neighbour]] = []
        """What is sent to the first comes to that one's proxy from the second."""

    def user(self, name: str, transport: str = "udp") -> User:
        """A registered phone of our domain."""
        user = User(self, name, transport=transport)
        self.users.add(f"{name}@{self.domain}")
        self.register(user, f"{name}@{self.domain}")
        return user

    def pump(self) -> None:
        super().pump()
        for here, there in self.joined:
            while here.inbox:
                there.proxy.edges["edge-1"].datagram(here.inbox.popleft().encode(), there.flow, there.proxy.now)
                there.proxy.pump()

    def _deliver(self, name: str, core: EdgeCore, send: Send) -> None:
        before = {phone: len(phone.inbox) for phone in self.phones.values()}
        super()._deliver(name, core, send)
        for phone, count in before.items():
            if len(phone.inbox) > count:
                self.trace.add(self.name, phone.name, phone.inbox[-1])


class Trapezoid:
    """alice, her proxy, bob's proxy, and bob (RFC 3261 figure 1)."""

    def __init__(self, **changes: object) -> None:
        """`changes` are those of P1's settings."""
        self.trace = Trace()
        self.p1 = Proxy("P1", self.trace, DOMAIN, "192.0.2", 0, **changes)
        self.p2 = Proxy("P2", self.trace, BILOXI, "203.0.113", 7, is_peer=lambda host: host == P1_HOST)
        self.alice = self.p1.user("alice")
        here, there = Neighbour(self.p1, "P2", P2_HOST), Neighbour(self.p2, "P1", P1_HOST)
        self.p1.joined.append((here, there))
        self.p2.joined.append((there, here))
        self.bob = self.p2.user("bob")
        self.p1.hops[BOB] = [NextHop("udp", P2_HOST, 5060)]

    def turn(self, seconds: float) -> None:
        """Lets time pass at both."""
        end = self.p1.now + seconds
        while self.p1.now < end:
            self.p1.turn(STEP)
            self.p2.turn(STEP)
