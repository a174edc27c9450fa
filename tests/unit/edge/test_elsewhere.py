"""Contacts of a REGISTER: what is the sender's own rings by its flow, all else where it says, or is refused."""

import pytest

from edge.core.actions import Binding, NextHop
from edge.core.flow import Flow
from edge.core.gateways.routes import Gateway, GatewaysConfig
from edge.core.senders import way_to
from edge.core.tokens.path import FlowTokens
from events.commands import Authenticate
from sipcore.address import parse_via
from sipcore.uri import parse_uri
from tests.kit.calls import DOMAIN, WALL, Cluster
from tests.kit.edge import KEYS, asked, core, credible, heard, receive

SOURCE = "8.8.4.4"
UDP = Flow("udp", "192.0.2.1", 5060, SOURCE, 5062)
TCP = Flow("tcp", "192.0.2.1", 5060, SOURCE, 40_000, 3)
TLS = Flow("tls", "192.0.2.1", 5061, SOURCE, 40_000, 3)
WSS = Flow("wss", "192.0.2.1", 443, SOURCE, 40_000, 3)
DIRECT, NAT = f"{SOURCE}:5062", "192.168.1.9:5062"
BOB = f"sip:bob@{DOMAIN}"


def way(contact: str, sent_by: str, flow: Flow, *, alone: bool = True) -> Flow | None:
    via = parse_via(f"SIP/2.0/{flow.transport.upper()} {sent_by};branch=z9hG4bK1")
    return way_to(parse_uri(contact), via, flow, alone=alone)


@pytest.mark.parametrize(
    ("contact", "sent_by", "flow"),
    [
        (f"sip:c@{SOURCE}:5062", DIRECT, UDP),
        (f"sip:c@{SOURCE}:5062;transport=UDP", DIRECT, UDP),
        (f"sip:c@{SOURCE}:40000;transport=tcp", f"{SOURCE}:40000", TCP),
        (f"sip:c@{SOURCE}:5060;transport=tcp", f"{SOURCE}:5060", TCP),
        (f"sip:c@{SOURCE}:5070", f"{SOURCE}:5060", TCP),
        (f"sip:c@{SOURCE};transport=tls", SOURCE, TLS),
        (f"sips:c@{SOURCE}:5061;transport=tcp", SOURCE, TLS),
        ("sip:c@x.invalid;transport=ws", "x.invalid", WSS),
        ("sip:c@192.168.1.9:5062;transport=ws", "x.invalid", WSS),
        ("sip:c@192.168.1.9:5062", NAT, UDP),
        ("sip:c@192.168.1.9:5062", DIRECT, UDP),  # an ALG has rewritten the Via alone
        (f"sip:c@{SOURCE}:7000", NAT, UDP),  # STUN
        ("sip:c@8.8.8.8:7000", NAT, UDP),  # STUN, from a NAT of several addresses
        ("sip:c@phone.example.org", "phone.example.org", UDP),
        ("sip:c@desktop", DIRECT, UDP),
        ("sip:c@localhost:5070", DIRECT, UDP),
    ],
)
def test_what_is_plainly_the_senders_own_rings_by_the_flow(contact: str, sent_by: str, flow: Flow) -> None:
    assert way(contact, sent_by, flow) is flow


@pytest.mark.parametrize(
    ("contact", "sent_by", "flow"),
    [
        ("sip:c@8.8.8.8:5062", DIRECT, UDP),
        ("sip:c@8.8.8.8", SOURCE, TCP),
        (f"sip:c@{SOURCE}:5062;maddr=8.8.8.8", DIRECT, UDP),
        (f"sip:c@{SOURCE}:5062;transport=tcp", DIRECT, UDP),
        (f"sip:c@{SOURCE}:5062;transport=udp", SOURCE, TCP),
        ("sip:c@[2001:4860::1]", DIRECT, UDP),
        ("sip:c@phone.example.org", DIRECT, UDP),
    ],
)
def test_what_is_not_is_elsewhere(contact: str, sent_by: str, flow: Flow) -> None:
    assert way(contact, sent_by, flow) is None


def test_of_several_each_rings_where_it_says() -> None:
    ports = [way(f"sip:c@{SOURCE}:{port}", DIRECT, UDP, alone=False) for port in (5062, 6000, 7000)]
    assert ports == [UDP, *(Flow("udp", "192.0.2.1", 5060, SOURCE, port) for port in (6000, 7000))]
    streams = [
        way(f"sip:c@{SOURCE}:{port};transport=tcp", f"{SOURCE}:5060", TCP, alone=False) for port in (40_000, 5060, 5070)
    ]
    assert streams == [TCP, TCP, None]


def test_behind_nat_of_several_the_phones_own_ring_by_the_flow_and_public_ones_where_they_say() -> None:
    for own in ("192.168.1.9:5062", "10.8.0.3:5060", f"{SOURCE}:7000", "x.invalid"):
        assert way(f"sip:c@{own}", NAT, UDP, alone=False) is UDP
    assert way("sip:c@8.8.8.8:5060", NAT, UDP, alone=False) is None


def test_addresses_are_compared_as_addresses() -> None:
    six = Flow("udp", "2001:db8::1", 5060, "2001:4860::4", 5062)
    assert way("sip:c@[2001:4860:0::4]:5062", "[2001:4860::0004]:5062", six) is six
    assert way("sip:c@[2001:4860::5]:5062", "[2001:4860::4]:5062", six) is None


# --- REGISTER ---------------------------------------------------------------------------------------------------------


HOME = Flow("udp", "192.0.2.1", 5060, "198.51.100.7", 5062)


def registering(*contacts: str, rows: tuple[str, ...] = ()) -> bytes:
    via = f"SIP/2.0/UDP {HOME.remote_host}:5062;branch=z9hG4bK-1;rport"
    return credible(*rows, via=via, contact=", ".join(contacts))


def paths(command: Authenticate) -> list[tuple[str, ...] | None]:
    assert command.register is not None
    return [contact.path for contact in command.register.contacts]


def test_the_command_says_of_each_contact_how_it_is_reached() -> None:
    command = asked(
        receive(
            core(),
            registering(f"<sip:c@{HOME.remote_host}:5062>", f"<sip:c@{HOME.remote_host}:6000>", "<sip:c@8.8.8.8>"),
            HOME,
        )
    )
    own, port, elsewhere = paths(command)
    assert own is None
    assert elsewhere == ()
    assert port is not None
    named = FlowTokens(KEYS, "edge-1", "b00t", "x").verify(port[0].partition(":")[2].partition("@")[0])
    assert named is not None
    assert named.flow == Flow("udp", HOME.local_host, HOME.local_port, HOME.remote_host, 6000)


ELSEWHERE = [
    ("<sip:c@192.0.2.1:5060>", "Contact Is This Server"),
    ("<sip:c@other.test>", "Contact Is This Server"),
    ("<sip:c@edge.example.net>", "Contact Is This Server"),
    ("<sip:c@8.8.8.1>", "Contact Leads to a Gateway"),
    ("<sip:c@[::ffff:8.8.8.1]>", "Contact Leads to a Gateway"),
    ("<sip:c@gateway.example.org>", "Contact Leads to a Gateway"),
    ("<sip:c@8.8.8.2>", "Contact Leads to a Gateway"),
    ("<sip:c@169.254.169.254>", "Contact Cannot Be Reached"),
    ("<sip:c@8.8.8.8;transport=ws>", "Contact Cannot Be Reached"),
    ("<sip:c@8.8.8.8;transport=sctp>", "Contact Cannot Be Reached"),
]


@pytest.mark.parametrize(("contact", "reason"), ELSEWHERE)
def test_s10_a_contact_where_nothing_is_to_be_sent_is_refused_with_403(contact: str, reason: str) -> None:
    gateways = {"one": Gateway("sip:8.8.8.1"), "two": Gateway("sip:gateway.example.org")}
    edge = core(
        gateways=GatewaysConfig(gateways),
        is_peer=lambda host: host == "8.8.8.2",
        refuses=lambda host: host.startswith("169.254."),
    )
    actions = receive(edge, registering(f"<sip:c@{HOME.remote_host}:5062>", contact), HOME)
    (response,) = heard(actions)
    assert (response.status, response.reason) == (403, reason)
    assert not actions.publishes
    for rows, gone in ((("Expires: 0",), contact), ((), contact + ";expires=0")):
        assert paths(asked(receive(core(), registering(gone, rows=rows), HOME))) == [None]


def test_a_phone_on_our_own_host_may_be_at_any_port_but_ours() -> None:
    here = Flow("udp", "192.0.2.1", 5060, "192.0.2.1", 5062)
    via = "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK-1"
    (response,) = heard(receive(core(), credible(via=via, contact="<sip:c@192.0.2.1:5060>"), here))
    assert (response.status, response.reason) == (403, "Contact Is This Server")
    for contact, way in (("<sip:c@192.0.2.1:6000>", 1), ("<sip:c@192.0.2.1:6000;transport=tcp>", 0)):
        (path,) = paths(asked(receive(core(), credible(via=via, contact=contact), here)))
        assert path is not None
        assert len(path) == way


def test_where_users_may_not_call_elsewhere_they_may_not_be_called_there() -> None:
    edge = core(relay=False)
    (response,) = heard(receive(edge, registering("<sip:c@8.8.8.8>"), HOME))
    assert (response.status, response.reason) == (403, "Contact Is Elsewhere")
    assert paths(asked(receive(edge, registering(f"<sip:c@{HOME.remote_host}:5062;transport=tcp>"), HOME))) == [()]


# --- calls ------------------------------------------------------------------------------------------------------------


def elsewhere(contact: str, q: float = -1) -> Binding:
    return Binding(contact, "", "", "", q, "", int(WALL) + 300, 77)


def test_contacts_elsewhere_ring_beside_the_phones_flow() -> None:
    cluster = Cluster()
    alice, bob, desk = cluster.phone("alice"), cluster.phone("bob"), cluster.phone("desk", "edge-2", register=False)
    contact = f"sip:bob@{desk.flow.remote_host}:5062"
    cluster.bindings[f"bob@{DOMAIN}"].append(elsewhere(contact))
    cluster.hops[contact] = [NextHop("udp", desk.flow.remote_host, 5062, desk.flow.remote_host)]
    alice.request("INVITE", BOB, authorized=True)
    assert bob.got_request("INVITE").uri == bob.contact
    received = desk.got_request("INVITE")
    assert received.uri == contact
    desk.respond(received, 200)
    alice.got_response(100)
    alice.got_response(200)


def test_s10_a_contact_whose_name_leads_to_a_gateway_or_a_peer_is_not_called() -> None:
    gateways = GatewaysConfig({"one": Gateway("sip:198.51.100.99")})
    cluster = Cluster(is_peer=lambda host: host == "198.51.100.98", gateways=gateways)
    alice = cluster.phone("alice")
    names = ("sip:bob@one.example.org", "sip:bob@two.example.org", "sip:bob@nowhere.example.org")
    cluster.bindings[f"bob@{DOMAIN}"] = [elsewhere(name) for name in names]
    for name, host in zip(names, ("198.51.100.99", "198.51.100.98"), strict=False):
        cluster.hops[name] = [NextHop("udp", host, 5060, host)]
    alice.request("INVITE", BOB, authorized=True)
    alice.got_response(100)
    alice.got_response(480)
    assert not cluster.lost


def test_a_name_that_nobody_answers_for_does_not_keep_the_others_from_ringing() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    cluster.bindings[f"bob@{DOMAIN}"].append(elsewhere("sip:bob@slow.example.org"))
    cluster.dns_answers = False
    alice.request("INVITE", BOB, authorized=True)
    alice.got_response(100)
    assert not bob.inbox
    cluster.turn(6)
    bob.got_request("INVITE")


def test_contacts_elsewhere_too_are_what_a_redirecting_domain_tells() -> None:
    cluster = Cluster(redirects=lambda domain: True)
    alice = cluster.phone("alice")
    cluster.bindings[f"bob@{DOMAIN}"] = [elsewhere("sip:bob@8.8.8.8")]
    alice.request("INVITE", BOB, authorized=True)
    alice.got_response(100)
    assert [address.uri for address in alice.got_response(302).contacts] == ["sip:bob@8.8.8.8"]
