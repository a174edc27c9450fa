"""Connections that are closed while a call rings by them, at one edge and at two (RFC 3261 sections 16.9, 16.10)."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import CALLERS, System
from tests.kit.phone import Phone

pytestmark = pytest.mark.e2e

ALICE, BOB, CAROL = CALLERS[22], CALLERS[23], CALLERS[58]
SOON = 20.0
"""Seconds in which a branch ends whose phone had 8 s to come back, on the slowest machine."""

Phones = Callable[[int, str], Phone]


@pytest.fixture
def phones(system: System) -> Iterator[Phones]:
    """Registers phones of a user: the caller's at the first edge, the callee's at the last."""
    with contextlib.ExitStack() as stack:

        def registered(number: int, transport: str) -> Phone:
            edge = 0 if number == ALICE else len(system.at) - 1
            phone = stack.enter_context(system.phone(number, edge=edge, transport=transport))
            phone.register()
            return phone

        yield registered
    for number in (ALICE, BOB, CAROL):
        with system.phone(number) as other:
            other.deregister()


@pytest.mark.parametrize("transport", ["udp", "tcp", "ws"])
def test_who_calls_a_phone_that_is_switched_off_hears_that_it_is_away(phones: Phones, transport: str) -> None:
    """Never 500: nothing is wrong with the server. Of UDP the kernel tells that nobody listens there."""
    alice, bob = phones(ALICE, "udp"), phones(BOB, transport)
    bob.close()
    call = alice.invite(bob.aor)
    call.hears(480, SOON)
    call.ack()


def test_who_calls_a_phone_that_goes_while_it_rings_is_told(phones: Phones) -> None:
    calls = []
    for number, transport in ((BOB, "tcp"), (CAROL, "ws")):  # both at once, for each takes seconds
        alice, bob = phones(ALICE, "udp"), phones(number, transport)
        call = alice.invite(bob.aor)
        bob.incoming().respond(180)
        call.hears(180)
        calls.append((call, time.monotonic()))
        bob.close()
    for call, closed in calls:
        call.hears(480, SOON)
        call.ack()
        assert time.monotonic() - closed > 4  # it could have come back


def test_a_page_that_is_loaded_anew_while_it_rings_rings_again(phones: Phones) -> None:
    alice, bob = phones(ALICE, "udp"), phones(BOB, "ws")
    call = alice.invite(bob.aor)
    bob.incoming().respond(180)
    call.hears(180)
    bob.close()
    again = phones(BOB, "ws")
    incoming = again.incoming(SOON)
    incoming.respond(180)
    call.hears(180)
    alice.quiet(10)  # the connection that is gone does not end the call
    incoming.respond(200)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")
    incoming.request("BYE")
    call.gets("BYE")
    call.respond(200)
    incoming.hears(200)


@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_who_is_called_by_a_phone_that_goes_rings_no_longer(phones: Phones, transport: str) -> None:
    alice, bob = phones(ALICE, transport), phones(BOB, "udp")
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    alice.close()
    cancel = incoming.gets("CANCEL", SOON)
    incoming.respond(200, to=cancel)
    incoming.respond(487)
    incoming.gets("ACK")
