"""Calls through one and two edges without sockets: admission, forking, dialogs, CANCEL, failures."""

from typing import Any

import pytest

from edge.core.actions import NextHop
from edge.core.flow import Flow
from edge.core.gateways.numbers import aors, rules_of
from edge.core.gateways.routes import Gateway, Gateways, GatewaysConfig
from edge.core.registration.contacts import reached_by
from runtime.config import Domain
from sipcore.message import Request, Response
from sipcore.parser import parse_datagram
from tests.kit.calls import DOMAIN, Cluster, Phone

BOB = f"sip:bob@{DOMAIN}"
OFFER = "v=0\r\n"


def invite(caller: Phone, uri: str = BOB, more: tuple[str, ...] = (), **fields: Any) -> str:
    """An INVITE with credentials; its 100 is taken off."""
    branch = caller.request("INVITE", uri, *more, authorized=True, body=OFFER, **fields)
    caller.got_response(100)
    return branch


def answered(caller: Phone, callee: Phone) -> tuple[Request, Response]:
    """Rings, answers, and acknowledges: the INVITE as the callee has it, and the 200 as the caller has it."""
    received = callee.got_request("INVITE")
    callee.respond(received, 180)
    caller.got_response(180)
    callee.respond(received, 200, body=OFFER)
    return received, caller.got_response(200)


def routes_of_caller(response: Response) -> list[str]:
    return list(reversed(response.values("record-route")))


def contact(message: Request | Response) -> str:
    return message.contacts[0].uri


@pytest.mark.parametrize("callee_at", ["edge-1", "edge-2"])
@pytest.mark.parametrize("callee_by", ["udp", "tcp", "tls", "ws", "wss"])
@pytest.mark.parametrize("caller_by", ["udp", "tcp", "tls", "ws", "wss"])
def test_n09_a_call_passes_with_ack_reinvite_update_and_bye_from_both_sides(
    caller_by: str, callee_by: str, callee_at: str
) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", caller_by), cluster.phone("bob", callee_at, callee_by)
    invite(alice)
    received, ok = answered(alice, bob)
    to, from_ = ok.first("to"), ok.first("from")
    assert received.uri == bob.contact
    assert received.body == OFFER.encode()
    assert ok.body == OFFER.encode()
    assert received.via.transport == callee_by.upper()
    forward, backward = routes_of_caller(ok), received.values("record-route")
    lookups = len(cluster.commands)
    alice.request("ACK", contact(ok), to=to, routes=forward)
    ack = bob.got_request("ACK")
    assert (ack.uri, ack.values("route"), ack.branch != received.branch) == (bob.contact, [], True)
    for number, (method, body) in enumerate((("INVITE", OFFER), ("UPDATE", OFFER), ("INFO", "x")), 2):
        alice.request(method, contact(ok), to=to, routes=forward, cseq=number, body=body)
        if method == "INVITE":
            alice.got_response(100)
        request = bob.got_request(method)
        bob.respond(request, 200)
        assert alice.got_response(200).body == b""
        if method == "INVITE":
            alice.request("ACK", contact(ok), to=to, routes=forward, cseq=number)
            bob.got_request("ACK")
    bob.request("UPDATE", alice.contact, from_=to, to=from_, routes=backward, cseq=1)
    alice.respond(alice.got_request("UPDATE"), 200)
    bob.got_response(200)
    bob.request("BYE", alice.contact, from_=to, to=from_, routes=backward, cseq=2)
    bye = alice.got_request("BYE")
    assert bye.values("route") == []
    alice.respond(bye, 200)
    bob.got_response(200)
    assert len(cluster.commands) == lookups
    assert not alice.inbox
    assert not bob.inbox
    assert not cluster.lost


def test_x01_a_request_without_credentials_gets_a_stateless_407_and_its_ack_is_absorbed_at_any_edge() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = alice.request("INVITE", BOB)
    refused = alice.got_response(407)
    assert refused.first("proxy-authenticate")
    alice.request("ACK", BOB, to=refused.first("to"), branch=branch, edge="edge-2")
    assert cluster.drops["ack"] == 1
    assert not alice.inbox
    assert not bob.inbox
    assert not cluster.commands


def test_x01_the_100_leaves_though_nobody_answers() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    cluster.log = lambda edge, command: None
    invite(alice)
    cluster.turn(3.0)
    refused = alice.got_response(503)
    assert refused.first("retry-after")


def test_a_caller_with_a_wrong_password_reaches_nobody() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, authorized=True, from_=f"<sip:carol@{DOMAIN}>;tag=1")
    assert [m.status for m in alice.inbox if isinstance(m, Response)] == [100, 403]
    assert not bob.inbox


def test_y02_max_forwards_0_is_483_and_absent_becomes_70() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, max_forwards=0)
    alice.got_response(483)
    invite(alice, max_forwards=None, call_id="2")
    assert bob.got_request("INVITE").first("max-forwards") == "69"


def test_y01_an_unknown_scheme_is_416_and_an_invite_without_user_484() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "mailto:bob@example.test", to="<sip:x@y>")
    alice.got_response(416)
    alice.request("INVITE", f"sip:{DOMAIN}", call_id="2")
    alice.got_response(484)


def test_y05_an_unknown_proxy_require_is_420_and_require_passes() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, "Proxy-Require: foo, bar")
    assert alice.got_response(420).values("unsupported") == ["foo", "bar"]
    invite(alice, call_id="2")
    bob.inbox.clear()
    alice.request("INVITE", BOB, "Require: foo", authorized=True, call_id="3")
    assert bob.got_request("INVITE").values("require") == ["foo"]


def test_y07_a_preloaded_route_to_somebody_else_is_403() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "sip:x@elsewhere.test", routes=["<sip:gateway.elsewhere.test;lr>"], authorized=True)
    alice.got_response(403)


def test_y06_a_preloaded_route_to_us_is_taken_off() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, routes=["<sip:192.0.2.1;lr>"])
    assert bob.got_request("INVITE").values("route") == []


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


def test_y37_subscribe_and_publish_to_users_are_489_and_never_503() -> None:
    cluster = Cluster(max_calls=0)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for method in ("SUBSCRIBE", "PUBLISH"):
        alice.request(method, BOB, "Event: presence")
        assert alice.got_response(489).first("allow-events")
    alice.request("NOTIFY", BOB, "Event: presence")
    alice.got_response(403)
    alice.request("REFER", f"sip:{DOMAIN}", "Refer-To: <sip:x@y>")
    alice.got_response(405)
    assert not bob.inbox


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO", "REFER", "UPDATE", "PRACK", "FOO"])
@pytest.mark.parametrize("status", [200, 486, 603])
def test_y34_every_method_reaches_the_phone_and_its_answer_comes_back(method: str, status: int) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request(method, BOB, authorized=True)
    bob.respond(bob.got_request(method), status)
    alice.got_response(status)
    cluster.turn(70)
    assert not any(len(core._layer) for core in cluster.edges.values())


@pytest.mark.parametrize("method", ["MESSAGE", "INVITE"])
def test_y34_when_no_phone_answers_an_invite_ends_with_408_and_others_in_silence(method: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    alice.request(method, BOB, authorized=True)
    cluster.turn(70)
    statuses = [message.status for message in alice.inbox if isinstance(message, Response)]
    assert {message.method for message in bob.inbox if isinstance(message, Request)} == {method}
    assert set(statuses) == ({100, 408} if method == "INVITE" else {100})
    cluster.turn(70)
    assert not any(len(core._layer) for core in cluster.edges.values())


def test_x14_cancel_gets_200_the_phone_a_cancel_and_the_invite_487() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False)
    alice.got_response(200)
    cancel = bob.got_request("CANCEL")
    assert (cancel.uri, cancel.branch, cancel.cseq.number) == (received.uri, received.branch, 1)
    bob.respond(cancel, 200)
    bob.respond(received, 487)
    refused = alice.got_response(487)
    bob.got_request("ACK")
    alice.ack(refused, BOB, branch)
    assert not alice.inbox
    assert not bob.inbox


def test_e05_a_cancel_and_the_ack_at_another_edge_find_their_invite() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    alice.got_response(200)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)
    refused = alice.got_response(487)
    alice.request("ACK", BOB, to=refused.first("to"), branch=branch, contact=False, edge="edge-3")
    alice.inbox.clear()
    cluster.turn(5)
    assert not alice.inbox


def test_e06_a_cancel_that_overtakes_its_invite_waits_for_it_and_without_one_is_481() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("CANCEL", BOB, branch="z9hG4bK-late", contact=False)
    cluster.turn(0.3)
    assert not alice.inbox
    alice.request("INVITE", BOB, branch="z9hG4bK-late", authorized=True)
    cluster.turn(0.3)
    statuses = [message.status for message in alice.inbox if isinstance(message, Response)]
    assert statuses[:2] == [100, 200]
    bob.respond(bob.got_request("INVITE"), 180)
    bob.got_request("CANCEL")
    alice.inbox.clear()
    alice.request("CANCEL", BOB, branch="z9hG4bK-never", contact=False, call_id="9")
    cluster.turn(0.6)
    alice.got_response(481)


def test_c08_three_phones_ring_one_answers_the_others_are_cancelled_as_completed_elsewhere() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob", f"edge-{n}", transport) for n, transport in ((1, "udp"), (2, "ws"), (3, "tls"))]
    invite(alice)
    received = [phone.got_request("INVITE") for phone in phones]
    assert len({request.branch for request in received}) == 3
    for phone, request in zip(phones, received, strict=True):
        phone.respond(request, 180, tag=f"t{phone.edge}")
        alice.got_response(180)
    phones[1].respond(received[1], 200, tag="tedge-2")
    assert alice.got_response(200).to.tag == "tedge-2"
    for index in (0, 2):
        cancel = phones[index].got_request("CANCEL")
        assert cancel.first("reason") == 'SIP;cause=200;text="Call completed elsewhere"'
        phones[index].respond(cancel, 200)
        phones[index].respond(received[index], 487)
        phones[index].got_request("ACK")
    assert not alice.inbox


def test_x09_y19_a_second_200_passes_too() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    one.respond(first, 200, tag="one")
    two.respond(second, 200, tag="two")
    assert {alice.got_response(200).to.tag, alice.got_response(200).to.tag} == {"one", "two"}


def test_y20_a_6xx_cancels_the_others_and_goes_up_when_all_have_ended() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first, second = one.got_request("INVITE"), two.got_request("INVITE")
    two.respond(second, 180)
    alice.got_response(180)
    one.respond(first, 603)
    assert not alice.inbox
    two.respond(two.got_request("CANCEL"), 200)
    two.respond(second, 487)
    alice.got_response(603)


def test_y16_lower_q_comes_after_the_higher_has_failed() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    desk, mobile = cluster.phone("bob", q=1.0), cluster.phone("bob", "edge-2", "tcp", q=0.5)
    invite(alice)
    assert not mobile.inbox
    desk.respond(desk.got_request("INVITE"), 486)
    desk.got_request("ACK")
    mobile.respond(mobile.got_request("INVITE"), 200)
    alice.got_response(200)


def test_y10_a_phone_that_registers_while_the_others_ring_rings_too() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 180)
    alice.got_response(180)
    late = cluster.phone("bob", "edge-2", "wss")
    cluster.turn(2.1)
    late.respond(late.got_request("INVITE"), 200)
    alice.got_response(200)
    bob.got_request("CANCEL")
    cluster.turn(3)
    assert not late.inbox


def test_y17_timer_c_cancels_what_rings_too_long() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.turn(180)
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.turn(180)
    assert not bob.inbox
    cluster.turn(10)
    bob.respond(bob.got_request("CANCEL"), 200)
    bob.respond(received, 487)
    assert alice.got_response(487)


def test_y36_one_invite_at_two_edges_rings_once() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    branch = invite(alice)
    alice.request("INVITE", BOB, authorized=True, branch=branch, body=OFFER, edge="edge-2")
    bob.got_request("INVITE")
    assert not bob.inbox
    assert cluster.drops["handed-over"] == 1


def test_y35_a_route_token_of_another_call_is_challenged() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    eve = cluster.phone("eve")
    for call_id, from_ in (("call-2", "<sip:eve@x>;tag=e"), ("call-1", "<sip:eve@x>;tag=e")):
        eve.request(
            "INVITE", bob.contact, to="<sip:x@y>;tag=z", from_=from_, call_id=call_id, routes=routes_of_caller(ok)
        )
        assert eve.got_response(403).status == 403
    eve.request(
        "INVITE",
        BOB,
        to="<sip:x@y>;tag=z",
        from_=f"<sip:eve@{DOMAIN}>;tag=e",
        routes=routes_of_caller(ok),
        call_id="c3",
    )
    eve.got_response(407)


def test_n05_a_route_with_a_changed_token_is_403() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", BOB, routes=["<sip:abcdefgh234567@192.0.2.1;lr>"], authorized=True)
    alice.got_response(403)


def test_n06_a_flow_that_is_gone_is_480_or_the_next_binding() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    del cluster.phones[bob.flow]
    invite(alice)
    alice.got_response(480)
    other = cluster.phone("bob", "edge-1", "ws")
    invite(alice, call_id="2")
    other.respond(other.got_request("INVITE"), 200)
    alice.got_response(200)


@pytest.mark.parametrize(("transport", "seconds"), [("tcp", 0.0), ("udp", 6.0)])
def test_n12_a_dead_owner_costs_480_at_once_on_connections_and_4_s_on_udp(transport: str, seconds: float) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", transport)
    cluster.kill("edge-2")
    invite(alice)
    if seconds:
        assert bob.got_request("INVITE")  # sent to the stored source, from another address of ours
        cluster.turn(seconds)
    alice.got_response(480)


def test_y38_the_edge_dies_while_it_rings_an_answer_reaches_the_caller() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.kill("edge-1")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    assert len(ok.vias) == 1
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), edge="edge-3")
    bob.got_request("ACK")


def test_y38_a_cancel_after_the_edge_died_ends_the_call_at_the_caller() -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    branch = invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    alice.got_response(180)
    cluster.kill("edge-1")
    alice.request("CANCEL", BOB, branch=branch, contact=False, edge="edge-3")
    cluster.turn(0.6)
    alice.got_response(200)
    refused = alice.got_response(487)
    assert refused.cseq == (1, "INVITE")
    cancel = bob.got_request("CANCEL")
    assert cancel.branch == received.branch


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


def test_y28_redirect_mode_is_302_with_contacts() -> None:
    cluster = Cluster(redirects=lambda domain: True)
    alice, bob = cluster.phone("alice"), cluster.phone("bob", q=0.5)
    invite(alice)
    moved = alice.got_response(302)
    assert contact(moved) == bob.contact
    assert moved.contacts[0].get("q") == "0.5"
    assert moved.contacts[0].get("expires") == "300"
    assert moved.first("record-route") is None


def test_e12_with_the_log_away_a_caller_on_his_bindings_flow_calls_others_get_503() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    stranger = cluster.phone("carol", register=False)
    for core in cluster.edges.values():
        core.log_away = True
    invite(alice)
    bob.got_request("INVITE")
    stranger.request("INVITE", BOB, authorized=True, call_id="2")
    stranger.got_response(100)
    stranger.got_response(503)
    assert not bob.inbox


def test_e13_with_mysql_away_the_last_known_bindings_route_and_unknown_aors_get_503() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    cluster.away = True
    invite(alice)
    bob.got_request("INVITE")
    invite(alice, f"sip:carol@{DOMAIN}", call_id="2")
    alice.got_response(503)


def test_x17_abandoned_invites_leave_nothing() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tcp"), cluster.phone("bob", "edge-2", "tcp")
    for number in range(200):
        invite(alice, call_id=str(number))
    for request in list(bob.inbox):
        assert isinstance(request, Request)
        bob.respond(request, 180)
    cluster.turn(185 + 70)
    for core in cluster.edges.values():
        assert not len(core._layer)
        assert not core.proxy.ringing
        assert not len(core.calls.asked)
        assert not len(core.calls.destinations)


def test_s04_above_max_calls_new_ones_get_503_statelessly() -> None:
    cluster = Cluster(max_calls=1)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    alice.request("INVITE", BOB, authorized=True, call_id="2")
    assert alice.got_response(503).first("retry-after")
    assert len(bob.inbox) == 1


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
    cluster = Cluster(number=aors(rules_of(domains), domains))
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


def test_calls_need_no_credentials_where_the_domain_does_not_ask_for_them_but_lead_nowhere_else() -> None:
    cluster = Cluster(challenge_calls=False)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB)
    alice.got_response(100)
    bob.got_request("INVITE")
    alice.request("INVITE", "sip:x@elsewhere.test", call_id="2")
    alice.got_response(407)


def trunk(cluster: Cluster) -> Phone:
    """A gateway that takes every number, at every edge."""
    config = GatewaysConfig({"pstn": Gateway("sip:198.51.100.99", ("",), prepend="55", probe_seconds=30)})
    gateway = Phone(cluster, "pstn", "edge-1")
    for core in cluster.edges.values():
        core.probes.gateways = core.calls.destinations.gateways = Gateways(config)
    hop = NextHop("udp", gateway.flow.remote_host, 5062)
    cluster.hops.update({"sip:198.51.100.99": [hop], "sip:5533812800@198.51.100.99": [hop]})
    return gateway


def test_s10_a_number_of_nobody_goes_by_a_gateway_for_our_users_alone() -> None:
    cluster = Cluster("edge-1", foreign_callers=True)
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
    cluster = Cluster("edge-1")
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
