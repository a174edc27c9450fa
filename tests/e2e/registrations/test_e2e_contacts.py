"""Contacts that are elsewhere than who registers them ring where they say, at every edge, or are refused."""

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import CALLERS, System
from tests.kit.phone import Phone
from tests.kit.wire import DEADLINE, UdpLink

pytestmark = pytest.mark.e2e

ALICE, BOB = CALLERS[24], CALLERS[25]


@pytest.fixture
def alice(system: System) -> Iterator[Phone]:
    with system.phone(ALICE, edge=len(system.at) - 1) as phone:
        yield phone


@pytest.fixture
def bob(system: System) -> Iterator[Phone]:
    with system.phone(BOB) as phone:
        yield phone
        phone.deregister()


def test_two_contacts_of_one_host_ring_and_their_sender_does_not(system: System, alice: Phone, bob: Phone) -> None:
    edge = system.at[0]["udp"]
    places = [Phone(UdpLink(edge), bob.user, "", bob.domain) for _ in range(2)]
    bob.register(", ".join(f"<{place.contact}>" for place in places))
    call = alice.invite(bob.aor)
    rung = [place.incoming() for place in places]
    bob.quiet()
    rung[1].respond(200)
    call.hears(200)
    call.ack()
    for place in places:
        place.close()


def test_a_contact_on_tcp_that_came_by_udp_rings_on_tcp(alice: Phone, bob: Phone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE)
        contact = f"sip:{bob.user}@127.0.0.1:{listening.getsockname()[1]};transport=tcp"
        bob.register(f"<{contact}>")
        call = alice.invite(bob.aor)
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(DEADLINE)
            assert accepted.recv(4096).startswith(f"INVITE {contact} SIP/2.0".encode())
            call.cancel()
            call.hears(200, method="CANCEL")


@pytest.mark.parametrize(
    ("contact", "status"),
    [("tel:+5548999", 400), ("mailto:x@example.test", 400), ("urn:x:y", 400), ("sip:x@169.254.169.254", 403)],
)
def test_a_contact_that_cannot_be_called_is_refused_and_nothing_of_its_register_is_kept(
    bob: Phone, contact: str, status: int
) -> None:
    rows = f"Contact: <{bob.contact}>, <{contact}>", "Expires: 300"
    assert bob.ask("REGISTER", f"sip:{bob.domain}", *rows, to=f"<{bob.aor}>").status == status
    assert not bob.ask("REGISTER", f"sip:{bob.domain}", to=f"<{bob.aor}>").all("contact")
