"""A Path of ours in a Route: a listed peer that reads our `location` reaches the phone by it, nobody else does."""

from collections.abc import Iterator

import msgspec
import pytest

from events.calls import CallAnswered, CallAttempted, CallEnded
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import OFFER, contact, routes_of_caller

CARD = f"<sip:alice@{DOMAIN}>;tag=a"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(is_peer=lambda host: host == "198.51.100.1", own_hosts=frozenset({"sip.example.test"}))
    cluster.phone("pbx", register=False)
    yield cluster
    assert not cluster.commands


@pytest.fixture
def pbx(cluster: Cluster) -> Phone:
    return next(iter(cluster.phones.values()))


def registered(cluster: Cluster, edge: str, transport: str, host: str = "192.168.1.10") -> tuple[Phone, str, str]:
    """A phone behind a NAT, with its Contact and its Path as `location` has them."""
    bob = cluster.phone("bob", edge, transport)
    (binding,) = cluster.bindings[f"bob@{DOMAIN}"]
    private = f"sip:bob@{host}:5060;transport={transport}"
    cluster.bindings[f"bob@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=private)]
    return bob, private, binding.path


@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "ws", "wss"])
def test_a_listed_peer_calls_a_phone_by_its_path(cluster: Cluster, pbx: Phone, transport: str, edge: str) -> None:
    bob, private, path = registered(cluster, edge, transport)
    branch = pbx.request("INVITE", private, to=f"<sip:bob@{DOMAIN}>", from_=CARD, routes=[path], body=OFFER)
    pbx.got_response(100)
    received = bob.got_request("INVITE")
    assert (received.uri, received.values("route")) == (private, [])
    assert len(received.values("record-route")) >= 1
    bob.respond(received, 180)
    pbx.got_response(180)
    bob.respond(received, 200)
    ok = pbx.got_response(200)
    for number, method in enumerate(("ACK", "INFO", "BYE"), 1):
        pbx.request(method, private, to=ok.first("to"), from_=CARD, routes=routes_of_caller(ok), cseq=number)
        bob.got_request(method)
    bob.request("BYE", pbx.contact, from_=ok.first("to"), to=CARD, routes=received.values("record-route"), cseq=9)
    assert pbx.got_request("BYE").branch != branch
    # It is a call like any other: it has a record.
    attempted = next(event for event in cluster.events if isinstance(event, CallAttempted))
    assert (attempted.caller, attempted.callee, attempted.peer) == ("", f"bob@{DOMAIN}", True)
    assert attempted.targets == (private,)
    assert attempted.source.startswith("198.51.100.1:")
    answered, ended = (
        next(event for event in cluster.events if isinstance(event, kind)) for kind in (CallAnswered, CallEnded)
    )
    assert answered.contact == private
    assert ended.call_id == attempted.call_id


def test_cancel_and_the_ack_of_a_failure_go_the_same_way(cluster: Cluster, pbx: Phone) -> None:
    bob, private, path = registered(cluster, "edge-2", "tcp")
    branch = pbx.request("INVITE", private, from_=CARD, routes=[path], body=OFFER)
    pbx.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    pbx.got_response(180)
    pbx.request("CANCEL", private, to=f"<{private}>", from_=CARD, routes=[path], branch=branch, contact=False)
    pbx.got_response(200)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)
    bob.got_request("ACK")
    refused = pbx.got_response(487)
    pbx.request("ACK", private, to=refused.first("to"), from_=CARD, routes=[path], branch=branch, contact=False)
    assert not bob.inbox


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "NOTIFY", "SUBSCRIBE", "INFO", "BYE", "ACK", "FOO"])
def test_every_method_reaches_the_phone_by_its_path(cluster: Cluster, pbx: Phone, method: str) -> None:
    bob, private, path = registered(cluster, "edge-2", "wss")
    pbx.request(method, private, to=f"<sip:bob@{DOMAIN}>;tag=b", from_=CARD, routes=[path])
    assert bob.got_request(method).uri == private


@pytest.mark.parametrize("before", [[f"<sip:{DOMAIN};lr>"], ["<sip:192.0.2.1;lr>", f"<sip:{DOMAIN}.:5099;lr>"]])
def test_other_routes_of_ours_may_stand_before_it_and_somebody_elses_behind(
    cluster: Cluster, pbx: Phone, before: list[str]
) -> None:
    bob, private, path = registered(cluster, "edge-1", "tcp")
    far = "<sip:203.0.113.9;lr>"
    pbx.request("INVITE", private, from_=CARD, routes=[*before, path.upper().replace("SIP:", "sip:"), far], body=OFFER)
    pbx.got_response(100)
    assert bob.got_request("INVITE").values("route") == [far]


def test_a_path_of_another_service_name_that_an_edge_made_is_ours(cluster: Cluster, pbx: Phone) -> None:
    bob, private, path = registered(cluster, "edge-1", "udp")
    pbx.request("INVITE", private, from_=CARD, routes=[path.replace("sip.example.test", "old.example.net")], body=OFFER)
    pbx.got_response(100)
    bob.got_request("INVITE")


@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_n06_a_path_whose_flow_is_gone_is_430_to_who_named_it(cluster: Cluster, pbx: Phone, transport: str) -> None:
    bob, private, path = registered(cluster, "edge-2", transport)
    del cluster.phones[bob.flow]
    pbx.request("INVITE", private, from_=CARD, routes=[path], body=OFFER)
    pbx.got_response(100)
    pbx.got_response(430)


def test_a_phone_that_moves_in_a_call_that_a_peer_began_by_its_path_is_followed(cluster: Cluster, pbx: Phone) -> None:
    bob, private, path = registered(cluster, "edge-2", "tcp")
    pbx.request("INVITE", private, to=f"<sip:bob@{DOMAIN}>", from_=CARD, routes=[path], body=OFFER)
    pbx.got_response(100)
    bob.respond(bob.got_request("INVITE"), 200)
    ok = pbx.got_response(200)
    cluster.bindings.clear()
    new = cluster.phone("bob", "edge-1", "wss")
    pbx.request("BYE", new.contact, to=ok.first("to"), from_=CARD, routes=routes_of_caller(ok), cseq=2)
    new.got_request("BYE")
    assert contact(ok) != new.contact


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS"])
def test_n05_from_a_phone_a_path_of_ours_is_no_way_in(cluster: Cluster, method: str) -> None:
    bob, private, path = registered(cluster, "edge-1", "udp")
    eve = cluster.phone("eve")
    for number, routes in enumerate(([path], [f"<sip:{DOMAIN};lr>", path])):
        eve.request(method, private, routes=routes, authorized=True, call_id=str(number))
        eve.got_response(403)
    eve.request(method, private, to="<sip:bob@x>;tag=1", routes=[path], call_id="3")
    eve.got_response(407)
    eve.request("ACK", private, to="<sip:bob@x>;tag=1", routes=[path], call_id="4")
    assert not bob.inbox


def test_n05_a_changed_path_is_403_to_a_peer_too(cluster: Cluster, pbx: Phone) -> None:
    bob, private, path = registered(cluster, "edge-1", "udp")
    changed = path.replace(path[10:14], "aaaa")
    pbx.request("INVITE", private, from_=CARD, routes=[changed])
    pbx.got_response(403)
    assert not bob.inbox
