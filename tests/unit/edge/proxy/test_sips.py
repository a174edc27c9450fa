"""sips: and sip: do not mix: the request says which of them goes on (RFC 5630 section 5.3; RFC 3261 section 16.6)."""

import msgspec
import pytest

from edge.core.actions import NextHop
from sipcore.proxy import by_scheme
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import BOB, by_gateway, contact, invite, routes_of_caller
from tests.kit.edge import TCP, UDP, asked, core, credible, heard, receive

SECURE_BOB = f"sips:bob@{DOMAIN}"


def phone(cluster: Cluster, name: str, transport: str, scheme: str, edge: str = "edge-1") -> Phone:
    """A phone whose Contact has a scheme."""
    made = cluster.phone(name, edge, transport)
    rows = cluster.bindings[f"{name}@{DOMAIN}"]
    rows[-1] = msgspec.structs.replace(rows[-1], contact=f"{scheme}:{name}@{made.flow.remote_host}:5062;x=1")
    return made


def test_the_request_decides_what_goes_on() -> None:
    assert by_scheme("sips:b@h;transport=tcp?X=y", secure=False) == "sip:b@h;transport=tcp?X=y"
    assert by_scheme("SIPS:b@h", secure=True) == "SIPS:b@h"
    assert by_scheme("sip:b@h;transport=tls", secure=True) is None
    assert by_scheme("sip:b@h", secure=False) == "sip:b@h"


@pytest.mark.parametrize("scheme", ["sip", "sips"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "ws", "tls", "wss"])
@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
def test_t18_a_sips_call_goes_by_tls_alone_and_to_a_sips_contact_alone(transport: str, scheme: str, edge: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tls"), phone(cluster, "bob", transport, scheme, edge)
    invite(alice, SECURE_BOB)
    if scheme == "sips" and transport in ("tls", "wss"):
        received = bob.got_request("INVITE")
        assert received.uri.startswith("sips:bob@")
        bob.respond(received, 200)
        alice.got_response(200)
    else:
        assert alice.got_response(480).first("warning") == '380 ramal "SIPS Not Allowed"'
        assert not bob.inbox


@pytest.mark.parametrize("by", ["udp", "tls"])
def test_a_sip_call_to_a_sips_contact_goes_on_as_sip_and_both_can_follow_the_route(by: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport=by), phone(cluster, "bob", "tls", "sips", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    assert received.uri == f"sip:bob@{bob.flow.remote_host}:5062;x=1"
    assert all(value.startswith("<sip:") for value in received.values("record-route"))
    bob.respond(received, 200)
    ok = alice.got_response(200)
    for method in ("ACK", "INFO", "BYE"):
        alice.request(method, contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
        bob.got_request(method)


def test_of_several_phones_those_with_a_sips_contact_get_the_sips_call() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice", transport="tls")
    plain, secure = phone(cluster, "bob", "tls", "sip"), phone(cluster, "bob", "wss", "sips", "edge-2")
    invite(alice, SECURE_BOB)
    secure.respond(secure.got_request("INVITE"), 486)
    assert not plain.inbox
    alice.got_response(486)  # what a phone says comes before what is said for one that was not asked


def test_y14_a_call_to_a_sips_uri_has_record_routes_of_sips() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", "tls"), phone(cluster, "bob", "tls", "sips", "edge-2")
    invite(alice, SECURE_BOB)
    received = bob.got_request("INVITE")
    assert all(value.startswith("<sips:") for value in received.values("record-route"))
    bob.respond(received, 200)
    ok = alice.got_response(200)
    secure = f"sips:bob@{bob.flow.remote_host}:5062"
    for method in ("ACK", "BYE"):
        alice.request(method, secure, to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
        assert bob.got_request(method).uri == secure


def test_y14_who_asks_for_sips_in_clear_is_told_of_our_tls() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), phone(cluster, "bob", "tls", "sips", "edge-2")
    invite(alice, SECURE_BOB)
    far = bob.got_request("INVITE").values("record-route")[1]
    assert far.startswith("<sips:")
    assert "@192.0.2.1:5061;transport=tls;lr;r2=on>" in far
    for each in cluster.edges.values():
        each.reach.addresses = {}
    invite(alice, SECURE_BOB, call_id="call-2")
    far = bob.got_request("INVITE").values("record-route")[1]
    assert far.startswith("<sip:")
    assert "@192.0.2.1:5060;lr;r2=on>" in far


def test_t18_within_a_dialog_a_sips_request_does_not_go_on_in_clear() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tls"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    for method in ("ACK", "BYE"):
        alice.request(method, "sips:bob@198.51.100.2", to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
        assert not bob.inbox
    assert alice.got_response(480).first("warning") == '380 ramal "SIPS Not Allowed"'
    assert cluster.drops["sips-in-clear"] == 1
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=3)
    bob.got_request("BYE")


def test_t18_a_sips_number_goes_to_a_gateway_of_sips_alone() -> None:
    cluster = Cluster()
    cluster.numbers["+4711"] = ""
    cluster.hops["sips:other.example"] = [NextHop("tls", "203.0.113.9", 5061, "other.example")]
    alice = cluster.phone("alice", transport="tls")
    invite(alice, f"sips:+4711@{DOMAIN}")
    alice.got_response(404)
    assert not cluster.lost


@pytest.mark.parametrize("uri", [BOB, SECURE_BOB])
def test_one_aor_is_meant_by_both_schemes(uri: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tls"), phone(cluster, "bob", "tls", "sips")
    invite(alice, uri)
    bob.got_request("INVITE")


@pytest.mark.parametrize("transport", ["udp", "tcp", "ws", "tls", "wss"])
def test_a_sips_contact_is_registered_by_tls_alone(transport: str) -> None:
    """RFC 5630 section 5.2: else a secure resource would be bound to one that is not."""
    flow = UDP if transport == "udp" else msgspec.structs.replace(TCP, transport=transport)
    actions = receive(core(), credible(contact="<SIPS:alice@10.0.0.9:5062>", to="<sips:alice@example.test>"), flow)
    if transport in ("tls", "wss"):
        command = asked(actions)
        assert command.aor == "alice@example.test"  # whatever the scheme in To
        assert command.register is not None
        assert command.register.contacts[0].uri == "SIPS:alice@10.0.0.9:5062"
    else:
        (refused,) = heard(actions)
        assert (refused.status, refused.reason) == (400, "SIPS Contact Needs TLS")


@pytest.mark.parametrize(
    ("contact", "rows"),
    [("<sips:a@h>;expires=0", ()), ("<sips:a@h>", ("Expires: 0",)), ("<sip:a@h;transport=tls>", ())],
)
def test_a_binding_of_sips_is_removed_by_any_transport(contact: str, rows: tuple[str, ...]) -> None:
    assert asked(receive(core(), credible(*rows, contact=contact))).register is not None


def test_t18_a_sips_call_to_a_number_does_not_go_to_a_gateway_in_clear() -> None:
    cluster = Cluster(gateways=by_gateway())
    cluster.hops["sip:+4711@203.0.113.9:5060"] = [NextHop("udp", "203.0.113.9", 5060, "203.0.113.9")]
    alice = cluster.phone("alice", transport="tls")
    invite(alice, f"sips:+4711@{DOMAIN}")
    alice.got_response(480)
    assert not cluster.lost
