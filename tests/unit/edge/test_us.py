"""Who we are: one answer, whatever asks, and what of Route and Request-URI is taken off by it."""

import pytest

from edge.core.actions import NextHop
from edge.core.flow import Flow
from edge.core.us import Us
from edge.wiring import heard_at
from sipcore.uri import parse_uri
from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import BOB, answered, contact, invite, routes_of_caller

TO_US = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 5062)
OURS = (
    DOMAIN,
    DOMAIN.upper(),
    f"{DOMAIN}.",
    f"{DOMAIN}:5099",
    "sip.example.net",
    "SIP.Example.NET.:5070",
    "192.0.2.1",
    "192.0.2.1:5060",
    "192.0.2.2:5061",
    "[::ffff:192.0.2.2]:5060",
    "[2001:DB8:0:0::1]:5060",
    "[2001:db8::1]",
)
OTHERS = ("elsewhere.test", f"sub.{DOMAIN}", f"{DOMAIN}.test", "192.0.2.9", "192.0.2.2:5099", "[2001:db8::2]")


@pytest.fixture
def us() -> Us:
    us = Us([DOMAIN], ["sip.example.net"])
    us.hears_at([("2001:db8::1", 5060)])
    us.others([("edge-2", [("192.0.2.2", 5060), ("192.0.2.2", 5061)])])
    return us


def cluster_of_two(**changes: object) -> Cluster:
    """Two edges, of which the first is known by a name and hears on IPv6 too."""
    cluster = Cluster(own_hosts=frozenset({"sip.example.net"}), **changes)
    for edge in cluster.edges.values():
        edge.us.hears_at([("2001:db8::1", 5060)])
        edge.us.others([("edge-2", [("192.0.2.2", 5060), ("192.0.2.2", 5061)])])
    return cluster


@pytest.mark.parametrize("host", OURS)
def test_y06_domains_names_and_addresses_of_every_live_edge_are_us_however_they_are_spelled(us: Us, host: str) -> None:
    assert us.named_by(parse_uri(f"sip:{host};lr"), TO_US)


@pytest.mark.parametrize("host", OTHERS)
def test_y06_others_are_not_us_nor_is_another_port_of_our_address(us: Us, host: str) -> None:
    assert not us.named_by(parse_uri(f"sip:{host};lr"), TO_US)


def test_y06_maddr_says_where_a_uri_leads(us: Us) -> None:
    assert us.named_by(parse_uri("sip:elsewhere.test;maddr=192.0.2.1;lr"), TO_US)
    assert not us.named_by(parse_uri(f"sip:{DOMAIN};maddr=192.0.2.9;lr"), TO_US)


def test_y06_an_edge_that_is_gone_is_not_us(us: Us) -> None:
    us.others([], gone=["edge-2"])
    assert not us.has("192.0.2.2", TO_US)
    assert us.has("192.0.2.1", TO_US)


def test_an_edge_is_reached_at_every_address_of_its_host_only_where_it_has_bound_a_wildcard() -> None:
    addresses = ["127.0.0.1", "192.0.2.1", "2001:0db8:0:0:0:0:0:1"]
    bound = {"udp": [("0.0.0.0", 5060)], "tls": [("192.0.2.7", 5061)], "tcp": []}
    found = heard_at(bound, {"udp": "sip.example.net", "tls": "[2001:db8::7]:5071"}, addresses)
    assert found == [
        ("127.0.0.1", 5060),
        ("192.0.2.1", 5060),
        ("sip.example.net", 0),
        ("192.0.2.7", 5061),
        ("2001:db8::7", 5071),
    ]


@pytest.mark.parametrize("host", OURS)
def test_y06_a_preloaded_route_that_means_us_is_taken_off(host: str) -> None:
    cluster = cluster_of_two()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, routes=[f"<sip:{host};lr>"])
    assert bob.got_request("INVITE").values("route") == []


@pytest.mark.parametrize(
    "routes",
    [
        [f"<sip:{DOMAIN};lr>", "<sip:192.0.2.2;lr>"],
        [f"<sips:{DOMAIN};transport=tls;lr>"],
        [f"<sip:{DOMAIN}>"],
        [f"<sip:proxy@{DOMAIN};lr>"],
        [f'"<sip:x@y>, z" <sip:{DOMAIN};lr>;p=1'],
        ["<sip:anything.test;maddr=192.0.2.1;lr>"],
    ],
)
def test_y06_every_route_that_means_us_is_taken_off_whatever_stands_beside_the_host(routes: list[str]) -> None:
    cluster = cluster_of_two()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, routes=routes)
    assert bob.got_request("INVITE").values("route") == []


@pytest.mark.parametrize("host", OTHERS)
def test_y07_a_preloaded_route_that_means_somebody_else_is_403_and_so_is_one_behind_ours(host: str) -> None:
    cluster = cluster_of_two()
    alice = cluster.phone("alice")
    for number, routes in enumerate(([f"<sip:{host};lr>"], [f"<sip:{DOMAIN};lr>", f"<sip:{host};lr>"])):
        alice.request("INVITE", BOB, routes=routes, authorized=True, call_id=str(number))
        alice.got_response(403)


@pytest.mark.parametrize("host", OURS)
def test_y06_a_phone_that_keeps_its_outbound_proxy_before_the_route_set_stays_in_its_dialog(host: str) -> None:
    cluster = cluster_of_two()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    routes = [f"<sip:{host};lr>", *routes_of_caller(ok)]
    for number, method in enumerate(("ACK", "INFO", "BYE"), 1):
        alice.request(method, contact(ok), to=ok.first("to"), routes=routes, cseq=number)
        assert bob.got_request(method).values("route") == []
        bob.inbox.clear()


@pytest.mark.parametrize("uri", [f"sip:bob@{DOMAIN};maddr=192.0.2.1", f"sip:bob@{DOMAIN}.:5077;MADDR=192.0.2.1"])
def test_y06_a_request_uri_that_says_it_comes_here_is_one_of_our_domain(uri: str) -> None:
    cluster = cluster_of_two()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, uri)
    bob.got_request("INVITE")


@pytest.mark.parametrize("host", [DOMAIN.upper(), f"{DOMAIN}.", f"{DOMAIN}:5099"])
def test_a_user_of_ours_is_called_and_calls_by_any_spelling_of_our_domain(host: str) -> None:
    cluster = cluster_of_two()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, f"sip:bob@{host}", from_=f"<sip:alice@{host}>;tag=a")
    assert bob.got_request("INVITE").first("p-asserted-identity") == f"<sip:alice@{DOMAIN}>"


@pytest.mark.parametrize("host", OURS)
def test_options_to_us_is_answered_by_us(host: str) -> None:
    cluster = cluster_of_two()
    alice = cluster.phone("alice")
    alice.request("OPTIONS", f"sip:{host}")
    assert alice.got_response(200).first("allow")


def test_a_port_of_our_address_where_we_do_not_hear_is_somebody_else() -> None:
    cluster = cluster_of_two(own_addresses=True)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, "sip:bob@192.0.2.1:5060")
    bob.got_request("INVITE")
    alice.inbox.clear()
    invite(alice, "sip:bob@192.0.2.1:5099", call_id="2")
    alice.got_response(404)
    assert not bob.inbox


@pytest.mark.parametrize("uri", ["sip:x@192.0.2.1:8080;transport=tcp", "sip:x@192.0.2.2:22", "sip:192.0.2.1:9999"])
def test_s10_what_else_listens_on_our_hosts_is_not_reached_through_us(uri: str) -> None:
    cluster = cluster_of_two()
    alice = cluster.phone("alice")
    cluster.hops[uri] = [NextHop("tcp", "192.0.2.1", 8080)]
    invite(alice, uri)
    alice.got_response(404)
    assert not cluster.lost
