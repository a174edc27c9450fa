"""Within a dialog the remote target moves, by the Contacts of both ends, and requests follow it (RFC 3261 12.2)."""

import msgspec
import pytest

from edge.core.flow import Flow
from sipcore.message import Request
from tests.kit.calls import DOMAIN, PORTS, Cluster, Phone
from tests.kit.dialogs import contact, invite, routes_of_caller
from tests.kit.moved import BY, Called, moved


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
