"""Session timers of calls that pass (RFC 4028 section 8; CHECKLIST Y29), and what records have of them (C12)."""

import pytest

from events.calls import CallAnswered, CallRefreshed, steps
from sipcore.message import Request
from tests.kit.calls import Cluster, Phone
from tests.kit.dialogs import BOB, established, invite, routes_of_caller

TIMER = "Supported: timer"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(min_se=120)


def timers(cluster: Cluster) -> list[tuple[str, int]]:
    told = [step for event in cluster.events for step in steps(event)]
    return [(type(t).__name__, t.session_expires) for t in told if isinstance(t, CallAnswered | CallRefreshed)]


@pytest.mark.parametrize("authorized", [True, False])
def test_y29_a_timer_below_our_minimum_is_422_with_min_se_and_reaches_nobody(
    cluster: Cluster, authorized: bool
) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = alice.request("INVITE", BOB, TIMER, "Session-Expires: 90", authorized=authorized)
    refused = alice.got_response(422)
    assert refused.values("min-se") == ["120"]
    alice.ack(refused, BOB, branch)
    assert not bob.inbox
    assert cluster.events == []
    invite(alice, BOB, TIMER, "Session-Expires: 120", "Min-SE: 120", call_id="call-2", cseq=2)
    assert bob.got_request("INVITE").first("session-expires") == "120"


def test_y29_who_does_no_timers_is_not_refused_but_its_timer_prolonged(cluster: Cluster) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice, BOB, "Session-Expires: 60")
    received = bob.got_request("INVITE")
    assert (received.first("session-expires"), received.first("min-se")) == ("120", "120")
    bob.respond(received, 200)
    assert alice.got_response(200).first("session-expires") is None
    assert timers(cluster) == [("CallAnswered", 0)]


@pytest.mark.parametrize("rows", [(), (TIMER,), (TIMER, "Session-Expires: 1800;refresher=uas", "Min-SE: 90")])
def test_y29_what_is_long_enough_passes_untouched(cluster: Cluster, rows: tuple[str, ...]) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB, *rows)
    received = bob.got_request("INVITE")
    names = ("session-expires", "min-se", "supported")
    assert [f"{row.original}: {row.value}" for row in received.rows if row.name in names] == list(rows)
    bob.respond(received, 200, "OK", "Session-Expires: 1200;refresher=uas", "Require: timer")
    assert alice.got_response(200).values("session-expires") == ["1200;refresher=uas"]
    assert timers(cluster) == [("CallAnswered", 1200)]


def test_y29_c12_a_callee_without_timers_leaves_the_caller_to_refresh_and_records_know(cluster: Cluster) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice, BOB, TIMER, "Session-Expires: 1800")
    bob.respond(bob.got_request("INVITE"), 200)
    answer = alice.got_response(200)
    assert answer.values("session-expires") == ["1800;refresher=uac"]
    assert answer.values("require") == ["timer"]

    routes, to = routes_of_caller(answer), answer.first("to")
    for number, method in enumerate(("UPDATE", "INVITE"), start=2):
        alice.request(method, bob.contact, TIMER, "Session-Expires: 600", to=to, cseq=number, routes=routes)
        if method == "INVITE":
            alice.got_response(100)
        bob.respond(bob.got_request(method), 200)
        assert alice.got_response(200).values("session-expires") == ["600;refresher=uac"]
    assert timers(cluster) == [("CallAnswered", 1800), ("CallRefreshed", 600), ("CallRefreshed", 600)]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_c12_a_refresh_that_is_answered_without_a_timer_ends_it_for_records(cluster: Cluster, method: str) -> None:
    """RFC 4028 section 7.2: without Session-Expires in the 2xx the session has no timer."""
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice, BOB, TIMER, "Session-Expires: 600")
    bob.respond(bob.got_request("INVITE"), 200, "OK", "Session-Expires: 600;refresher=uac", "Require: timer")
    answer = alice.got_response(200)
    alice.request(method, bob.contact, to=answer.first("to"), cseq=2, routes=routes_of_caller(answer))
    bob.respond(bob.got_request(method), 200)
    assert timers(cluster) == [("CallAnswered", 600), ("CallRefreshed", 0)]


def test_y29_a_refresh_below_our_minimum_is_422_from_either_end_and_its_ack_ends_here(cluster: Cluster) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    received, ok = established(alice, bob)
    ends: list[tuple[Phone, Phone, dict[str, object]]] = [
        (alice, bob, {"to": ok.first("to"), "routes": routes_of_caller(ok)}),
        (
            bob,
            alice,
            {"from_": ok.first("to"), "to": received.first("from"), "routes": received.values("record-route")},
        ),
    ]
    for sender, other, dialog in ends:
        branch = sender.request("INVITE", other.contact, TIMER, "Session-Expires: 90", cseq=2, **dialog)  # type: ignore[arg-type]
        assert sender.got_response(422).values("min-se") == ["120"]
        sender.request("ACK", other.contact, cseq=2, branch=branch, contact=False, **dialog)  # type: ignore[arg-type]
        assert not other.inbox
        sender.request("UPDATE", other.contact, TIMER, "Session-Expires: 90", cseq=3, **dialog)  # type: ignore[arg-type]
        assert sender.got_response(422).values("min-se") == ["120"]
        assert not other.inbox
        cluster.turn(3)
        assert not sender.inbox


def test_y29_other_methods_and_what_asks_us_have_no_timer(cluster: Cluster) -> None:
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("MESSAGE", BOB, TIMER, "Session-Expires: 1", authorized=True)
    message = bob.got_request("MESSAGE")
    assert isinstance(message, Request)
    assert message.first("session-expires") == "1"
    alice.request("INVITE", "sip:example.test", TIMER, "Session-Expires: 1", call_id="call-2")
    alice.got_response(484)
