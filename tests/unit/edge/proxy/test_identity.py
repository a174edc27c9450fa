"""Credentials and identities of one who calls stay here; what goes on is what we know (RFC 3325)."""

import pytest

from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import BOB, established, invite, routes_of_caller


def test_a12_a29_credentials_and_claimed_identities_do_not_go_on_and_ours_is_added() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request(
        "INVITE", BOB, "P-Asserted-Identity: <sip:president@x>", "P-Preferred-Identity: <sip:y@x>", authorized=True
    )
    received = bob.got_request("INVITE")
    assert received.values("p-asserted-identity") == [f"<sip:alice@{DOMAIN}>"]
    assert received.first("p-preferred-identity") is None
    assert received.first("proxy-authorization") is None


def test_a29_an_anonymous_caller_stays_anonymous() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, "Privacy: id", authorized=True, from_="<sip:anonymous@anonymous.invalid>;tag=1")
    received = bob.got_request("INVITE")
    assert received.first("p-asserted-identity") is None


def test_a12_the_ack_of_a_2xx_takes_no_credentials_along() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    _, ok = established(alice, bob)
    alice.request(
        "ACK",
        bob.contact,
        "P-Asserted-Identity: <sip:boss@x>",
        to=ok.first("to"),
        routes=routes_of_caller(ok),
        authorized=True,
    )
    ack = bob.got_request("ACK")
    assert ack.first("proxy-authorization") is None
    assert ack.first("p-asserted-identity") is None


@pytest.mark.parametrize("privacy", ["header; id", "id ;critical", "ID", "user,id"])
def test_a29_privacy_id_is_understood_however_it_is_spelled(privacy: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB, f"Privacy: {privacy}")
    assert bob.got_request("INVITE").first("p-asserted-identity") is None


def test_s07_a_remote_party_id_of_a_phone_goes_nowhere() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, "Remote-Party-ID: <sip:ceo@example.test>;screen=yes", authorized=True)
    alice.got_response(100)
    received = bob.got_request("INVITE")
    assert received.first("remote-party-id") is None
    bob.respond(received, 180, "Ringing", "Remote-Party-ID: <sip:ceo@example.test>;screen=yes")
    assert alice.got_response(180).first("remote-party-id") is None


def test_s07_an_identity_that_a_phone_claims_in_a_response_does_not_go_on() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180, "Ringing", "P-Asserted-Identity: <sip:president@x>")
    assert alice.got_response(180).first("p-asserted-identity") is None
