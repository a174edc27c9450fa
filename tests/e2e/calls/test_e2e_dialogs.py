"""Where requests go, over the wire: Routes that mean us, remote targets that move, Contacts and Paths of our own."""

import contextlib
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from authsvc.users.file import add_user
from tests.e2e.conftest import CALLERS, DOMAIN, System, start_up, user
from tests.kit.phone import SDP, Call, Phone
from tests.kit.wire import TRANSPORTS, StreamLink, UdpLink

pytestmark = pytest.mark.e2e

ALICE, BOB, CAROL = CALLERS[12], CALLERS[13], CALLERS[14]
PEER, STRANGER = "127.0.0.60", "127.0.0.61"


@contextlib.contextmanager
def pair(system: System, alice_by: str, bob_by: str) -> Iterator[tuple[Phone, Phone]]:
    """A caller at the last edge and a callee at the first, registered."""
    with (
        system.phone(ALICE, edge=len(system.at) - 1, transport=alice_by) as alice,
        system.phone(BOB, transport=bob_by) as bob,
    ):
        alice.register()
        bob.register()
        yield alice, bob
        for phone in (alice, bob):
            phone.deregister()


def established(alice: Phone, bob: Phone, *rows: str) -> tuple[Call, Call]:
    """A call that was answered and acknowledged; both its sides."""
    call = alice.invite(bob.aor, *rows)
    incoming = bob.incoming()
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")
    return call, incoming


def passes(sender: Call, receiver: Call, method: str) -> None:
    """A request within a call to where its receiver is now, its 200, and the ACK of an INVITE."""
    sender.target = receiver.phone.contact
    sender.request(method, body=SDP if method == "INVITE" else b"")
    if method == "INVITE":
        sender.hears(100)
    assert receiver.gets(method).uri == receiver.phone.contact
    receiver.respond(200, body=SDP if method == "INVITE" else b"")
    sender.hears(200)
    if method == "INVITE":
        sender.ack()
        receiver.gets("ACK")


@pytest.mark.parametrize("spelling", [DOMAIN, f"{DOMAIN.upper()}.", "{host}:{port}", "[::ffff:{host}]:{port}"])
def test_y06_a_route_that_means_us_is_taken_off_before_a_call_and_within(system: System, spelling: str) -> None:
    for address in {edge["tcp"] for edge in system.at}:
        route = f"<sip:{spelling.format(host=address[0], port=address[1])};lr>"
        with pair(system, "udp", "tcp") as (alice, bob):
            call, incoming = established(alice, bob, f"Route: {route}")
            assert not incoming.received.has("route")
            call.routes.insert(0, route)
            passes(call, incoming, "BYE")


@pytest.mark.parametrize("mover", ["alice", "bob"])
@pytest.mark.parametrize("after", TRANSPORTS)
@pytest.mark.parametrize("before", ["udp", "tcp", "wss"])
def test_y26_a_phone_that_changes_its_network_in_a_call_is_reached_where_it_is_now(
    system: System, before: str, after: str, mover: str
) -> None:
    by = (before, "udp") if mover == "alice" else ("udp", before)
    with (
        system.phone(ALICE, edge=len(system.at) - 1, transport=by[0]) as alice,
        system.phone(BOB, transport=by[1]) as bob,
        system.phone(ALICE if mover == "alice" else BOB, transport=after) as new,
    ):
        alice.register()
        bob.register()
        call, incoming = established(alice, bob)
        moving, staying = (call, incoming) if mover == "alice" else (incoming, call)
        moving.phone.close()
        new.register()
        moving.phone = new
        passes(moving, staying, "INVITE")
        passes(staying, moving, "INVITE")
        passes(staying, moving, "BYE")
        for phone in (new, staying.phone):
            phone.quiet(0.01)
            phone.deregister()


def test_y26_a_200_with_a_contact_at_another_port_leads_there(system: System) -> None:
    with pair(system, "udp", "udp") as (alice, bob), system.phone(BOB) as line:
        call = alice.invite(bob.aor)
        incoming = bob.incoming()
        there = Call(line, incoming.call_id, incoming.local, incoming.remote, incoming.target)
        bob.named = line.contact
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.ack()
        assert there.gets("ACK").uri == line.contact
        call.request("BYE")
        there.gets("BYE")
        there.respond(200)
        call.hears(200)
        bob.quiet()


@pytest.mark.parametrize("transport", ["udp", "ws", "wss"])
def test_a_contact_that_is_called_by_its_uri_rings_at_any_edge(system: System, transport: str) -> None:
    with pair(system, "tcp", transport) as (alice, bob), system.phone(CAROL) as carol:
        call, incoming = established(alice, bob)
        transferred = carol.invite(bob.contact, f"Replaces: {call.call_id};to-tag=1;from-tag=2")
        second = bob.incoming()
        assert second.received.uri == bob.contact
        second.respond(200, body=SDP)
        transferred.hears(200)
        transferred.ack()
        second.gets("ACK")
        passes(transferred, second, "BYE")
        passes(call, incoming, "BYE")


# --- Path -------------------------------------------------------------------------------------------------------


class FromLink(UdpLink):
    """A socket of another address of this host."""

    def __init__(self, edge: tuple[str, int], host: str) -> None:
        super().__init__(edge)
        self._socket.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.local = self._socket.getsockname()


@pytest.fixture(scope="module")
def with_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The embedded system with a listed peer."""
    directory = tmp_path_factory.mktemp("peer")
    add_user(directory / "data" / "users.htdigest", user(BOB), DOMAIN, f"secret-{user(BOB)}")
    running, system = start_up(directory / "data", encrypted=True, RAMAL_EDGE_PEERS=PEER)
    try:
        yield system
        assert "the host in Path does not resolve" in running.output()
    finally:
        assert running.end() == 0


def row(system: System, number: int) -> tuple[str, str]:
    """Contact and Path of a user as a proxy reads them in `location`."""
    with contextlib.closing(
        sqlite3.connect(f"file:{Path(system.where[1]) / 'ramal.db'}?mode=ro", uri=True)
    ) as database:
        found = database.execute("SELECT contact, path FROM location WHERE username = ?", (user(number),)).fetchone()
    return found[0], found[1]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_listed_peer_calls_a_phone_by_its_path_and_a_stranger_does_not(with_peer: System, transport: str) -> None:
    edge = with_peer.at[0]["udp"]
    with with_peer.phone(BOB, transport=transport) as bob:
        bob.register()
        contact, path = row(with_peer, BOB)
        assert contact == bob.contact
        with Phone(FromLink(edge, STRANGER), "x", "", "other.test") as stranger:
            refused = Call(stranger, "c1", "<sip:x@other.test>;tag=1", f"<{contact}>", contact)
            refused.request("INVITE", f"Route: {path}", body=SDP)
            refused.hears(403)
            refused.ack()
        with Phone(FromLink(edge, PEER), "pbx", "", "other.test") as pbx:
            call = Call(pbx, f"c-{transport}", "<sip:x@other.test>;tag=1", f"<{contact}>", contact)
            call.request("INVITE", f"Route: {path}", body=SDP)
            call.hears(100)
            incoming = bob.incoming()
            incoming.respond(200, body=SDP)
            call.hears(200)
            call.ack()
            incoming.gets("ACK")
            passes(call, incoming, "INVITE")
            passes(incoming, call, "BYE")
        bob.deregister()


def test_r33_y11_a_phone_behind_a_listed_proxy_is_called_by_the_proxys_path(with_peer: System) -> None:
    """RFC 3327: the phone is at an address that only the proxy knows; what it wrote into Path comes back in Route."""
    edge = with_peer.at[0]["udp"]
    password = f"secret-{user(BOB)}"
    with Phone(FromLink(edge, PEER), user(BOB), password, DOMAIN) as proxy, with_peer.phone(BOB) as caller:
        path = f"<sip:n4t@{PEER}:{proxy.link.local[1]};lr>"
        contact = "sip:desk@10.11.12.13:5060"
        answer = proxy.registers("Supported: path", f"Path: {path}", f"Contact: <{contact}>;expires=60")
        assert answer.status == 200
        assert answer.all("path")[1:] == [path]
        call = caller.invite(caller.aor, "Privacy: id")
        incoming = proxy.incoming()
        assert incoming.received.uri == contact
        assert incoming.received.all("route") == [path]
        assert incoming.received.all("p-asserted-identity") == [f"<{caller.aor}>"]  # A29: within the Trust Domain
        incoming.respond(486)
        incoming.gets("ACK")
        call.hears(486)
        call.ack()
        assert proxy.registers("Contact: *", "Expires: 0").status == 200


@pytest.mark.parametrize(("privacy", "told"), [("none", ["<tel:+5533>"]), ("id", [])])
def test_a29_who_calls_is_believed_of_a_listed_peer(with_peer: System, privacy: str, told: list[str]) -> None:
    """RFC 3325 section 7; From of a call out of the telephone network says nothing."""
    with (
        Phone(FromLink(with_peer.at[0]["udp"], PEER), "pbx", "", "other.test") as pbx,
        with_peer.phone(BOB, transport="tls") as bob,
    ):
        bob.register()
        call = Call(pbx, f"pai-{privacy}", "<sip:anonymous@anonymous.invalid>;tag=1", f"<{bob.aor}>", bob.aor)
        call.request("INVITE", "P-Asserted-Identity: <tel:+5533>", f"Privacy: {privacy}", body=SDP)
        call.hears(100)
        incoming = bob.incoming()
        assert incoming.received.all("p-asserted-identity") == told
        incoming.respond(486)
        incoming.gets("ACK")
        call.hears(486)
        call.ack()
        bob.deregister()


class FromStream(StreamLink):
    """A connection from another address of this host."""

    def __init__(self, edge: tuple[str, int], host: str) -> None:
        super().__init__("tcp", edge)
        self.socket.close()
        self.go_on(socket.create_connection(edge, source_address=(host, 0)))

    def go_on(self, connection: socket.socket) -> None:
        self.socket.close()
        self.socket, self._octets = connection, b""
        self.local = connection.getsockname()


def test_r33_a_listed_proxy_whose_connection_is_gone_is_connected_to_where_its_path_says(with_peer: System) -> None:
    link = FromStream(with_peer.at[0]["tcp"], PEER)
    password = f"secret-{user(BOB)}"
    with (
        socket.create_server((PEER, 0)) as listening,
        Phone(link, user(BOB), password, DOMAIN) as proxy,
        with_peer.phone(BOB) as caller,
    ):
        path = f"<sip:n4t@{PEER}:{listening.getsockname()[1]};transport=tcp;lr>"
        answer = proxy.registers(f"Path: {path}", "Contact: <sip:desk@10.11.12.13>;expires=60")
        assert answer.all("path")[1:] == [path]
        link.socket.close()
        call = caller.invite(caller.aor)
        listening.settimeout(10)
        link.go_on(listening.accept()[0])
        incoming = proxy.incoming()
        assert incoming.received.all("route") == [path]
        incoming.respond(486)
        incoming.gets("ACK")
        call.hears(486)
        call.ack()
        assert caller.registers("Contact: *", "Expires: 0").status == 200
