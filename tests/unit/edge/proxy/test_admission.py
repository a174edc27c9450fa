"""Who may send a request through us: challenges, credentials, whose name is used (RFC 3261 section 22.3)."""

from sipcore.grammar import parse_params
from sipcore.message import Response
from tests.kit.calls import DOMAIN, Cluster, authorization
from tests.kit.dialogs import BOB, OFFER, answered, invite, routes_of_caller, statuses


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


def test_a16_the_nonce_of_one_challenge_serves_for_further_calls_without_another() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB)
    challenge = alice.got_response(407).first("proxy-authenticate") or ""
    given = dict(parse_params(f";{challenge.partition(' ')[2].replace(', ', ';')}"))["nonce"]
    for count in range(1, 4):
        row = authorization("alice", "INVITE", BOB, given_nonce=given, nc=count)
        alice.request("INVITE", BOB, row, call_id=str(count), edge=cluster.names[count % 2])
        assert statuses(alice) == [100]
        alice.inbox.clear()
        bob.got_request("INVITE")


def test_a_caller_with_a_wrong_password_reaches_nobody() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB, authorized=True, from_=f"<sip:carol@{DOMAIN}>;tag=1")
    assert [m.status for m in alice.inbox if isinstance(m, Response)] == [100, 403]
    assert not bob.inbox


def test_calls_need_no_credentials_where_the_domain_does_not_ask_for_them_but_lead_nowhere_else() -> None:
    cluster = Cluster(challenge_calls=False)
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request("INVITE", BOB)
    alice.got_response(100)
    bob.got_request("INVITE")
    alice.request("INVITE", "sip:x@elsewhere.test", call_id="2")
    alice.got_response(407)


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


def test_n14_who_gets_a_phones_nat_address_and_port_after_it_calls_in_his_own_name() -> None:
    cluster = Cluster()
    cluster.phone("alice")
    bob, carol = cluster.phone("bob"), cluster.phone("carol", "edge-2")
    eve = cluster.phone("eve", register=False)
    eve.flow = bob.flow
    eve.cluster.phones[bob.flow] = eve
    eve.request("INVITE", f"sip:carol@{DOMAIN}", from_=f"<sip:bob@{DOMAIN}>;tag=b", body=OFFER)
    eve.got_response(407)
    eve.request("INVITE", f"sip:carol@{DOMAIN}", from_=f"<sip:bob@{DOMAIN}>;tag=b", authorized=True, cseq=2)
    eve.got_response(100)
    eve.got_response(403)
    assert not carol.inbox
    invite(eve, f"sip:carol@{DOMAIN}", call_id="call-2")
    assert carol.got_request("INVITE").first("p-asserted-identity") == f"<sip:eve@{DOMAIN}>"


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


def test_e12_a_binding_of_an_earlier_life_lets_nobody_call() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", transport="tcp"), cluster.phone("bob")
    core = cluster.edges["edge-1"]
    core.log_away = True
    core._answers.boot = "later"
    invite(alice)
    alice.got_response(503)
    assert not bob.inbox


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
