"""Requests within a dialog: who gets them, and that they pass untouched (RFC 3261 sections 12.2 and 16.11)."""

from typing import Any

import pytest

from tests.kit.calls import DOMAIN, Cluster, Phone, authorization
from tests.kit.dialogs import BOB, OFFER, answered, contact, established, invite, routes_of_caller, statuses


def test_x12_the_ack_of_a_2xx_is_neither_challenged_nor_answered_nor_kept() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    before = [core.calls.transactions for core in cluster.edges.values()]
    commands = len(cluster.commands)
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok))
    bob.got_request("ACK")
    assert not alice.inbox
    assert [core.calls.transactions for core in cluster.edges.values()] == before
    assert len(cluster.commands) == commands


def test_y26_a_bye_passes_without_a_look_up_when_the_callee_has_unregistered() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    cluster.bindings.clear()
    cluster.away = True
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.respond(bob.got_request("BYE"), 200)
    alice.got_response(200)


def test_y30_a_reliable_183_its_prack_and_an_update_before_the_answer_pass_untouched() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "wss")
    invite(alice, BOB, "Supported: 100rel", "Require: 100rel")
    received = bob.got_request("INVITE")
    assert (received.first("require"), received.first("supported")) == ("100rel", "100rel")
    bob.respond(received, 183, "Session Progress", "Require: 100rel", "RSeq: 7", body=OFFER)
    progress = alice.got_response(183)
    assert (progress.first("require"), progress.first("rseq")) == ("100rel", "7")
    to, routes = progress.first("to"), routes_of_caller(progress)
    alice.request("PRACK", contact(progress), "RAck: 7 1 INVITE", to=to, routes=routes, cseq=2)
    prack = bob.got_request("PRACK")
    assert prack.first("rack") == "7 1 INVITE"
    bob.respond(prack, 200)
    alice.got_response(200)
    alice.request("UPDATE", contact(progress), to=to, routes=routes, cseq=3, body=OFFER)
    bob.respond(bob.got_request("UPDATE"), 200, body=OFFER)
    assert alice.got_response(200).body == OFFER.encode()
    bob.respond(received, 200)
    alice.got_response(200)


def test_y30_a_refer_within_a_call_and_its_notify_pass() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tls")
    invite(alice)
    received, ok = answered(alice, bob)
    to, from_ = ok.first("to"), ok.first("from")
    target = "<sip:carol@example.test>"
    alice.request("REFER", contact(ok), f"Refer-To: {target}", to=to, routes=routes_of_caller(ok), cseq=2)
    refer = bob.got_request("REFER")
    assert refer.first("refer-to") == target
    bob.respond(refer, 202)
    alice.got_response(202)
    routes = received.values("record-route")
    event = ("Event: refer", "Subscription-State: active")
    bob.request("NOTIFY", alice.contact, *event, from_=to, to=from_, routes=routes, cseq=1, body="SIP/2.0 100 Trying")
    notify = alice.got_request("NOTIFY")
    assert (notify.first("event"), notify.body) == ("refer", b"SIP/2.0 100 Trying")
    alice.respond(notify, 200)
    bob.got_response(200)


@pytest.mark.parametrize(("transport", "port"), [("tcp", 5060), ("udp", 5070)])
def test_a_bye_to_a_peer_that_called_goes_where_it_says_not_to_the_port_it_called_from(
    transport: str, port: int
) -> None:
    cluster = Cluster("edge-1", is_peer=lambda host: host == "198.51.100.2")
    bob = cluster.phone("bob")
    trunk = Phone(cluster, "trunk", "edge-1", transport)
    contact = f"sip:trunk@198.51.100.2:{port};transport={transport}"
    trunk.request("INVITE", BOB, f"Contact: <{contact}>", from_="<sip:123@x>;tag=t", contact=False)
    trunk.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 200)
    ok = trunk.got_response(200)
    del cluster.phones[trunk.flow]
    way = received.values("record-route")
    bob.request("BYE", contact, to=ok.first("from"), from_=ok.first("to"), routes=way)
    (bye,) = cluster.lost
    assert bye.data.startswith(b"BYE ")
    assert (bye.flow.transport, bye.flow.connection, bye.port) == (transport, 0, port)


def test_a_bye_to_a_phone_without_nat_that_hears_at_another_port_goes_there() -> None:
    cluster = Cluster("edge-1")
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    text = (
        f"INVITE {BOB} SIP/2.0\r\nVia: SIP/2.0/UDP {alice.flow.remote_host}:5062;branch=z9hG4bKx\r\n"
        f"From: <sip:alice@{DOMAIN}>;tag=1\r\nTo: <{BOB}>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:alice@{alice.flow.remote_host}:6000>\r\n{authorization('alice', 'INVITE', BOB)}\r\n\r\n"
    )
    alice.send(text.encode())
    alice.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    way = received.values("record-route")
    uri = received.contacts[0].uri
    del cluster.phones[alice.flow]
    bob.request("BYE", uri, to=ok.first("from"), from_=ok.first("to"), routes=way, call_id="1")
    (bye,) = cluster.lost
    assert (bye.flow.remote_port, bye.port) == (6000, 6000)


def test_e05_the_ack_of_a_refused_re_invite_that_falls_on_another_edge_reaches_the_one_that_waits_for_it() -> None:
    """By its Route it could be to a 2xx, and goes on; that it comes again shows that somebody still waits."""
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    _, ok = established(alice, bob)
    dialog: dict[str, Any] = {"to": ok.first("to"), "routes": routes_of_caller(ok), "cseq": 2}
    branch = alice.request("INVITE", bob.contact, **dialog)
    alice.got_response(100)
    bob.respond(bob.got_request("INVITE"), 488)
    alice.got_response(488)
    bob.got_request("ACK")
    for _ in range(2):
        alice.request("ACK", bob.contact, branch=branch, contact=False, edge="edge-2", **dialog)
        cluster.turn(0.6)
    heard = len(statuses(alice))
    cluster.turn(40)
    assert len(statuses(alice)) == heard
    assert cluster.edges["edge-1"].calls.transactions == 0
