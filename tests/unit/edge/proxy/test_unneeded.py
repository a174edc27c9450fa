"""Headers that a proxy does not need are not read, and what it cannot pass on has still ended something.

RFC 3261 section 16.3, step 1, and section 16.7.
"""

import pytest

from sipcore.message import Request, Response
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, contact, invite, routes_of_caller
from tests.kit.edge import core, heard, receive, request

ODD = (
    'Contact: <sip:bob@192.0.2.1;thinfo="VG8+">',
    "Contact: <sip:bob smith@192.0.2.1>",
    "Contact:",
    "Contact: <sip:bob@192.0.2.1",
    "Contact: <sip:a@b>;expires=0;expires=60",
    "Record-Route: <sip:other domain;lr>",
    "Record-Route:",
    "Path:",
    'Path: "x <sip:192.0.2.1;lr>',
    "Service-Route: ???",
    "Warning: nonsense",
    "Date: yesterday",
    "Expires: -1",
    "Session-Expires: never",
    "P-Asserted-Service: <",
    "Via: SIP/3.0/UDP 192.0.2.1",
    "Via: SIP/2.0/UDP 2001:db8::9:5060;branch=z9hG4bKq",
    "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK",
    "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKp (a proxy)",
    'Via: SIP/2.0/UDP 192.0.2.1;x="',
    "Via:",
)


def answer_of(received: Request, status: int, *rows: str, without: tuple[str, ...] = (), cseq: str = "") -> bytes:
    """A response made by hand: what it repeats but for some rows, then further rows."""
    lines = [f"SIP/2.0 {status} X"]
    for row in received.rows:
        if row.name in ("via", "from", "to", "call-id", "cseq", "record-route") and row.name not in without:
            value = cseq if cseq and row.name == "cseq" else row.value
            lines.append(f"{row.original}: {value}{';tag=tb' if row.name == 'to' else ''}")
    return ("\r\n".join([*lines, *rows, "Content-Length: 0", "", ""])).encode()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("method", "status"), [("INVITE", 180), ("INVITE", 200), ("INVITE", 486), ("MESSAGE", 200)])
def test_p22_a_response_passes_with_any_header_unchanged(method: str, status: int, odd: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request(method, BOB, authorized=True)
    if method == "INVITE":
        alice.got_response(100)
    received = bob.got_request(method)
    bob.send(answer_of(received, status, odd, "X-After: 1"))
    got = alice.got_response(status)
    name, _, value = odd.partition(":")
    assert value.strip() in [row.value for row in got.rows if row.original == name]
    assert got.first("x-after") == "1"


@pytest.mark.parametrize("missing", ["from", "to", "call-id"])
@pytest.mark.parametrize("status", [180, 200, 486])
def test_a_response_needs_its_via_and_cseq_alone(status: int, missing: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.send(answer_of(received, status, "A line that is no header", "No Token: x", without=(missing,)))
    got = alice.got_response(status)
    assert got.first(missing) is None
    assert ("No Token", "x") in [(row.original, row.value) for row in got.rows]


@pytest.mark.parametrize("odd", ODD)
def test_p22_a_request_passes_with_any_header_unchanged(odd: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request("INVITE", BOB, odd, authorized=True, contact=False)
    alice.got_response(100)
    received = bob.got_request("INVITE")
    name, _, value = odd.partition(":")
    assert value.strip() in [row.value for row in received.rows if row.original == name]
    bob.respond(received, 200)
    ok = alice.got_response(200)
    ours = [route for route in routes_of_caller(ok) if "r2=on" in route]
    for method in ("ACK", "INFO"):
        alice.request(method, contact(ok), odd, to=ok.first("to"), routes=ours, cseq=2, contact=False)
        bob.got_request(method)
    back = [route for route in received.values("record-route") if "r2=on" in route]
    bob.request("BYE", alice.contact, odd, from_=ok.first("to"), to=ok.first("from"), routes=back, contact=False)
    alice.got_request("BYE")


def test_a_lower_route_is_for_the_next_to_read() -> None:
    cluster, alice, bob, received = ringing("tcp")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    del cluster.phones[alice.flow]
    back = [*received.values("record-route"), "<sip:other domain;lr>"]
    bob.request("BYE", alice.contact, from_=ok.first("to"), to=ok.first("from"), routes=back)
    assert b"BYE " in cluster.lost[-1].data
    assert b"Route: <sip:other domain;lr>\r\n" in cluster.lost[-1].data


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.startswith("Via")])
def test_a_lower_via_is_repeated_as_it_came(odd: str) -> None:
    edge = core()
    actions = receive(edge, request("OPTIONS", "sip:example.test", odd, "Subject: " + "x" * 300, contact=None))
    (answer,) = heard(actions)
    assert answer.status == 200
    assert [row.value for row in answer.rows if row.name == "via"][1:] == [odd.partition(":")[2].strip()]


@pytest.mark.parametrize("odd", ["Contact:", "Contact: <sip:bob smith@192.0.2.1>", "Contact: <sip:a@b"])
def test_a_register_needs_its_contact(odd: str) -> None:
    (answer,) = heard(receive(core(), request("REGISTER", "sip:example.test", odd, contact=None)))
    assert answer.status == 400


def ringing(transport: str = "udp", callee_at: str = "edge-2") -> tuple[Cluster, Phone, Phone, Request]:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", callee_at, transport)
    invite(alice)
    return cluster, alice, bob, bob.got_request("INVITE")


def top_via(received: Request) -> str:
    return f"Via: {received.values('via')[0]}"


def lost(received: Request, status: int) -> dict[str, bytes]:
    """Responses that nobody above could know as his."""
    top = top_via(received)
    return {
        "only the top Via is left": answer_of(received, status, top, without=("via",)),
        "the second Via is empty": answer_of(received, status, top, "Via:", without=("via",)),
        "the second Via cannot be read": answer_of(received, status, top, "Via: SIP/2.0/UDP", without=("via",)),
        "the second Via is another's": answer_of(
            received, status, top, "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKother", without=("via",)
        ),
        "CSeq has another method": answer_of(received, status, cseq="1 MESSAGE"),
        "CSeq cannot be read": answer_of(received, status, cseq="one INVITE"),
        "CSeq is not there": answer_of(received, status, without=("cseq",)),
        "its Content-Length is none": answer_of(received, status, "Content-Length: x"),
        "it is cut": answer_of(received, status, "Content-Length: 99")[:-4] + b"\r\n\r\nv=0",
        "it has too many rows": answer_of(received, status, *["X: 1"] * 300),
        "a line is too long": answer_of(received, status, "X: " + "x" * 9000),
    }


LOST = (
    "only the top Via is left", "the second Via is empty", "the second Via cannot be read",
    "the second Via is another's", "CSeq has another method", "CSeq cannot be read", "CSeq is not there",
    "its Content-Length is none", "it is cut", "it has too many rows", "a line is too long",
)  # fmt: skip


@pytest.mark.parametrize("what", LOST)
@pytest.mark.parametrize("status", [200, 302, 486, 603])
def test_a_final_response_that_cannot_be_passed_on_ends_its_branch(status: int, what: str) -> None:
    cluster, alice, bob, received = ringing()
    bob.send(lost(received, status)[what])
    assert alice.got_response(502).reason == "Bad Gateway"
    if status >= 300:
        bob.got_request("ACK")
    alice.ack(Response(502, "", []), BOB, branch="z9hG4bK-alice-1")
    cluster.turn(40)
    assert cluster.edges["edge-1"].calls.transactions == 0


@pytest.mark.parametrize("what", LOST)
def test_a_provisional_response_that_cannot_be_passed_on_is_a_sign_of_life(what: str) -> None:
    cluster, alice, bob, received = ringing()
    bob.send(lost(received, 180)[what])
    assert not alice.inbox
    cluster.turn(40)  # longer than Timer B
    assert not alice.inbox
    bob.respond(received, 200)
    alice.got_response(200)


def test_a_branch_that_is_lost_so_does_not_end_the_others() -> None:
    cluster = Cluster()
    alice, bob, other = cluster.phone("alice"), cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    received, also = bob.got_request("INVITE"), other.got_request("INVITE")
    bob.send(answer_of(received, 486, top_via(received), without=("via",)))
    assert not alice.inbox
    other.respond(also, 200)
    alice.got_response(200)


def test_the_answer_to_a_message_that_cannot_be_passed_on_leaves_nothing() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    alice.request("MESSAGE", BOB, authorized=True)
    received = bob.got_request("MESSAGE")
    bob.send(answer_of(received, 200, top_via(received), without=("via",)))
    alice.got_response(502)
    cluster.turn(40)
    assert [edge.calls.transactions for edge in cluster.edges.values()] == [0, 0]


def test_e05_an_edge_hands_on_a_response_as_it_came() -> None:
    """It is for the edge that has the transaction to read it: at the owner of the flow nobody does."""
    cluster, alice, bob, received = ringing()
    owner, seen = cluster.edges["edge-2"], cluster.now
    odd = answer_of(received, 180, "x-ODD :  1", "l: 0").replace(b"Content-Length: 0\r\n", b"")
    pjsip = odd.replace(b";rport\r\n", b"\r\n", 1).replace(b":5060;branch=", b":5060;rport=5060;branch=", 1)
    assert pjsip != odd
    for data in (odd, pjsip):
        owner.datagram(data, bob.flow, seen)
        (handed,) = owner.take().forwards
        assert (handed.edge, handed.data) == ("edge-1", data)
        cluster.edges["edge-1"].forward(handed.data, "edge-2", "b00t", handed.flow, seen)
    cluster.pump()
    assert [alice.got_response(180).first("x-odd") for _ in range(2)] == ["1", "1"]


def test_a_branch_elsewhere_than_in_the_top_via_is_nobodys() -> None:
    _, alice, bob, received = ringing()
    branch = received.branch
    bob.send(f"SIP/2.0 486 X\r\nX: SIP/2.0/UDP h;branch={branch};\r\nContent-Length: 0\r\n\r\n".encode())
    bob.send(f"SIP/2.0 486 X\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx, SIP/2.0/UDP h;branch={branch};\r\n\r\n".encode())
    assert not alice.inbox
    bob.respond(received, 200)
    alice.got_response(200)


def test_what_is_nobodys_response_ends_nothing() -> None:
    _, alice, bob, received = ringing()
    forged = answer_of(received, 486, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKforged", without=("via",))
    for data in (
        forged,
        answer_of(received, 486, "Via: nothing", without=("via",)),
        answer_of(received, 486, without=("via",)),
    ):
        bob.send(data)
    assert not alice.inbox
    bob.respond(received, 200)
    alice.got_response(200)


@pytest.mark.parametrize(
    "lines", [("From:",), ("To: ???",), ("CSeq: x",), ("Call-ID:",), ("From:", "To: ???", "CSeq: x")]
)
def test_what_is_refused_repeats_what_can_be_repeated(lines: tuple[str, ...]) -> None:
    odd = {line.partition(":")[0]: line for line in lines}
    kept = [odd.get(line.partition(":")[0], line) for line in request("OPTIONS").decode().split("\r\n")]
    (answer,) = heard(receive(core(), "\r\n".join(kept).encode()))
    assert answer.status == 400
    assert answer.via.rport == 40_000
    for line in lines:
        name, _, value = line.partition(":")
        assert answer.first(name.lower()) == value.strip()


@pytest.mark.parametrize(
    ("via", "port", "repeated"),
    [
        ("10.0.0.9:5070;;,;,,", 5070, "10.0.0.9:5070;received=198.51.100.7;;,;,,"),
        ("10.0.0.9;rport;branch=z9hG4bK", 40_000, "10.0.0.9;received=198.51.100.7;rport=40000;branch=z9hG4bK"),
        ("h.example.com;x=1;x=2", 5060, "h.example.com;received=198.51.100.7;x=1;x=2"),
        ("198.51.100.7:5080;x=1;x=2", 5080, "198.51.100.7:5080;x=1;x=2"),
        ("2001:db8::9:1;rport", 40_000, "2001:db8::9:1;rport=40000"),
    ],
)
@pytest.mark.parametrize("version", ["2.0", "7.0"])
def test_p02_an_odd_top_via_is_followed_as_far_as_it_can_be_read(
    via: str, port: int, repeated: str, version: str
) -> None:
    via, repeated = (f"SIP/{version}/UDP {each}" for each in (via, repeated))
    actions = receive(core(), request("OPTIONS", "sip:example.test", "Subject: " + "x" * 200, via=via))
    (send,) = actions.sends
    assert send.port == port
    assert f"Via: {repeated}\r\n".encode() in send.data
    assert send.data.startswith(b"SIP/2.0 400 ")


@pytest.mark.parametrize("via", ["", "nonsense", "SIP/2.0/UDP", "HTTP/1.1 192.0.2.1"])
def test_a_top_via_that_leads_nowhere_on_udp_is_answered_by_nothing(via: str) -> None:
    assert not receive(core(), request("OPTIONS", "sip:example.test", via=via)).sends
