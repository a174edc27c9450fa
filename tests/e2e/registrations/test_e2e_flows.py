"""A phone that keeps two flows is one phone, and reached while one of them is there (RFC 5626, R34)."""

import pytest

from tests.e2e.conftest import CALLERS, System
from tests.kit.phone import Phone

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[44], CALLERS[45]


def register_flow(phone: Phone, number: int) -> None:
    """Registers the phone's one instance by this flow of it."""
    contact = f'<{phone.contact}>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>";reg-id={number}'
    answer = phone.registers(f"Contact: {contact}", "Supported: path, outbound", "Expires: 300")
    assert (answer.status, answer.first("require")) == (200, "outbound")
    assert answer.first("path").endswith(";lr;ob>")


def test_r34_a_phone_with_two_flows_rings_once_and_by_the_other_when_one_is_gone(system: System) -> None:
    last = len(system.at) - 1
    with (
        system.phone(ALICE) as alice,
        system.phone(BOB, edge=0, transport="tcp") as first,
        system.phone(BOB, edge=last, transport="tcp") as second,
    ):
        register_flow(first, 1)
        register_flow(second, 2)
        assert len(system.located(BOB)) == 2
        call = alice.invite(first.aor)
        second.incoming().respond(486)
        call.hears(486)
        call.ack()
        first.quiet()

        second.close()
        call = alice.invite(first.aor)
        first.incoming().respond(486)
        call.hears(486)
        call.ack()
        first.deregister()
