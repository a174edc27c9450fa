"""A Request-URI that is a live Contact of a user of ours reaches his flow, at any edge (RFC 3261 section 16.5)."""

import msgspec
import pytest

from edge.core.actions import NextHop
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import answered, contact, invite, routes_of_caller


class Browser(Phone):
    """A phone without an address."""

    @property
    def contact(self) -> str:
        """Its Contact URI (RFC 7118 section 5)."""
        return f"sip:{self.name}@{self.name}x7.invalid;transport=ws"


def browser(cluster: Cluster, name: str, edge: str = "edge-1") -> Browser:
    cluster.users.add(f"{name}@{DOMAIN}")
    phone = Browser(cluster, name, edge, "wss")
    cluster.register(phone)
    return phone


@pytest.mark.parametrize("at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("spelling", ["{}", "{};ob", "sip:bob@BOBX7.invalid;transport=ws"])
def test_an_attended_transfer_reaches_the_browser_that_is_named_by_its_contact(at: str, spelling: str) -> None:
    cluster = Cluster(relay=False)
    alice, bob = cluster.phone("alice"), browser(cluster, "bob", at)
    other = cluster.phone("bob", "edge-1", "tcp")
    invite(alice, spelling.format(bob.contact), "Replaces: c2;to-tag=1;from-tag=2")
    received, ok = answered(alice, bob)
    assert received.uri == bob.contact
    assert received.first("p-asserted-identity") == f"<sip:alice@{DOMAIN}>"
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.got_request("BYE")
    cluster.turn(3)
    assert not other.inbox


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "ws", "wss"])
def test_a_phone_behind_a_nat_is_reached_by_its_private_contact(transport: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport, register=False)
    cluster.register(bob)
    (binding,) = cluster.bindings[f"bob@{DOMAIN}"]
    private = f"sip:bob@192.168.1.10:5060;transport={transport}"
    cluster.bindings[f"bob@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=private)]
    invite(alice, private)
    assert bob.got_request("INVITE").uri == private


def test_whoever_calls_a_contact_must_say_who_he_is() -> None:
    cluster = Cluster(challenge_calls=False, foreign_callers=True)
    eve, bob = cluster.phone("eve", register=False), browser(cluster, "bob")
    for from_ in (
        f"<sip:eve@{DOMAIN}>;tag=1",
        "<sip:eve@elsewhere.test>;tag=1",
        "<sip:anonymous@anonymous.invalid>;tag=1",
    ):
        eve.request("INVITE", bob.contact, from_=from_, call_id=from_)
        assert eve.got().status in (403, 407)  # type: ignore[union-attr]
    assert not bob.inbox


def test_a_listed_peer_may_call_a_contact() -> None:
    cluster = Cluster(is_peer=lambda host: host == "198.51.100.1")
    peer, bob = cluster.phone("pbx", register=False), browser(cluster, "bob")
    peer.request("INVITE", bob.contact, from_="<sip:alice@example.test>;tag=1")
    peer.got_response(100)
    bob.got_request("INVITE")


@pytest.mark.parametrize(
    "uri",
    [
        "sip:bob@nobodys.invalid;transport=ws",
        "sip:bob@bobx7.invalid;transport=tcp",
        "sip:bo@bobx7.invalid;transport=ws",
    ],
)
def test_a_uri_that_is_nobodys_contact_is_404(uri: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), browser(cluster, "bob")
    invite(alice, uri)
    alice.got_response(404)
    assert not bob.inbox


def test_while_the_database_is_away_a_browsers_contact_is_503_and_another_domain_is_called() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.away = True
    invite(alice, "sip:bob@x.invalid;transport=ws")
    alice.got_response(503)
    far = cluster.phone("far", register=False)
    cluster.hops["sip:x@elsewhere.test"] = [NextHop("udp", far.flow.remote_host, 5062)]
    invite(alice, "sip:x@elsewhere.test", call_id="2")
    far.got_request("INVITE")


def test_nobody_gets_anothers_calls_by_registering_his_contact() -> None:
    cluster = Cluster()
    alice, bob, mallory = cluster.phone("alice"), browser(cluster, "bob"), cluster.phone("mallory")
    (binding,) = cluster.bindings[f"mallory@{DOMAIN}"]
    cluster.bindings[f"mallory@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=bob.contact, id=9)]
    invite(alice, bob.contact)
    bob.got_request("INVITE")
    assert not mallory.inbox


def test_s10_a_contact_at_a_gateways_address_leads_to_the_flow_of_who_registered_it() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    (binding,) = cluster.bindings[f"bob@{DOMAIN}"]
    cluster.bindings[f"bob@{DOMAIN}"] = [msgspec.structs.replace(binding, contact="sip:+5548@203.0.113.9")]
    invite(alice, "sip:+5548@203.0.113.9")
    bob.got_request("INVITE")
    assert not cluster.lost
