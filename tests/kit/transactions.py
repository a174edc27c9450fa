"""Transactions without sockets: messages made of text, and a clock that jumps from timer to timer."""

from sipcore.message import Request, Response, respond
from sipcore.parser import parse_datagram
from sipcore.transactions import Client, Server, Transactions

PEER = "peer"
BRANCH = "z9hg4bkabc"


def request(
    method: str = "INVITE",
    *rows: str,
    branch: str = "z9hG4bKabc",
    to: str = "<sip:b@b>",
    cseq: int = 7,
    below: str = "",
) -> Request:
    """A request; `rows` are further header rows, `below` Via values under the top one."""
    via = f"SIP/2.0/UDP edge.example:5060{';branch=' + branch if branch else ''};rport{below}"
    lines = (
        *(f"{method} sip:b@192.0.2.9:5070;x=1 SIP/2.0", f"Via: {via}", *rows, "Max-Forwards: 12"),
        *("From: A <sip:a@a>;tag=f1", f"To: {to}", "Call-ID: call-1", f"CSeq: {cseq} {method}"),
    )
    message = parse_datagram(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode())
    assert isinstance(message, Request)
    return message


def response(to: Request, status: int, tag: str = "t1") -> Response:
    """A response as it comes from the wire."""
    message = parse_datagram(respond(to, status, to_tag=tag).encode())
    assert isinstance(message, Response)
    return message


def sent(layer: Transactions) -> list[Request | Response]:
    """What the layer sends, parsed."""
    return [parse_datagram(data) for _, data, _ in layer.take_sends()]


def names(layer: Transactions) -> list[str]:
    """What the layer sends: methods and statuses."""
    return [m.method if isinstance(m, Request) else str(m.status) for m in sent(layer)]


def run(layer: Transactions, until: float) -> list[tuple[float, str]]:
    """Lets the layer wake by its own timers; returns when it sends what then, and "timeout" for a client."""
    happened: list[tuple[float, str]] = []
    while (at := layer.next_timer()) is not None and at <= until:
        happened.extend((at, "timeout") for _ in layer.on_time(at))
        happened.extend((at, name) for name in names(layer))
    return happened


def calling(
    method: str = "INVITE", *, reliable: bool = False, rows: tuple[str, ...] = ()
) -> tuple[Transactions, Client]:
    """A layer with one client transaction, opened at 0.0, whose request has left."""
    layer = Transactions()
    client = layer.open_client(request(method), PEER, reliable, 0.0, "user")
    assert names(layer) == [method]
    return layer, client


def called(method: str = "INVITE", *, reliable: bool = False) -> tuple[Transactions, Server]:
    """A layer with one server transaction, opened at 0.0."""
    layer = Transactions()
    server = layer.open_server(request(method), PEER, reliable, 0.0, "user")
    assert layer.pending == 1
    return layer, server


def is_empty(layer: Transactions) -> bool:
    """Whether nothing at all is left in it, and nothing happens any more."""
    counts = (len(layer), layer.servers, layer.pending)
    return run(layer, float("inf")) == [] and counts == (0, 0, 0) and not len(layer._timers) and not layer._finished
