"""Edges joined by lists instead of sockets, phones made of text, and a clock that is turned by hand."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from edge.core.actions import Actions, Binding, Final, Location, NextHop, Send, is_contact
from edge.core.clock import LogClock
from edge.core.dispatch import EdgeCore
from edge.core.flow import Flow
from edge.core.gateways.routes import Gateways, GatewaysConfig
from edge.core.settings import CoreSettings
from edge.core.tokens.path import FlowTokens
from edge.outside.location import bases
from events.calls import CallEvent
from events.commands import AuthCommand, Authenticate, FindUser
from events.replies import Authenticated, Found, Refused, Reply
from events.wire import Decoder
from sipcore import digest, nonce
from sipcore.message import Message, Request, Response
from sipcore.parser import StreamParser, parse_datagram
from sipcore.uri import parse_uri

KEYS = {"k1": bytes(range(32))}
NOW = 1000.0
WALL = 1_700_000_000.0
DOMAIN = "example.test"
SETTINGS = CoreSettings(default_domain=DOMAIN, algorithms={DOMAIN: ("MD5",)}, keepalive_seconds=0)
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 8080, "wss": 443}

decode: Decoder[AuthCommand] = Decoder(AuthCommand)


class Phone:
    """A user agent at one flow of one edge: what it is sent gathers in `inbox`."""

    def __init__(self, cluster: "Cluster", name: str, edge: str, transport: str = "udp") -> None:
        self.cluster, self.name, self.edge = cluster, name, edge
        cluster.made += 1
        number = cluster.made
        connection = 0 if transport == "udp" else number
        self.flow = Flow(transport, cluster.host(edge), PORTS[transport], f"198.51.100.{number}", 5062, connection)
        self.inbox: deque[Message] = deque()
        self.branches = 0
        cluster.phones[self.flow] = self

    @property
    def contact(self) -> str:
        """Its Contact URI."""
        return f"sip:{self.name}@{self.flow.remote_host}:5062;transport={self.flow.transport}"

    def send(self, data: bytes, edge: str | None = None) -> None:
        """Sends octets to its edge, or to another one."""
        core = self.cluster.edges[edge or self.edge]
        flow = self.flow
        if edge is not None:
            flow = Flow(
                flow.transport,
                self.cluster.host(edge),
                flow.local_port,
                flow.remote_host,
                flow.remote_port,
                flow.connection,
            )
        if flow.reliable:
            core.stream(StreamParser().feed(data), flow, self.cluster.now)
        else:
            core.datagram(data, flow, self.cluster.now)
        self.cluster.pump()

    def request(
        self,
        method: str,
        uri: str,
        *rows: str,
        to: str | None = None,
        from_: str | None = None,
        call_id: str = "call-1",
        cseq: int = 1,
        routes: Iterable[str] = (),
        body: str = "",
        branch: str | None = None,
        max_forwards: int | None = 70,
        authorized: bool = False,
        contact: bool = True,
        edge: str | None = None,
    ) -> str:
        """Sends a request; returns its branch."""
        self.branches += 1
        branch = branch or f"z9hG4bK-{self.name}-{self.branches}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.flow.transport.upper()} 10.0.0.9:5062;branch={branch};rport",
            *(f"Route: {route}" for route in routes),
            f"From: {from_ or f'<sip:{self.name}@{DOMAIN}>;tag=from-{self.name}'}",
            f"To: {to or f'<{uri}>'}",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            *([] if max_forwards is None else [f"Max-Forwards: {max_forwards}"]),
            *([f"Contact: <{self.contact}>"] if contact else []),
            *([authorization(self.name, method, uri)] if authorized else []),
            *rows,
            f"Content-Length: {len(body)}",
        ]
        self.send(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), edge)
        return branch

    def respond(
        self,
        request: Request,
        status: int,
        reason: str = "X",
        *rows: str,
        tag: str | None = None,
        body: str = "",
        edge: str | None = None,
    ) -> None:
        """Answers a request, with its Record-Route."""
        kept = ("via", "from", "call-id", "cseq", "record-route")
        lines = [f"SIP/2.0 {status} {reason}"]
        lines += [f"{row.original}: {row.value}" for row in request.rows if row.name in kept]
        to = request.first("to") or ""
        if ";tag=" not in to and status > 100:
            to += f";tag={tag or f'to-{self.name}'}"
        lines += [f"To: {to}", f"Contact: <{self.contact}>", *rows, f"Content-Length: {len(body)}"]
        self.send(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), edge)

    def got(self) -> Message:
        """The next message that came; fails if there is none."""
        assert self.inbox, f"{self.name} got nothing"
        return self.inbox.popleft()

    def got_request(self, method: str) -> Request:
        """The next message, a request."""
        message = self.got()
        assert isinstance(message, Request), message
        assert message.method == method, message
        return message

    def got_response(self, status: int) -> Response:
        """The next message, a response."""
        message = self.got()
        assert isinstance(message, Response), message
        assert message.status == status, message
        return message

    def ack(self, response: Response, request_uri: str, branch: str, call_id: str = "call-1", cseq: int = 1) -> None:
        """ACKs a failure within the INVITE's transaction."""
        self.request("ACK", request_uri, to=response.first("to"), from_=response.first("from"), branch=branch,
                     call_id=call_id, cseq=cseq, contact=False)  # fmt: skip


class Cluster:
    """Edges that know each other, one set of bindings, an authsvc that believes who says `secret`."""

    def __init__(
        self,
        *names: str,
        settings: CoreSettings = SETTINGS,
        keys: Mapping[str, bytes] = KEYS,
        network: str = "192.0.2",
        gateways: GatewaysConfig | None = None,
        **changes: object,
    ) -> None:
        self.names = names or ("edge-1", "edge-2")
        self.keys, self.network = keys, network
        self.now = NOW
        self.phones: dict[Flow, Phone] = {}
        self.made = 0
        """Phones, those that are gone included."""
        self.bindings: dict[str, list[Binding]] = {}
        self.users: set[str] = set()
        self.numbers: dict[str, str] = {}
        self.hops: dict[str, list[NextHop]] = {}
        self.away = False
        """Whether MySQL is."""
        self.tables_answer = self.dns_answers = True
        """Whether anybody answers at all."""
        self.log: Callable[[str, AuthCommand], Reply | None] = self.authsvc
        self.first: dict[tuple[str, int, str], tuple[str, str]] = {}
        self.lost: list[Send] = []
        """What went to nobody we know."""
        self.drops: dict[str, int] = {}
        self.finals: list[Final] = []
        """Final responses as they are timed."""
        self.by_gateway: dict[str, int] = {}
        """INVITEs that went to each gateway."""
        self.events: list[CallEvent] = []
        """What the edges have told of calls."""
        self.commands: list[AuthCommand] = []
        self.media: list[dict[str, object]] = []
        """What rtpengine was asked; it marks each SDP with its command."""
        self.relay_away = False
        settings = msgspec.structs.replace(settings, **changes)
        self.edges: dict[str, EdgeCore] = {}
        for name in self.names:
            tokens = FlowTokens(keys, name, "b00t", "sip.example.test")
            routes = Gateways(gateways or GatewaysConfig())
            clock = LogClock(NOW, WALL)
            core = EdgeCore(settings, keys, name, "b00t", tokens, clock, lambda count: bytes(count), routes)
            core.reach.addresses = {(t, False): (self.host(name), port) for t, port in PORTS.items()}
            core.serving = True
            self.edges[name] = core
        for name, core in self.edges.items():
            core.edges([(other, "b00t") for other in self.names if other != name], NOW)

    def host(self, edge: str) -> str:
        """The address of an edge."""
        return f"{self.network}.{self.names.index(edge) + 1}"

    def phone(
        self, name: str, edge: str = "edge-1", transport: str = "udp", *, register: bool = True, **binding: Any
    ) -> Phone:
        """A phone of a user, registered."""
        phone = Phone(self, name, edge, transport)
        aor = f"{name}@{DOMAIN}"
        self.users.add(aor)
        if register:
            self.register(phone, **binding)
        return phone

    def register(
        self, phone: Phone, aor: str | None = None, *, q: float = -1, instance: str = "", gruus: int = 0
    ) -> None:
        """Makes a binding of a phone; `gruus`: since when its temporary GRUUs are good."""
        names = FlowTokens(self.keys, phone.edge, "b00t", "sip.example.test").names(phone.flow)
        rows = self.bindings.setdefault(aor or f"{phone.name}@{DOMAIN}", [])
        made = (phone.contact, names.received, names.path, names.socket, q, instance, int(WALL) + 300, len(rows), gruus)
        rows.append(Binding(*made))

    def authsvc(self, edge: str, command: AuthCommand) -> Reply | None:
        """What authsvc answers."""
        if isinstance(command, FindUser):
            return Found(command.id, edge, "b00t", self.numbers.get(f"{command.name}@{command.domain}"))
        assert isinstance(command, Authenticate)
        ha1 = digest.ha1("MD5", command.digest.username, DOMAIN, "secret")
        given = command.digest
        right = digest.expected_response(
            "MD5", ha1, command.method, given.uri, given.nonce, given.qop, given.nc, given.cnonce
        )
        user = f"{given.username}@{DOMAIN}"
        if right != given.response:
            return Refused(command.id, edge, "b00t", 401, "Unauthorized")
        if command.aor not in (user, ""):
            return Refused(command.id, edge, "b00t", 403, "Forbidden")
        assert command.request is not None
        key = (command.request.call_id, command.request.cseq, command.request.branch)
        first = self.first.setdefault(key, (edge, "b00t"))
        return Authenticated(command.id, edge, "b00t", user, None if first == (edge, "b00t") else first)

    def pump(self) -> None:
        """Carries everything to where it goes, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for name, core in list(self.edges.items()):
                moved |= self._carry(name, core)

    def _carry(self, name: str, core: EdgeCore) -> bool:
        actions = core.take()
        for drop, count in actions.drops.items():
            self.drops[drop] = self.drops.get(drop, 0) + count
        self.finals += actions.finals
        for gateway, count in actions.by_gateway.items():
            self.by_gateway[gateway] = self.by_gateway.get(gateway, 0) + count
        self.events += actions.events
        for send in actions.sends:
            self._deliver(name, core, send)
        for publish in actions.publishes:
            command = decode(publish.value)
            self.commands.append(command)
            reply = self.log(name, command)
            if reply is not None:
                core.replied([reply], self.now)
        for look_up in actions.lookups if self.tables_answer else ():
            core.located(look_up.id, self.locate(look_up.aor), self.now)
        for resolve in actions.resolves if self.dns_answers else ():
            core.resolved(resolve.id, self.hops.get(resolve.uri, []), self.now)
        for media in actions.media:
            self.media.append(media.command)
            sdp = media.command.get("sdp", b"")
            assert isinstance(sdp, bytes)
            reply = {"result": b"ok", "sdp": str(media.command["command"]).encode() + b" " + sdp}
            core.media_reply(media.id, None if self.relay_away else reply, self.now)
        self._between(name, core, actions)
        return bool(
            actions.sends
            or actions.publishes
            or actions.lookups
            or actions.resolves
            or actions.forwards
            or actions.media
            or actions.seeks
            or actions.gone
        )

    def _between(self, name: str, core: EdgeCore, actions: Actions) -> None:
        """What edges say to each other."""
        for id_ in actions.gone:
            asker, _, theirs = id_.partition(" ")
            if asker in self.edges:
                self.edges[asker].unsent([(theirs, 430)], self.now)
        for forward in actions.forwards:
            if forward.edge in self.edges:
                self.edges[forward.edge].forward(forward.data, name, "b00t", forward.flow, self.now)
        for seek in actions.seeks:
            others = [other for key, other in self.edges.items() if key != name]
            found = [other.claims(seek.data, name, "b00t", seek.flow, self.now) for other in others]
            if any(found):
                core.found_elsewhere(seek.id)

    def locate(self, aor: str) -> Location:
        """What the tables say of an AOR, or of a Contact."""
        if is_contact(aor):
            wanted = set(bases(parse_uri(aor)))
            rows = [
                (own, b)
                for own, rows in self.bindings.items()
                for b in rows
                if wanted & set(bases(parse_uri(b.contact)))
            ]
            return Location(aor, tuple(b for _, b in rows), bool(rows), self.away, tuple(own for own, _ in rows))
        targets = tuple(self.bindings.get(aor, ()))
        return Location(aor, targets, bool(targets) or aor in self.users, self.away)

    def _deliver(self, name: str, core: EdgeCore, send: Send) -> None:
        owner = send.edge or name
        if owner not in self.edges:
            core.unsent([(send.id, 503)], self.now)
            return
        phone = self.phones.get(send.flow)
        if phone is None:
            for other in self.phones.values():  # a phone that answers from, or is reached at, another of our addresses
                if (other.flow.remote_host, other.flow.transport) == (send.flow.remote_host, send.flow.transport):
                    phone = other
        if phone is None:
            self.lost.append(send)
            if send.id:
                core.unsent([(send.id, 430 if send.flow.connection else 503)], self.now)
            return
        if owner != name and send.data.startswith(b"INVITE "):
            if self.edges[owner].track_invite(send.data, send.flow, self.now, f"{name} {send.id}"):
                core.unsent([(send.id, 408)], self.now)
        elif owner != name:
            self.edges[owner].drain.track_response(send.data, send.flow)
        message = parse_datagram(send.data)
        phone.inbox.append(message)

    def turn(self, seconds: float, step: float = 0.05) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while self.now < end:
            timers = [t for t in (core.next_timer() for core in self.edges.values()) if t is not None]
            self.now = min(end, max(self.now + step, min(timers, default=end)))
            for core in self.edges.values():
                core.on_time(self.now)
            self.pump()

    def close(self, phone: Phone) -> None:
        """A phone's connection is closed."""
        del self.phones[phone.flow]
        for rows in self.bindings.values():  # as the log is told
            rows[:] = [row for row in rows if row.received != self._received(phone)]
        self.edges[phone.edge].closed(phone.flow, self.now)
        self.pump()

    def _received(self, phone: Phone) -> str:
        return FlowTokens(self.keys, phone.edge, "b00t", "sip.example.test").names(phone.flow).received

    def kill(self, name: str) -> None:
        """An edge dies, and the others notice."""
        del self.edges[name]
        for core in self.edges.values():
            core.edge_lost(name, "b00t", self.now)
        self.pump()


def authorization(
    user: str, method: str, uri: str, password: str = "secret", given_nonce: str | None = None, nc: int = 1
) -> str:
    """A Proxy-Authorization row with a fresh nonce, or a given one."""
    fresh = given_nonce or nonce.make(KEYS, DOMAIN, int(WALL), bytes(4), "192.0.2.1")
    ha1 = digest.ha1("MD5", user, DOMAIN, password)
    answer = digest.expected_response("MD5", ha1, method, uri, fresh, "auth", nc, "c")
    return (
        f'Proxy-Authorization: Digest username="{user}", realm="{DOMAIN}", nonce="{fresh}", uri="{uri}", '
        f'response="{answer}", algorithm=MD5, qop=auth, nc={nc:08x}, cnonce="c"'
    )
