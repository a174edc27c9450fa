"""The call flows of RFC 3665 section 3 that go through proxies: on each link exactly the messages of the figure.

3.1 has no proxy. Ours stay on the way of every dialog, so in 3.5, 3.6 and 3.7 the requests within it pass them too.
Every INVITE that may go on gets a 100, in 3.6 too; in 3.10 RFC 3261 section 16.8 wants 408 of Timer B, where the
figure says 480. Lines are those of `trace_kit`.

Over 400 lines: the checklist of flows by its numbers, on one edge.
"""

import msgspec

from sipcore.message import Message, Request, Response
from tests.kit.calls import DOMAIN, Cluster
from tests.kit.traces import BILOXI, BOB, Proxy, Trace, Trapezoid, User

SDP = "Content-Type: application/sdp"
ESTABLISHED = """
    alice > P1 INVITE 1
    P1 > P2 INVITE 2
    P1 > alice 100 INVITE 1
    P2 > bob INVITE 3
    P2 > P1 100 INVITE 2
    bob > P2 180 INVITE 3
    P2 > P1 180 INVITE 2
    P1 > alice 180 INVITE 1
    bob > P2 200 INVITE 3
    P2 > P1 200 INVITE 2
    P1 > alice 200 INVITE 1
    alice > P1 ACK 1
    P1 > P2 ACK 2
    P2 > bob ACK 3
"""
BYE_OF_BOB = """
    bob > P2 BYE 1
    P2 > P1 BYE 2
    P1 > alice BYE 3
    alice > P1 200 BYE 3
    P1 > P2 200 BYE 2
    P2 > bob 200 BYE 1
"""
ESTABLISHED_BY_ONE = """
    alice > P2 INVITE 1
    P2 > bob INVITE 2
    P2 > alice 100 INVITE 1
    bob > P2 180 INVITE 2
    P2 > alice 180 INVITE 1
    bob > P2 200 INVITE 2
    P2 > alice 200 INVITE 1
    alice > P2 ACK 1
    P2 > bob ACK 2
"""
BYE_BY_ONE = """
    bob > P2 BYE 1
    P2 > alice BYE 2
    alice > P2 200 BYE 2
    P2 > bob 200 BYE 1
"""


def contact(message: Message) -> str:
    return message.contacts[0].uri


def routes(ok: Response) -> list[str]:
    """The caller's route set."""
    return ok.values("record-route")[::-1]


def challenged(alice: User, uri: str = BOB) -> None:
    """An INVITE without credentials, its 407, and the ACK of that."""
    branch = alice.request("INVITE", uri)
    refused = alice.got_response(407)
    assert refused.cseq == (1, "INVITE")
    alice.ack(refused, uri, branch)


def answered(alice: User, bob: User, body: str = "v=0\r\n", ack: str = "") -> tuple[Request, Response]:
    """Rings, answers and acknowledges: the INVITE as bob has it, the 200 as alice has it."""
    alice.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 180)
    assert alice.got_response(180).to.tag
    bob.respond(received, 200, "OK", SDP, body=body)
    ok = alice.got_response(200)
    rows = (SDP,) if ack else ()
    number = ok.cseq.number
    alice.request("ACK", contact(ok), *rows, to=ok.first("to"), routes=routes(ok), cseq=number, body=ack, contact=False)
    acknowledged = bob.got_request("ACK")
    assert (acknowledged.uri, acknowledged.cseq, acknowledged.body) == (contact(ok), (number, "ACK"), ack.encode())
    assert acknowledged.branch != received.branch
    return received, ok


def bob_hangs_up(alice: User, bob: User, received: Request, ok: Response) -> None:
    rows = received.values("record-route")
    bob.request("BYE", contact(received), from_=ok.first("to"), to=ok.first("from"), routes=rows, contact=False)
    bye = alice.got_request("BYE")
    assert (bye.uri, bye.cseq, bye.values("route")) == (alice.contact, (1, "BYE"), [])
    alice.respond(bye, 200)
    bob.got_response(200)


def over(*clusters: Cluster) -> None:
    """Nothing was sent that no figure shows, and after all timers nothing is left."""
    for cluster in clusters:
        if isinstance(cluster, Proxy):
            cluster.trace.lines.clear()
        cluster.turn(70)
        assert not cluster.lost
        assert not any(phone.inbox for phone in cluster.phones.values())
        if isinstance(cluster, Proxy):
            assert not cluster.trace.lines
        assert not any(len(core._layer) for core in cluster.edges.values())


def test_rfc3665_3_2_session_establishment_through_two_proxies() -> None:
    t = Trapezoid()
    challenged(t.alice)
    t.trace.is_the_figure("""
        alice > P1 INVITE 1
        P1 > alice 407 INVITE 1
        alice > P1 ACK 1
    """)
    t.alice.request("INVITE", BOB, SDP, authorized=True, cseq=2, body="v=0\r\n")
    received, ok = answered(t.alice, t.bob)
    assert received.cseq == (2, "INVITE")
    t.trace.is_the_figure(ESTABLISHED)
    bob_hangs_up(t.alice, t.bob, received, ok)
    t.trace.is_the_figure(BYE_OF_BOB)
    over(t.p1, t.p2)


def test_rfc3665_3_3_session_with_multiple_proxy_authentication() -> None:
    """P1 is ours; P2, which challenges a user of another domain, is played."""
    t = Trapezoid()
    p2, alice = t.p1.joined.pop()[0], t.alice
    challenged(alice)
    branch = alice.request("INVITE", BOB, authorized=True, cseq=2)
    alice.got_response(100)
    first = p2.got_request("INVITE")
    assert first.first("proxy-authorization") is None
    challenge = f'Digest realm="{BILOXI}", nonce="f84f1cec41e6cbe5aea9c8e88d359", algorithm=MD5'
    p2.respond(first, 407, "Proxy Authorization Required", f"Proxy-Authenticate: {challenge}")
    ack = p2.got_request("ACK")
    assert (ack.branch, ack.uri, ack.cseq) == (first.branch, first.uri, (2, "ACK"))
    refused = alice.got_response(407)
    assert refused.values("proxy-authenticate") == [challenge]
    alice.ack(refused, BOB, branch, cseq=2)
    assert not p2.inbox
    theirs = f'Digest username="alice", realm="{BILOXI}", nonce="f84f1cec41e6cbe5aea9c8e88d359", response="0"'
    alice.request("INVITE", BOB, f"Proxy-Authorization: {theirs}", authorized=True, cseq=3)
    alice.got_response(100)
    second = p2.got_request("INVITE")
    assert second.values("proxy-authorization") == [theirs]
    assert second.branch != first.branch
    p2.respond(second, 100)
    p2.respond(second, 200)
    ok = alice.got_response(200)
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes(ok), cseq=3, contact=False)
    assert p2.got_request("ACK").cseq == (3, "ACK")
    t.trace.is_the_figure("""
        alice > P1 INVITE 1
        P1 > alice 407 INVITE 1
        alice > P1 ACK 1
        alice > P1 INVITE 1
        P1 > alice 100 INVITE 1
        P1 > P2 INVITE 2
        P2 > P1 407 INVITE 2
        P1 > P2 ACK 1
        P1 > alice 407 INVITE 1
        alice > P1 ACK 1
        alice > P1 INVITE 1
        P1 > alice 100 INVITE 1
        P1 > P2 INVITE 2
        P2 > P1 100 INVITE 2
        P2 > P1 200 INVITE 2
        P1 > alice 200 INVITE 1
        alice > P1 ACK 1
        P1 > P2 ACK 2
    """)
    over(t.p1)


def test_rfc3665_3_4_successful_session_with_proxy_failure() -> None:
    """The first edge takes nothing any more; alice goes to the second, which has bob's flow."""
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2")
    cluster.kill("edge-1")
    uri = f"sip:bob@{DOMAIN}"
    branch = alice.request("INVITE", uri, edge="edge-2")
    refused = alice.got_response(407)
    alice.request("ACK", uri, to=refused.first("to"), branch=branch, contact=False, edge="edge-2")
    alice.request("INVITE", uri, SDP, authorized=True, cseq=2, body="v=0\r\n", edge="edge-2")
    alice.got_response(100)
    received = bob.got_request("INVITE")
    assert len(received.vias) == 2
    bob.respond(received, 180)
    alice.got_response(180)
    bob.respond(received, 200)
    ok = alice.got_response(200)
    assert len(ok.vias) == 1
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes(ok), cseq=2, edge="edge-2")
    bob.got_request("ACK")
    bob.request("BYE", alice.contact, from_=ok.first("to"), to=ok.first("from"), routes=received.values("record-route"))
    bye = alice.got_request("BYE")
    assert len(bye.vias) == 2
    alice.respond(bye, 200, edge="edge-2")
    bob.got_response(200)
    over(cluster)


def test_rfc3665_3_5_session_through_a_sip_alg() -> None:
    """P1 with rtpengine is the ALG: each SDP that passes it has been rewritten, and nothing else."""
    t = Trapezoid(media=lambda domain: "relay")
    t.alice.request("INVITE", BOB, SDP, authorized=True, body="alice")
    t.alice.got_response(100)
    received = t.bob.got_request("INVITE")
    assert received.body == b"offer alice"
    t.bob.respond(received, 180)
    t.alice.got_response(180)
    t.bob.respond(received, 200, "OK", SDP, body="bob")
    ok = t.alice.got_response(200)
    assert ok.body == b"answer bob"
    t.alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes(ok), contact=False)
    t.bob.got_request("ACK")
    t.trace.is_the_figure(ESTABLISHED)
    t.alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes(ok), cseq=2, contact=False)
    t.bob.respond(t.bob.got_request("BYE"), 200)
    t.alice.got_response(200)
    t.trace.is_the_figure("""
        alice > P1 BYE 1
        P1 > P2 BYE 2
        P2 > bob BYE 3
        bob > P2 200 BYE 3
        P2 > P1 200 BYE 2
        P1 > alice 200 BYE 1
    """)
    assert [command["command"] for command in t.p1.media] == ["offer", "answer", "delete"]
    assert not t.p2.media
    over(t.p1, t.p2)


def one_proxy() -> tuple[Proxy, User, User]:
    """P2 alone, alice beside it who is not its user, and bob."""
    p2 = Proxy("P2", Trace(), BILOXI, "203.0.113", 7, foreign_callers=True)
    return p2, User(p2, "alice"), p2.user("bob")


def test_rfc3665_3_6_session_via_redirect_and_proxy_servers_with_sdp_in_ack() -> None:
    trace = Trace()
    redirect = Proxy("R", trace, DOMAIN, "192.0.2", 0, redirects=lambda domain: True, challenge_calls=False)
    caller = redirect.user("alice")
    redirect.register(User(redirect, "bob"), f"bob@{DOMAIN}")
    (binding,) = redirect.bindings[f"bob@{DOMAIN}"]
    redirect.bindings[f"bob@{DOMAIN}"] = [msgspec.structs.replace(binding, contact=BOB)]
    branch = caller.request("INVITE", f"sip:bob@{DOMAIN}")
    caller.got_response(100)
    found = caller.got_response(302)
    assert contact(found) == BOB
    assert found.values("record-route") == []
    caller.ack(found, f"sip:bob@{DOMAIN}", branch)
    trace.is_the_figure("""
        alice > R INVITE 1
        R > alice 100 INVITE 1
        R > alice 302 INVITE 1
        alice > R ACK 1
    """)
    over(redirect)

    p2, alice, bob = one_proxy()
    alice.request("INVITE", contact(found), cseq=2)
    received, ok = answered(alice, bob, body="offer", ack="answer")
    assert (received.body, ok.body) == (b"", b"offer")
    p2.trace.is_the_figure(ESTABLISHED_BY_ONE)
    bob_hangs_up(alice, bob, received, ok)
    p2.trace.is_the_figure(BYE_BY_ONE)
    over(p2)


def test_rfc3665_3_7_session_with_reinvite_of_a_callee_whose_address_changes() -> None:
    """Bob hangs up, not alice: a Record-Route token names the flow by which he was called, so hers goes there."""
    p2, alice, bob = one_proxy()
    alice.request("INVITE", BOB, SDP, body="v=0\r\n")
    received, ok = answered(alice, bob)
    p2.trace.is_the_figure(ESTABLISHED_BY_ONE)
    bob, old = User(p2, "bob"), bob  # the same phone at another address
    assert bob.contact != old.contact
    to, from_, rows = ok.first("to"), ok.first("from"), received.values("record-route")
    bob.request("INVITE", contact(received), SDP, from_=to, to=from_, routes=rows, body="v=1\r\n")
    bob.got_response(100)
    again = alice.got_request("INVITE")
    assert (again.uri, contact(again), again.body) == (alice.contact, bob.contact, b"v=1\r\n")
    assert again.values("record-route") == []
    alice.respond(again, 200, "OK", SDP, body="v=0\r\n")
    bob.got_response(200)
    bob.request("ACK", contact(received), from_=to, to=from_, routes=rows, contact=False)
    assert alice.got_request("ACK").cseq == (1, "ACK")
    p2.trace.is_the_figure("""
        bob > P2 INVITE 1
        P2 > bob 100 INVITE 1
        P2 > alice INVITE 2
        alice > P2 200 INVITE 2
        P2 > bob 200 INVITE 1
        bob > P2 ACK 1
        P2 > alice ACK 2
    """)
    bob.request("BYE", contact(received), from_=to, to=from_, routes=rows, cseq=2, contact=False)
    alice.respond(alice.got_request("BYE"), 200)
    bob.got_response(200)
    p2.trace.is_the_figure(BYE_BY_ONE)
    assert not old.inbox
    over(p2)


def test_rfc3665_3_8_unsuccessful_no_answer() -> None:
    t = Trapezoid()
    branch = t.alice.request("INVITE", BOB, authorized=True)
    t.alice.got_response(100)
    received = t.bob.got_request("INVITE")
    t.bob.respond(received, 180)
    t.alice.got_response(180)
    t.alice.request("CANCEL", BOB, branch=branch, contact=False)
    t.alice.got_response(200)
    cancel = t.bob.got_request("CANCEL")
    assert (cancel.uri, cancel.branch, cancel.cseq) == (received.uri, received.branch, (1, "CANCEL"))
    t.bob.respond(cancel, 200)
    t.bob.respond(received, 487)
    refused = t.alice.got_response(487)
    ack = t.bob.got_request("ACK")
    assert (ack.uri, ack.branch, ack.cseq) == (received.uri, received.branch, (1, "ACK"))
    t.alice.ack(refused, BOB, branch)
    t.trace.is_the_figure("""
        alice > P1 INVITE 1
        P1 > P2 INVITE 2
        P1 > alice 100 INVITE 1
        P2 > bob INVITE 3
        P2 > P1 100 INVITE 2
        bob > P2 180 INVITE 3
        P2 > P1 180 INVITE 2
        P1 > alice 180 INVITE 1
        alice > P1 CANCEL 1
        P1 > alice 200 CANCEL 1
        P1 > P2 CANCEL 1
        P2 > P1 200 CANCEL 1
        P2 > bob CANCEL 1
        bob > P2 200 CANCEL 1
        bob > P2 487 INVITE 3
        P2 > bob ACK 1
        P2 > P1 487 INVITE 2
        P1 > P2 ACK 1
        P1 > alice 487 INVITE 1
        alice > P1 ACK 1
    """)
    over(t.p1, t.p2)


def fails(t: Trapezoid, status: int, *, rings: bool) -> None:
    """Bob declines; each hop acknowledges for itself."""
    branch = t.alice.request("INVITE", BOB, authorized=True)
    t.alice.got_response(100)
    received = t.bob.got_request("INVITE")
    if rings:
        t.bob.respond(received, 180)
        t.alice.got_response(180)
    t.bob.respond(received, status)
    ack = t.bob.got_request("ACK")
    assert (ack.uri, ack.branch, ack.cseq) == (received.uri, received.branch, (1, "ACK"))
    refused = t.alice.got_response(status)
    assert refused.to.tag == "to-bob"
    t.alice.ack(refused, BOB, branch)


FAILED = """
    alice > P1 INVITE 1
    P1 > P2 INVITE 2
    P1 > alice 100 INVITE 1
    P2 > bob INVITE 3
    P2 > P1 100 INVITE 2
    {rings}
    bob > P2 {status} INVITE 3
    P2 > bob ACK 1
    P2 > P1 {status} INVITE 2
    P1 > P2 ACK 1
    P1 > alice {status} INVITE 1
    alice > P1 ACK 1
"""
RINGS = "bob > P2 180 INVITE 3\nP2 > P1 180 INVITE 2\nP1 > alice 180 INVITE 1"


def test_rfc3665_3_9_unsuccessful_busy() -> None:
    t = Trapezoid()
    fails(t, 486, rings=False)
    t.trace.is_the_figure(FAILED.format(status=486, rings=""))
    over(t.p1, t.p2)


def test_rfc3665_3_10_unsuccessful_no_response_from_user_agent() -> None:
    t = Trapezoid()
    branch = t.alice.request("INVITE", BOB, authorized=True)
    t.alice.got_response(100)
    while not t.alice.inbox:
        t.turn(0.1)
    sent = {t.bob.got_request("INVITE").branch for _ in range(7)}
    assert len(sent) == 1
    t.alice.ack(t.alice.got_response(408), BOB, branch)
    repeated = "P2 > bob INVITE 3\n" * 7
    t.trace.is_the_figure(f"""
        alice > P1 INVITE 1
        P1 > P2 INVITE 2
        P1 > alice 100 INVITE 1
        {repeated}
        P2 > P1 100 INVITE 2
        P2 > P1 408 INVITE 2
        P1 > P2 ACK 1
        P1 > alice 408 INVITE 1
        alice > P1 ACK 1
    """)
    over(t.p1, t.p2)


def test_rfc3665_3_11_unsuccessful_temporarily_unavailable() -> None:
    t = Trapezoid()
    fails(t, 480, rings=True)
    t.trace.is_the_figure(FAILED.format(status=480, rings=RINGS))
    over(t.p1, t.p2)
