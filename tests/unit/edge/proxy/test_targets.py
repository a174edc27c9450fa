"""Where a request goes: users, numbers, Contacts, redirections, and nobody (RFC 3261 section 16.5)."""

import pytest

from edge.core.flow import Flow
from edge.core.gateways.numbers import aors, rules_of
from edge.core.senders import reached_by
from runtime.config import Domain
from sipcore.message import Request
from sipcore.parser import parse_datagram
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.kit.dialogs import BOB, OFFER, TRUNK, contact, invite, trunk


def test_y08_unknown_is_404_known_without_phones_480_and_foreign_403() -> None:
    cluster = Cluster(relay=False)
    alice = cluster.phone("alice")
    cluster.phone("bob", register=False)
    for number, (uri, status) in enumerate(((f"sip:nobody@{DOMAIN}", 404), (BOB, 480), ("sip:x@elsewhere.test", 403))):
        alice.request("INVITE", uri, authorized=True, call_id=str(number))
        if status != 403:
            alice.got_response(100)
        else:
            alice.got_response(100)
        alice.got_response(status)


def test_y09_a_contact_that_stands_twice_rings_once() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    cluster.bindings[f"bob@{DOMAIN}"] *= 2
    invite(alice)
    bob.got_request("INVITE")
    assert not bob.inbox


def test_y09_phones_of_one_private_address_behind_two_nats_both_ring() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.users.add(f"bob@{DOMAIN}")
    home, office = Same(cluster, "bob", "edge-1"), Same(cluster, "bob", "edge-2")
    cluster.register(home)
    cluster.register(office)
    invite(alice)
    home.got_request("INVITE")
    office.got_request("INVITE")


def test_n13_a_phone_that_comes_back_through_another_edge_does_not_ring_twice() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.users.add(f"bob@{DOMAIN}")
    before, after = Same(cluster, "bob", "edge-1"), Same(cluster, "bob", "edge-2")
    cluster.register(before)
    invite(alice)
    before.respond(before.got_request("INVITE"), 180)
    alice.got_response(180)
    cluster.bindings[f"bob@{DOMAIN}"].clear()
    cluster.register(after)
    cluster.turn(3)
    assert not after.inbox
    other = cluster.phone("carol")
    other.request("INVITE", BOB, authorized=True, call_id="call-2", body=OFFER)
    after.got_request("INVITE")
    assert not before.inbox


class Same(Phone):
    """A phone whose private address is that of others, behind another NAT."""

    @property
    def contact(self) -> str:
        """Its Contact URI."""
        return f"sip:{self.name}@192.168.1.10:5060"


def test_y24_a_redirection_by_a_phone_goes_up_and_nobody_else_is_called() -> None:
    cluster = Cluster()
    alice, bob, carol = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("carol")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 302)
    assert contact(alice.got_response(302)) == bob.contact
    assert not carol.inbox


def test_y28_redirect_mode_is_302_with_contacts() -> None:
    cluster = Cluster(redirects=lambda domain: True)
    alice, bob = cluster.phone("alice"), cluster.phone("bob", q=0.5)
    invite(alice)
    moved = alice.got_response(302)
    assert contact(moved) == bob.contact
    assert moved.contacts[0].get("q") == "0.5"
    assert moved.contacts[0].get("expires") == "300"
    assert moved.first("record-route") is None


def test_y28_a_redirect_to_nothing_but_the_called_uri_is_480() -> None:
    cluster = Cluster(redirects=lambda domain: True)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    name = f"bob@{DOMAIN}"
    cluster.bindings[name] = [type(cluster.bindings[name][0])(**{
        **{f: getattr(cluster.bindings[name][0], f) for f in cluster.bindings[name][0].__struct_fields__},
        "contact": f"sip:bob@{DOMAIN.upper()}",
    })]  # fmt: skip
    invite(alice)
    alice.got_response(480)
    assert not bob.inbox


def test_a_user_at_an_address_of_ours_that_is_no_domain_is_404() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "sip:bob@192.0.2.1", authorized=True)
    alice.got_response(100)
    alice.got_response(404)


def test_y32_a_number_reaches_the_user_who_has_it() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    cluster.numbers[f"33812800@{DOMAIN}"] = f"bob@{DOMAIN}"
    invite(alice, f"sip:33812800@{DOMAIN}")
    bob.respond(bob.got_request("INVITE"), 200)
    alice.got_response(200)


@pytest.mark.parametrize(
    "dialled", [f"sip:33812800@{DOMAIN}", "tel:33812800", "tel:3381-2800", f"tel:33812800;phone-context={DOMAIN}"]
)
@pytest.mark.parametrize("by", ["user", "gateway"])
def test_y32_a_local_number_of_a_tel_uri_is_dialled_in_the_callers_domain_as_one_of_a_sip_uri(
    dialled: str, by: str
) -> None:
    domains = {DOMAIN: Domain(country="55", area="48")}
    cluster = Cluster(number=aors(rules_of(domains), domains), gateways=TRUNK if by == "gateway" else None)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    if by == "user":
        cluster.numbers[f"33812800@{DOMAIN}"] = f"bob@{DOMAIN}"
        invite(alice, dialled)
        bob.got_request("INVITE")
    else:
        pstn = trunk(cluster)
        invite(alice, dialled)
        assert pstn.got_request("INVITE").uri == "sip:5533812800@198.51.100.99"
        assert not bob.inbox


def test_a_phone_without_nat_that_hears_at_another_port_is_called_there() -> None:
    assert reached_by(registering("sip:bob@198.51.100.1:6000", "198.51.100.1:5062"), FLOW).remote_port == 6000
    assert reached_by(registering("sip:bob@198.51.100.1", "198.51.100.1:5062"), FLOW).remote_port == 5060
    for contact_, via in (
        ("sip:bob@10.0.0.1:6000", "10.0.0.1:5062"),  # behind NAT
        ("sip:bob@198.51.100.1:6000", "198.51.100.1:7000"),  # behind NAT, with STUN
        ("sip:bob@198.51.100.1:6000", "10.0.0.1:5062"),
        ("sip:bob@203.0.113.1:6000", "198.51.100.1:5062"),  # somebody else
        ("sip:bob@198.51.100.1:6000;transport=tcp", "198.51.100.1:5062"),
    ):
        assert reached_by(registering(contact_, via), FLOW) is FLOW


FLOW = Flow("udp", "192.0.2.1", 5060, "198.51.100.1", 5062)


def registering(contact_: str, via: str) -> Request:
    text = (
        f"REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1;rport\r\nFrom: <{BOB}>;tag=1\r\n"
        f"To: <{BOB}>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: <{contact_}>\r\nContent-Length: 0\r\n\r\n"
    )
    message = parse_datagram(text.encode())
    assert isinstance(message, Request)
    return message


def test_e13_with_mysql_away_the_last_known_bindings_route_and_unknown_aors_get_503() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    cluster.away = True
    invite(alice)
    bob.got_request("INVITE")
    invite(alice, f"sip:carol@{DOMAIN}", call_id="2")
    alice.got_response(503)


def test_y34_a_look_up_that_is_never_answered_ends_with_503() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    core = cluster.edges["edge-1"]
    cluster.tables_answer = False
    invite(alice)
    cluster.turn(10)
    alice.got_response(503)
    assert not len(core.calls.destinations)


def test_y34_a_uri_that_is_never_resolved_ends_with_503() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    core = cluster.edges["edge-1"]
    cluster.dns_answers = False
    invite(alice, "sip:x@elsewhere.test")
    cluster.turn(10)
    alice.got_response(503)
    assert not len(core.calls.destinations)
