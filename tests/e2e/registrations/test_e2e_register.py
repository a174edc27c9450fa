"""The five flows of RFC 3665 section 2, and the promise, on the embedded and on the distributed system."""

import itertools

import pytest

from tests.e2e.conftest import DOMAIN, FULL, System, user
from tests.kit.phone import Phone
from tests.kit.wire import UdpLink

pytestmark = pytest.mark.e2e

ROUNDS, PHONES = (10, 1000) if FULL else (1, 300)
_numbers = itertools.count()
each_transport = pytest.mark.parametrize("transport", ["udp", "tcp"])


@pytest.fixture
def number() -> int:
    """A user whom no other test has touched."""
    return next(_numbers)


@each_transport
def test_r44_rfc3665_2_1_new_registration(system: System, transport: str, number: int) -> None:
    with system.phone(number, transport=transport) as phone:
        answer = phone.register(expires=200)

    assert phone.answers == [401, 200]
    assert list(answer.contacts) == [phone.contact]
    assert answer.contacts[phone.contact] in (199, 200)
    assert answer.first("supported") == "path, outbound"


@each_transport
def test_r44_rfc3665_2_2_update_of_the_contact_list(system: System, transport: str, number: int) -> None:
    with system.phone(number, transport=transport) as phone:
        phone.register()
        other = f"sip:{phone.user}@192.0.2.77:5066"
        answer = phone.register(f"<{other}>;q=0.1")

    assert answer.status == 200
    assert set(answer.contacts) == {phone.contact, other}


@each_transport
def test_r44_rfc3665_2_3_request_for_the_current_contact_list(system: System, transport: str, number: int) -> None:
    with system.phone(number, transport=transport) as phone:
        assert phone.query().contacts == {}
        phone.register()
        answer = phone.query()

    assert answer.status == 200
    assert set(answer.contacts) == {phone.contact}


@each_transport
def test_r44_rfc3665_2_4_cancellation_of_registration(system: System, transport: str, number: int) -> None:
    with system.phone(number, transport=transport) as phone:
        phone.register()
        answer = phone.deregister()

    assert answer.status == 200
    assert answer.contacts == {}
    assert system.located(number) == []


@each_transport
def test_r44_rfc3665_2_5_unsuccessful_registration(system: System, transport: str, number: int) -> None:
    with system.phone(number, transport=transport) as phone:
        answer = phone.registers(f"Contact: <{phone.contact}>", "Expires: 300", password="not the password")

    assert phone.answers == [401, 401]
    assert answer.has("www-authenticate")
    assert "stale=true" not in answer.first("www-authenticate").lower()
    assert system.located(number) == []


def test_a_phone_with_one_field_uses_the_servers_address_as_its_domain(up: System, number: int) -> None:
    name = user(number)
    with Phone(UdpLink(up.edges[0]), name, f"secret-{name}", DOMAIN, registrar="127.0.0.1") as phone:
        assert phone.register().status == 200
    assert up.located(number) == [phone.contact]


@pytest.mark.timeout(1800 if FULL else 300)
def test_e01_what_edge_a_accepted_edge_b_routes_at_once(stack: System) -> None:
    """300 registrations at edge A (10,000 by `make e2e`), each looked up through edge B on its 200: no miss."""
    misses = []
    for n in [*range(100, 100 + PHONES)] * ROUNDS:
        with stack.phone(n, edge=0) as phone:
            assert phone.register().status == 200
            if stack.located(n, edge=1) != [phone.contact]:
                misses.append(n)
            if FULL:
                phone.deregister()  # its next round begins as the first

    assert misses == []


def test_e01_edge_b_lists_what_edge_a_accepted(stack: System) -> None:
    for n in range(1100, 1120):
        with stack.phone(n, edge=0) as here, stack.phone(n, edge=1, transport="tcp") as there:
            here.register()

            assert set(there.query().contacts) == {here.contact}
