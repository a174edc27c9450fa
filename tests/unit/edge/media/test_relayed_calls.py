"""Calls whose media goes through rtpengine: which SDP is rewritten for whom, and when ports are freed (N17)."""

from typing import Any

import pytest

from tests.kit.calls import Cluster
from tests.kit.dialogs import BOB, OFFER, contact, invite, routes_of_caller

SDP = "Content-Type: application/sdp"


def bridging(mode: str = "bridge") -> Cluster:
    return Cluster(media=lambda domain: mode)


def asked(cluster: Cluster, *keys: str) -> list[tuple[Any, ...]]:
    """What rtpengine was asked since the last time."""
    commands, cluster.media = cluster.media, []
    return [(command["command"], *(command.get(key) for key in keys)) for command in commands]


def test_n17_media_is_direct_by_default_and_between_phones_of_one_kind() -> None:
    for cluster, transports in ((Cluster(), ("wss", "udp")), (bridging(), ("wss", "ws")), (bridging(), ("udp", "tcp"))):
        alice, bob = cluster.phone("alice", transport=transports[0]), cluster.phone("bob", transport=transports[1])
        invite(alice, BOB, SDP)
        assert bob.got_request("INVITE").body == OFFER.encode()
        assert not cluster.media


@pytest.mark.parametrize("owner", ["edge-1", "edge-2"])
def test_n17_a_browser_calls_a_desk_phone_offer_answer_reinvite_and_bye(owner: str) -> None:
    cluster = bridging()
    alice, bob = cluster.phone("alice", transport="wss"), cluster.phone("bob", owner, "udp")
    invite(alice, BOB, SDP)
    received = bob.got_request("INVITE")
    assert received.body == b"offer " + OFFER.encode()
    ((command, tag, branch, protocol),) = asked(cluster, "from-tag", "via-branch", "transport-protocol")
    assert (command, tag, branch, protocol) == ("offer", "from-alice", received.branch, "RTP/AVP")
    bob.respond(received, 183, "X", SDP, body="early")
    assert alice.got_response(183).body == b"answer early"
    bob.respond(received, 200, "X", SDP, body="late")
    ok = alice.got_response(200)
    assert ok.body == b"answer late"
    assert {tuple(each[1:]) for each in asked(cluster, "from-tag", "to-tag")} == {("from-alice", "to-bob")}
    alice.request("ACK", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok))
    bob.got_request("ACK")
    # The callee holds the call, through whichever edge: he offers now.
    bob.request(
        "INVITE", alice.contact, SDP, from_=ok.first("to"), to=ok.first("from"), body="hold",
        routes=received.values("record-route"), edge="edge-2" if owner == "edge-1" else None,
    )  # fmt: skip
    again = alice.got_request("INVITE")
    assert again.body == b"offer hold"
    assert asked(cluster, "from-tag", "to-tag", "via-branch", "transport-protocol") == [
        ("offer", "to-bob", "from-alice", None, "UDP/TLS/RTP/SAVPF")
    ]
    alice.respond(again, 200, "X", SDP, body="held")
    bob.got_response(100)
    assert bob.got_response(200).body == b"answer held"
    assert asked(cluster, "from-tag", "to-tag") == [("answer", "to-bob", "from-alice")]
    alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=9)
    bob.got_request("BYE")
    assert asked(cluster, "call-id", "from-tag", "to-tag") == [("delete", "call-1", "from-alice", "to-bob")]


def test_n17_the_offer_in_the_200_and_the_answer_in_the_ack() -> None:
    cluster = bridging()
    alice, bob = cluster.phone("alice", transport="udp"), cluster.phone("bob", "edge-2", "ws")
    alice.request("INVITE", BOB, authorized=True)
    alice.got_response(100)
    received = bob.got_request("INVITE")
    bob.respond(received, 200, "X", SDP, body="offered")
    ok = alice.got_response(200)
    assert ok.body == b"offer offered"
    assert asked(cluster, "from-tag", "transport-protocol") == [("offer", "to-bob", "RTP/AVP")]
    routes = routes_of_caller(ok)
    alice.request("ACK", contact(ok), SDP, to=ok.first("to"), routes=routes, body="answered", edge="edge-2")
    assert bob.got_request("ACK").body == b"answer answered"
    assert asked(cluster, "from-tag", "to-tag") == [("answer", "to-bob", "from-alice")]


def test_n17_a_fork_to_a_browser_and_a_desk_phone_relays_the_one_and_frees_it_when_the_other_answers() -> None:
    cluster = bridging()
    alice = cluster.phone("alice", transport="ws")
    browser, desk = cluster.phone("bob", transport="wss"), cluster.phone("bob", "edge-2", "tcp")
    invite(alice, BOB, SDP)
    plain, relayed = browser.got_request("INVITE"), desk.got_request("INVITE")
    assert (plain.body, relayed.body) == (OFFER.encode(), b"offer " + OFFER.encode())
    desk.respond(relayed, 180)
    alice.got_response(180)
    browser.respond(plain, 200, "X", SDP, body="x")
    assert alice.got_response(200).body == b"x"
    cluster.media.clear()
    desk.respond(desk.got_request("CANCEL"), 200)
    desk.respond(relayed, 487)
    assert asked(cluster, "via-branch") == [("delete", relayed.branch)]


@pytest.mark.parametrize("by_caller", [True, False])
def test_n17_of_two_phones_that_answered_one_invite_a_bye_frees_the_media_of_its_own(by_caller: bool) -> None:
    cluster = bridging()
    alice = cluster.phone("alice")
    phones = [cluster.phone("bob", edge, "ws") for edge in ("edge-1", "edge-2")]
    invite(alice, BOB, SDP)
    received = [phone.got_request("INVITE") for phone in phones]
    for number, phone in enumerate(phones):
        phone.respond(received[number], 200, "X", SDP, tag=f"t{number}", body="x")
    oks = [alice.got_response(200) for _ in phones]
    phones[1].inbox.clear()  # its CANCEL came too late
    cluster.media.clear()
    for number, phone in enumerate(phones):
        ok = oks[number]
        if by_caller:
            alice.request("BYE", contact(ok), to=ok.first("to"), routes=routes_of_caller(ok), cseq=9 + number)
            phone.got_request("BYE")
        else:
            routes = received[number].values("record-route")
            phone.request("BYE", alice.contact, from_=ok.first("to"), to=ok.first("from"), routes=routes, cseq=9)
            alice.got_request("BYE")
        assert asked(cluster, "from-tag", "to-tag", "via-branch") == [("delete", "from-alice", f"t{number}", None)]


def test_n17_without_rtpengine_a_bridged_call_ends_with_an_error_and_nobody_rings() -> None:
    cluster = bridging()
    cluster.relay_away = True
    alice, bob = cluster.phone("alice", transport="ws"), cluster.phone("bob")
    invite(alice, BOB, SDP)
    alice.got_response(500)
    assert not bob.inbox
    assert not cluster.edges["edge-1"].proxy.ringing


def test_n17_relay_mode_relays_phones_of_one_kind_too() -> None:
    cluster = bridging("relay")
    alice, bob = cluster.phone("alice"), cluster.phone("bob")
    invite(alice, BOB, SDP)
    assert bob.got_request("INVITE").body == b"offer " + OFFER.encode()


def test_n17_r34_where_a_flow_is_gone_its_ports_are_freed_and_the_next_flow_has_its_own() -> None:
    cluster = bridging()
    alice = cluster.phone("alice", transport="wss")
    older, newer = (cluster.phone("bob", edge, "tcp", instance="<urn:uuid:1>") for edge in ("edge-1", "edge-2"))
    del cluster.phones[newer.flow]
    invite(alice, BOB, SDP)
    branch = older.got_request("INVITE").branch
    (first, gone), deleted, second = asked(cluster, "via-branch")
    assert (first, deleted, second) == ("offer", ("delete", gone), ("offer", branch))
