"""Calls between phones on all transports, the caller at one edge and the callee at another (CHECKLIST N09)."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import CALLERS, DOMAIN, System
from tests.kit.phone import SDP, Call, Phone
from tests.kit.wire import TRANSPORTS

pytestmark = pytest.mark.e2e

ALICE = dict(zip(TRANSPORTS, CALLERS[0:5], strict=True))
BOB = dict(zip(TRANSPORTS, CALLERS[5:10], strict=True))
CAROL, DAVE = CALLERS[10], CALLERS[11]
ANSWER = SDP.replace(b"6000", b"7000")
by_all = [
    pytest.mark.parametrize("callee_by", TRANSPORTS),
    pytest.mark.parametrize("caller_by", TRANSPORTS),
]


@pytest.fixture(scope="module", params=["up", "stack"])
def phones(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Phone, Phone]]]:
    """By transport, a caller at the last edge and a callee at the first, registered."""
    system: System = request.getfixturevalue(request.param)
    with contextlib.ExitStack() as stack:
        found = {}
        for transport in TRANSPORTS:
            alice = stack.enter_context(system.phone(ALICE[transport], edge=len(system.at) - 1, transport=transport))
            bob = stack.enter_context(system.phone(BOB[transport], transport=transport))
            alice.register()
            bob.register()
            found[transport] = alice, bob
        yield found
        for phone in itertools.chain(*found.values()):
            phone.deregister()
            phone.quiet(0.01)
            # E07: requests come by the flow that it registered by, whichever edge they passed.
            assert phone.requests_from <= {phone.link.edge}


@pytest.fixture
def pair(phones: dict[str, tuple[Phone, Phone]], caller_by: str, callee_by: str) -> tuple[Phone, Phone]:
    return phones[caller_by][0], phones[callee_by][1]


def each_pair(test: object) -> object:
    """All 25 pairs of transports."""
    for mark in by_all:
        test = mark(test)
    return test


def established(alice: Phone, bob: Phone) -> tuple[Call, Call]:
    """A call that rang, was answered and acknowledged; both its sides."""
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    assert incoming.received.uri == bob.contact
    assert incoming.received.body == SDP
    assert not incoming.received.has("proxy-authorization")
    incoming.respond(180)
    call.hears(180)
    incoming.respond(200, body=ANSWER)
    assert call.hears(200).body == ANSWER
    assert call.target == bob.contact
    call.ack()
    assert incoming.gets("ACK").uri == bob.contact
    return call, incoming


def passes(sender: Call, receiver: Call, method: str, body: bytes = b"") -> None:
    """A request within a call, its 200, and the ACK of an INVITE."""
    sender.request(method, body=body)
    if method == "INVITE":
        sender.hears(100)
    got = receiver.gets(method)
    assert (got.uri, got.body, got.all("route")) == (receiver.phone.contact, body, [])
    receiver.respond(200, body=ANSWER if body else b"")
    sender.hears(200)
    if method == "INVITE":
        sender.ack()
        receiver.gets("ACK")


@each_pair
def test_n09_a_call_with_reinvite_and_update_from_both_sides_and_bye_of_the_caller(
    pair: tuple[Phone, Phone],
) -> None:
    call, incoming = established(*pair)
    for sender, receiver in ((call, incoming), (incoming, call)):
        passes(sender, receiver, "INVITE", SDP)
        passes(sender, receiver, "UPDATE", SDP)
    passes(call, incoming, "BYE")


@each_pair
def test_n09_a_call_ended_by_the_callee(pair: tuple[Phone, Phone]) -> None:
    call, incoming = established(*pair)
    passes(incoming, call, "BYE")


@each_pair
def test_n09_x14_a_call_that_nobody_answers_is_cancelled(pair: tuple[Phone, Phone]) -> None:
    alice, bob = pair
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    call.cancel()
    call.hears(200, method="CANCEL")
    cancel = incoming.gets("CANCEL")
    assert cancel.branch == incoming.received.branch
    bob.respond(cancel, 200)
    incoming.respond(487)
    incoming.gets("ACK")
    call.hears(487)
    call.ack()


@each_pair
def test_n09_a_busy_phone(pair: tuple[Phone, Phone]) -> None:
    alice, bob = pair
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(486)
    incoming.gets("ACK")
    call.hears(486)
    call.ack()


@pytest.mark.parametrize("system", ["up", "stack"], indirect=True)
@pytest.mark.parametrize("caller_by", TRANSPORTS)
@pytest.mark.parametrize("answering", [0, 1, 2])
def test_y23_three_phones_ring_one_answers_and_the_others_get_cancel_with_reason(
    system: System, caller_by: str, answering: int
) -> None:
    transports = [TRANSPORTS[(TRANSPORTS.index(caller_by) + step) % 5] for step in range(3)]
    edges = itertools.cycle(range(len(system.at)))
    phones = [system.phone(DAVE, edge=edge, transport=by) for by, edge in zip(transports, edges, strict=False)]
    with system.phone(CAROL, edge=len(system.at) - 1, transport=caller_by) as alice:
        for phone in phones:
            phone.register()
        call = alice.invite(phones[0].aor)
        ringing = [phone.incoming() for phone in phones]
        for each in ringing:
            each.respond(180)
            call.hears(180)
        ringing[answering].respond(200, body=ANSWER)
        call.hears(200)
        call.ack()
        ringing[answering].gets("ACK")
        for each in ringing:
            if each is not ringing[answering]:
                cancel = each.gets("CANCEL")
                assert cancel.first("reason") == 'SIP;cause=200;text="Call completed elsewhere"'
                each.phone.respond(cancel, 200)
                each.respond(487)
                each.gets("ACK")
        passes(call, ringing[answering], "BYE")
        phones[0].deregister()
        for phone in (alice, *phones):
            phone.quiet(0.02)
    for phone in phones:
        phone.close()


@pytest.mark.parametrize("system", ["up", "stack"], indirect=True)
def test_y04_max_breadth_is_shared_among_phones_and_of_one_they_ring_in_turn(system: System) -> None:
    with (
        system.phone(CAROL, edge=len(system.at) - 1) as alice,
        system.phone(DAVE) as desk,
        system.phone(DAVE, edge=len(system.at) - 1, transport="tcp") as mobile,
    ):
        desk.register()
        mobile.register()
        call = alice.invite(desk.aor)
        ringing = [desk.incoming(), mobile.incoming()]
        for each in ringing:
            assert each.received.all("max-breadth") == ["30"]
            each.respond(486)
            each.gets("ACK")
        call.hears(486)
        call.ack()
        call = alice.invite(desk.aor, "Max-Breadth: 1")
        for phone, other in ((desk, mobile), (mobile, desk)):
            incoming = phone.incoming()
            assert incoming.received.all("max-breadth") == ["1"]
            other.quiet(0.02)
            incoming.respond(486)
            incoming.gets("ACK")
        call.hears(486)
        call.ack()
        assert alice.ask("OPTIONS", desk.aor, "Max-Breadth: 0").status == 440
        desk.quiet(0.02)
        desk.deregister()


@pytest.mark.parametrize("system", ["up", "stack"], indirect=True)
def test_y29_a_short_session_timer_is_422_and_one_that_the_callee_does_not_know_is_the_callers(system: System) -> None:
    with system.phone(CAROL, edge=len(system.at) - 1, transport="tcp") as alice, system.phone(DAVE) as bob:
        bob.register()
        refused = alice.ask("INVITE", bob.aor, "Supported: timer", "Session-Expires: 60")
        assert (refused.status, refused.all("min-se")) == (422, ["90"])
        call = alice.invite(bob.aor, "Supported: timer", "Session-Expires: 90")
        incoming = bob.incoming()
        assert incoming.received.all("session-expires") == ["90"]
        incoming.respond(200, body=ANSWER)
        answer = call.hears(200)
        assert (answer.all("session-expires"), answer.all("require")) == (["90;refresher=uac"], ["timer"])
        call.ack()
        incoming.gets("ACK")
        passes(call, incoming, "BYE")
        bob.deregister()


@pytest.mark.parametrize("system", ["up", "stack"], indirect=True)
def test_y08_who_is_nobody_is_404_who_is_not_there_480_and_a_wrong_password_reaches_nobody(system: System) -> None:
    with system.phone(CAROL) as alice, system.phone(DAVE, transport="tcp") as bob:
        bob.register()
        alice.invite(f"sip:nobody@{DOMAIN}").hears(404)
        bob.deregister()
        alice.invite(bob.aor).hears(480)
        bob.register()
        stranger = system.phone(CAROL, password="not the password")
        stranger.invite(bob.aor).hears(407)
        stranger.close()
        bob.quiet()
        bob.deregister()
