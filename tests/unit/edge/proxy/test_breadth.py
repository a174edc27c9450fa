"""How many branches a request may have at once (RFC 5393 section 5)."""

import pytest

from sipcore.message import Request
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, established, invite, routes_of_caller


def breadths(*phones: Phone) -> list[int]:
    """What each phone that has an INVITE was given; the messages stay."""
    invites = [m for phone in phones for m in phone.inbox if isinstance(m, Request) and m.method == "INVITE"]
    values = [value for each in invites for value in each.values("max-breadth")]
    assert len(values) == len(invites), "a request without Max-Breadth, or with two"
    return [int(value) for value in values]


def rang(breadth: str | None, phones: int) -> list[int]:
    cluster = Cluster()
    alice = cluster.phone("alice")
    bobs = [cluster.phone("bob", f"edge-{1 + n % 2}", "tcp" if n % 3 else "udp") for n in range(phones)]
    invite(alice, BOB, *([] if breadth is None else [f"Max-Breadth: {breadth}"]))
    return breadths(*bobs)


@pytest.mark.parametrize(
    ("breadth", "phones", "given"),
    [
        (None, 1, [60]),
        (None, 2, [30, 30]),
        ("60", 2, [30, 30]),
        ("1000", 1, [60]),
        ("4", 1, [4]),
        ("4", 2, [2, 2]),
        ("7", 3, [3, 2, 2]),
        ("odd", 1, [60]),
        ("1", 1, [1]),
    ],
)
def test_y04_max_breadth_is_shared_among_branches_and_is_60_where_absent(
    breadth: str | None, phones: int, given: list[int]
) -> None:
    assert rang(breadth, phones) == given


def test_y04_with_less_breadth_than_phones_the_next_rings_when_one_has_ended() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    bobs = [cluster.phone("bob", "edge-1", "tcp") for _ in range(4)]
    invite(alice, BOB, "Max-Breadth: 2")
    assert breadths(*bobs) == [1, 1]
    ringing, other, third, fourth = bobs
    ringing.respond(ringing.got_request("INVITE"), 180)
    alice.got_response(180)
    other.respond(other.got_request("INVITE"), 486)
    assert breadths(third, fourth) == [1]
    third.respond(third.got_request("INVITE"), 486)
    assert breadths(fourth) == [1]
    fourth.respond(fourth.got_request("INVITE"), 200)
    alice.got_response(200)
    ringing.got_request("CANCEL")


def test_y04_breadth_one_is_serial_and_all_busy_is_busy() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    bobs = [cluster.phone("bob", q=q) for q in (1.0, 1.0, 0.5)]
    invite(alice, BOB, "Max-Breadth: 1")
    for bob in bobs:
        assert breadths(*bobs) == [1]
        bob.respond(bob.got_request("INVITE"), 486)
        bob.got_request("ACK")
    alice.got_response(486)


def test_y04_what_waited_for_breadth_is_not_rung_after_an_answer_or_a_cancel() -> None:
    for ends in ("answer", "decline", "cancel"):
        cluster = Cluster()
        alice = cluster.phone("alice")
        first, second = cluster.phone("bob"), cluster.phone("bob", "edge-2")
        branch = invite(alice, BOB, "Max-Breadth: 1")
        received = first.got_request("INVITE")
        if ends == "cancel":
            first.respond(received, 180)
            alice.request("CANCEL", BOB, branch=branch, contact=False)
            first.got_request("CANCEL")
            first.respond(received, 487)
        else:
            first.respond(received, 200 if ends == "answer" else 603)
        cluster.turn(5)
        assert not second.inbox


def test_y04_none_left_is_440_whatever_the_method() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for number, method in enumerate(("INVITE", "MESSAGE", "OPTIONS")):
        alice.request(method, BOB, "Max-Breadth: 0", authorized=True, call_id=f"call-{number}")
        assert alice.got_response(440).reason == "Max-Breadth Exceeded"
    assert not bob.inbox
    alice.request("OPTIONS", "sip:example.test", "Max-Breadth: 0", call_id="to-us")
    alice.got_response(200)


def test_y04_y10_a_phone_that_registers_later_rings_though_the_first_has_all_that_we_gave() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    late = [cluster.phone("bob", "edge-2", "tcp") for _ in range(12)]
    cluster.turn(2.1)
    assert breadths(*late) == [1] * 10
    late[0].respond(late[0].got_request("INVITE"), 486)
    assert breadths(*late[10:]) == [1]


def test_y04_y10_it_waits_where_the_caller_has_set_the_bound() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB, "Max-Breadth: 60")
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    late = cluster.phone("bob", "edge-2", "tcp")
    cluster.turn(2.1)
    assert not late.inbox
    bob.respond(received, 486)
    late.got_request("INVITE")


def test_y04_requests_within_a_dialog_and_acks_have_it_too() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    _, ok = established(alice, bob)
    routes = routes_of_caller(ok)
    alice.request("ACK", bob.contact, to=ok.first("to"), routes=routes)
    assert bob.got_request("ACK").values("max-breadth") == ["60"]
    alice.request("BYE", bob.contact, "Max-Breadth: 3", to=ok.first("to"), cseq=2, routes=routes)
    assert bob.got_request("BYE").values("max-breadth") == ["3"]
