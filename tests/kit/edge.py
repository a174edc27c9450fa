"""An edge without sockets: a core, literal times, and phones made of text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from edge.core.actions import Actions
from edge.core.clock import LogClock
from edge.core.dispatch import EdgeCore
from edge.core.flow import Flow
from edge.core.gateways.routes import Gateways, GatewaysConfig
from edge.core.settings import CoreSettings
from edge.core.tokens.path import FlowTokens
from events.commands import Authenticate
from events.registrations import Binding
from events.replies import Registered
from events.wire import Decoder
from sipcore import digest, nonce
from sipcore.message import Response
from sipcore.parser import StreamParser, parse_datagram

KEYS = {"k1": bytes(range(32))}
NOW = 1000.0
"""Monotonic seconds at which a test begins."""
WALL = 1_700_000_000.0
"""The log's time then, in seconds."""
UDP = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000)
TCP = Flow("tcp", "192.0.2.1", 5060, "198.51.100.7", 40_000, 3)
SETTINGS = CoreSettings(
    default_domain="example.test",
    algorithms={"example.test": ("MD5",), "other.test": ("SHA-256", "MD5")},
    own_hosts=frozenset({"localhost", "edge.example.net"}),
)

decode: Decoder[Authenticate] = Decoder(Authenticate)


def core(
    settings: CoreSettings = SETTINGS,
    *,
    serving: bool = True,
    gateways: GatewaysConfig | None = None,
    **changes: object,
) -> EdgeCore:
    """A core in service whose randomness is zeros."""
    settings = msgspec.structs.replace(settings, **changes)
    tokens = FlowTokens(KEYS, "edge-1", "b00t", "sip.example.test")
    routes = Gateways(gateways or GatewaysConfig())
    new = EdgeCore(settings, KEYS, "edge-1", "b00t", tokens, LogClock(NOW, WALL), lambda count: bytes(count), routes)
    new.serving = serving
    return new


class _But:
    """Another object's attributes, some of them replaced."""

    def __init__(self, other: object, replaced: Mapping[str, object]) -> None:
        self._other = other
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


def core_but(**replaced: object) -> EdgeCore:
    """A core in service with some methods replaced; a compiled one's cannot be set."""
    return cast(EdgeCore, _But(core(), replaced))


def request(
    method: str = "REGISTER",
    uri: str = "sip:example.test",
    *rows: str,
    via: str = "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK-1;rport",
    to: str = "<sip:alice@example.test>",
    from_: str = "<sip:alice@example.test>;tag=f1",
    call_id: str = "call-1",
    cseq: int = 1,
    max_forwards: str = "70",
    contact: str | None = "<sip:alice@10.0.0.9:5062>",
) -> bytes:
    """A request as a phone sends it; `rows` are further header rows."""
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: {via}",
        f"Max-Forwards: {max_forwards}",
        f"From: {from_}",
        f"To: {to}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        *rows,
    ]
    if contact is not None:
        lines.append(f"Contact: {contact}")
    return ("\r\n".join([*lines, "Content-Length: 0", "", ""])).encode("utf-8", "surrogateescape")


def authorization(
    *,
    username: str = "alice",
    password: str = "secret",
    realm: str = "example.test",
    uri: str = "sip:example.test",
    algorithm: str = "MD5",
    age: int = 0,
    given_nonce: str | None = None,
    nc: int = 1,
) -> str:
    """An Authorization row for a nonce that was made `age` seconds before NOW."""
    fresh = given_nonce or nonce.make(KEYS, realm, int(WALL) - age, bytes(4), "192.0.2.1")
    ha1 = digest.ha1(algorithm, username, realm, password)
    answer = digest.expected_response(algorithm, ha1, "REGISTER", uri, fresh, "auth", nc, "c")
    return (
        f'Authorization: Digest username="{username}", realm="{realm}", nonce="{fresh}", uri="{uri}", '
        f'response="{answer}", algorithm={algorithm}, qop=auth, nc={nc:08x}, cnonce="c"'
    )


def credible(*rows: str, **fields: Any) -> bytes:
    """A REGISTER that alice's password and a fresh nonce went into."""
    return request("REGISTER", "sip:example.test", authorization(), *rows, **fields)


def heard(actions: Actions) -> list[Response]:
    """The responses that were sent, parsed."""
    responses = []
    for send in actions.sends:
        message = parse_datagram(send.data)
        assert isinstance(message, Response)
        responses.append(message)
    return responses


def answer(edge: EdgeCore, data: bytes, flow: Flow = UDP, now: float = NOW) -> Response:
    """The one response to a datagram that is published nowhere."""
    actions = receive(edge, data, flow, now)
    assert not actions.publishes
    (response,) = heard(actions)
    return response


def receive(edge: EdgeCore, data: bytes, flow: Flow = UDP, now: float = NOW) -> Actions:
    """What a datagram or whole stream message leads to."""
    if flow.reliable:
        edge.stream(StreamParser().feed(data), flow, now)
    else:
        edge.datagram(data, flow, now)
    return edge.take()


def asked(actions: Actions) -> Authenticate:
    """The one command that was published, while nothing was sent."""
    assert not actions.sends
    (publish,) = actions.publishes
    command = decode(publish.value)
    assert command.id == publish.id
    return command


def binding(contact: str = "sip:alice@10.0.0.9:5062", *, seconds: int = 300, params: str = "", id_: int = 1) -> Binding:
    """A binding that ends `seconds` after NOW in the log's time."""
    at = int(WALL * 1000)
    return Binding(id_, contact, "call-1", 1, at + seconds * 1000, seconds, at, at, params)


def registered(command: Authenticate, bindings: Sequence[Binding] = (binding(),)) -> Registered:
    """The locator's reply."""
    return Registered(command.id, command.reply.edge, command.reply.boot, int(WALL * 1000), tuple(bindings))


def challenge_nonce(response: Response) -> str:
    """The nonce of a 401."""
    match = re.search(r'nonce="([^"]+)"', response.first("www-authenticate") or "")
    assert match
    return match[1]
