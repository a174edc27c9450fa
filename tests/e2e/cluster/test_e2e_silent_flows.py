"""A phone whose flow on UDP has died without a word is called by its next flow at once (RFC 5626, R34)."""

import pytest

from tests.e2e.conftest import CALLERS, System
from tests.kit.phone import Phone
from tests.kit.waiting import until

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[52], CALLERS[53]


def register_flow(phone: Phone, number: int) -> None:
    contact = f'<{phone.contact}>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf7>";reg-id={number}'
    assert phone.registers(f"Contact: {contact}", "Supported: path, outbound", "Expires: 300").status == 200


@pytest.mark.parametrize("edge", [0, 2], ids=["its edge is the callers", "its edge is another"])
def test_r34_a_phone_whose_newest_flow_is_silent_rings_by_the_other_at_once(edges: System, edge: int) -> None:
    """Its socket is open, so no ICMP tells the edge; three pings, a second apart, do."""
    with edges.phone(ALICE) as alice, edges.phone(BOB, edge=1) as older, edges.phone(BOB, edge=edge) as newer:
        register_flow(older, 1)
        register_flow(newer, 2)
        for phone in (newer, older):
            until(lambda phone=phone: _pings(phone) >= 2, "pings that are answered")  # type: ignore[misc]
        until(lambda: _pings(older) >= 8, "pings that the other does not answer")
        call = alice.invite(older.aor)
        older.incoming(3).respond(486)
        call.hears(486)
        call.ack()
        older.deregister()


def _pings(phone: Phone) -> int:
    phone.quiet(0.2)
    return phone.pings
