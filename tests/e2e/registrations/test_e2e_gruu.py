"""GRUUs over the wire: got by one edge, good at every edge, and of one phone alone (RFC 5627; R37, R38, N15)."""

import time

import pytest

from tests.e2e.conftest import CALLERS, System
from tests.kit.phone import SDP, Phone
from tests.kit.sip import Message

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[46], CALLERS[47]
GRUU = "Supported: path, outbound, gruu"


def register(phone: Phone, instance: str, number: int = 0, expires: int = 300) -> tuple[str, str]:
    """Registers this phone; its public and its temporary GRUU."""
    flow = f";reg-id={number}" if number else ""
    contact = f'<{phone.contact}>;+sip.instance="<urn:uuid:{instance}>"{flow}'
    answer = phone.registers(f"Contact: {contact}", GRUU, f"Expires: {expires}")
    assert answer.status == 200
    return gruus(answer, instance) if expires else ("", "")


def gruus(answer: Message, instance: str) -> tuple[str, str]:
    """Those that a 200 to REGISTER has for this instance."""
    rows = [row for row in answer.all("contact") if f"<urn:uuid:{instance}>" in row]
    found = {
        tuple(row.partition(f'{name}="')[2].partition('"')[0] for name in ("pub-gruu", "temp-gruu")) for row in rows
    }
    ((public, temporary),) = found  # the same for all flows of a phone
    assert public
    assert temporary
    return public, temporary


def declined(alice: Phone, gruu: str, phone: Phone) -> None:
    """A call by a GRUU comes to this phone, which declines."""
    call = alice.invite(gruu)
    incoming = phone.incoming()
    assert incoming.received.uri == phone.contact
    incoming.respond(486)
    incoming.gets("ACK")
    call.hears(486)
    call.ack()


def test_r37_n15_gruus_lead_to_their_phone_from_any_edge_and_end_as_the_rfc_says(system: System) -> None:
    last = len(system.at) - 1
    with (
        system.phone(ALICE, edge=last) as alice,
        system.phone(BOB) as desk,
        system.phone(BOB, edge=last, transport="tcp") as mobile,
    ):
        public, first = register(desk, "desk")
        other, _ = register(mobile, "mobile")
        time.sleep(0.002)
        again, second = register(desk, "desk")
        assert again == public
        assert first != second
        assert "desk" in public
        assert desk.user not in first
        for gruu in (public, first, second):
            declined(alice, gruu, desk)
        declined(alice, other, mobile)

        register(desk, "desk", expires=0)
        for gruu, status in ((public, 480), (first, 404), (second, 404), (f"{desk.aor};gr=urn:uuid:desk", 404)):
            call = alice.invite(gruu)
            call.hears(status)
            call.ack()
        assert register(desk, "desk")[0] == public
        call = alice.invite(first)
        call.hears(404)
        call.ack()
        declined(alice, public, desk)
        mobile.quiet(0.02)
        desk.deregister()


def test_r37_temporary_gruus_last_while_one_flow_does_and_another_call_id_ends_them(system: System) -> None:
    last = len(system.at) - 1
    with (
        system.phone(ALICE) as alice,
        system.phone(BOB, transport="tcp") as one,
        system.phone(BOB, edge=last, transport="tcp") as two,
    ):
        _, early = register(one, "flows", 1)
        register(two, "flows", 2)
        one.close()
        with system.phone(BOB, transport="tcp") as anew:
            declined(alice, early, two)
            anew.registration, anew.cseq = one.registration, one.cseq
            register(anew, "flows", 1)
            two.close()
            declined(alice, early, anew)
            anew.registration += "x"
            time.sleep(0.002)
            _, late = register(anew, "flows", 1)
            call = alice.invite(early)
            call.hears(404)
            call.ack()
            declined(alice, late, anew)
            anew.deregister()


def test_n15_a_dialog_whose_ends_are_gruus_goes_on_by_them(system: System) -> None:
    last = len(system.at) - 1
    with system.phone(ALICE, edge=last, transport="tcp") as alice, system.phone(BOB) as bob:
        _, caller = register(alice, "caller")
        callee, _ = register(bob, "callee")
        call = alice.invite(callee)
        incoming = bob.incoming()
        incoming.respond(200, body=SDP)
        call.hears(200)
        call.target, incoming.target = callee, caller
        call.ack()
        assert incoming.gets("ACK").uri == bob.contact
        incoming.request("INFO")
        assert call.gets("INFO").uri == alice.contact
        call.respond(200)
        incoming.hears(200)
        call.request("BYE")
        assert incoming.gets("BYE").uri == bob.contact
        incoming.respond(200)
        call.hears(200)
        alice.deregister()
        bob.deregister()


def test_r38_a_phone_cannot_register_a_gruu_of_its_own_as_its_contact(system: System) -> None:
    with system.phone(BOB) as bob:
        for gruu in (*register(bob, "loop"), bob.aor):
            answer = bob.registers(f'Contact: <{gruu}>;+sip.instance="<urn:uuid:loop>"', GRUU)
            assert answer.status == 403
        bob.deregister()
