"""Within a dialog the remote target moves, by the Contacts of both ends, and requests follow it (RFC 3261 12.2)."""

import msgspec
import pytest

from edge.core.actions import NextHop, Send
from edge.core.flow import Flow, Hop
from edge.core.place import place_of
from edge.core.tokens.dialog import Dialog, Marks
from edge.core.tokens.record_route import DialogTokens
from sipcore.message import Request, Response
from sipcore.uri import parse_uri
from tests.kit.calls import DOMAIN, KEYS, PORTS, Cluster, Phone
from tests.kit.dialogs import answered, contact, invite, routes_of_caller

BY = ("udp", "tcp", "tls", "ws", "wss")


class Called:
    """A call that stands, and the next request of either side."""

    def __init__(self, cluster: Cluster, alice: Phone, bob: Phone) -> None:
        self.cluster = cluster
        invite(alice)
        self.received, self.ok = answered(alice, bob)
        self.alice_is, self.bob_is = self.ok.first("from"), self.ok.first("to")
        self.cseq = 10

    def sends(self, who: Phone, method: str, target: str, **more: str) -> None:
        """A request of the dialog from alice, or from bob, to this target."""
        self.cseq += 1
        by_caller = who.name == "alice"
        ends = (self.alice_is, self.bob_is) if by_caller else (self.bob_is, self.alice_is)
        routes = routes_of_caller(self.ok) if by_caller else self.received.values("record-route")
        who.request(method, target, from_=ends[0], to=ends[1], routes=routes, cseq=self.cseq, **more)

    def passes(self, who: Phone, method: str, to: Phone, target: str = "") -> Request:
        """The same, which must reach this phone, and its 200 the sender."""
        self.sends(who, method, target or to.contact)
        if method == "INVITE":
            who.got_response(100)
        got = to.got_request(method)
        assert got.uri == (target or to.contact)
        if method != "ACK":
            to.respond(got, 200)
            who.got_response(200)
        return got


def moved(phone: Phone, edge: str, transport: str) -> Phone:
    """The same user's phone in another network, registered there."""
    there = Phone(phone.cluster, phone.name, edge, transport)
    there.branches = 100
    phone.cluster.bindings[f"{phone.name}@{DOMAIN}"].clear()
    phone.cluster.register(there)
    return there


def reconnected(phone: Phone, edge: str = "edge-1") -> Phone:
    """The same phone with the same Contact by another flow, registered anew."""
    there = moved(phone, edge, phone.flow.transport)
    (binding,) = phone.cluster.bindings[f"{phone.name}@{DOMAIN}"]
    phone.cluster.bindings[f"{phone.name}@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=phone.contact)]
    return there


def at_port(phone: Phone, port: int, transport: str = "udp") -> Phone:
    """Who hears at another port of a phone's host."""
    there = Phone(phone.cluster, phone.name, phone.edge, transport)
    del phone.cluster.phones[there.flow]
    local = phone.cluster.host(phone.edge)
    there.flow = Flow(transport, local, PORTS[transport], phone.flow.remote_host, port)
    phone.cluster.phones[there.flow] = there
    return there


@pytest.mark.parametrize("refresh", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("mover", ["alice", "bob"])
@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
@pytest.mark.parametrize("after", BY)
@pytest.mark.parametrize("before", BY)
def test_y26_a_phone_that_changes_its_network_in_a_call_is_reached_where_it_is_now(
    before: str, after: str, edge: str, mover: str, refresh: str
) -> None:
    cluster = Cluster()
    phones = {name: cluster.phone(name, "edge-1", before if name == mover else "udp") for name in ("alice", "bob")}
    call = Called(cluster, phones["alice"], phones["bob"])
    old, other = phones.pop(mover), next(iter(phones.values()))
    new = moved(old, edge, after)
    call.passes(new, refresh, other)
    if refresh == "INVITE":
        call.passes(new, "ACK", other)
    call.passes(other, "INVITE", new)
    call.passes(other, "ACK", new)
    call.passes(other, "BYE", new)
    assert not old.inbox
    assert not cluster.lost


@pytest.mark.parametrize("method", ["ACK", "BYE", "INFO", "UPDATE", "REFER", "NOTIFY", "PRACK", "MESSAGE", "OPTIONS"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_y26_a_200_with_a_contact_at_another_port_or_transport_of_its_host_leads_there(
    transport: str, method: str
) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    there = at_port(bob, 5070, transport)
    call.passes(alice, method, there, f"sip:bob@{bob.flow.remote_host}:5070;transport={transport}")
    assert not bob.inbox


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_y26_where_nobody_hears_at_that_port_the_phones_own_flow_is_tried(transport: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    for method in ("BYE", "ACK"):
        call.passes(alice, method, bob, f"sip:bob@{bob.flow.remote_host}:5070;transport={transport}")


def test_y26_on_udp_that_nobody_hears_at_a_port_is_told_by_silence() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    deaf = at_port(bob, 5070)
    target = f"sip:bob@{bob.flow.remote_host}:5070"
    call.sends(alice, "BYE", target)
    cluster.turn(1.5)
    assert deaf.inbox
    assert not bob.inbox
    cluster.turn(1)
    bob.respond(bob.got_request("BYE"), 200)
    alice.got_response(200)
    bob.inbox.clear()
    call.sends(alice, "ACK", target)
    assert not bob.inbox
    call.cseq -= 1
    call.sends(alice, "ACK", target)
    bob.got_request("ACK")


@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_y26_a_phone_whose_connection_went_and_came_back_gets_what_is_for_it(transport: str, edge: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    call = Called(cluster, alice, bob)
    del cluster.phones[bob.flow]
    back = reconnected(bob, edge)
    for method in ("INFO", "INVITE", "ACK", "BYE"):
        call.passes(alice, method, back, bob.contact)


@pytest.mark.parametrize("transport", BY)
def test_y26_a_flow_that_is_dead_without_having_said_so_is_replaced_after_two_seconds(transport: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    call = Called(cluster, alice, bob)
    back = reconnected(bob)
    call.sends(alice, "INVITE", bob.contact)
    alice.got_response(100)
    cluster.turn(2.5)
    back.respond(back.got_request("INVITE"), 200)
    alice.got_response(200)
    assert cluster.drops["silent-flow"] == 1
    back.inbox.clear()
    call.sends(alice, "ACK", bob.contact)
    assert not back.inbox
    call.cseq -= 1
    call.sends(alice, "ACK", bob.contact)
    back.got_request("ACK")


def test_n10_a_phone_that_only_thinks_is_not_looked_up() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    call.sends(alice, "INVITE", bob.contact)
    alice.got_response(100)
    bob.respond(bob.got_request("INVITE"), 100)
    cluster.bindings.clear()
    cluster.turn(10)
    assert "silent-flow" not in cluster.drops
    assert not bob.inbox


@pytest.mark.parametrize("transport", ["tcp", "wss"])
def test_y26_a_phone_whose_edge_died_is_reached_by_the_edge_that_it_registered_at_since(transport: str) -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    call = Called(cluster, alice, bob)
    cluster.kill("edge-2")
    back = reconnected(bob, "edge-3")
    for method in ("INVITE", "ACK", "BYE"):
        call.passes(alice, method, back, bob.contact)


@pytest.mark.parametrize("transport", ["tcp", "wss"])
def test_n06_a_phone_that_is_gone_and_did_not_come_back_is_480(transport: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    call = Called(cluster, alice, bob)
    del cluster.phones[bob.flow]
    for bindings in (None, []):
        if bindings is not None:
            cluster.bindings[f"bob@{DOMAIN}"] = bindings
        call.sends(alice, "BYE", bob.contact)
        alice.got_response(480)
    call.sends(alice, "ACK", bob.contact)
    assert cluster.drops["flow-gone"]


def test_y26_both_ends_move_one_after_the_other() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob", "edge-2", "wss")
    call = Called(cluster, alice, bob)
    alice = moved(alice, "edge-2", "tls")
    call.passes(alice, "UPDATE", bob)
    bob = moved(bob, "edge-1", "tcp")
    call.passes(bob, "UPDATE", alice)
    for sender, receiver in ((alice, bob), (bob, alice)):
        call.passes(sender, "INVITE", receiver)
        call.passes(sender, "ACK", receiver)
    call.passes(bob, "BYE", alice)


def test_y26_of_two_forks_that_both_answered_each_is_reached_where_it_says() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    for phone, tag in ((one, "t1"), (two, "t2")):
        phone.respond(phone.got_request("INVITE"), 200, tag=tag)
    answers = {ok.to.tag: ok for ok in (alice.got_response(200), alice.got_response(200))}
    for phone, tag in ((one, "t1"), (two, "t2")):
        phone.inbox.clear()
        ok = answers[tag]
        for number, method in enumerate(("ACK", "BYE"), 1):
            alice.request(method, contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=number)
            phone.got_request(method)
    assert not one.inbox
    assert not two.inbox


# --- who may be reached (Y35) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "BYE", "ACK", "MESSAGE"])
@pytest.mark.parametrize(
    "target",
    [
        "sip:carol@198.51.100.3:5062;transport=tcp",
        "sip:+5548999@203.0.113.9",
        f"sip:carol@{DOMAIN}",
        "sip:bob@192.168.7.7:5060",
        "sip:bob@x.invalid;transport=ws",
        "tel:+5548999",
    ],
)
def test_y35_whatever_target_is_written_a_request_of_a_dialog_reaches_its_other_end_alone(
    target: str, method: str
) -> None:
    cluster = Cluster()
    alice, bob, carol = (
        cluster.phone("alice"),
        cluster.phone("bob", "edge-2", "tcp"),
        cluster.phone("carol", "edge-1", "tcp"),
    )
    call = Called(cluster, alice, bob)
    call.sends(alice, method, target)
    cluster.turn(3)
    assert any(isinstance(got, Request) and got.method == method for got in bob.inbox)
    assert not carol.inbox
    assert not cluster.lost


def test_y35_a_contact_that_another_user_registered_does_not_get_the_call() -> None:
    cluster = Cluster()
    alice, bob, mallory = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("mallory")
    call = Called(cluster, alice, bob)
    new = moved(bob, "edge-1", "tcp")
    (binding,) = cluster.bindings[f"mallory@{DOMAIN}"]
    cluster.bindings[f"mallory@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=new.contact)]
    call.passes(alice, "BYE", new)
    assert not mallory.inbox


def test_y35_a_port_of_the_same_host_where_nothing_may_be_sent_to_is_not_tried() -> None:
    cluster = Cluster(refuses=lambda host: True)
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    call = Called(cluster, alice, bob)
    call.passes(alice, "BYE", bob, f"sip:bob@{bob.flow.remote_host}:22")


def test_y26_behind_a_nat_another_port_of_its_address_is_another_phones() -> None:
    class Behind(Phone):
        """A phone with a private address."""

        @property
        def contact(self) -> str:
            """Its Contact URI."""
            return f"sip:{self.name}@192.168.1.10:5060"

    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.users.add(f"bob@{DOMAIN}")
    bob = Behind(cluster, "bob", "edge-1")
    cluster.register(bob)
    call = Called(cluster, alice, bob)
    neighbour = at_port(bob, 5070)
    call.passes(alice, "BYE", bob, f"sip:bob@{bob.flow.remote_host}:5070")
    call.passes(alice, "BYE", bob, "sip:bob@192.168.1.10:5099")
    assert not neighbour.inbox


# --- servers ----------------------------------------------------------------------------------------------------


def to_far_proxy(cluster: Cluster, alice: Phone, far: Phone) -> Response:
    """A call of alice's that a proxy of another domain has let through."""

    cluster.hops["sip:x@elsewhere.test"] = [NextHop("udp", far.flow.remote_host, 5060)]
    invite(alice, "sip:x@elsewhere.test")
    received = far.got_request("INVITE")
    record = f"Record-Route: <sip:{far.flow.remote_host}:5070;lr>"
    far.respond(received, 200, record)
    return alice.got_response(200)


def test_y26_the_next_proxy_is_where_its_route_says_if_that_is_its_host() -> None:
    cluster = Cluster()
    alice, far = cluster.phone("alice"), cluster.phone("far", register=False)
    ok = to_far_proxy(cluster, alice, far)
    sent: list[Send] = []
    cluster._deliver = lambda name, core, send: sent.append(send)  # type: ignore[method-assign]
    host = far.flow.remote_host
    for route, port in (
        (f"<sip:{host}:5070;lr>", 5070),
        (f"<sip:{host};lr>", 5060),
        ("<sip:203.0.113.9:5090;lr>", 5060),
    ):
        alice.request("BYE", "sip:x@10.9.9.9", to=ok.first("to"), routes=[*routes_of_caller(ok)[:1], route], cseq=port)
        bye = sent.pop()
        assert (bye.flow.remote_host, bye.port) == (host, port)
        assert f"Route: {route}".encode() in bye.data
        sent.clear()


# --- marks ------------------------------------------------------------------------------------------------------

PHONE = Hop(Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 40_000), "edge-1")
AT = 1_700_000_000_000


def test_marks_are_known_again_by_every_key_and_tell_nothing_of_another_call() -> None:
    made, both = DialogTokens(KEYS), DialogTokens({"k9": bytes(32), **KEYS})
    place = place_of(parse_uri("sip:bob@198.51.100.7:40000"))
    marks = made.marks("call-1", place, "bob@example.test", direct=True)
    token = made.make(Dialog(PHONE, PHONE, 0, Marks(), marks), "call-1", "t", AT)
    opened = both.open(token, "call-1", ("t", ""), AT)
    assert opened is not None
    kept = opened[0].callee_marks
    assert kept == marks
    assert both.is_at(kept, "call-1", place)
    assert both.is_party(kept, "call-1", "bob@example.test")
    assert not both.is_at(kept, "call-1", place_of(parse_uri("sip:bob@198.51.100.7:40001")))
    assert not both.is_party(kept, "call-1", "eve@example.test")
    assert not both.is_party(kept, "call-2", "bob@example.test")
    assert not both.is_party(Marks(), "call-1", "")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("sip:bob@192.0.2.1", ("udp", "192.0.2.1", 5060)),
        ("sips:bob@[2001:DB8::0:1]", ("tls", "2001:db8::1", 5061)),
        ("sips:bob@x.invalid;transport=ws", ("wss", "x.invalid", 443)),
        ("sip:bob@H.test.;transport=TCP", ("tcp", "h.test", 5060)),
        ("sip:bob@h;maddr=192.0.2.9:5", ("udp", "192.0.2.9:5", 5060)),
        ("sip:bob@h:7;maddr=192.0.2.9;transport=sctp", ("sctp", "192.0.2.9", 7)),
    ],
)
def test_a_place_is_transport_host_and_port(uri: str, place: tuple[str, str, int]) -> None:
    assert place_of(parse_uri(uri)) == place


def test_a_token_of_before_there_were_marks_still_leads_to_its_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.tokens.record_route._marked", lambda marks: b"")
    monkeypatch.setattr("edge.core.tokens.record_route._beginning", lambda dialog: b"")
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    call = Called(cluster, alice, bob)
    for target in (bob.contact, "sip:bob@203.0.113.9"):
        call.passes(alice, "INFO", bob, target)


# --- without a registration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mover", ["alice", "bob"])
@pytest.mark.parametrize("after", BY)
@pytest.mark.parametrize("before", BY)
def test_y26_where_a_phone_that_has_not_registered_yet_refreshes_from_it_is_reached_by_that_edge(
    before: str, after: str, mover: str
) -> None:
    cluster = Cluster()
    phones = {name: cluster.phone(name, "edge-1", before if name == mover else "udp") for name in ("alice", "bob")}
    call = Called(cluster, phones["alice"], phones["bob"])
    old, other = phones.pop(mover), next(iter(phones.values()))
    new = moved(old, "edge-1", after)
    cluster.bindings[f"{mover}@{DOMAIN}"].clear()
    cluster.phones.pop(old.flow)
    call.passes(new, "UPDATE", other)
    for method in ("INVITE", "ACK", "BYE"):
        call.passes(other, method, new)
    assert not cluster.lost


def test_y35_who_forges_the_tag_of_the_other_end_gets_but_his_own_requests() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob", "edge-1", "tcp")
    eve = cluster.phone("eve", "edge-1", "tcp")
    call = Called(cluster, alice, bob)
    # Bob's helper, who has the token from him, says that alice is where he is.
    routes = call.received.values("record-route")
    eve.request("UPDATE", bob.contact, from_=call.alice_is, to=call.bob_is, routes=routes, cseq=20)
    bob.respond(bob.got_request("UPDATE"), 200)
    eve.got_response(200)
    for who, to in ((bob, alice), (alice, bob)):
        call.passes(who, "INFO", to)
    assert not eve.inbox


def test_y26_a_phone_that_came_back_to_where_it_was_is_reached_there() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tcp"), cluster.phone("bob")
    call = Called(cluster, alice, bob)
    away = moved(alice, "edge-1", "wss")
    call.passes(away, "UPDATE", bob)
    call.passes(bob, "INFO", away)
    call.passes(alice, "UPDATE", bob)
    call.passes(bob, "INFO", alice)
