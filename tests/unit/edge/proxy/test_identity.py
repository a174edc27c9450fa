"""Credentials and identities of one who calls stay here; what goes on is what we know (RFC 3325)."""

import pytest

from tests.kit.calls import DOMAIN, Cluster
from tests.kit.dialogs import BOB, TRUNK, established, invite, routes_of_caller, trunk


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


ASSERTED = ("P-Asserted-Identity: <sip:+5533@pstn.test>, <tel:+5533>", "Remote-Party-ID: <sip:+5533@pstn.test>")
ANONYMOUS = "<sip:anonymous@anonymous.invalid>;tag=1"


def with_peer(host: str = "198.51.100.1") -> Cluster:
    return Cluster(is_peer=lambda each: each == host)


@pytest.mark.parametrize("edge", ["edge-1", "edge-2"])
def test_a29_who_calls_is_believed_of_a_listed_peer_and_told_to_the_phone(edge: str) -> None:
    """RFC 3325 sections 4 and 7: From of a call from the network may be anything."""
    cluster = with_peer()
    pbx, bob = cluster.phone("pbx", register=False), cluster.phone("bob", edge)
    pbx.request("INVITE", BOB, *ASSERTED, "P-Preferred-Identity: <sip:x@y>", from_=ANONYMOUS)
    received = bob.got_request("INVITE")
    assert received.values("p-asserted-identity") == ["<sip:+5533@pstn.test>", "<tel:+5533>"]
    assert received.values("remote-party-id") == ["<sip:+5533@pstn.test>"]
    assert received.first("p-preferred-identity") is None


def test_a29_a_peers_caller_who_wishes_to_stay_unknown_does() -> None:
    cluster = with_peer()
    pbx, bob = cluster.phone("pbx", register=False), cluster.phone("bob")
    pbx.request("INVITE", BOB, *ASSERTED, "Privacy: id", from_=ANONYMOUS)
    received = bob.got_request("INVITE")
    assert received.first("p-asserted-identity") is received.first("remote-party-id") is None
    assert received.first("privacy") == "id"  # for whoever is next


@pytest.mark.parametrize("from_", [None, ANONYMOUS])
def test_a29_a_gateway_hears_who_calls_also_of_whom_the_callee_is_not_to_know(from_: str | None) -> None:
    """RFC 3325 section 10.1: `Privacy: id` is kept from those outside the Trust Domain."""
    cluster = Cluster(gateways=TRUNK)
    gateway, alice = trunk(cluster), cluster.phone("alice")
    invite(alice, f"sip:33812800@{DOMAIN}", "Privacy: id", from_=from_)
    sent = next(message for message in gateway.inbox if message.first("privacy"))
    assert sent.values("p-asserted-identity") == [f"<sip:alice@{DOMAIN}>"]


def test_a29_of_a_fork_the_proxy_hears_who_calls_and_the_phone_does_not() -> None:
    cluster = with_peer("198.51.100.2")
    alice, proxy, bob = cluster.phone("alice"), cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice, BOB, "Privacy: id")
    assert proxy.got_request("INVITE").values("p-asserted-identity") == [f"<sip:alice@{DOMAIN}>"]
    assert bob.got_request("INVITE").first("p-asserted-identity") is None


@pytest.mark.parametrize(("privacy", "heard"), [("none", ["<tel:+5533>"]), ("id", [])])
def test_a29_who_answers_is_believed_of_a_listed_peer(privacy: str, heard: list[str]) -> None:
    cluster = with_peer("198.51.100.2")
    alice, proxy = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = proxy.got_request("INVITE")
    proxy.respond(received, 180, "Ringing", "P-Asserted-Identity: <tel:+5533>", f"Privacy: {privacy}")
    assert alice.got_response(180).values("p-asserted-identity") == heard


def test_a29_within_a_dialog_a_peer_may_say_who_is_there_now_and_a_phone_may_not() -> None:
    cluster = with_peer("198.51.100.2")
    alice, proxy = cluster.phone("alice"), cluster.phone("bob")
    received, ok = established(alice, proxy)
    proxy.request("UPDATE", alice.contact, "P-Asserted-Identity: <tel:+5544>", from_=ok.first("to"),
                  to=received.first("from"), routes=received.values("record-route"))  # fmt: skip
    assert alice.got_request("UPDATE").values("p-asserted-identity") == ["<tel:+5544>"]
    alice.request("UPDATE", proxy.contact, "P-Asserted-Identity: <tel:+5544>", to=ok.first("to"), cseq=2,
                  routes=routes_of_caller(ok))  # fmt: skip
    assert proxy.got_request("UPDATE").first("p-asserted-identity") is None
