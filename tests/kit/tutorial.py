"""The phone of docs/tutorial.md: does one flow and prints each message, as it stands on the wire.

    python -m tests.kit.tutorial 127.0.0.1:5060 dora@example.test s3cret new

The flows are those of RFC 3665 section 2 (`new`, `update`, `query`, `cancel`, `wrong`), and `call`: a second phone of
the same user is called, answers, and is hung up on.
"""

import sys
from collections.abc import Callable

from tests.kit.phone import Phone
from tests.kit.wire import Address, UdpLink

DESK, MOBILE = "<sip:{user}@192.0.2.4:5062>", "<sip:{user}@192.0.2.77:5066>;q=0.5"
"""Contacts of two phones that are not here: they are registered, not called."""


class Told(UdpLink):
    """A socket that says on standard output what goes and what comes."""

    def __init__(self, edge: Address, name: str = "phone") -> None:
        super().__init__(edge)
        self._name = name

    def send(self, octets: bytes) -> None:
        print(f"---- {self._name} sends\n{octets.decode()}".rstrip(), end="\n\n")
        super().send(octets)

    def receive(self, until: float) -> tuple[bytes, Address]:
        octets, source = super().receive(until)
        print(f"---- {self._name} hears\n{octets.decode()}".rstrip(), end="\n\n")
        return octets, source


def new(phone: Phone) -> None:
    """RFC 3665 section 2.1: REGISTER, 401, REGISTER with credentials, 200."""
    phone.register(DESK.format(user=phone.user))


def update(phone: Phone) -> None:
    """Section 2.2: a second contact; the 200 lists both."""
    phone.register(MOBILE.format(user=phone.user))


def query(phone: Phone) -> None:
    """Section 2.3: no Contact; the 200 lists what is registered."""
    phone.query()


def cancel(phone: Phone) -> None:
    """Section 2.4: `Contact: *` with `Expires: 0`."""
    phone.deregister()


def wrong(phone: Phone) -> None:
    """Section 2.5: a wrong password; 401 again, and nothing changes."""
    phone.registers(f"Contact: {DESK.format(user=phone.user)}", "Expires: 300", password="not the password")


def call(phone: Phone) -> None:
    """A phone of this user is called, rings, answers; then the caller hangs up."""
    phone.register()
    with Phone(Told(phone.link.edge, "caller"), phone.user, phone.password, phone.domain) as caller:
        outgoing = caller.invite(phone.aor)
        incoming = phone.incoming()
        incoming.respond(180)
        outgoing.hears(180)
        incoming.respond(200, body=b"v=0\r\n")
        outgoing.hears(200)
        outgoing.ack()
        incoming.gets("ACK")
        outgoing.request("BYE")
        incoming.gets("BYE")
        incoming.respond(200)
        outgoing.hears(200)
    print(f"Call-ID: {outgoing.call_id}")


FLOWS: dict[str, Callable[[Phone], None]] = {each.__name__: each for each in (new, update, query, cancel, wrong, call)}


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 4 or arguments[3] not in FLOWS or not arguments[0].rpartition(":")[2].isdecimal():
        print(f"usage: python -m tests.kit.tutorial HOST:PORT USER@DOMAIN PASSWORD {'|'.join(FLOWS)}")
        return 2
    edge, aor, password, flow = arguments
    (host, _, port), (user, _, domain) = edge.rpartition(":"), aor.partition("@")
    with Phone(Told((host, int(port))), user, password, domain) as phone:
        try:
            FLOWS[flow](phone)
        except AssertionError as error:
            print(f"---- that is not how the flow goes: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
