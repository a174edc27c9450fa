"""Several phones: who rings when, and which answer goes up (RFC 3261 sections 16.6 and 16.7)."""

import pytest

from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, answered, invite


def test_y10_a_phone_that_registers_while_the_others_ring_rings_too() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    late = cluster.phone("bob", "edge-2", "wss")
    cluster.turn(2.1)
    late.respond(late.got_request("INVITE"), 200)
    alice.got_response(200)
    bob.got_request("CANCEL")
    cluster.turn(3)
    assert not late.inbox


def test_y16_lower_q_comes_after_the_higher_has_failed() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    desk, mobile = cluster.phone("bob", q=1.0), cluster.phone("bob", "edge-2", "tcp", q=0.5)
    invite(alice)
    assert not mobile.inbox
    desk.respond(desk.got_request("INVITE"), 486)
    desk.got_request("ACK")
    mobile.respond(mobile.got_request("INVITE"), 200)
    alice.got_response(200)


def test_y16_a_binding_of_lower_q_does_not_join_while_the_higher_rings() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    desk, mobile = cluster.phone("bob", q=1.0), cluster.phone("bob", "edge-2", "tcp", q=0.5)
    invite(alice)
    received = desk.got_request("INVITE")
    desk.respond(received, 180)
    cluster.turn(3)
    late = cluster.phone("bob", "edge-1", "tcp", q=0.2)
    cluster.turn(3)
    assert not mobile.inbox
    assert not late.inbox
    desk.respond(received, 486)
    mobile.respond(mobile.got_request("INVITE"), 486)
    late.got_request("INVITE")


def test_x09_y19_a_second_200_passes_too() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    one.respond(first, 200, tag="one")
    two.respond(second, 200, tag="two")
    assert {alice.got_response(200).to.tag, alice.got_response(200).to.tag} == {"one", "two"}


def test_y20_a_6xx_cancels_the_others_and_goes_up_when_all_have_ended() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    two.respond(second, 180)
    alice.got_response(180)
    one.respond(first, 603)
    assert not alice.inbox
    two.respond(two.got_request("CANCEL"), 200)
    two.respond(second, 487)
    alice.got_response(603)


def test_y22_the_to_tag_of_the_response_that_was_chosen_is_kept() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    one.respond(one.got_request("INVITE"), 500, tag="one")
    two.respond(two.got_request("INVITE"), 486, tag="two")
    assert alice.got_response(486).to.tag == "two"


def test_y25_a_target_that_cannot_be_sent_to_does_not_end_the_others() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    gone, bob = cluster.phone("bob", "edge-1", "tcp"), cluster.phone("bob", "edge-2")
    del cluster.phones[gone.flow]
    invite(alice)
    _, ok = answered(alice, bob)
    assert ok.status == 200


@pytest.mark.parametrize("status", [404, 486, 480])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_y22_what_a_phone_answers_comes_before_what_is_said_for_one_that_is_gone(transport: str, status: int) -> None:
    """Who is busy is told so, though the binding of a telephone that was switched off is still there."""
    cluster = Cluster()
    alice = cluster.phone("alice")
    gone, bob = cluster.phone("bob", "edge-1", transport), cluster.phone("bob", "edge-2")
    del cluster.phones[gone.flow]
    invite(alice)
    bob.respond(bob.got_request("INVITE"), status, tag="bobs")
    assert alice.got_response(status).to.tag == "bobs"


def test_y31_a_message_reaches_each_of_three_phones_and_for_nobody_it_is_480() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob", "edge-1"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("bob", "edge-2")]
    alice.request("MESSAGE", BOB, authorized=True, body="hello")
    for phone in phones:
        message = phone.got_request("MESSAGE")
        assert message.body == b"hello"
        phone.respond(message, 200)
    alice.got_response(200)
    assert not alice.inbox
    cluster.bindings.clear()
    alice.request("MESSAGE", BOB, authorized=True, call_id="call-2", body="hello")
    alice.got_response(480)
