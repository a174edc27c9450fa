"""Gateways: by numbers alone, for who may, while they answer."""

import pytest

from edge.core.actions import NextHop
from edge.core.gateways.routes import Gateway, GatewaysConfig
from sipcore.message import Request
from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import TRUNK, by_gateway, contact, invite, routes_of_caller, trunk


def test_s10_a_number_of_nobody_goes_by_a_gateway_for_our_users_alone() -> None:
    cluster = Cluster("edge-1", gateways=TRUNK, foreign_callers=True)
    alice, gateway = cluster.phone("alice"), trunk(cluster)
    invite(alice, f"sip:33812800@{DOMAIN}")
    received = gateway.got_request("INVITE")
    assert received.uri == "sip:5533812800@198.51.100.99"
    gateway.respond(received, 200)
    ok = alice.got_response(200)
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    gateway.got_request("BYE")
    stranger = cluster.phone("x", register=False)
    stranger.request("INVITE", f"sip:33812800@{DOMAIN}", from_="<sip:x@elsewhere.test>;tag=1", call_id="2")
    stranger.got_response(100)
    stranger.got_response(404)
    assert not gateway.inbox


def test_a_gateway_that_does_not_answer_options_is_left_out_until_it_does() -> None:
    cluster = Cluster("edge-1", gateways=TRUNK)
    alice, gateway = cluster.phone("alice", transport="tcp"), trunk(cluster)
    cluster.turn(2)
    gateway.respond(gateway.got_request("OPTIONS"), 200)
    cluster.turn(140)
    assert cluster.drops["gateway-down"] == 1
    alice.request("INVITE", f"sip:33812800@{DOMAIN}", authorized=True)
    alice.got_response(100)
    alice.got_response(404)
    newest = gateway.inbox[-1]
    assert isinstance(newest, Request)
    gateway.respond(newest, 405)
    assert cluster.drops["gateway-up"] == 1


def test_s10_a_gateway_is_reached_by_a_number_of_a_domain_that_may() -> None:
    cluster = Cluster(gateways=by_gateway(domains=(DOMAIN,)))
    cluster.hops["sip:+4711@203.0.113.9:5060"] = [NextHop("udp", "203.0.113.9", 5060, "203.0.113.9")]
    alice = cluster.phone("alice")
    alice.request("INVITE", f"sip:+4711@{DOMAIN}", authorized=True)
    assert any(send.flow.remote_host == "203.0.113.9" for send in cluster.lost)


@pytest.mark.parametrize(
    "uri", ["sip:+4711@203.0.113.9", "sip:+4711@gw.example.org", "sip:+4711@x.org;maddr=203.0.113.9"]
)
def test_s10_a_gateway_is_not_reached_by_its_address(uri: str) -> None:
    cluster = Cluster(gateways=by_gateway(domains=("other.test",)))
    cluster.hops[uri] = [NextHop("udp", "203.0.113.9", 5060, "x")]
    alice = cluster.phone("alice")
    invite(alice, uri)
    alice.got_response(403)
    assert not cluster.lost


@pytest.mark.parametrize("host", ["[::ffff:203.0.113.9]", "[64:ff9b::cb00:7109]"])
def test_s10_a_gateway_is_not_reached_by_another_spelling_of_its_address(host: str) -> None:
    cluster = Cluster(gateways=by_gateway(domains=("other.test",)))
    uri = f"sip:+4711@{host}"
    cluster.hops[uri] = [NextHop("tcp", host.strip("[]"), 5060, "x")]
    alice = cluster.phone("alice")
    invite(alice, uri)
    alice.got_response(403)
    assert not cluster.lost


@pytest.mark.parametrize("seconds", [30.0, 0.0])
def test_s10_the_addresses_of_a_gateways_name_are_known_before_anybody_calls_by_it(seconds: float) -> None:
    gateways = GatewaysConfig({"pstn": Gateway("sip:gw.example.org", ("",), probe_seconds=seconds)})
    cluster = Cluster("edge-1", gateways=gateways)
    cluster.hops["sip:gw.example.org"] = [NextHop("udp", "203.0.113.9", 5060, "gw.example.org")]
    alice = cluster.phone("alice")
    cluster.turn(2)
    assert len(cluster.lost) == (1 if seconds else 0)  # the OPTIONS
    cluster.lost.clear()
    invite(alice, "sip:+4711@203.0.113.9")
    alice.got_response(403)
    assert not cluster.lost
