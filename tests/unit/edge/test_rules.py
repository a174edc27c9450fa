"""Rules of a proxy that are about one step each: who is a target, what a request and a response carry on."""

import pytest

from edge.core.actions import NextHop
from tests.kit.calls import DOMAIN, Cluster, Phone
from tests.unit.edge.proxy.test_calls import BOB, OFFER, answered, contact, invite, routes_of_caller


class Same(Phone):
    """A phone whose private address is that of others, behind another NAT."""

    @property
    def contact(self) -> str:
        """Its Contact URI."""
        return f"sip:{self.name}@192.168.1.10:5060"


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


@pytest.mark.parametrize("method", ["INVITE", "REFER"])
def test_y12_what_makes_a_dialog_has_a_record_route_with_lr_that_any_edge_takes(method: str) -> None:
    cluster = Cluster("edge-1", "edge-2", "edge-3")
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    alice.request(method, BOB, "Refer-To: <sip:carol@example.test>", authorized=True, body=OFFER)
    if method == "INVITE":
        alice.got_response(100)
    received = bob.got_request(method)
    assert received.values("record-route")
    assert all(value.endswith((";lr>", ";lr;r2=on>")) for value in received.values("record-route"))
    bob.respond(received, 200)
    ok = alice.got_response(200)
    cluster.kill("edge-1")
    alice.edge = "edge-3"
    alice.request("NOTIFY", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.got_request("NOTIFY")


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO"])
def test_y12_what_makes_no_dialog_has_no_record_route(method: str) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    alice.request(method, BOB, authorized=True)
    assert not bob.got_request(method).values("record-route")


@pytest.mark.parametrize(
    ("caller_by", "callee_by", "callee_at", "count"),
    [
        ("udp", "udp", "edge-1", 1),
        ("udp", "tcp", "edge-1", 2),
        ("wss", "udp", "edge-1", 2),
        ("udp", "udp", "edge-2", 2),
    ],
)
def test_y13_where_transport_or_address_changes_there_are_two_record_routes_ours_to_the_next_first(
    caller_by: str, callee_by: str, callee_at: str, count: int
) -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice", "edge-1", caller_by), cluster.phone("bob", callee_at, callee_by)
    invite(alice)
    values = bob.got_request("INVITE").values("record-route")
    assert len(values) == count
    assert all((";r2=on" in value) == (count == 2) for value in values)
    if caller_by != callee_by:
        named = [
            "udp" if ";transport=" not in value else value.split("transport=")[1].split(";")[0] for value in values
        ]
        assert [name.rstrip(">") for name in named] == [callee_by, caller_by]


def test_y22_the_to_tag_of_the_response_that_was_chosen_is_kept() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    one, two = cluster.phone("bob"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    one.respond(one.got_request("INVITE"), 500, tag="one")
    two.respond(two.got_request("INVITE"), 486, tag="two")
    assert alice.got_response(486).to.tag == "two"


def test_y25_a_target_that_cannot_be_sent_to_does_not_end_the_others() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    gone, bob = cluster.phone("bob", "edge-1", "tcp"), cluster.phone("bob", "edge-2")
    del cluster.phones[gone.flow]
    invite(alice)
    _, ok = answered(alice, bob)
    assert ok.status == 200


def test_y26_a_bye_passes_without_a_look_up_when_the_callee_has_unregistered() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    cluster.bindings.clear()
    cluster.away = True
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=2)
    bob.respond(bob.got_request("BYE"), 200)
    alice.got_response(200)


def test_y30_a_reliable_183_its_prack_and_an_update_before_the_answer_pass_untouched() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "wss")
    invite(alice, more=("Supported: 100rel", "Require: 100rel"))
    received = bob.got_request("INVITE")
    assert (received.first("require"), received.first("supported")) == ("100rel", "100rel")
    bob.respond(received, 183, "Session Progress", "Require: 100rel", "RSeq: 7", body=OFFER)
    progress = alice.got_response(183)
    assert (progress.first("require"), progress.first("rseq")) == ("100rel", "7")
    to, routes = progress.first("to"), routes_of_caller(progress)
    alice.request("PRACK", contact(progress), "RAck: 7 1 INVITE", to=to, routes=routes, cseq=2)
    prack = bob.got_request("PRACK")
    assert prack.first("rack") == "7 1 INVITE"
    bob.respond(prack, 200)
    alice.got_response(200)
    alice.request("UPDATE", contact(progress), to=to, routes=routes, cseq=3, body=OFFER)
    bob.respond(bob.got_request("UPDATE"), 200, body=OFFER)
    assert alice.got_response(200).body == OFFER.encode()
    bob.respond(received, 200)
    alice.got_response(200)


def test_y30_a_refer_within_a_call_and_its_notify_pass() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tls")
    invite(alice)
    received, ok = answered(alice, bob)
    to, from_ = ok.first("to"), ok.first("from")
    target = "<sip:carol@example.test>"
    alice.request("REFER", contact(ok), f"Refer-To: {target}", to=to, routes=routes_of_caller(ok), cseq=2)
    refer = bob.got_request("REFER")
    assert refer.first("refer-to") == target
    bob.respond(refer, 202)
    alice.got_response(202)
    routes = received.values("record-route")
    event = ("Event: refer", "Subscription-State: active")
    bob.request("NOTIFY", alice.contact, *event, from_=to, to=from_, routes=routes, cseq=1, body="SIP/2.0 100 Trying")
    notify = alice.got_request("NOTIFY")
    assert (notify.first("event"), notify.body) == ("refer", b"SIP/2.0 100 Trying")
    alice.respond(notify, 200)
    bob.got_response(200)


def test_y31_a_message_reaches_each_of_three_phones_and_for_nobody_it_is_480() -> None:
    cluster = Cluster()
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob", "edge-1"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("bob", "edge-2")]
    alice.request("MESSAGE", BOB, authorized=True, body="hello")
    for phone in phones:
        message = phone.got_request("MESSAGE")
        assert message.body == b"hello"
        phone.respond(message, 200)
    alice.got_response(200)
    assert not alice.inbox
    cluster.bindings.clear()
    alice.request("MESSAGE", BOB, authorized=True, call_id="call-2", body="hello")
    alice.got_response(480)


def test_x12_the_ack_of_a_2xx_is_neither_challenged_nor_answered_nor_kept() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    _, ok = answered(alice, bob)
    before = [core.transactions for core in cluster.edges.values()]
    commands = len(cluster.commands)
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok))
    bob.got_request("ACK")
    assert not alice.inbox
    assert [core.transactions for core in cluster.edges.values()] == before
    assert len(cluster.commands) == commands


def test_x16_the_same_request_by_another_path_is_no_error_to_a_proxy() -> None:
    cluster = Cluster()
    alice, bob = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice)
    first = bob.got_request("INVITE")
    invite(alice)
    second = bob.got_request("INVITE")
    assert first.branch != second.branch
    bob.respond(second, 482)
    alice.got_response(482)
    bob.respond(first, 200)
    alice.got_response(200)


def test_y24_a_redirection_by_a_phone_goes_up_and_nobody_else_is_called() -> None:
    cluster = Cluster()
    alice, bob, carol = cluster.phone("alice"), cluster.phone("bob", "edge-2", "tcp"), cluster.phone("carol")
    invite(alice)
    bob.respond(bob.got_request("INVITE"), 302)
    assert contact(alice.got_response(302)) == bob.contact
    assert not carol.inbox


@pytest.mark.parametrize("how", ["503", "unreachable", "silent"])
def test_t17_another_domains_next_server_is_tried_with_a_new_branch(how: str) -> None:
    cluster = Cluster("edge-1")
    alice = cluster.phone("alice")
    first, second = Phone(cluster, "x", "edge-1"), Phone(cluster, "x", "edge-1")
    uri = "sip:x@elsewhere.test"
    cluster.hops[uri] = [NextHop("udp", far.flow.remote_host, 5062, "elsewhere.test") for far in (first, second)]
    if how == "unreachable":
        del cluster.phones[first.flow]
    invite(alice, uri)
    branch = ""
    if how == "503":
        received = first.got_request("INVITE")
        first.respond(received, 503)
        branch = received.branch
    elif how == "silent":
        branch = first.got_request("INVITE").branch
        cluster.turn(33)
    received = second.got_request("INVITE")
    assert received.branch != branch
    second.respond(received, 200)
    alice.got_response(200)
