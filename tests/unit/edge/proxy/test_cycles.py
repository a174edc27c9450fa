"""What is over leaves nothing to the collector of cycles, whose rounds through a busy edge hold up all its phones."""

import gc
from collections.abc import Callable, Iterator

import pytest

from edge.core.proxy.context import Context
from edge.core.tokens.gruu import Gruus
from tests.kit.calls import DOMAIN, KEYS, WALL, Cluster, Phone
from tests.kit.dialogs import BOB, OFFER, answered, contact, invite, routes_of_caller

DESK = "<urn:uuid:desk>"


def talk(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call with a re-INVITE and a BYE."""
    invite(alice)
    _, ok = answered(alice, bob)
    to, routes = ok.first("to"), routes_of_caller(ok)
    alice.request("ACK", contact(ok), to=to, routes=routes)
    bob.got_request("ACK")
    alice.request("INVITE", contact(ok), to=to, routes=routes, cseq=2, body=OFFER)
    bob.respond(bob.got_request("INVITE"), 200)
    alice.request("ACK", contact(ok), to=to, routes=routes, cseq=2)
    bob.got_request("ACK")
    alice.request("BYE", contact(ok), to=to, routes=routes, cseq=3)
    bob.respond(bob.got_request("BYE"), 200)


def by_gruu(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call to one phone of a user, by a URI that names it, and its BYE."""
    gruu = Gruus(KEYS).public(f"bob@{DOMAIN}", DESK)
    invite(alice, gruu)
    bob.respond(bob.got_request("INVITE"), 200)
    ok = alice.got_response(200)
    alice.request("BYE", gruu, to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.respond(bob.got_request("BYE"), 200)


def silence_in_a_dialog(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A BYE that nobody answers."""
    invite(alice)
    _, ok = answered(alice, bob)
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)


def cancelled(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call that its caller gives up."""
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.request("CANCEL", BOB, branch=branch, contact=False)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)


def busy(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call that its callee declines, and nobody's ACK."""
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 486)


def unanswered(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call that rings until Timer C."""
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)


def unknown(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A call to nobody, and one without credentials."""
    alice.request("INVITE", "sip:nobody@example.test", authorized=True)
    alice.request("INVITE", BOB, call_id="2")


def message(cluster: Cluster, alice: Phone, bob: Phone) -> None:
    """A request outside dialogs."""
    alice.request("MESSAGE", BOB, authorized=True)
    bob.respond(bob.got_request("MESSAGE"), 200)


def test_a_request_that_is_answered_is_kept_no_longer_than_it_may_matter() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1"), cluster.phone("bob", "edge-2")
    talk(cluster, alice, bob)
    contexts = [each for each in gc.get_objects() if type(each) is Context]
    ours = {id(server) for core in cluster.edges.values() for server in core._layer._servers.values()}
    assert sorted(each.request.method for each in contexts if id(each.server) in ours) == ["INVITE", "INVITE"]


@pytest.fixture
def kept() -> Iterator[Callable[[], list[object]]]:
    """What only the collector would free, of the edge's and sipcore's."""

    def found() -> list[object]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        garbage = [each for each in gc.garbage if type(each).__module__.startswith(("edge.", "sipcore."))]
        gc.garbage.clear()
        gc.collect()
        return garbage

    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.mark.parametrize("story", [talk, by_gruu, silence_in_a_dialog, cancelled, busy, unanswered, unknown, message])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_what_is_over_leaves_nothing_to_the_collector_of_cycles(
    kept: Callable[[], list[object]], transport: str, story: Callable[[Cluster, Phone, Phone], None]
) -> None:
    cluster = Cluster()
    alice = cluster.phone("alice", "edge-1", transport)
    bob = cluster.phone("bob", "edge-2", transport, instance=DESK, gruus=int(WALL * 1000))
    gc.collect()
    story(cluster, alice, bob)
    cluster.turn(300.0, step=5.0)
    assert not any(len(core._layer) for core in cluster.edges.values())
    assert kept() == []
