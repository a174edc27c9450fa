"""Credentials that are still good are not asked for again, at whatever edge; those that have served are (RFC 7616)."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.config import hmac_keys
from sipcore import nonce
from tests.e2e.conftest import CALLERS, DOMAIN, System
from tests.kit.phone import SDP, Call, Phone
from tests.kit.sip import Message
from tests.kit.wire import UdpLink

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[36], CALLERS[37]
AGED = 400
"""Seconds; a nonce lives for 300, and is known for as long again."""


@pytest.fixture
def bob(system: System) -> Iterator[Phone]:
    with system.phone(BOB) as phone:
        phone.register()
        yield phone
        phone.deregister()


@pytest.fixture
def alice(system: System, bob: Phone) -> Iterator[Phone]:
    """A phone that has been challenged for a call, and made it."""
    with system.phone(ALICE) as phone:
        call = phone.invite(bob.aor)
        talks(call, bob)
        yield phone


def talks(call: Call, bob: Phone) -> None:
    """The call is answered, and ended."""
    incoming = bob.incoming()
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")
    call.request("BYE")
    incoming.gets("BYE")
    incoming.respond(200)
    call.hears(200)


def calls(alice: Phone, bob: Phone, row: str) -> Call:
    """The INVITE of another call, with this row for its credentials."""
    call = Call(alice, secrets.token_hex(8), f"<{alice.aor}>;tag={secrets.token_hex(4)}", f"<{bob.aor}>", bob.aor)
    call.request("INVITE", row, body=SDP)
    return call


def credentials(alice: Phone, bob: Phone) -> str:
    """One more use of the nonce that alice has."""
    return alice.credentials("INVITE", bob.aor)[0]


def is_stale(refused: Message) -> bool:
    return "stale=true" in refused.first("proxy-authenticate").lower()


def test_a16_a_call_with_a_nonce_that_is_still_good_is_not_challenged_again(alice: Phone, bob: Phone) -> None:
    for _ in range(2):
        talks(calls(alice, bob, credentials(alice, bob)), bob)  # a 407 would fail it


def test_a07_a16_nor_at_another_edge_than_the_one_that_made_the_nonce(stack: System) -> None:
    with stack.phone(BOB) as bob, stack.phone(ALICE) as alice:
        bob.register()
        talks(alice.invite(bob.aor), bob)
        assert isinstance(alice.link, UdpLink)
        alice.link = alice.link.through(stack.edges[1])
        talks(calls(alice, bob, credentials(alice, bob)), bob)
        bob.deregister()


def test_a09_credentials_that_have_served_are_challenged_as_stale_and_ring_nobody(alice: Phone, bob: Phone) -> None:
    row = credentials(alice, bob)
    talks(calls(alice, bob, row), bob)
    call = calls(alice, bob, row)
    refused = call.hears(407)
    assert is_stale(refused)
    call.ack()
    bob.quiet()
    alice.challenged(refused)
    talks(calls(alice, bob, credentials(alice, bob)), bob)


def test_a08_an_aged_nonce_is_challenged_as_stale_and_the_next_one_serves(stack: System) -> None:
    keys = hmac_keys(Path(stack.environ["RAMAL_KEYS_FILE"]).read_text().strip())
    with stack.phone(BOB) as bob, stack.phone(ALICE) as alice:
        bob.register()
        talks(alice.invite(bob.aor), bob)
        known = alice._credentials[407]
        known.nonce, known.uses = nonce.make(keys, DOMAIN, int(time.time()) - AGED, bytes(6), "127.0.0.1"), 0
        call = calls(alice, bob, credentials(alice, bob))
        refused = call.hears(407)
        assert is_stale(refused)
        call.ack()
        alice.challenged(refused)
        talks(calls(alice, bob, credentials(alice, bob)), bob)
        bob.deregister()
