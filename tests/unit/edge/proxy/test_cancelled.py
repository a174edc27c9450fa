"""What a cancelled call ends with: the phone's own answer (RFC 3261 sections 9.2 and 16.7, step 6)."""

import pytest

from sipcore.message import Request, Response
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, invite

REASON = "Reason: Q.850;cause=16"


def cancel(caller: Phone, branch: str, *rows: str, edge: str | None = None) -> Response:
    """Cancels an INVITE; the 200 to that."""
    caller.request("CANCEL", BOB, *rows, branch=branch, contact=False, edge=edge)
    return caller.got_response(200)


def ends(callee: Phone, received: Request, status: int = 487, *rows: str, tag: str | None = None) -> None:
    """Answers a CANCEL, and with it the INVITE."""
    callee.respond(callee.got_request("CANCEL"), 200, tag=tag)
    callee.respond(received, status, "Mine", *rows, tag=tag)
    callee.got_request("ACK")


@pytest.mark.parametrize(("transport", "edge"), [("udp", "edge-1"), ("ws", "edge-2")])
@pytest.mark.parametrize("status", [486, 487, 603])
def test_the_phones_own_answer_goes_up_with_its_tag_and_reason(status: int, transport: str, edge: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", edge, transport)
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180, tag="tb")
    alice.got_response(180)
    assert cancel(alice, branch).to.tag == "tb"
    assert not alice.inbox
    ends(bob, received, status, REASON, tag="tb")
    final = alice.got_response(status)
    assert (final.reason, final.to.tag, final.first("reason")) == ("Mine", "tb", "Q.850;cause=16")


def test_the_cancel_and_a_487_of_our_own_have_one_tag() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    for rings in (True, False):
        bob = cluster.phone("bob", "edge-2")
        branch = invite(alice, call_id=f"call-{rings}")
        received = bob.got_request("INVITE")
        bob.respond(received, 180 if rings else 100, tag="tb")
        if rings:
            alice.got_response(180)
        alice.request("CANCEL", BOB, branch=branch, contact=False, call_id=f"call-{rings}")
        told = alice.got_response(200)
        assert told.to.tag
        assert (told.to.tag == "tb") == rings
        assert not alice.inbox
        cluster.turn(4)
        assert not alice.inbox
        cluster.turn(2.5)  # a phone that takes a CANCEL has answered by now
        final = alice.got_response(487)
        assert final.to.tag == told.to.tag
        alice.ack(final, BOB, branch, f"call-{rings}")
        alice.inbox.clear()
        cluster.bindings.clear()


def test_x13_a_phone_that_never_answered_anything_keeps_nobody_waiting() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    cancel(alice, branch)
    cluster.turn(7)
    alice.ack(alice.got_response(487), BOB, branch)
    alice.inbox.clear()
    assert not bob.inbox
    bob.respond(received, 180)  # it lives after all: only now may it be cancelled
    ends(bob, received)
    assert not alice.inbox
    cluster.turn(40)
    assert [core.calls.transactions for core in cluster.edges.values()] == [0, 0]


def test_x15_a_200_that_comes_after_our_own_487_is_passed_on() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cancel(alice, branch)
    bob.got_request("CANCEL")
    bob.respond(received, 200)
    alice.got_response(200)
    assert not alice.inbox


def test_of_several_phones_the_487_goes_up_whose_tag_the_caller_has_had() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("bob", "edge-2", "ws")]
    branch = invite(alice)
    received = [phone.got_request("INVITE") for phone in phones]
    phones[0].respond(received[0], 486, tag="t0")
    phones[0].got_request("ACK")
    for number in (2, 1):
        phones[number].respond(received[number], 180, tag=f"t{number}")
        alice.got_response(180)
    assert cancel(alice, branch).to.tag == "t2"
    for number in (1, 2):
        assert not alice.inbox
        ends(phones[number], received[number], tag=f"t{number}")
    assert alice.got_response(487).to.tag == "t2"


def test_one_phone_that_does_not_answer_its_cancel_does_not_cost_the_answer_of_another() -> None:
    cluster = Cluster()
    alice, one, two = cluster.phone("alice"), cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    one.respond(first, 180)
    two.respond(second, 180)
    alice.inbox.clear()
    cancel(alice, branch)
    ends(one, first, 487, REASON)
    cluster.turn(4)
    assert not alice.inbox
    cluster.turn(2.5)
    assert alice.got_response(487).first("reason") == "Q.850;cause=16"
    alice.inbox.clear()
    ends(two, second)
    assert not alice.inbox


def test_a_603_of_one_comes_before_the_487_of_another() -> None:
    cluster = Cluster()
    alice, one, two = cluster.phone("alice"), cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    one.respond(first, 180)
    two.respond(second, 180)
    alice.inbox.clear()
    cancel(alice, branch)
    ends(one, first)
    ends(two, second, 603, REASON)
    assert alice.got_response(603).first("reason") == "Q.850;cause=16"


def test_a_phone_that_cannot_be_reached_for_its_cancel_ends_with_487() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    cluster.close(bob)
    cancel(alice, branch)
    alice.got_response(487)
    cluster.turn(40)
    assert [core.calls.transactions for core in cluster.edges.values()] == [0, 0]


def test_the_reason_of_the_cancel_goes_to_the_phone() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    branch = invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    cancel(alice, branch, "Reason: SIP;cause=487", edge="edge-2")
    assert bob.got_request("CANCEL").first("reason") == "SIP;cause=487"
