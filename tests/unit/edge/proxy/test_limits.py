"""Calls, transactions and answers that are kept have bounds, and above them it is 503."""

from sipcore.message import Request
from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, established, invite, routes_of_caller, statuses


def test_x17_abandoned_invites_leave_nothing() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tcp"), cluster.phone("bob", "edge-2", "tcp")
    for number in range(200):
        invite(alice, call_id=str(number))
    for request in list(bob.inbox):
        assert isinstance(request, Request)
        bob.respond(request, 180)
    cluster.turn(185 + 70)
    for core in cluster.edges.values():
        assert not len(core._layer)
        assert not core.proxy.ringing
        assert not len(core.calls.asked)
        assert not len(core.calls.destinations)


def test_s04_above_max_calls_new_ones_get_503_statelessly() -> None:
    cluster = Cluster(max_calls=1)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    alice.request("INVITE", BOB, authorized=True, call_id="2")
    assert alice.got_response(503).first("retry-after")
    assert len(bob.inbox) == 1


def test_s04_within_a_dialog_there_is_a_limit_too() -> None:
    cluster = Cluster(max_calls=5)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    _, ok = established(alice, bob)
    for number in range(2, 30):
        alice.request("INFO", bob.contact, to=ok.first("to"), routes=routes_of_caller(ok), cseq=number)
    assert 503 in statuses(alice)
    assert cluster.edges["edge-1"]._layer.pending <= 10


def test_s04_answered_transactions_have_a_limit() -> None:
    cluster = Cluster(max_completed=5, max_calls=5)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for number in range(30):
        alice.request("MESSAGE", BOB, authorized=True, call_id=str(number))
        if bob.inbox:
            bob.respond(bob.got_request("MESSAGE"), 200)
    assert 503 in statuses(alice)
    assert cluster.edges["edge-1"]._layer.servers <= 10
