"""Faults that a review of the call path found, each as the rule that it broke."""

import pytest

from edge.core.actions import Located, NextHop
from edge.core.gateways.routes import Gateway, Gateways, GatewaysConfig
from edge.core.tokens.record_route import DialogTokens
from sipcore.message import Request, Response
from tests.kit.calls import DOMAIN, KEYS, Cluster, Phone, authorization

BOB = f"sip:bob@{DOMAIN}"


def invite(caller: Phone, uri: str = BOB, *rows: str, **more: object) -> str:
    """An INVITE with credentials; its 100 is taken off."""
    branch = caller.request("INVITE", uri, *rows, authorized=True, body="v=0\r\n", **more)  # type: ignore[arg-type]
    caller.got_response(100)
    return branch


def established(caller: Phone, callee: Phone) -> tuple[Request, Response]:
    """A call: the INVITE as the callee has it, and the 200 as the caller has it."""
    invite(caller)
    received = callee.got_request("INVITE")
    callee.respond(received, 200)
    return received, caller.got_response(200)


def routes(response: Response) -> list[str]:
    return list(reversed(response.values("record-route")))


def statuses(phone: Phone) -> list[int]:
    return [message.status for message in phone.inbox if isinstance(message, Response)]


def by_gateway(cluster: Cluster, **more: object) -> None:
    gateway = Gateway("sip:203.0.113.9:5060", ("",), **more)  # type: ignore[arg-type]
    for core in cluster.edges.values():
        core.calls.destinations.gateways = Gateways(GatewaysConfig({"pstn": gateway}))


# --- what came and could not be ---------------------------------------------------------------------------------------


def test_x17_credentials_that_no_record_can_hold_are_400_and_leave_no_transaction() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    row = authorization("alice", "INVITE", BOB).replace('cnonce="c"', 'cnonce="\xff"')
    text = (
        f"INVITE {BOB} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKx;rport\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@{DOMAIN}>;tag=1\r\nTo: <{BOB}>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{row}\r\n\r\n"
    )
    alice.send(text.encode("latin-1"))
    assert statuses(alice) == [400]
    assert not len(cluster.edges["edge-1"]._layer)


@pytest.mark.parametrize("hops", ["00", "000"])
def test_y02_max_forwards_of_several_zeros_is_0(hops: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, f"Max-Forwards: {hops}", max_forwards=None, authorized=True)
    alice.got_response(483)
    assert not bob.inbox


def test_a_user_part_longer_than_any_token_is_not_remembered() -> None:
    dialogs = DialogTokens(KEYS)
    assert not dialogs.is_ours("a" * 5000)
    assert not dialogs._opened.cache_info().currsize


# --- who may ----------------------------------------------------------------------------------------------------------


def test_credentials_for_another_request_uri_are_400() -> None:
    # RFC 2617 section 3.2.2.5: else who reads one INVITE may call anybody with it.
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for number, uri in enumerate((f"sip:carol@{DOMAIN}", "sip:bob@elsewhere.test", "tel:+4711")):
        alice.request("INVITE", BOB, authorization("alice", "INVITE", uri), call_id=str(number))
        assert alice.got_response(400).status == 400
    alice.request("INVITE", "sip:x@elsewhere.test", authorization("alice", "INVITE", BOB), call_id="4")
    alice.got_response(400)
    assert not bob.inbox
    # Phones behind a balancer may name the address they send to, or no user.
    alice.request("INVITE", BOB, authorization("alice", "INVITE", "sip:bob@192.0.2.77;transport=udp"), call_id="5")
    alice.got_response(100)


@pytest.mark.parametrize(
    "uri", ["sip:+4711@203.0.113.9", "sip:+4711@gw.example.org", "sip:+4711@x.org;maddr=203.0.113.9"]
)
def test_s10_a_gateway_is_not_reached_by_its_address(uri: str) -> None:
    cluster = Cluster()
    by_gateway(cluster, domains=("other.test",))
    cluster.hops[uri] = [NextHop("udp", "203.0.113.9", 5060, "x")]
    alice = cluster.phone("alice")
    invite(alice, uri)
    alice.got_response(403)
    assert not cluster.lost


@pytest.mark.parametrize("host", ["[::ffff:203.0.113.9]", "[64:ff9b::cb00:7109]"])
def test_s10_a_gateway_is_not_reached_by_another_spelling_of_its_address(host: str) -> None:
    cluster = Cluster()
    by_gateway(cluster, domains=("other.test",))
    uri = f"sip:+4711@{host}"
    cluster.hops[uri] = [NextHop("tcp", host.strip("[]"), 5060, "x")]
    alice = cluster.phone("alice")
    invite(alice, uri)
    alice.got_response(403)
    assert not cluster.lost


@pytest.mark.parametrize("seconds", [30.0, 0.0])
def test_s10_the_addresses_of_a_gateways_name_are_known_before_anybody_calls_by_it(seconds: float) -> None:
    cluster = Cluster("edge-1")
    gateways = Gateways(GatewaysConfig({"pstn": Gateway("sip:gw.example.org", ("",), probe_seconds=seconds)}))
    core = cluster.edges["edge-1"]
    core.calls.destinations.gateways = core.probes.gateways = gateways
    cluster.hops["sip:gw.example.org"] = [NextHop("udp", "203.0.113.9", 5060, "gw.example.org")]
    alice = cluster.phone("alice")
    cluster.turn(2)
    assert len(cluster.lost) == (1 if seconds else 0)  # the OPTIONS
    cluster.lost.clear()
    invite(alice, "sip:+4711@203.0.113.9")
    alice.got_response(403)
    assert not cluster.lost


def test_s10_a_gateway_is_reached_by_a_number_of_a_domain_that_may() -> None:
    cluster = Cluster()
    by_gateway(cluster, domains=(DOMAIN,))
    cluster.hops["sip:+4711@203.0.113.9:5060"] = [NextHop("udp", "203.0.113.9", 5060, "203.0.113.9")]
    alice = cluster.phone("alice")
    alice.request("INVITE", f"sip:+4711@{DOMAIN}", authorized=True)
    assert any(send.flow.remote_host == "203.0.113.9" for send in cluster.lost)


def test_a12_the_ack_of_a_2xx_takes_no_credentials_along() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    _, ok = established(alice, bob)
    alice.request(
        "ACK", bob.contact, "P-Asserted-Identity: <sip:boss@x>", to=ok.first("to"), routes=routes(ok), authorized=True
    )
    ack = bob.got_request("ACK")
    assert ack.first("proxy-authorization") is None
    assert ack.first("p-asserted-identity") is None


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


@pytest.mark.parametrize("privacy", ["header; id", "id ;critical", "ID", "user,id"])
def test_a29_privacy_id_is_understood_however_it_is_spelled(privacy: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB, f"Privacy: {privacy}")
    assert bob.got_request("INVITE").first("p-asserted-identity") is None


# --- sips -------------------------------------------------------------------------------------------------------------


def test_t18_a_sips_call_to_a_number_does_not_go_to_a_gateway_in_clear() -> None:
    cluster = Cluster()
    by_gateway(cluster)
    cluster.hops["sip:+4711@203.0.113.9:5060"] = [NextHop("udp", "203.0.113.9", 5060, "203.0.113.9")]
    alice = cluster.phone("alice", transport="tls")
    invite(alice, f"sips:+4711@{DOMAIN}")
    alice.got_response(480)
    assert not cluster.lost


# --- forks ------------------------------------------------------------------------------------------------------------


def test_y16_a_binding_of_lower_q_does_not_join_while_the_higher_rings() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    desk, mobile = cluster.phone("bob", q=1.0), cluster.phone("bob", "edge-2", "tcp", q=0.5)
    invite(alice)
    received = desk.got_request("INVITE")
    desk.respond(received, 180)
    cluster.turn(3)
    late = cluster.phone("bob", "edge-1", "tcp", q=0.2)
    cluster.turn(3)
    assert not mobile.inbox
    assert not late.inbox
    desk.respond(received, 486)
    mobile.respond(mobile.got_request("INVITE"), 486)
    late.got_request("INVITE")


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


# --- loops ------------------------------------------------------------------------------------------------------------


def test_y03_a_request_that_a_gateway_sends_back_unchanged_is_482() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice)
    received = bob.got_request("INVITE")
    vias = "\r\n".join(f"Via: {row.value}" for row in received.rows if row.name == "via")
    back = (
        f"INVITE {BOB} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.2:5062;branch=z9hG4bKback\r\n{vias}\r\n"
        f"Max-Forwards: 60\r\nFrom: {received.first('from')}\r\nTo: {received.first('to')}\r\n"
        f"Call-ID: {received.call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    bob.send(back.encode())
    bob.got_response(482)
    bob.send(back.replace(BOB, f"sip:carol@{DOMAIN}").replace("z9hG4bKback", "z9hG4bKspiral").encode())
    bob.got_response(403) if bob.inbox and statuses(bob) == [403] else bob.got_response(407)


def test_a_user_at_an_address_of_ours_that_is_no_domain_is_404() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    alice.request("INVITE", "sip:bob@192.0.2.1", authorized=True)
    alice.got_response(100)
    alice.got_response(404)


# --- what never comes -------------------------------------------------------------------------------------------------


def test_y34_a_look_up_that_is_never_answered_ends_with_503() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    core = cluster.edges["edge-1"]
    core.located = lambda *_: None  # type: ignore[assignment,method-assign]
    invite(alice)
    cluster.turn(10)
    alice.got_response(503)
    assert not len(core.calls.destinations)


def test_y34_a_uri_that_is_never_resolved_ends_with_503() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    core = cluster.edges["edge-1"]
    core.resolved = lambda *_: None  # type: ignore[assignment,method-assign]
    invite(alice, "sip:x@elsewhere.test")
    cluster.turn(10)
    alice.got_response(503)
    assert not len(core.calls.destinations)


def test_y34_an_anonymous_caller_of_another_domain_who_dials_a_number_gets_an_answer() -> None:
    plan = {"other.test"}
    cluster = Cluster(
        algorithms={DOMAIN: ("MD5",), "other.test": ("MD5",)},
        number=lambda number, domain: f"2800@{domain}" if domain in plan else None,
    )
    alice = cluster.phone("alice")
    answer = cluster.authsvc

    def elsewhere(edge: str, command: object) -> object:
        reply = answer(edge, command)  # type: ignore[arg-type]
        return type(reply)(reply.id, edge, "b00t", "alice@other.test") if hasattr(reply, "first") else reply

    cluster.log = elsewhere  # type: ignore[assignment]
    invite(alice, "tel:2800;phone-context=other.test", from_="<sip:anonymous@anonymous.invalid>;tag=1")
    alice.got_response(404)


def test_s04_within_a_dialog_there_is_a_limit_too() -> None:
    cluster = Cluster(max_calls=5)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    _, ok = established(alice, bob)
    for number in range(2, 30):
        alice.request("INFO", bob.contact, to=ok.first("to"), routes=routes(ok), cseq=number)
    assert 503 in statuses(alice)
    assert cluster.edges["edge-1"]._layer.pending <= 10


def test_s04_answered_transactions_have_a_limit() -> None:
    cluster = Cluster(max_completed=5, max_calls=5)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    for number in range(30):
        alice.request("MESSAGE", BOB, authorized=True, call_id=str(number))
        if bob.inbox:
            bob.respond(bob.got_request("MESSAGE"), 200)
    assert 503 in statuses(alice)
    assert cluster.edges["edge-1"]._layer.servers <= 10


def test_a_non_invite_is_not_tried_elsewhere_after_its_client_has_given_up() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = Phone(cluster, "x", "edge-1"), Phone(cluster, "x", "edge-1")
    cluster.hops["sip:x@elsewhere.test"] = [
        NextHop("udp", phone.flow.remote_host, 5062, "elsewhere.test") for phone in (one, two)
    ]
    alice.request("MESSAGE", "sip:x@elsewhere.test", authorized=True)
    cluster.turn(40)
    assert one.inbox
    assert not two.inbox


# --- edges that die ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "lease ended"])
def test_n12_when_the_owner_dies_before_it_rings_a_phone_on_udp_is_tried_at_its_source(how: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    first = bob.got_request("INVITE")
    del cluster.edges["edge-2"]
    core = cluster.edges["edge-1"]
    if how == "lost":
        core.edge_lost("edge-2", "b00t", cluster.now)
    else:
        core.edges([], cluster.now)
    cluster.pump()
    again = bob.got_request("INVITE")
    assert again.branch != first.branch
    assert again.via.host == "192.0.2.1"
    bob.respond(again, 200, edge="edge-1")
    alice.got_response(200)


def test_n12_the_end_of_a_lease_ends_what_waits_for_its_connections() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    bob.got_request("INVITE")
    del cluster.edges["edge-2"]
    cluster.edges["edge-1"].edges([], cluster.now)
    cluster.pump()
    alice.got_response(480)


def test_a_phone_without_its_owner_that_says_100_may_ring_as_long_as_any() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    cluster.kill("edge-2")
    invite(alice)
    received = bob.got_request("INVITE")
    bob.respond(received, 100, edge="edge-1")
    cluster.turn(20)
    assert not bob.inbox
    assert not alice.inbox


def test_the_ack_of_a_2xx_reaches_a_phone_on_udp_whose_owner_died() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    _, ok = established(alice, bob)
    cluster.kill("edge-2")
    alice.request("ACK", bob.contact, to=ok.first("to"), routes=routes(ok))
    bob.got_request("ACK")


def test_n07_an_ack_by_a_connection_of_an_earlier_life_goes_nowhere() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-1", "tcp")
    _, ok = established(alice, bob)
    core = cluster.edges["edge-1"]
    core.proxy.forwarding._boot = core._boot = "later"
    alice.request("ACK", bob.contact, to=ok.first("to"), routes=routes(ok))
    assert not bob.inbox


@pytest.mark.parametrize("host", ["phone.example.org", "127.0.0.1"])
def test_x10_s10_an_orphaned_2xx_goes_to_no_name_and_to_no_denied_address(host: str) -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    for core in cluster.edges.values():
        core.proxy.refuses = lambda address: address == "127.0.0.1"
    invite(alice)
    received = bob.got_request("INVITE")
    cluster.kill("edge-1")
    mine = next(row.value for row in received.rows if row.name == "via")
    answer = (
        f"SIP/2.0 200 OK\r\nVia: {mine}\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bKv\r\n"
        f"From: {received.first('from')}\r\n"
        f"To: <{BOB}>;tag=b\r\nCall-ID: {received.call_id}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    )
    bob.send(answer.encode())
    assert not cluster.lost
    assert not alice.inbox


def test_y38_cancels_of_strangers_cost_no_search_of_what_was_carried() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    invite(alice)
    bob.got_request("INVITE")
    cancels = cluster.edges["edge-2"].calls.cancels
    cancels.edge_died(("edge-9", "x"), cluster.now)
    cluster.turn(300)
    alice.inbox.clear()
    eve = cluster.phone("eve")
    eve.request("CANCEL", BOB, call_id="never")
    assert not cancels._dead


# --- within a dialog --------------------------------------------------------------------------------------------------


def test_t06_t15_a_request_within_a_dialog_to_a_far_proxy_has_our_address_in_via_and_goes_by_tcp_if_large() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    far = Phone(cluster, "x", "edge-1")
    uri = "sip:x@elsewhere.test"
    cluster.hops[uri] = [NextHop("udp", far.flow.remote_host, 5062, "elsewhere.test")]
    invite(alice, uri)
    far.respond(far.got_request("INVITE"), 200)
    ok = alice.got_response(200)
    alice.request("INFO", far.contact, to=ok.first("to"), routes=routes(ok), cseq=2)
    assert far.got_request("INFO").via.host == "192.0.2.1"
    alice.request("INFO", far.contact, to=ok.first("to"), routes=routes(ok), cseq=3, body="x" * 1400)
    assert any(send.flow.transport == "tcp" for send in cluster.lost)


@pytest.mark.parametrize(("transport", "port"), [("tcp", 5060), ("udp", 5070)])
def test_a_bye_to_a_peer_that_called_goes_where_it_says_not_to_the_port_it_called_from(
    transport: str, port: int
) -> None:
    cluster = Cluster("edge-1", is_peer=lambda host: host == "198.51.100.2")
    bob = cluster.phone("bob")
    trunk = Phone(cluster, "trunk", "edge-1", transport)
    contact = f"sip:trunk@198.51.100.2:{port};transport={transport}"
    trunk.request("INVITE", BOB, f"Contact: <{contact}>", from_="<sip:123@x>;tag=t", contact=False)
    trunk.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 200)
    ok = trunk.got_response(200)
    del cluster.phones[trunk.flow]
    way = received.values("record-route")
    bob.request("BYE", contact, to=ok.first("from"), from_=ok.first("to"), routes=way)
    (bye,) = cluster.lost
    assert bye.data.startswith(b"BYE ")
    assert (bye.flow.transport, bye.flow.connection, bye.port) == (transport, 0, port)


def test_a_bye_to_a_phone_without_nat_that_hears_at_another_port_goes_there() -> None:
    cluster = Cluster("edge-1")
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    text = (
        f"INVITE {BOB} SIP/2.0\r\nVia: SIP/2.0/UDP {alice.flow.remote_host}:5062;branch=z9hG4bKx\r\n"
        f"From: <sip:alice@{DOMAIN}>;tag=1\r\nTo: <{BOB}>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:alice@{alice.flow.remote_host}:6000>\r\n{authorization('alice', 'INVITE', BOB)}\r\n\r\n"
    )
    alice.send(text.encode())
    alice.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 200)
    ok = alice.got_response(200)
    way = received.values("record-route")
    uri = received.contacts[0].uri
    del cluster.phones[alice.flow]
    bob.request("BYE", uri, to=ok.first("from"), from_=ok.first("to"), routes=way, call_id="1")
    (bye,) = cluster.lost
    assert (bye.flow.remote_port, bye.port) == (6000, 6000)


def test_t15_a_next_hop_of_the_other_family_is_reached_from_an_address_of_that_family() -> None:
    cluster = Cluster("edge-1")
    core = cluster.edges["edge-1"]
    core.proxy.forwarding.addresses = {**core.proxy.forwarding.addresses, ("udp", True): ("2001:db8::1", 5060)}
    alice = cluster.phone("alice")
    uri = "sip:x@six.example"
    cluster.hops[uri] = [NextHop("udp", "2001:db8::9", 5060, "six.example")]
    invite(alice, uri)
    (sent,) = cluster.lost
    assert sent.flow.local_host == "2001:db8::1"
    assert b"Via: SIP/2.0/UDP [2001:db8::1]:5060" in sent.data
    assert b"@[2001:db8::1]:5060;lr;r2=on>" in sent.data


def test_e12_a_binding_of_an_earlier_life_lets_nobody_call() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tcp"), cluster.phone("bob")
    core = cluster.edges["edge-1"]
    core.log_away = True
    core._answers.boot = "later"
    invite(alice)
    alice.got_response(503)
    assert not bob.inbox


def test_y34_one_answer_that_breaks_costs_the_others_nothing() -> None:
    found = Located("x")
    assert not found.targets
