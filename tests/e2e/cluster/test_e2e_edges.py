"""Three edges of which some are killed or stopped while phones call: owners, the INVITE's edge, and all backends."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import CALLERS, System, is_ready
from tests.kit.phone import SDP, Call, Phone
from tests.kit.stopping import standing_still
from tests.kit.waiting import until
from tests.kit.wire import Silent, UdpLink

pytestmark = pytest.mark.e2e

ALICE, BOB, OTHER_LINE = CALLERS[20], CALLERS[21], 900


class Edges:
    """The three edges, which can be killed and stopped."""

    def __init__(self, system: System) -> None:
        self.system = system

    def pid(self, name: str) -> int:
        """Of a process of the stack."""
        return int(self.system.described()["processes"][name]["pid"])

    def kill(self, edge: int) -> None:
        """kill -9; its supervisor starts it again."""
        os.kill(self.pid(f"edge-{edge + 1}"), signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self, *names: str) -> Iterator[None]:
        """SIGSTOP to processes, and SIGCONT."""
        with standing_still(*(self.pid(name) for name in names)):
            yield

    def neighbours(self, edge: int) -> int:
        """How many others this edge knows to live."""
        return int(self.system.metric("ramal_edge_neighbours", edge=edge))

    def whole(self) -> bool:
        """Whether all three serve, and know each other."""
        try:
            return all(is_ready(base) and self.neighbours(n) == 2 for n, base in enumerate(self.system.http))
        except OSError:
            return False


@pytest.fixture
def three(edges: System) -> Iterator[Edges]:
    found = Edges(edges)
    until(found.whole, "all edges know each other")
    yield found
    until(found.whole, "all edges know each other again")


@pytest.fixture
def bob_at(edges: System) -> Iterator[Callable[..., Phone]]:
    """Registers bob's phone at an edge."""
    with contextlib.ExitStack() as stack:

        def registered(edge: int, transport: str) -> Phone:
            phone = stack.enter_context(edges.phone(BOB, edge=edge, transport=transport))
            phone.register()
            return phone

        yield registered
        until_gone(edges, BOB)


@pytest.fixture
def alice(edges: System) -> Iterator[Phone]:
    """A phone on UDP, registered at the first edge."""
    with edges.phone(ALICE) as phone:
        phone.register()
        yield phone
        until_gone(edges, ALICE)


def until_gone(system: System, number: int) -> None:
    """Removes all bindings of a user."""
    with system.phone(number, edge=2) as other:
        other.deregister()


def through(phone: Phone, system: System, edge: int) -> UdpLink:
    """The phone's own socket towards another edge."""
    assert isinstance(phone.link, UdpLink)
    return phone.link.through(system.edges[edge])


def talking(call: Call, incoming: Call) -> None:
    """Answers and acknowledges."""
    incoming.respond(200, body=SDP)
    call.hears(200)
    call.ack()
    incoming.gets("ACK")


def ends(sender: Call, receiver: Call) -> None:
    """BYE and its 200."""
    sender.request("BYE")
    receiver.gets("BYE")
    receiver.respond(200)
    sender.hears(200)


# --- an edge dies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp", "wss"])
@pytest.mark.parametrize("by", ["caller", "callee"])
def test_e08_bye_passes_though_the_edge_between_was_killed_in_mid_call(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone], transport: str, by: str
) -> None:
    bob = bob_at(2, transport)
    call = alice.invite(bob.aor, by=through(alice, three.system, 1))
    incoming = bob.incoming()
    talking(call, incoming)
    three.kill(1)
    call.by = through(alice, three.system, 0)
    if by == "caller":
        ends(call, incoming)
    else:
        ends(incoming, call)
    assert bob.requests_from == {three.system.at[2][transport]}


def recorded(system: System, call_id: str) -> dict[str, Any]:
    """The record of a call, once it has ended: cdr follows by a moment."""
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        done = system.ramal("call", call_id, "--json", check=False)
        found[:] = json.loads(done.stdout) if done.returncode == 0 else []
        return bool(found and found[0].get("ended_ms"))

    until(ended, "the call has a record")
    assert len(found) == 1
    return found[0]


def test_c11_a_call_whose_edge_was_killed_has_one_record_and_a_whole_one(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    """What the edge had told before it died is in the log; the BYE is told by another."""
    bob = bob_at(2, "tcp")
    call = alice.invite(bob.aor, by=through(alice, three.system, 1))
    incoming = bob.incoming()
    talking(call, incoming)
    until(lambda: '"answered"' in three.system.ramal("calls", "--json").stdout, "the call is open")
    three.kill(1)
    call.by = through(alice, three.system, 0)
    ends(call, incoming)

    record = recorded(three.system, call.call_id)
    assert (record["outcome"], record["hung_up"], record["code"]) == ("answered", "caller", 200)
    assert not record["incomplete"]
    assert {"edge-1", "edge-2"} <= set(record["edges"].split(","))


def test_c11_an_edge_killed_before_it_told_of_the_answer_leaves_a_record_of_what_the_bye_says(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(2, "tcp")
    call = alice.invite(bob.aor, by=through(alice, three.system, 1))
    incoming = bob.incoming()
    with three.stopped("kafka"):  # its events wait in the edge, and die with it
        talking(call, incoming)
        three.kill(1)
        call.by = through(alice, three.system, 0)
        ends(incoming, call)

    record = recorded(three.system, call.call_id)
    assert (record["outcome"], record["hung_up"]) == ("answered", "callee")
    assert record["incomplete"]
    assert not record["estimated"]
    assert alice.aor.removeprefix("sip:") in record["caller"]
    assert bob.user in record["callee"]
    assert 0 < record["ended_ms"] - record["attempted_ms"] < 120_000


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_n12_n06_with_the_owner_killed_a_phone_on_a_connection_is_480_at_once(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone], transport: str
) -> None:
    bob = bob_at(1, transport)
    three.kill(1)
    until(lambda: three.neighbours(0) == 1, "the dead edge is known")
    began = time.monotonic()
    alice.invite(bob.aor).hears(480)
    assert time.monotonic() - began < 4.0  # not the time of a phone that is silent


def test_n12_with_the_owner_stopped_a_silent_phone_on_udp_is_480_after_4_s(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(1, "udp")
    with three.stopped("edge-2"):
        began = time.monotonic()
        until(lambda: three.neighbours(0) == 1, "SIGSTOP is known")
        assert time.monotonic() - began < 4.0
        began = time.monotonic()
        call = alice.invite(bob.aor)
        call.hears(480)
        assert 3.0 < time.monotonic() - began < 12.0
        assert bob.incoming().received.first("call-id") == call.call_id


def test_n12_with_the_owner_stopped_a_phone_on_udp_is_called_from_another_edge(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(1, "udp")
    with three.stopped("edge-2"):
        call = alice.invite(bob.aor)  # perhaps before SIGSTOP is known: then the phone is tried once more
        incoming = bob.incoming()
        bob.link = through(bob, three.system, 0)  # a phone answers to where it was asked from
        incoming.by = bob.link
        talking(call, incoming)
        ends(call, incoming)
    assert three.system.edges[0] in bob.requests_from


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_y38_x10_the_invites_edge_dies_while_it_rings_an_answer_reaches_the_caller(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone], transport: str
) -> None:
    bob = bob_at(2, transport)
    call = alice.invite(bob.aor, by=through(alice, three.system, 1))
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    three.kill(1)
    until(lambda: three.neighbours(2) == 1, "the dead edge is known")
    call.by = through(alice, three.system, 0)
    talking(call, incoming)
    ends(call, incoming)


@pytest.mark.parametrize("transport", ["udp", "ws"])
def test_y38_x14_the_invites_edge_dies_while_it_rings_a_cancel_at_another_ends_both_sides(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone], transport: str
) -> None:
    bob = bob_at(2, transport)
    call = alice.invite(bob.aor, by=through(alice, three.system, 1))
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    three.kill(1)
    until(lambda: three.neighbours(0) == 1, "the dead edge is known")
    call.by = through(alice, three.system, 0)
    call.cancel()
    call.hears(200, method="CANCEL")
    call.hears(487)
    call.ack()
    cancel = incoming.gets("CANCEL")
    assert cancel.branch == incoming.received.branch
    bob.respond(cancel, 200)
    incoming.respond(487)


def test_rfc3665_3_4_an_edge_that_does_not_answer_and_the_next_one_that_does(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(2, "tcp")
    with three.stopped("edge-2"):
        with pytest.raises(Silent):
            alice.ask("OPTIONS", f"sip:{alice.domain}", by=through(alice, three.system, 1), seconds=0.5)
        call = alice.invite(bob.aor)
        talking(call, bob.incoming())


# --- what falls on another edge ---------------------------------------------------------------------------------------


def test_e05_a_cancel_at_a_third_edge_finds_its_invite(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(1, "tcp")
    call = alice.invite(bob.aor)
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    call.by = through(alice, three.system, 2)
    call.cancel()
    call.hears(200, method="CANCEL")
    bob.respond(incoming.gets("CANCEL"), 200)
    incoming.respond(487)
    incoming.gets("ACK")
    call.hears(487)
    call.ack()  # at the third edge, too: the INVITE's repeats its 487 no more
    alice.quiet(1.0)


def test_y36_one_invite_at_two_edges_rings_once(three: Edges, alice: Phone, bob_at: Callable[..., Phone]) -> None:
    bob = bob_at(2, "udp")
    call = alice.invite(bob.aor)
    alice.send(call.sent, through(alice, three.system, 1))
    incoming = bob.incoming()
    incoming.respond(180)
    call.hears(180)
    talking(call, incoming)
    bob.quiet()
    ends(call, incoming)


def test_e07_a_phone_on_udp_whose_packets_fall_on_every_edge_is_reached_from_its_own_alone(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(1, "udp")
    for edge in range(3):
        call = alice.invite(bob.aor, by=through(alice, three.system, edge))
        incoming = bob.incoming()
        talking(call, incoming)
        incoming.by = through(bob, three.system, 2 - edge)
        ends(incoming, call)
    assert bob.requests_from == {three.system.edges[1]}
    assert bob.responses_from <= set(three.system.edges)


# --- flows ------------------------------------------------------------------------------------------------------------


def test_n02_n03_only_the_owner_pings_a_phone_on_udp(three: Edges, alice: Phone, bob_at: Callable[..., Phone]) -> None:
    bob = bob_at(1, "udp")
    until(lambda: _heard(bob) >= 4, "four pings")
    assert bob.requests_from == {three.system.edges[1]}


def test_n02_a_line_is_pinged_when_another_of_its_socket_ends(edges: System, bob_at: Callable[..., Phone]) -> None:
    other = edges.line(OTHER_LINE, bob := bob_at(1, "udp"))
    for end in (other.deregister, lambda: edges.ramal("kick", other.aor)):
        other.register()
        end()
        bob.pings = 0
        until(lambda: _heard(bob) >= 3, "three pings more")


def _heard(phone: Phone) -> int:
    phone.quiet(0.2)
    return phone.pings


@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_n11_w08_a_closed_connection_takes_the_binding_with_it(
    edges: System, bob_at: Callable[..., Phone], transport: str
) -> None:
    bob = bob_at(1, transport)
    assert edges.located(BOB, edge=2) == [bob.contact]
    bob.close()
    until(lambda: edges.located(BOB, edge=2) == [], "the binding is gone")


@pytest.mark.parametrize(("before", "after"), [("udp", "udp"), ("tcp", "udp"), ("udp", "wss")])
def test_n13_a_phone_that_comes_back_through_another_edge_rings_there_alone(
    edges: System, alice: Phone, bob_at: Callable[..., Phone], before: str, after: str
) -> None:
    one, other = edges.phone(BOB, edge=1, transport=before), edges.phone(BOB, edge=2, transport=after)
    with one, other:
        for phone in (one, other):
            phone.register(f'<{phone.contact}>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000000000001>"')
        for number in range(3):
            assert edges.located(BOB, edge=number) == [other.contact]
        call = alice.invite(other.aor)
        incoming = other.incoming()
        talking(call, incoming)
        ends(call, incoming)
        one.quiet()
        assert not one.inbox


# --- the backends are away --------------------------------------------------------------------------------------------


def test_x01_e12_e13_with_kafka_mysql_and_ldap_stopped_100_comes_and_known_phones_are_called(
    three: Edges, alice: Phone, bob_at: Callable[..., Phone]
) -> None:
    bob = bob_at(0, "udp")
    for caller, callee in ((alice, bob), (bob, alice)):  # the edge looks up both
        call = caller.invite(callee.aor)
        incoming = callee.incoming()
        talking(call, incoming)
        ends(call, incoming)
    with three.stopped("kafka", "mysql", "ldap"):
        for _ in range(2):  # before, and after the edge knows that they are away
            call = alice.invite(bob.aor, hears=0)
            call.hears(100, 1.5)  # before any backend could have been given up
            incoming = bob.incoming()
            talking(call, incoming)
            ends(call, incoming)
        with three.system.phone(CALLERS[22]) as stranger:
            stranger.invite(bob.aor).hears(503)
        bob.quiet()
